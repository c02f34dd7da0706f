//! The results of rustls for the peer's records, and the cases where our record layer is stricter on
//! purpose.

mod stricter;

use std::io::Read;

use tokio_rustls::rustls::{Connection, Error, InvalidMessage, PeerMisbehaved};

use self::stricter::{Rustls, Stricter};
use super::cipher::{
    ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, HEADER, RecordCipher, Version,
    record_length,
};
use crate::record::Role;

/// The expected state of a connection after the records so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open,
    /// The client has sent `close_notify`.
    Closed,
    /// Refused, with an alert if one has to be sent.
    Refused(Option<u8>),
    /// rustls cannot decide.
    Unknown,
}

/// A rustls connection in the place of the stream under test. It gets each record separately, so that a
/// bad record does not hide the good ones before it.
pub(super) struct Reference {
    rustls: Connection,
    role: Role,
    version: Version,
    upwards: RecordCipher,
    downwards: RecordCipher,
    /// The start of an incomplete record.
    received: Vec<u8>,
    /// The start of an incomplete handshake message.
    message: Vec<u8>,
    pub plaintext: Vec<u8>,
    pub verdict: Verdict,
    /// How many KeyUpdates have requested one from us.
    pub asked: usize,
    /// How many renegotiations were declined.
    pub declined: usize,
    /// The records without progress since the last data.
    idle: Idle,
}

/// Records without payload.
#[derive(Default)]
struct Idle {
    empty: usize,
    updates: usize,
    tickets: usize,
}

/// How rustls handled a record.
#[derive(Debug)]
enum Taken {
    /// It accepted the record. The connection may be closed now.
    Well(Verdict),
    /// It refused the record, and sent this alert.
    Badly(Error, Option<u8>),
    /// It has no room for the record after the handshake records that it holds.
    No,
}

impl Reference {
    pub(super) fn new(
        version: Version,
        role: Role,
        rustls: Connection,
        upwards: RecordCipher,
        downwards: RecordCipher,
    ) -> Self {
        Self {
            rustls,
            role,
            version,
            upwards,
            downwards,
            received: Vec::new(),
            message: Vec::new(),
            plaintext: Vec::new(),
            verdict: Verdict::Open,
            asked: 0,
            declined: 0,
            idle: Idle::default(),
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        while self.verdict == Verdict::Open {
            let Some(length) = record_length(&self.received) else {
                break;
            };
            if let Some(alert) = self.refused_by_header(length - HEADER) {
                self.verdict = Verdict::Refused(Some(alert));
                break;
            }
            if self.received.len() < length {
                break;
            }
            let rest = self.received.split_off(length);
            let record = std::mem::replace(&mut self.received, rest);
            self.verdict = self.judge(&record);
        }
    }

    /// Intended: we check a header as soon as it is complete, as the RFCs require. rustls accepts any
    /// type in TLS 1.3, any minor version in TLS 1.2 too, and authentic records that are too long. If
    /// it refuses a header here, it sends `decode_error` (RFC 8446 §5, §5.2; RFC 5246 §6.2.1, §6.2.3).
    fn refused_by_header(&self, length: usize) -> Option<u8> {
        let (kinds, longest) = match self.version {
            Version::Tls12 => (CHANGE_CIPHER_SPEC..=APPLICATION_DATA, 16384 + 2048),
            Version::Tls13 => (APPLICATION_DATA..=APPLICATION_DATA, 16384 + 256),
        };
        if !kinds.contains(&self.received[0]) {
            Some(UNEXPECTED_MESSAGE)
        } else if !self.is_known_version() {
            Some(DECODE_ERROR)
        } else if length > longest {
            Some(RECORD_OVERFLOW)
        } else {
            None
        }
    }

    /// In TLS 1.3, the minor version must be ignored (RFC 8446 §5.1).
    fn is_known_version(&self) -> bool {
        match (self.version, &self.received[1..3]) {
            (Version::Tls13, version) => version[0] == 3,
            (Version::Tls12, version) => version == [3, 3],
        }
    }

    fn judge(&mut self, record: &[u8]) -> Verdict {
        let opened = self.upwards.open(record);
        let begun = !self.message.is_empty();
        let is_handshake = matches!(opened, Some((HANDSHAKE, _)));
        if let Some((HANDSHAKE, content)) = &opened {
            self.message.extend_from_slice(content);
            self.drop_tickets();
        }
        let stricter = match self.version {
            // A record that is too long is refused for that reason alone.
            Version::Tls13 if record.len() > HEADER + 16384 + 1 + 16 => None,
            Version::Tls13 => self
                .stricter_without_data(opened.as_ref())
                .or_else(|| self.stricter_in_tls13(opened.as_ref(), begun)),
            Version::Tls12 => self
                .stricter_without_data(opened.as_ref())
                .or_else(|| self.stricter_in_tls12(record, opened.as_ref())),
        };
        let taken = self.take(record);
        if let Some(Stricter { ours, rustls }) = stricter {
            let is_taken = matches!(taken, Taken::Well(_));
            assert!(
                !is_taken || rustls == Rustls::MayTakeIt,
                "rustls: {taken:?}"
            );
            return Verdict::Refused(ours);
        }
        match taken {
            Taken::Well(verdict) => {
                self.follow();
                verdict
            }
            // Intended: we skip a ClientHello, and a ticket that nobody waits for, without looking at
            // its content.
            Taken::Badly(Error::InvalidMessage(_) | Error::PeerMisbehaved(_), _)
                if is_handshake && self.skips() =>
            {
                Verdict::Unknown
            }
            Taken::Badly(_, Some(alert)) => Verdict::Refused(Some(alert)),
            Taken::Badly(Error::AlertReceived(_), None) => Verdict::Refused(None),
            // Intended: rustls closes without an alert; we send one (RFC 8446 §5.1, §5.4).
            Taken::Badly(Error::PeerMisbehaved(why), None) => {
                assert!(is_known(&why), "{why:?}");
                Verdict::Refused(Some(UNEXPECTED_MESSAGE))
            }
            Taken::Badly(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge), None) => {
                Verdict::Refused(Some(DECODE_ERROR))
            }
            Taken::Badly(error, None) => panic!("refused without an alert: {error:?}"),
            Taken::No => Verdict::Unknown,
        }
    }

