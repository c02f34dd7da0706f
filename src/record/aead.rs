//! The AEADs, each from the library that is the faster one on this machine.
//!
//! AWS-LC, which does the handshakes, has AES-GCM for AVX-512 and for ARM. Where a processor has VAES
//! without AVX-512 (AMD's Zen 3, Intel's for clients, many virtual machines) it uses neither, and
//! ring, whose code for AVX2 is BoringSSL's, takes half the time.

use std::ops::RangeFrom;

use aws_lc_rs::aead as aws_lc;
use serde::{Deserialize, Serialize};

/// As long as a nonce of every AEAD here.
pub(super) const NONCE: usize = aws_lc::NONCE_LEN;
/// As long as a tag of every AEAD here.
pub(super) const TAG: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Aead {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Aead {
    /// Bytes.
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
    /// `key` is [`Aead::key_length`] bytes; `None` otherwise.
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

    /// Seals where it lies; the tag is returned.
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

    /// Opens what lies in `in_out` from `sealed` on, its tag last, and moves it to the start; how long
    /// it is. Nothing that is found forged is left there to be read.
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

/// The tag is a wrong one, or the length not one that the AEAD can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// AES-GCM by ring.
#[cfg(target_arch = "x86_64")]
pub(super) mod vaes {
    use std::hint::black_box;
    use std::ops::RangeFrom;

    use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::{Aead, NONCE, TAG};

    /// Where ring has better code than AWS-LC.
    pub(super) fn is_faster() -> bool {
        let has_vaes = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        has_vaes && !is_x86_feature_detected!("avx512bw")
    }

    /// In a place of its own, which it does not leave until it is wiped.
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

        /// Address and length of what has to be wiped.
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

    /// ring does not wipe its keys. A key of zeros is written over this one.
    impl Drop for Key {
        fn drop(&mut self) {
            let zeros = [0; 32];
            let length = self.0.algorithm().key_len();
            if let Ok(blank) = UnboundKey::new(self.0.algorithm(), &zeros[..length]) {
                *self.0 = LessSafeKey::new(blank);
                // Or the compiler finds that nobody reads it.
                black_box(&mut self.0);
            }
        }
    }
}
