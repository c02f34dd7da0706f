//! Seals and opens the records of one direction, independently of the code under test.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384};
use tokio_rustls::rustls::ConnectionTrafficSecrets;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Tls12,
    Tls13,
}

pub(super) struct RecordCipher {
    version: Version,
    algorithm: &'static Algorithm,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    /// The traffic secret, in TLS 1.3.
    secret: Vec<u8>,
}

impl RecordCipher {
    /// Takes the place of the owner of these keys.
    pub(super) fn new(
        version: Version,
        (sequence, keys): &(u64, ConnectionTrafficSecrets),
        secret: &[u8],
    ) -> Self {
        let (algorithm, key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => unreachable!("no suite of ours"),
        };
        Self {
            version,
            algorithm,
            key: key_of(algorithm, key.as_ref()),
            iv: iv.as_ref().try_into().expect("twelve bytes"),
            sequence: *sequence,
            secret: secret.to_vec(),
        }
    }

    /// The number of records that were sealed or opened with the key.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Skips `count` records, as if they had been lost.
    pub(super) fn skip(&mut self, count: u64) {
        self.sequence += count;
    }

    /// Derives the next keys (RFC 8446 §7.2).
    pub(super) fn update(&mut self) {
        self.secret = self.expand("traffic upd", self.secret.len());
        self.key = key_of(
            self.algorithm,
            &self.expand("key", self.algorithm.key_len()),
        );
        self.iv = self.expand("iv", 12).try_into().expect("twelve bytes");
        self.sequence = 0;
    }

    /// Seals one record with `content`. In TLS 1.3 it is padded.
    pub(super) fn seal(&mut self, kind: u8, content: &[u8], padding: usize) -> Vec<u8> {
        match self.version {
            Version::Tls12 => self.seal_inner(kind, content.to_vec()),
            Version::Tls13 => {
                let mut inner = content.to_vec();
                inner.push(kind);
                inner.resize(inner.len() + padding, 0);
                self.seal_inner(APPLICATION_DATA, inner)
            }
        }
    }

    /// Seals one record of the outer type `kind`, with `inner` as its plaintext.
    pub(super) fn seal_inner(&mut self, kind: u8, mut inner: Vec<u8>) -> Vec<u8> {
        // Any value works that is not used twice.
        let explicit = self.sequence.wrapping_mul(ODD).to_be_bytes();
        let explicit = &explicit[..self.explicit_nonce()];
        let header = header(kind, explicit.len() + inner.len() + TAG);
        let aad = self.additional(&header, inner.len());
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(explicit), Aad::from(aad), &mut inner)
            .expect("a key of the algorithm");
        self.sequence += 1;
        [&header[..], explicit, &inner, tag.as_ref()].concat()
    }

    /// Opens a whole record. Returns its content type and content, or `None` if it is forged.
    pub(super) fn open(&mut self, record: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (header, body) = record.split_at(HEADER);
        let (explicit, body) = body.split_at_checked(self.explicit_nonce())?;
        let mut inner = body.to_vec();
        let header = header.try_into().expect("five bytes");
        let aad = self.additional(&header, body.len().checked_sub(TAG)?);
        let length = self
            .key
            .open_in_place(self.nonce(explicit), Aad::from(aad), &mut inner)
            .ok()?
            .len();
        self.sequence += 1;
        inner.truncate(length);
        if self.version == Version::Tls12 {
            return Some((header[0], inner));
        }
        while inner.last() == Some(&0) {
            inner.pop();
        }
        Some((inner.pop().unwrap_or(0), inner))
    }

    /// The length of the explicit nonce: AES-GCM in TLS 1.2 has one (RFC 5288 §3).
    fn explicit_nonce(&self) -> usize {
        match self.version {
            Version::Tls12 if self.algorithm != &CHACHA20_POLY1305 => 8,
            _ => 0,
        }
    }

    fn nonce(&self, explicit: &[u8]) -> Nonce {
        let mut nonce = self.iv;
        match explicit {
            [] => {
                let sequence = self.sequence.to_be_bytes();
                nonce[4..]
                    .iter_mut()
                    .zip(sequence)
                    .for_each(|(a, b)| *a ^= b);
            }
            explicit => nonce[4..].copy_from_slice(explicit),
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn additional(&self, header: &[u8; HEADER], length: usize) -> Vec<u8> {
        match self.version {
            Version::Tls12 => {
                let length = (length as u16).to_be_bytes();
                [&self.sequence.to_be_bytes()[..], &header[..3], &length].concat()
            }
            // The version is 0x0303, even if the record has another one (RFC 8446 §5.1, §5.2).
            Version::Tls13 => [header[0], 3, 3, header[3], header[4]].to_vec(),
        }
    }

    /// HKDF-Expand-Label (RFC 8446 §7.1). Here, one block is always enough.
    fn expand(&self, label: &str, length: usize) -> Vec<u8> {
        let hash = match self.secret.len() {
            48 => HMAC_SHA384,
            _ => HMAC_SHA256,
        };
        let label = format!("tls13 {label}");
        let info = [
            &(length as u16).to_be_bytes()[..],
            &[label.len() as u8],
            label.as_bytes(),
            &[0, 1],
        ];
        let block = hmac::sign(&hmac::Key::new(hash, &self.secret), &info.concat());
        block.as_ref()[..length].to_vec()
    }
}

pub(super) fn header(kind: u8, length: usize) -> [u8; HEADER] {
    let [high, low] = (length as u16).to_be_bytes();
    [kind, 3, 3, high, low]
}

fn key_of(algorithm: &'static Algorithm, key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("a key of the algorithm"))
}

/// The length of the record at the start of `bytes`, if its header is complete.
pub(super) fn record_length(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk::<HEADER>()?;
    Some(HEADER + usize::from(u16::from_be_bytes([high, low])))
}

pub(super) const HEADER: usize = 5;
const TAG: usize = 16;
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;
