//! The protection of records in one direction: AEAD, nonce and additional data.
//!
//! ```text
//! TLS 1.3   header, sealed (payload, type, padding), tag                     RFC 8446 §5.2
//! TLS 1.2   header, explicit nonce if AES-GCM, sealed (payload), tag         RFC 5288 §3, RFC 7905 §2
//! ```

use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::{AlertDescription, ContentType};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::aead::{Aead, Key, NONCE, TAG};

/// The properties of a cipher suite that a record layer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suite {
    pub version: Version,
    pub aead: Aead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

impl Suite {
    /// The number of records that one key may seal: 2^24.5 for AES-GCM, rounded down to 2^24. For
    /// ChaCha20-Poly1305 the sequence number ends first (RFC 8446 §5.5).
    pub(super) fn confidentiality_limit(self) -> u64 {
        match self.aead {
            Aead::Aes128Gcm | Aead::Aes256Gcm => 1 << 24,
            Aead::ChaCha20Poly1305 => u64::MAX,
        }
    }

    /// The maximum length in a record's header (RFC 8446 §5.2, RFC 5246 §6.2.3).
    pub(super) fn longest(self) -> usize {
        match self.version {
            Version::Tls13 => MAX_PAYLOAD + 256,
            Version::Tls12 => MAX_PAYLOAD + 2048,
        }
    }

    /// The bytes of a record before its payload.
    pub(super) fn before(self) -> usize {
        HEADER
            + match (self.version, self.aead) {
                (Version::Tls12, Aead::Aes128Gcm | Aead::Aes256Gcm) => EXPLICIT_NONCE,
                _ => 0,
            }
    }

    /// The bytes in the sealed part after the payload: the content type in TLS 1.3.
    pub(super) fn inner(self) -> usize {
        match self.version {
            Version::Tls13 => 1,
            Version::Tls12 => 0,
        }
    }

    /// The length of a record with a payload of this length.
    pub(super) fn sealed(self, payload: usize) -> usize {
        self.before() + payload + self.inner() + TAG
    }
}

/// The first five bytes of a record (RFC 8446 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    kind: ContentType,
    /// The length of what follows the header.
    length: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if they do not contain the complete record.
    pub(super) fn of_whole_record(
        bytes: &[u8],
        suite: Suite,
    ) -> Result<Option<Self>, AlertDescription> {
        let Some(&[kind, major, minor, high, low]) = bytes.first_chunk() else {
            return Ok(None);
        };
        let kind = ContentType::from(kind);
        let known = match suite.version {
            // All sealed records have the type of application data, and no other may come:
            // change_cipher_spec belongs to the handshake (RFC 8446 §5, §5.2).
            Version::Tls13 => kind == ContentType::ApplicationData,
            Version::Tls12 => matches!(
                kind,
                ContentType::ChangeCipherSpec
                    | ContentType::Alert
                    | ContentType::Handshake
                    | ContentType::ApplicationData
            ),
        };
        if !known {
            return Err(AlertDescription::UnexpectedMessage);
        }
        let is_known = match suite.version {
            // Some clients send 0x0301 (RFC 8446 §5.1: the field must be ignored). The
            // authenticated value is always 0x0303 (§5.2).
            Version::Tls13 => major == VERSION[0],
            Version::Tls12 => [major, minor] == VERSION,
        };
        if !is_known {
            return Err(AlertDescription::DecodeError);
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > suite.longest() {
            return Err(AlertDescription::RecordOverflow);
        }
        let header = Self { kind, length };
        Ok((bytes.len() >= header.record_length()).then_some(header))
    }

    pub(super) fn record_length(self) -> usize {
        HEADER + self.length
    }

    /// An upper bound for the payload.
    pub(super) fn sealed_length(self) -> usize {
        self.length
    }
}

/// As long as a nonce in both versions: the implicit part, which is combined with the rest of the
/// nonce.
pub(super) type Iv = Zeroizing<[u8; NONCE]>;

/// Seals or opens the records of one direction with one key.
pub(crate) struct Cipher {
    key: Key,
    iv: Iv,
    sequence: u64,
    suite: Suite,
}

impl Cipher {
    /// `None` if `key` does not have the length that the suite's AEAD requires.
    pub(super) fn new(suite: Suite, key: &[u8], iv: Iv, sequence: u64) -> Option<Self> {
        Some(Self {
            key: Key::new(suite.aead, key)?,
            iv,
            sequence,
            suite,
        })
    }

    /// The number of records that this key has sealed or opened.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals one record to the start of `out`, and returns its length.
    ///
    /// `payload` has at most [`MAX_PAYLOAD`] bytes, and `out` has room for it and [`OVERHEAD`].
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Exhausted> {
        out[self.suite.before()..][..payload.len()].copy_from_slice(payload);
        self.seal_in_place(kind, payload.len(), out)
    }

