//! HKDF (RFC 5869) for the key schedule of TLS 1.3, with keys that are prepared once.
//!
//! ```text
//! salt, secret ─ extract ─► key ─ prepare ─► Expander ─ expand ─► handshake and traffic secrets
//!                                  once            └─── expand ─► keys, IVs, Finished
//! ```
//!
//! The implementation that rustls brings for aws-lc-rs extracts the key again for every secret that
//! it expands, and prepares it again: more than half of all SHA-256 blocks of a handshake.

use std::sync::LazyLock;

use aws_lc_rs::hmac::{HMAC_SHA256, HMAC_SHA384, Key, sign_to_buffer};
use tokio_rustls::rustls::crypto::hmac::Tag;
use tokio_rustls::rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use tokio_rustls::rustls::crypto::{CipherSuiteCommon, aws_lc_rs::cipher_suite};
use tokio_rustls::rustls::{SupportedCipherSuite, Tls13CipherSuite};

/// The suites of TLS 1.3 (RFC 8446 §B.4) with this key schedule, in the order of preference.
pub(super) fn suites() -> [SupportedCipherSuite; 3] {
    [&AES_128, &AES_256, &CHACHA20].map(|suite| SupportedCipherSuite::Tls13(suite))
}

static AES_128: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with(cipher_suite::TLS13_AES_128_GCM_SHA256, &SHA256));
static AES_256: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with(cipher_suite::TLS13_AES_256_GCM_SHA384, &SHA384));
static CHACHA20: LazyLock<Tls13CipherSuite> =
    LazyLock::new(|| with(cipher_suite::TLS13_CHACHA20_POLY1305_SHA256, &SHA256));

/// The suite of rustls, which differs only in its key schedule.
fn with(suite: SupportedCipherSuite, hash: &'static Hash) -> Tls13CipherSuite {
    let suite = suite.tls13().expect("a suite of TLS 1.3");
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: hash,
        aead_alg: suite.aead_alg,
        quic: None,
    }
}

static SHA256: LazyLock<Hash> = LazyLock::new(|| Hash::new(HMAC_SHA256));
static SHA384: LazyLock<Hash> = LazyLock::new(|| Hash::new(HMAC_SHA384));

/// HKDF with one hash function.
struct Hash {
    /// A salt of zeros, prepared: every key schedule begins with it.
    no_salt: Key,
    /// The early secret of a handshake without a session (RFC 8446 §7.1), which is no secret.
    no_session: Key,
}

impl Hash {
    fn new(algorithm: aws_lc_rs::hmac::Algorithm) -> Self {
        let zeros = &[0; Tag::MAX_LEN][..algorithm.tag_len()];
        let no_salt = Key::new(algorithm, zeros);
        Self {
            no_session: extract(&no_salt, zeros),
            no_salt,
        }
    }

    fn key(&self, bytes: &[u8]) -> Key {
        Key::new(self.no_salt.algorithm(), bytes)
    }

    fn extract(&self, salt: Option<&[u8]>, secret: &[u8]) -> Key {
        match salt {
            Some(salt) => extract(&self.key(salt), secret),
            None => extract(&self.no_salt, secret),
        }
    }
}

/// The key that follows from the secret, prepared (RFC 5869 §2.2).
fn extract(salt: &Key, secret: &[u8]) -> Key {
    let key = tag(salt, secret);
    Key::new(salt.algorithm(), key.as_ref())
}

/// The HMAC of the message. It is overwritten when it is dropped.
fn tag(key: &Key, message: &[u8]) -> Tag {
    let mut room = [0; Tag::MAX_LEN];
    let tag = sign_to_buffer(key, message, &mut room);
    Tag::new(tag.expect("the longest tag has room"))
}

impl Hkdf for Hash {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        let zeros = &[0; Tag::MAX_LEN][..self.no_salt.algorithm().tag_len()];
        Box::new(Expander(match salt {
            Some(salt) => extract(&self.key(salt), zeros),
            None => self.no_session.clone(),
        }))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        Box::new(Expander(self.extract(salt, secret)))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        Box::new(Expander(self.key(okm.as_ref())))
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> Tag {
        tag(&self.key(key.as_ref()), message)
    }
}

