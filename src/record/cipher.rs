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

/// What a record layer needs to know of the cipher suite.
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
    /// How many records one key may seal: 2^24.5 for AES-GCM, with half a bit to spare; for
    /// ChaCha20-Poly1305 the sequence number ends first (RFC 8446 §5.5).
    pub(super) fn confidentiality_limit(self) -> u64 {
        match self.aead {
            Aead::Aes128Gcm | Aead::Aes256Gcm => 1 << 24,
            Aead::ChaCha20Poly1305 => u64::MAX,
        }
    }

    /// The longest that a record may say it is (RFC 8446 §5.2, RFC 5246 §6.2.3).
    pub(super) fn longest(self) -> usize {
        match self.version {
            Version::Tls13 => MAX_PAYLOAD + 256,
            Version::Tls12 => MAX_PAYLOAD + 2048,
        }
    }

    /// What a record has before its payload.
    pub(super) fn before(self) -> usize {
        HEADER
            + match (self.version, self.aead) {
                (Version::Tls12, Aead::Aes128Gcm | Aead::Aes256Gcm) => EXPLICIT_NONCE,
                _ => 0,
            }
    }

    /// What lies in the sealed part behind the payload: in TLS 1.3 its type.
    pub(super) fn inner(self) -> usize {
        match self.version {
            Version::Tls13 => 1,
            Version::Tls12 => 0,
        }
    }

    /// The length of a record whose payload is that long.
    pub(super) fn sealed(self, payload: usize) -> usize {
        self.before() + payload + self.inner() + TAG
    }
}

/// The first five bytes of a record (RFC 8446 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    kind: ContentType,
    /// Of what follows.
    length: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` while they do not hold the whole record.
    pub(super) fn of_whole_record(
        bytes: &[u8],
        suite: Suite,
    ) -> Result<Option<Self>, AlertDescription> {
        let Some(&[kind, major, minor, high, low]) = bytes.first_chunk() else {
            return Ok(None);
        };
        let kind = ContentType::from(kind);
        let known = match suite.version {
            // Sealed records all look like application data, and nothing else may come: a
            // change_cipher_spec is for the handshake alone (RFC 8446 §5, §5.2).
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
            // Some clients send 0x0301 (RFC 8446 §5.1: the field is to be ignored). It is not what is
            // authenticated: that is always 0x0303 (§5.2).
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

    /// More than the payload can be.
    pub(super) fn sealed_length(self) -> usize {
        self.length
    }
}

/// As long as a nonce in both versions: the implicit part, mixed or joined with what else makes one.
pub(super) type Iv = Zeroizing<[u8; NONCE]>;

/// Seals or opens the records of one direction with one key.
pub(crate) struct Cipher {
    key: Key,
    iv: Iv,
    sequence: u64,
    suite: Suite,
}

impl Cipher {
    /// `key` is as long as the suite's AEAD wants it; `None` otherwise.
    pub(super) fn new(suite: Suite, key: &[u8], iv: Iv, sequence: u64) -> Option<Self> {
        Some(Self {
            key: Key::new(suite.aead, key)?,
            iv,
            sequence,
            suite,
        })
    }

    /// How many records this key has sealed or opened.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Seals one record to the start of `out`; how long it became.
    ///
    /// `payload` is [`MAX_PAYLOAD`] bytes at most, and `out` has room for it and [`OVERHEAD`].
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        payload: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Exhausted> {
        out[self.suite.before()..][..payload.len()].copy_from_slice(payload);
        self.seal_in_place(kind, payload.len(), out)
    }

    /// As [`Self::seal`], of a payload that lies in `out` already, behind [`Suite::before`].
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
        // In TLS 1.3; in 1.2 there is nothing behind the payload.
        if let [.., last] = &mut sealed[payload..] {
            *last = kind.into();
        }
        let made = self.key.seal(nonce, aad.as_ref(), sealed);
        tag.copy_from_slice(&made.map_err(|_| Exhausted)?);
        Ok(HEADER + rest)
    }

    /// Opens the whole record with which `buffer` ends, from `at` on, and moves what it holds to `to`,
    /// which is not behind where that begins; what it is, and how many bytes.
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
            // Whether it is too short or forged is not told apart (RFC 8446 §5.2).
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

    /// The sequence number, padded and mixed into the IV (RFC 8446 §5.3, RFC 7905 §2). AES-GCM in
    /// TLS 1.2 leaves the explicit part to the sender, and rustls's IVs are made for this as well.
    fn nonce(&self) -> [u8; NONCE] {
        let mut nonce = *self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// The sequence number must not wrap (RFC 8446 §5.3): the last one is never used.
    fn advance(&mut self) -> Result<(), Exhausted> {
        self.sequence = match self.sequence.checked_add(1) {
            Some(next) => next,
            None => return Err(Exhausted),
        };
        Ok(())
    }
}

/// The key and the IV do so themselves.
impl ZeroizeOnDrop for Cipher {}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher")
            .field("suite", &self.suite)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// The key has sealed or opened all the records that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exhausted;

/// Takes the content type and the padding off (RFC 8446 §5.4).
fn strip(inner: &[u8]) -> Result<(ContentType, usize), AlertDescription> {
    if inner.len() > MAX_PAYLOAD + 1 {
        return Err(AlertDescription::RecordOverflow);
    }
    let Some(length) = inner.iter().rposition(|byte| *byte != 0) else {
        return Err(AlertDescription::UnexpectedMessage);
    };
    Ok((ContentType::from(inner[length]), length))
}

/// What is authenticated beside the payload.
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
            // The sequence number, and the header as it would be without protection (RFC 5246
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

/// What a record may carry (RFC 8446 §5.1).
pub(crate) const MAX_PAYLOAD: usize = 1 << 14;

/// What sealing adds at most: header, explicit nonce or content type, tag.
pub(crate) const OVERHEAD: usize = HEADER + EXPLICIT_NONCE + TAG;

pub(super) const HEADER: usize = 5;
const EXPLICIT_NONCE: usize = 8;

/// Both versions have that of TLS 1.2 in their headers.
const VERSION: [u8; 2] = [3, 3];
