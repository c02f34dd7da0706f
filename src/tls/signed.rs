//! Signatures of what authorities sign, other than the certificates in a handshake.

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

/// What certificates, revocation lists and OCSP responses have in common:
/// `SEQUENCE { signed ANY, algorithm SEQUENCE, signature BIT STRING, … }`.
///
/// Taken from the bytes as they are: what is read and written again need not be what was signed.
pub(super) struct Signed<'a> {
    message: &'a [u8],
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    /// Those that an OCSP response may bring along.
    pub certificates: Vec<&'a [u8]>,
}

impl<'a> Signed<'a> {
    pub(super) fn read(der: &'a [u8]) -> der::Result<Self> {
        let mut fields = SliceReader::new(AnyRef::from_der(der)?.value())?;
        let (message, algorithm) = (fields.tlv_bytes()?, AnyRef::decode(&mut fields)?);
        let signature = BitStringRef::decode(&mut fields)?;
        let mut certificates = Vec::new();
        if !fields.is_finished() {
            let list = AnyRef::from_der(AnyRef::decode(&mut fields)?.value())?;
            let mut list = SliceReader::new(list.value())?;
            while !list.is_finished() {
                certificates.push(list.tlv_bytes()?);
            }
        }
        Ok(Self {
            message,
            algorithm,
            signature,
            certificates,
        })
    }

    /// Whether it was signed with the key of this SubjectPublicKeyInfo.
    pub(super) fn is_by(&self, key: &[u8]) -> bool {
        AnyRef::from_der(key).is_ok_and(|key| self.is_by_content(key.value()))
    }

    /// As [`Self::is_by`], for what is in the outer SEQUENCE, which is how webpki has it.
    pub(super) fn is_by_content(&self, key: &[u8]) -> bool {
        let read = || {
            let mut fields = SliceReader::new(key)?;
            let algorithm = AnyRef::decode(&mut fields)?;
            BitStringRef::decode(&mut fields).map(|key| (algorithm, key))
        };
        let Ok((algorithm, key)) = read() else {
            return false;
        };
        let known = default_provider().signature_verification_algorithms.all;
        let mut fitting = known.iter().filter(|it| {
            it.public_key_alg_id().as_ref() == algorithm.value()
                && it.signature_alg_id().as_ref() == self.algorithm.value()
        });
        let (key, signature) = (key.raw_bytes(), self.signature.raw_bytes());
        fitting.any(|it| it.verify_signature(key, self.message, signature).is_ok())
    }
}