    fn take(&mut self, mut record: &[u8]) -> Taken {
        let mut taken = Taken::Well(Verdict::Open);
        while !record.is_empty() {
            match self.rustls.read_tls(&mut record) {
                Ok(0) => break,
                Ok(_) => {}
                Err(_) => return Taken::No,
            }
            match self.rustls.process_new_packets() {
                // rustls is not called again: it would panic if an empty handshake record followed.
                Ok(state) if state.peer_has_closed() => taken = Taken::Well(Verdict::Closed),
                Ok(_) => {}
                Err(error) => taken = Taken::Badly(error, None),
            }
            if !matches!(taken, Taken::Well(Verdict::Open)) {
                break;
            }
        }
        // The error at the end says no more than the verdict.
        let _ = self.rustls.reader().read_to_end(&mut self.plaintext);
        let alert = self.said();
        match taken {
            Taken::Badly(error, None) => Taken::Badly(error, alert),
            taken => taken,
        }
    }

    /// The fatal alert that rustls sends, if there is one.
    fn said(&mut self) -> Option<u8> {
        let mut sent = Vec::new();
        while self.rustls.wants_write() {
            self.rustls.write_tls(&mut sent).expect("a Vec takes all");
        }
        let (mut rest, mut alert) = (&sent[..], None);
        while let Some(length) = record_length(rest) {
            let record;
            (record, rest) = rest.split_at(length);
            match self.downwards.open(record).expect("rustls can seal") {
                (HANDSHAKE, _) => self.downwards.update(),
                (ALERT, content) if content == [WARNING, NO_RENEGOTIATION] => self.declined += 1,
                (ALERT, content) => alert = Some(content[1]),
                other => panic!("rustls said {other:?}"),
            }
        }
        alert
    }

    /// Applies the effect of the messages that rustls accepted.
    fn follow(&mut self) {
        match (self.version, &self.message[..]) {
            (Version::Tls13, [KEY_UPDATE, _, _, _, request]) => {
                self.asked += usize::from(*request);
                self.upwards.update();
                self.message.clear();
            }
            (Version::Tls13, _) => {}
            (Version::Tls12, _) => {
                while let [_, a, b, c, body @ ..] = &self.message[..] {
                    let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                    let Some(rest) = body.get(length..) else {
                        break;
                    };
                    self.message = rest.to_vec();
                }
            }
        }
    }
}

/// Errors for which rustls sends no alert.
fn is_known(why: &PeerMisbehaved) -> bool {
    matches!(
        why,
        PeerMisbehaved::IllegalTlsInnerPlaintext
            | PeerMisbehaved::MessageInterleavedWithHandshakeMessage
            | PeerMisbehaved::TooManyEmptyFragments
            | PeerMisbehaved::TooManyKeyUpdateRequests
            | PeerMisbehaved::TooManyRenegotiationRequests
            | PeerMisbehaved::TooManyWarningAlertsReceived
    )
}

/// The limit for empty records, and for KeyUpdates.
const MOST_WITHOUT_DATA: usize = 32;

/// How many renegotiations are declined before the client is refused.
const RENEGOTIATIONS: usize = 1;

/// Values from RFC 8446 §6 and §4.
pub(super) const WARNING: u8 = 1;
pub(super) const FATAL: u8 = 2;
pub(super) const CLOSE_NOTIFY: u8 = 0;
const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const DECODE_ERROR: u8 = 50;
const USER_CANCELED: u8 = 90;
pub(super) const NO_RENEGOTIATION: u8 = 100;
const HELLO_REQUEST: u8 = 0;
pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const NEW_SESSION_TICKET: u8 = 4;
pub(super) const KEY_UPDATE: u8 = 24;
