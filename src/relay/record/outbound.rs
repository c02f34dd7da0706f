//! What the client is sent: the backend's bytes in records, and what the record layer says itself.

use std::io::IoSliceMut;

use tokio_rustls::rustls::{AlertDescription, ContentType};

use super::cipher::{Exhausted, MAX_PAYLOAD, OVERHEAD, Version};
use super::inbound::{Answer, FATAL, WARNING};
use super::keys::Keys;

/// The sending half of a record layer.
#[derive(Debug)]
pub(super) struct Outbound {
    pub keys: Keys,
    /// After so many records a key has to be changed.
    pub limit: u64,
}

impl Outbound {
    pub(super) fn new(keys: Keys) -> Self {
        let limit = keys.suite.confidentiality_limit();
        Self { keys, limit }
    }

    /// Whether the keys must change before `records` more can be sealed with them.
    ///
    /// A few more are always left for alerts, which must get out whatever happens.
    pub(super) fn must_update(&self, records: usize) -> bool {
        let sealed = self.keys.cipher.sequence();
        sealed.saturating_add(records as u64) > self.limit.saturating_sub(KEPT_FOR_ALERTS)
    }

    /// The places for the payloads of the records that fit into `out`.
    pub(super) fn places<'a>(&self, out: &'a mut [u8]) -> [IoSliceMut<'a>; RECORDS] {
        let suite = self.keys.suite;
        let mut records = out.chunks_exact_mut(suite.sealed(MAX_PAYLOAD));
        std::array::from_fn(|_| match records.next() {
            Some(record) => IoSliceMut::new(&mut record[suite.before()..][..MAX_PAYLOAD]),
            None => IoSliceMut::new(&mut []),
        })
    }

    /// Seals the `payload` bytes that lie in the [`Self::places`] of `out`, all but the last of which
    /// are full; how long the records are.
    pub(super) fn data(&mut self, payload: usize, out: &mut [u8]) -> Result<usize, Exhausted> {
        let (mut left, mut length) = (payload, 0);
        while left > 0 {
            let payload = left.min(MAX_PAYLOAD);
            let out = &mut out[length..];
            let cipher = &mut self.keys.cipher;
            length += cipher.seal_in_place(ContentType::ApplicationData, payload, out)?;
            left -= payload;
        }
        Ok(length)
    }

    /// Appends a `close_notify` (RFC 8446 §6.1).
    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        let alert = [WARNING, AlertDescription::CloseNotify.into()];
        self.append(ContentType::Alert, &alert, out)
    }

    /// Appends a fatal alert (RFC 8446 §6.2).
    pub(super) fn fatal(
        &mut self,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        self.append(ContentType::Alert, &[FATAL, alert.into()], out)
    }

    /// Appends a warning (RFC 5246 §7.2.2).
    pub(super) fn no_renegotiation(&mut self, out: &mut Vec<u8>) -> Result<(), Exhausted> {
        let alert = [WARNING, AlertDescription::NoRenegotiation.into()];
        self.append(ContentType::Alert, &alert, out)
    }

    /// Appends a KeyUpdate and goes on with new keys (RFC 8446 §4.6.3). In TLS 1.2 there are none,
    /// and the connection has come to its end.
    pub(super) fn key_update(
        &mut self,
        answer: Answer,
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        if self.keys.suite.version == Version::Tls12 {
            return Err(Exhausted);
        }
        let request = match answer {
            Answer::NotRequested => 0,
            Answer::Requested => 1,
        };
        self.append(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, request], out)?;
        self.keys.update().map_err(|_| Exhausted)
    }

    fn append(
        &mut self,
        kind: ContentType,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Exhausted> {
        let start = out.len();
        out.resize(start + payload.len() + OVERHEAD, 0);
        let length = self.keys.cipher.seal(kind, payload, &mut out[start..]);
        out.truncate(start + length.unwrap_or(0));
        length.map(drop)
    }
}

/// How many full records are moved at a time.
pub(super) const RECORDS: usize = 8;

const KEPT_FOR_ALERTS: u64 = 4;
const KEY_UPDATE: u8 = 24;
