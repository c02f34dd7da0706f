//! Signatures of authorities on anything but the certificates in a handshake.

use der::asn1::{AnyRef, BitStringRef};
use der::oid::ObjectIdentifier;
use der::{Decode, Reader, SliceReader};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

/// The common form of certificates, revocation lists and OCSP responses: `SEQUENCE { signed ANY,
/// algorithm SEQUENCE, signature BIT STRING, … }`.
///
/// The signed bytes are used as they are: decoding and encoding them again might change them.
pub(super) struct Signed<'a> {
    message: &'a [u8],
    algorithm_der: &'a [u8],
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
    /// The certificates in an OCSP response.
    pub certificates: Vec<&'a [u8]>,
}

impl<'a> Signed<'a> {
    pub(super) fn read(der: &'a [u8]) -> der::Result<Self> {
        let mut fields = SliceReader::new(AnyRef::from_der(der)?.value())?;
        let (message, algorithm_der) = (fields.tlv_bytes()?, fields.tlv_bytes()?);
        let algorithm = AnyRef::from_der(algorithm_der)?;
        let signature = BitStringRef::decode(&mut fields)?;
        let mut certificates = Vec::new();
        if !fields.is_finished() {
            let list = AnyRef::from_der(AnyRef::decode(&mut fields)?.value())?;
            let mut list = SliceReader::new(list.value())?;
            while !list.is_finished() {
                certificates.push(list.tlv_bytes()?);
            }
        }
        fields.finish()?;
        Ok(Self {
            message,
            algorithm_der,
            algorithm,
            signature,
            certificates,
        })
    }

    pub(super) fn message(&self) -> &'a [u8] {
        self.message
    }

    pub(super) fn algorithm_der(&self) -> &'a [u8] {
        self.algorithm_der
    }

    /// Whether this program can verify signatures with this algorithm.
    pub(super) fn is_verifiable(&self) -> bool {
        let known = default_provider().signature_verification_algorithms.all;
        (known.iter()).any(|it| it.signature_alg_id().as_ref() == self.algorithm.value())
    }

    /// The name of the signature algorithm, for messages.
    pub(super) fn algorithm(&self) -> String {
        let oid = SliceReader::new(self.algorithm.value())
            .and_then(|mut fields| fields.decode::<ObjectIdentifier>());
        let Ok(oid) = oid else {
            return "an unreadable algorithm".into();
        };
        let oid = oid.to_string();
        match WEAK.iter().find(|(known, _)| *known == oid) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("the algorithm {oid}"),
        }
    }

    /// The hash of its signature, if such signatures can be forged.
    pub(super) fn broken_hash(&self) -> Option<&'static str> {
        let mut fields = SliceReader::new(self.algorithm.value()).ok()?;
        let oid = fields.decode::<ObjectIdentifier>().ok()?.to_string();
        let (_, name) = WEAK.iter().find(|(known, _)| *known == oid)?;
        let (hash, _) = name.split_once(' ')?;
        matches!(hash, "MD5" | "SHA-1").then_some(hash)
    }

    /// Whether it is signed with the key in this SubjectPublicKeyInfo.
    pub(super) fn is_by(&self, key: &[u8]) -> bool {
        AnyRef::from_der(key).is_ok_and(|key| self.is_by_content(key.value()))
    }

    /// Like [`Self::is_by`], for the content of the outer SEQUENCE, which is the form that webpki
    /// has.
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

/// The content of an object identifier, for messages.
pub(super) fn oid(content: &[u8]) -> String {
    ObjectIdentifier::from_bytes(content).map_or_else(|_| "?".into(), |oid| oid.to_string())
}

/// Algorithms in old or special lists, which this program cannot verify.
const WEAK: &[(&str, &str)] = &[
    ("1.2.840.113549.1.1.4", "MD5 and RSA"),
    ("1.2.840.113549.1.1.5", "SHA-1 and RSA"),
    ("1.3.14.3.2.29", "SHA-1 and RSA"),
    ("1.2.840.113549.1.1.10", "RSA-PSS with unusual parameters"),
    ("1.2.840.113549.1.1.14", "SHA-224 and RSA"),
    ("1.2.840.10040.4.3", "SHA-1 and DSA"),
    ("1.2.840.10045.4.1", "SHA-1 and ECDSA"),
    ("1.2.840.10045.4.3.1", "SHA-224 and ECDSA"),
    ("1.3.101.113", "Ed448"),
    ("1.2.156.10197.1.501", "SM3 and SM2"),
];
