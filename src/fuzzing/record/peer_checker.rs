//! Checks what the peer receives, with its keys and with rustls.

use std::io::Read;

use tokio_rustls::rustls::{Connection, Error};

use super::cipher::{ALERT, APPLICATION_DATA, HANDSHAKE, RecordCipher, Version, record_length};
use super::reference::{CLOSE_NOTIFY, FATAL, KEY_UPDATE, NO_RENEGOTIATION, WARNING};
use super::wire::pattern;

pub(super) struct PeerChecker {
    peer: Connection,
    version: Version,
    downwards: RecordCipher,
    /// How many records one key may seal.
    limit: u64,
    /// The start of an incomplete record.
    received: Vec<u8>,
    /// How many bytes of the backend have arrived.
    pub received_payload: usize,
    /// KeyUpdates that request none in return.
    pub answers: usize,
    /// Warning alerts `no_renegotiation`.
    pub declined: usize,
    pub end: Option<End>,
    /// KeyUpdates since the last data.
    updates: usize,
    /// Whether rustls has not given up yet.
    rustls_accepts: bool,
}

/// The last alert of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Fatal(u8),
}

impl PeerChecker {
    pub(super) fn new(
        version: Version,
        peer: Connection,
        downwards: RecordCipher,
        limit: Option<u64>,
    ) -> Self {
        Self {
            peer,
            version,
            downwards,
            limit: limit.unwrap_or(u64::MAX),
            received: Vec::new(),
            received_payload: 0,
            answers: 0,
            declined: 0,
            end: None,
            updates: 0,
            rustls_accepts: true,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        while let Some(length) = record_length(&self.received)
            && length <= self.received.len()
        {
            let rest = self.received.split_off(length);
            let record = std::mem::replace(&mut self.received, rest);
            self.understand(&record);
            self.rustls_accepts &= self.updates <= MOST_UPDATES;
            if self.rustls_accepts {
                self.pass_to_rustls(&record);
            }
        }
    }

    pub(super) fn is_between_records(&self) -> bool {
        self.received.is_empty()
    }

    /// Whether the key is so far used that the next batch of records and a last alert may exceed its
    /// limit.
    pub(super) fn is_nearly_spent(&self) -> bool {
        self.downwards.sequence().saturating_add(21) > self.limit
    }

    fn understand(&mut self, record: &[u8]) {
        assert_eq!(self.end, None, "a word after the last one");
        let opened = self.downwards.open(record);
        assert!(self.downwards.sequence() <= self.limit, "the key is spent");
        let (kind, content) = opened.expect("what we seal can be opened");
        match (self.version, kind, &content[..]) {
            (_, APPLICATION_DATA, [_, ..]) => {
                assert!(content == pattern(self.received_payload, content.len()));
                self.received_payload += content.len();
                self.updates = 0;
            }
            (_, ALERT, [WARNING, CLOSE_NOTIFY]) => self.end = Some(End::Closed),
            (_, ALERT, [FATAL, alert]) => self.end = Some(End::Fatal(*alert)),
            (Version::Tls12, ALERT, [WARNING, NO_RENEGOTIATION]) => self.declined += 1,
            (Version::Tls13, HANDSHAKE, [KEY_UPDATE, 0, 0, 1, asks @ 0..=1]) => {
                self.answers += usize::from(*asks == 0);
                self.updates += 1;
                self.downwards.update();
            }
            other => panic!("the peer is told {other:?}"),
        }
    }

    fn pass_to_rustls(&mut self, mut record: &[u8]) {
        let mut bytes = Vec::new();
        let end = loop {
            self.peer.read_tls(&mut record).expect("a whole record");
            match self.peer.process_new_packets() {
                Ok(state) if state.peer_has_closed() => break Some(End::Closed),
                Ok(_) if record.is_empty() => break None,
                Ok(_) => {}
                Err(Error::AlertReceived(alert)) => break Some(End::Fatal(alert.into())),
                Err(error) => panic!("rustls: {error:?}"),
            }
        };
        assert_eq!(end, self.end);
        // The error at the end adds nothing.
        let _ = self.peer.reader().read_to_end(&mut bytes);
        assert!(bytes == pattern(self.received_payload - bytes.len(), bytes.len()));
        // rustls's own answers are not sent: the program decides what the client sends.
        while self.peer.wants_write() {
            let written = self.peer.write_tls(&mut std::io::sink());
            written.expect("a sink takes all");
        }
    }
}

/// rustls tolerates no more KeyUpdates without data.
const MOST_UPDATES: usize = 32;
