//! The sending half: seals payloads, and the record layer's own messages.

use tokio_rustls::rustls::{AlertDescription, ContentType};

use super::cipher::{Exhausted, MAX_PAYLOAD, OVERHEAD, Version};
use super::inbound::{Answer, FATAL, WARNING};
use super::keys::Keys;
use super::layout::{Layout, MOST_PIECES, Pieces};

/// The sending half of a record layer.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub keys: Keys,
    /// The number of records after which a key must be updated.
    pub limit: u64,
}

impl Outbound {
    pub(super) fn new(keys: Keys) -> Self {
        let limit = keys.suite.confidentiality_limit();
        Self { keys, limit }
    }

    /// Whether the keys must be updated before as many records as are sealed at a time.
    ///
    /// A few records are always left for alerts, which must be sent in any case.
    pub(super) fn must_update(&self) -> bool {
        let sealed = self.keys.cipher.sequence();
        sealed.saturating_add(MOST_PIECES as u64) > self.limit.saturating_sub(KEPT_FOR_ALERTS)
    }

    /// The layout of payloads that are sealed in place.
    pub(super) fn layout(&self) -> Layout {
        Layout::of(self.keys.suite)
    }

    /// Seals the payloads in `buffer`, which are in the layout of [`Self::layout`]. Returns the
    /// length of the records.
    pub(super) fn data(&mut self, pieces: &Pieces, buffer: &mut [u8]) -> Result<usize, Exhausted> {
        let mut length = 0;
        for &payload in pieces.lengths() {
            let out = &mut buffer[length..];
            let cipher = &mut self.keys.cipher;
            length += cipher.seal_in_place(ContentType::ApplicationData, payload, out)?;
        }
        Ok(length)
    }

    /// Seals a payload from another buffer, in as many records as necessary, and appends them.
    pub(super) fn copy(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Exhausted> {
        for part in payload.chunks(MAX_PAYLOAD) {
            self.append(ContentType::ApplicationData, part, out)?;
        }
        Ok(())
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

    /// Appends a KeyUpdate and switches to new keys (RFC 8446 §4.6.3). TLS 1.2 has no new keys, and
    /// the connection must end.
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

const KEPT_FOR_ALERTS: u64 = 4;
const KEY_UPDATE: u8 = 24;