/// A prepared key, from which secrets are expanded (RFC 5869 §2.3). aws-lc-rs overwrites it when it
/// is dropped.
struct Expander(Key);

impl HkdfExpander for Expander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        if output.len() > 255 * self.hash_len() {
            return Err(OutputLengthError);
        }
        let mut before = Tag::new(&[]);
        for (number, output) in (1..=255).zip(output.chunks_mut(self.hash_len())) {
            before = self.block(before.as_ref(), info, number);
            output.copy_from_slice(&before.as_ref()[..output.len()]);
        }
        Ok(())
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        OkmBlock::new(self.block(&[], info, 1).as_ref())
    }

    fn hash_len(&self) -> usize {
        self.0.algorithm().tag_len()
    }
}

impl Expander {
    /// One call for the whole message costs less than one for each of its parts. Those of TLS fit on
    /// the stack.
    fn block(&self, before: &[u8], info: &[&[u8]], number: u8) -> Tag {
        let length = before.len() + info.iter().map(|part| part.len()).sum::<usize>() + 1;
        if length > ROOM {
            return tag(&self.0, &[before, &info.concat(), &[number]].concat());
        }
        let (mut message, mut end) = ([0; ROOM], 0);
        let parts = [before].into_iter().chain(info.iter().copied());
        for part in parts.chain([&[number][..]]) {
            message[end..][..part.len()].copy_from_slice(part);
            end += part.len();
        }
        tag(&self.0, &message[..end])
    }
}

/// More than a label of TLS 1.3 with a SHA-384 hash (RFC 8446 §7.1) and the block before it.
const ROOM: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    /// The suites of rustls, whose key schedules these must equal.
    fn both() -> impl Iterator<Item = (&'static dyn Hkdf, &'static dyn Hkdf, usize)> {
        let theirs = [
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        suites().into_iter().zip(theirs).map(|(ours, theirs)| {
            assert_eq!(ours.suite(), theirs.suite());
            let (ours, theirs) = (ours.tls13(), theirs.tls13());
            let (ours, theirs) = (ours.expect("TLS 1.3"), theirs.expect("TLS 1.3"));
            let length = theirs.common.hash_provider.output_len();
            (ours.hkdf_provider, theirs.hkdf_provider, length)
        })
    }

    /// Both expand the same, at lengths around those of a block and at the longest.
    fn same(ours: &dyn HkdfExpander, theirs: &dyn HkdfExpander) {
        let length = theirs.hash_len();
        assert_eq!(ours.hash_len(), length);
        let infos: [&[&[u8]]; 3] = [&[], &[b"one"], &[b"", &[7; 300], b"three"]];
        for info in infos {
            let block = theirs.expand_block(info);
            assert_eq!(ours.expand_block(info).as_ref(), block.as_ref());
            for size in [0, 1, 12, length - 1, length, length + 1, 255 * length] {
                let (mut here, mut there) = (vec![1; size], vec![2; size]);
                assert!(ours.expand_slice(info, &mut here).is_ok(), "{size}");
                assert!(theirs.expand_slice(info, &mut there).is_ok(), "{size}");
                assert_eq!(here, there, "{size}");
            }
        }
        let mut too_long = vec![0; 255 * length + 1];
        assert!(ours.expand_slice(&[], &mut too_long).is_err());
    }

    #[test]
    fn every_secret_is_the_one_that_rustls_derives() {
        for (ours, theirs, length) in both() {
            for salt in [None, Some(&b"salt"[..]), Some(&[5; 200])] {
                same(
                    &*ours.extract_from_zero_ikm(salt),
                    &*theirs.extract_from_zero_ikm(salt),
                );
                for secret in [&[9; 32][..], &[9; 66], &[9; 1120], &[]] {
                    same(
                        &*ours.extract_from_secret(salt, secret),
                        &*theirs.extract_from_secret(salt, secret),
                    );
                }
            }
            let key = OkmBlock::new(&[3; 64][..length]);
            same(
                &*ours.expander_for_okm(&key),
                &*theirs.expander_for_okm(&key),
            );
            for message in [&[][..], b"message", &[1; 500]] {
                let expected = theirs.hmac_sign(&key, message);
                assert_eq!(ours.hmac_sign(&key, message).as_ref(), expected.as_ref());
            }
        }
    }
}
