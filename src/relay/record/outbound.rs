//! What the client is sent: the backend's bytes in records, and what the record layer says itself.

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

    /// Seals `payload` to the start of `out`, in records as full as they can be; how long they are.
    ///
    /// `out` has room for [`sealed_length`].
    pub(super) fn data(&mut self, payload: &[u8], out: &mut [u8]) -> Result<usize, Exhausted> {
        let mut length = 0;
        for payload in payload.chunks(MAX_PAYLOAD) {
            let out = &mut out[length..];
            length += self
                .keys
                .cipher
                .seal(ContentType::ApplicationData, payload, out)?;
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

/// The room that a payload of this length needs at most.
pub(super) const fn sealed_length(payload: usize) -> usize {
    payload + payload.div_ceil(MAX_PAYLOAD) * OVERHEAD
}

const KEPT_FOR_ALERTS: u64 = 4;
const KEY_UPDATE: u8 = 24;
