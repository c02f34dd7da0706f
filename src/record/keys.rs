//! The keys of one direction, from the handshake to the last KeyUpdate.

use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, Prk};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::ConnectionTrafficSecrets;
use zeroize::Zeroizing;

use super::aead::{Aead, NONCE};
use super::cipher::{Cipher, Iv, Suite, Version};
use crate::residue;

/// Key material, wiped when it is dropped.
pub(crate) type Secret = Zeroizing<Box<[u8]>>;

/// The traffic secrets of TLS 1.3, `client_application_traffic_secret_0` and the server's (RFC 8446
/// §7.1). Without them keys cannot be updated.
#[derive(Default)]
pub(crate) struct TrafficSecrets {
    pub client: Secret,
    pub server: Secret,
}

/// A cipher, and the secret for the next one.
#[derive(Debug)]
pub(crate) struct Keys {
    pub cipher: Cipher,
    pub suite: Suite,
    pub material: Material,
}

/// The data from which a cipher can be made again, also in another process.
#[derive(Serialize, Deserialize)]
pub(crate) enum Material {
    /// The key, the IV and the next secret are derived from it (RFC 8446 §7.2, §7.3).
    Traffic(Secret),
    /// There are no next keys (RFC 5246 §6.3).
    Fixed { key: Secret, iv: Iv },
}

impl Keys {
    /// Keys from rustls: `extracted` with its sequence number and, in TLS 1.3, the traffic secret
    /// from which they were derived.
    pub(super) fn new(
        (sequence, extracted): &(u64, ConnectionTrafficSecrets),
        traffic: Option<Secret>,
    ) -> Option<Self> {
        let (aead, key, iv) = match extracted {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Aead::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Aead::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Aead::ChaCha20Poly1305, key, iv)
            }
            // A suite of rustls that is not supported here.
            _ => return None,
        };
        let key = key.as_ref();
        let iv = Iv::new(iv.as_ref().try_into().ok()?);
        let (version, material) = match traffic {
            Some(secret) => (Version::Tls13, Material::Traffic(secret)),
            None => {
                let key = Secret::new(key.into());
                let iv = iv.clone();
                (Version::Tls12, Material::Fixed { key, iv })
            }
        };
        let suite = Suite { version, aead };
        Some(Self {
            cipher: Cipher::new(suite, key, iv, *sequence)?,
            suite,
            material,
        })
    }

    /// Switches to the next generation of keys (RFC 8446 §7.2); [`NoNextKeys`] in TLS 1.2.
    pub(super) fn update(&mut self) -> Result<(), NoNextKeys> {
        let updated = self.advance();
        residue::wipe();
        updated
    }

    // A function of its own, so that its stack can be wiped of secrets.
    #[inline(never)]
    fn advance(&mut self) -> Result<(), NoNextKeys> {
        let Material::Traffic(secret) = &self.material else {
            return Err(NoNextKeys);
        };
        let next = expand(self.suite, secret, b"traffic upd", secret.len()).ok_or(NoNextKeys)?;
        self.cipher = cipher_of(self.suite, &next, 0).ok_or(NoNextKeys)?;
        self.material = Material::Traffic(next);
        Ok(())
    }
}

/// TLS 1.2 has only the keys of its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoNextKeys;

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Traffic(_) => "Traffic(..)",
            Self::Fixed { .. } => "Fixed(..)",
        })
    }
}

pub(super) fn cipher_of(suite: Suite, secret: &[u8], sequence: u64) -> Option<Cipher> {
    let key = expand(suite, secret, b"key", suite.aead.key_length())?;
    let iv = expand(suite, secret, b"iv", NONCE)?;
    Cipher::new(suite, &key, Iv::new(iv.as_ref().try_into().ok()?), sequence)
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1).
fn expand(suite: Suite, secret: &[u8], label: &[u8], length: usize) -> Option<Secret> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let hash = match suite.aead {
        Aead::Aes256Gcm => HKDF_SHA384,
        Aead::Aes128Gcm | Aead::ChaCha20Poly1305 => HKDF_SHA256,
    };
    let [.., high, low] = length.to_be_bytes();
    let name_length = [(PREFIX.len() + label.len()) as u8];
    let info: [&[u8]; 5] = [&[high, low], &name_length, PREFIX, label, &[0]];
    let mut out = Secret::new(vec![0; length].into_boxed_slice());
    Prk::new_less_safe(hash, secret)
        .expand(&info, Length(length))
        .and_then(|okm| okm.fill(&mut out))
        .ok()?;
    Some(out)
}

const PREFIX: &[u8] = b"tls13 ";