    /// Like [`Self::seal`], for a payload that is in `out` already, after [`Suite::before`] bytes.
    pub(super) fn seal_in_place(
        &mut self,
        kind: ContentType,
        payload: usize,
        out: &mut [u8],
    ) -> Result<usize, Exhausted> {
        let record = &mut out[..self.suite.sealed(payload)];
        let rest = record.len() - HEADER;
        let outer = match self.suite.version {
            Version::Tls13 => ContentType::ApplicationData,
            Version::Tls12 => kind,
        };
        let nonce = self.nonce();
        let aad = Additional::new(self.suite, self.sequence, kind, rest, payload);
        self.advance()?;

        let (before, sealed) = record.split_at_mut(self.suite.before());
        let (header, explicit) = before.split_at_mut(HEADER);
        header.copy_from_slice(&header_bytes(outer, rest));
        if !explicit.is_empty() {
            explicit.copy_from_slice(&nonce[NONCE - explicit.len()..]);
        }
        let (sealed, tag) = sealed.split_at_mut(payload + self.suite.inner());
        // In TLS 1.3; in 1.2 nothing follows the payload.
        if let [.., last] = &mut sealed[payload..] {
            *last = kind.into();
        }
        let made = self.key.seal(nonce, aad.as_ref(), sealed);
        tag.copy_from_slice(&made.map_err(|_| Exhausted)?);
        Ok(HEADER + rest)
    }

    /// Opens the complete record at the end of `buffer`, from `at` on, and moves its payload to
    /// `to`, which is not behind the start of the payload. Returns its type and length.
    pub(super) fn open(
        &mut self,
        header: Header,
        buffer: &mut [u8],
        at: usize,
        to: usize,
    ) -> Result<(ContentType, usize), AlertDescription> {
        let record = &buffer[at..];
        let explicit = HEADER..self.suite.before();
        let Some(length) = record.len().checked_sub(explicit.end + TAG) else {
            // A record that is too short gets the same alert as a forged one (RFC 8446 §5.2).
            return Err(AlertDescription::BadRecordMac);
        };
        let mut nonce = self.nonce();
        if !explicit.is_empty() {
            nonce[NONCE - explicit.len()..].copy_from_slice(&record[explicit.clone()]);
        }
        let (kind, rest) = (header.kind, header.length);
        let aad = Additional::new(self.suite, self.sequence, kind, rest, length);
        self.advance()
            .map_err(|Exhausted| AlertDescription::InternalError)?;
        let sealed = at + explicit.end - to..;
        let buffer = &mut buffer[to..];
        self.key
            .open(nonce, aad.as_ref(), buffer, sealed)
            .map_err(|_| AlertDescription::BadRecordMac)?;
        match self.suite.version {
            Version::Tls12 if length > MAX_PAYLOAD => Err(AlertDescription::RecordOverflow),
            Version::Tls12 => Ok((kind, length)),
            Version::Tls13 => strip(&buffer[..length]),
        }
    }

    /// The sequence number, padded and XORed into the IV (RFC 8446 §5.3, RFC 7905 §2). AES-GCM in
    /// TLS 1.2 leaves the explicit part to the sender, and rustls's IVs are made for this as well.
    fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = *self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// The sequence number must not wrap (RFC 8446 §5.3): the last number is never used.
    fn advance(&mut self) -> Result<(), Exhausted> {
        self.sequence = match self.sequence.checked_add(1) {
            Some(next) => next,
            None => return Err(Exhausted),
        };
        Ok(())
    }
}

/// The key and the IV wipe themselves.
impl ZeroizeOnDrop for Cipher {}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher")
            .field("suite", &self.suite)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The key has sealed or opened as many records as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Removes the content type and the padding (RFC 8446 §5.4).
fn strip(inner: &[u8]) -> Result<(ContentType, usize), AlertDescription> {
    if inner.len() > MAX_PAYLOAD + 1 {
        return Err(AlertDescription::RecordOverflow);
    }
    let Some(length) = inner.iter().rposition(|byte| *byte != 0) else {
        return Err(AlertDescription::UnexpectedMessage);
    };
    Ok((ContentType::from(inner[length]), length))
}

/// The additional data, which is authenticated together with the payload.
struct Additional {
    bytes: [u8; 13],
    length: usize,
}

impl Additional {
    fn new(suite: Suite, sequence: u64, kind: ContentType, rest: usize, payload: usize) -> Self {
        let mut bytes = [0; 13];
        let length = match suite.version {
            // The header (RFC 8446 §5.2).
            Version::Tls13 => {
                bytes[..HEADER].copy_from_slice(&header_bytes(ContentType::ApplicationData, rest));
                HEADER
            }
            // The sequence number, and the header of the record before it was sealed (RFC 5246
            // §6.2.3.3).
            Version::Tls12 => {
                bytes[..8].copy_from_slice(&sequence.to_be_bytes());
                bytes[8..].copy_from_slice(&header_bytes(kind, payload));
                bytes.len()
            }
        };
        Self { bytes, length }
    }
}

impl AsRef<[u8]> for Additional {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn header_bytes(kind: ContentType, length: usize) -> [u8; HEADER] {
    let [.., high, low] = length.to_be_bytes();
    [kind.into(), VERSION[0], VERSION[1], high, low]
}

/// The maximum payload of a record (RFC 8446 §5.1).
pub(crate) const MAX_PAYLOAD: usize = 1 << 14;

/// The most bytes that sealing adds: header, explicit nonce or content type, tag.
pub(crate) const OVERHEAD: usize = HEADER + EXPLICIT_NONCE + TAG;

pub(super) const HEADER: usize = 5;
const EXPLICIT_NONCE: usize = 8;

/// Headers have the version of TLS 1.2 in both versions.
const VERSION: [u8; 2] = [3, 3];
