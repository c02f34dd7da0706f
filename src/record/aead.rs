//! The AEADs, each from the library that is faster on this machine.
//!
//! AWS-LC, which is used for handshakes, has AES-GCM for AVX-512 and for ARM. Some processors have
//! VAES without AVX-512 (AMD's Zen 3, Intel's client processors, many virtual machines). AWS-LC
//! uses neither on these, and ring takes half the time with its AVX2 code from BoringSSL.

use std::ops::RangeFrom;

use aws_lc_rs::aead as aws_lc;
use serde::{Deserialize, Serialize};

/// The length of a nonce of every AEAD here.
pub(super) const NONCE: usize = aws_lc::NONCE_LEN;
/// The length of a tag of every AEAD here.
pub(super) const TAG: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Aead {
    /// In bytes.
    pub(super) fn key_length(self) -> usize {
        self.algorithm().key_len()
    }

    fn algorithm(self) -> &'static aws_lc::Algorithm {
        match self {
            Self::Aes128Gcm => &aws_lc::AES_128_GCM,
            Self::Aes256Gcm => &aws_lc::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aws_lc::CHACHA20_POLY1305,
        }
    }
}

/// A key, wiped when it is dropped.
pub(crate) enum Key {
    AwsLc(aws_lc::LessSafeKey),
    #[cfg(target_arch = "x86_64")]
    Ring(vaes::Key),
}

impl Key {
    /// `None` if `key` does not have [`Aead::key_length`] bytes.
    pub(super) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if vaes::is_faster() && aead != Aead::ChaCha20Poly1305 {
            return vaes::Key::new(aead, key).map(Self::Ring);
        }
        Self::of_aws_lc(aead, key)
    }

    pub(super) fn of_aws_lc(aead: Aead, key: &[u8]) -> Option<Self> {
        let key = aws_lc::UnboundKey::new(aead.algorithm(), key).ok()?;
        Some(Self::AwsLc(aws_lc::LessSafeKey::new(key)))
    }

    /// Seals in place, and returns the tag.
    pub(super) fn seal(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        in_out: &mut [u8],
    ) -> Result<[u8; TAG], Failed> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(nonce, aws_lc::Aad::from(aad), in_out);
                tag.ok().and_then(|tag| tag.as_ref().try_into().ok())
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => key.seal(nonce, aad, in_out),
        }
        .ok_or(Failed)
    }

    /// Opens the bytes of `in_out` from `sealed` on, which end with the tag, moves the plaintext to
    /// the start, and returns its length. After a failure no forged plaintext is left there.
    pub(super) fn open(
        &self,
        nonce: [u8; NONCE],
        aad: &[u8],
        in_out: &mut [u8],
        sealed: RangeFrom<usize>,
    ) -> Result<usize, Failed> {
        match self {
            Self::AwsLc(key) => {
                let nonce = aws_lc::Nonce::assume_unique_for_key(nonce);
                let opened = key.open_within(nonce, aws_lc::Aad::from(aad), in_out, sealed);
                opened.ok().map(|opened| opened.len())
            }
            #[cfg(target_arch = "x86_64")]
            Self::Ring(key) => key.open(nonce, aad, in_out, sealed),
        }
        .ok_or(Failed)
    }
}

/// The tag is wrong, or the length is not possible for the AEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// AES-GCM by ring.
#[cfg(target_arch = "x86_64")]
pub(super) mod vaes {
    use std::hint::black_box;
    use std::ops::RangeFrom;

    use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{Aead, NONCE, TAG};

    /// Whether ring has better code than AWS-LC for this processor.
    pub(super) fn is_faster() -> bool {
        let has_vaes = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        has_vaes && !is_x86_feature_detected!("avx512bw")
    }

    /// Boxed, because it must stay in one place until it is wiped.
    pub(in super::super) struct Key(Box<LessSafeKey>);

    impl Key {
        pub(in super::super) fn new(aead: Aead, key: &[u8]) -> Option<Self> {
            let algorithm = match aead {
                Aead::Aes128Gcm => &AES_128_GCM,
                Aead::Aes256Gcm => &AES_256_GCM,
                Aead::ChaCha20Poly1305 => return None,
            };
            let key = UnboundKey::new(algorithm, key).ok()?;
            Some(Self(Box::new(LessSafeKey::new(key))))
        }

        /// The address and length of the memory that must be wiped.
        #[cfg(test)]
        pub(in super::super) fn place(&self) -> (u64, usize) {
            let address = std::ptr::from_ref(&*self.0) as u64;
            (address, size_of::<LessSafeKey>())
        }

        pub(super) fn seal(
            &self,
            nonce: [u8; NONCE],
            aad: &[u8],
            in_out: &mut [u8],
        ) -> Option<[u8; TAG]> {
            let nonce = Nonce::assume_unique_for_key(nonce);
            let tag = self
                .0
                .seal_in_place_separate_tag(nonce, Aad::from(aad), in_out);
            tag.ok().and_then(|tag| tag.as_ref().try_into().ok())
        }

        pub(super) fn open(
            &self,
            nonce: [u8; NONCE],
            aad: &[u8],
            in_out: &mut [u8],
            sealed: RangeFrom<usize>,
        ) -> Option<usize> {
            let nonce = Nonce::assume_unique_for_key(nonce);
            let opened = self.0.open_within(nonce, Aad::from(aad), in_out, sealed);
            opened.ok().map(|opened| opened.len())
        }
    }

    /// ring does not wipe its keys, so a key of zeros is written over this one.
    impl Drop for Key {
        fn drop(&mut self) {
            let zeros = [0; 32];
            let length = self.0.algorithm().key_len();
            if let Ok(blank) = UnboundKey::new(self.0.algorithm(), &zeros[..length]) {
                *self.0 = LessSafeKey::new(blank);
                // Otherwise the compiler may remove the write, because nobody reads the value.
                black_box(&mut self.0);
            }
        }
    }
}
