//! A stapled OCSP response (RFC 6960), read from a file and checked before clients check it.

mod response;

use std::time::SystemTime;

use aws_lc_rs::digest::{self, digest};
use der::Decode;
use der::asn1::GeneralizedTime;
use der::oid::ObjectIdentifier;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use self::response::{CertId, CertStatus, OcspResponse, OcspResponseStatus, ResponseData};
use super::signed::Signed;

/// A response that says that a certificate is good.
#[derive(Debug)]
pub(crate) struct Staple {
    response: Vec<u8>,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
}

/// Why clients may refuse a response at this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Its `nextUpdate` passed at this time.
    Since(SystemTime),
    /// Its `thisUpdate` is in the future.
    Until(SystemTime),
}

impl Staple {
    /// Reads a response in DER for this chain. If the chain contains the issuer's certificate, the
    /// signature is verified too.
    pub(crate) fn new(
        response: Vec<u8>,
        chain: &[CertificateDer<'_>],
    ) -> Result<Self, StapleError> {
        let outer = OcspResponse::from_der(&response)?;
        let basic = match (outer.response_status, outer.response_bytes) {
            (OcspResponseStatus::Successful, Some(bytes)) if bytes.response_type == BASIC => {
                bytes.response.as_bytes()
            }
            (OcspResponseStatus::Successful, _) => return Err(StapleError::NotBasic),
            (refusal, _) => return Err(StapleError::Refusal(refusal)),
        };
        let signed = Signed::read(basic)?;
        let answers = ResponseData::from_der(signed.message())?.responses;

        let chain: Vec<X509Certificate<'_>> = chain
            .iter()
            .filter_map(|der| X509Certificate::from_der(der).ok())
            .map(|(_, certificate)| certificate)
            .collect();
        let own = chain.first().ok_or(StapleError::Another)?;
        // A self-signed certificate is its own issuer.
        let issuer = chain
            .iter()
            .find(|it| it.subject().as_raw() == own.issuer().as_raw());
        let answer = answers
            .iter()
            .find(|answer| is_of(&answer.cert_id, own, issuer))
            .ok_or(StapleError::Another)?;
        match &answer.cert_status {
            CertStatus::Good(_) => {}
            CertStatus::Revoked(info) => {
                return Err(StapleError::Revoked(time(info.revocation_time)));
            }
            CertStatus::Unknown(_) => return Err(StapleError::Unknown),
        }
        if let Some(issuer) = issuer
            && !is_signed_for(&signed, issuer)
        {
            return Err(StapleError::Signature);
        }
        let (this_update, next_update) = (answer.this_update, answer.next_update);
        Ok(Self {
            response,
            this_update: time(this_update),
            next_update: next_update.map(time),
        })
    }

    /// `None` while clients accept it.
    pub(crate) fn is_stale(&self, now: SystemTime) -> Option<Stale> {
        match self.next_update {
            _ if now < self.this_update => Some(Stale::Until(self.this_update)),
            Some(next_update) if next_update < now => Some(Stale::Since(next_update)),
            _ => None,
        }
    }

    pub(super) fn into_response(self) -> Vec<u8> {
        self.response
    }
}

/// Whether an answer is about this certificate (RFC 6960 §4.1.1).
fn is_of(id: &CertId<'_>, own: &X509Certificate<'_>, issuer: Option<&X509Certificate<'_>>) -> bool {
    let algorithm = match id.hash_algorithm.algorithm {
        SHA1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        SHA256 => &digest::SHA256,
        SHA384 => &digest::SHA384,
        SHA512 => &digest::SHA512,
        // Clients use no other hash to find the answer.
        _ => return false,
    };
    let is_hash_of = |hash: &[u8], bytes| digest(algorithm, bytes).as_ref() == hash;
    let key = issuer.map(|issuer| &issuer.public_key().subject_public_key.data);
    magnitude(id.serial_number.as_bytes()) == magnitude(own.raw_serial())
        && is_hash_of(id.issuer_name_hash.as_bytes(), own.issuer().as_raw())
        && key.is_none_or(|key| is_hash_of(id.issuer_key_hash.as_bytes(), key))
}

/// A number without the leading zero bytes that mark it as positive.
fn magnitude(integer: &[u8]) -> &[u8] {
    let zeros = integer.iter().take_while(|byte| **byte == 0).count();
    &integer[zeros..]
}

/// Whether a response is signed by the issuer, or by a responder with a certificate from the issuer
/// in the response (RFC 6960 §4.2.2.2).
fn is_signed_for(signed: &Signed<'_>, issuer: &X509Certificate<'_>) -> bool {
    let is_appointed = |certificate: &[u8]| {
        let Ok((_, responder)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let usage = responder.extended_key_usage().ok().flatten();
        usage.is_some_and(|usage| usage.value.ocsp_signing)
            && Signed::read(certificate).is_ok_and(|it| it.is_by(issuer.public_key().raw))
            && signed.is_by(responder.public_key().raw)
    };
    signed.is_by(issuer.public_key().raw) || signed.certificates.iter().any(|it| is_appointed(it))
}

fn time(time: GeneralizedTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + time.to_unix_duration()
}

const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");

/// Why a response cannot be stapled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StapleError {
    #[error("not an OCSP response (RFC 6960) in DER: {0}")]
    Malformed(#[from] der::Error),
    #[error("the OCSP responder answered {0:?}; ask it again")]
    Refusal(OcspResponseStatus),
    #[error("not a basic OCSP response, the only kind that clients accept")]
    NotBasic,
    #[error("the OCSP response is for another certificate")]
    Another,
    #[error(
        "the OCSP response says that the certificate was revoked on {}",
        super::time::Date(*.0)
    )]
    Revoked(SystemTime),
    #[error("the OCSP responder does not know the certificate")]
    Unknown,
    #[error("neither the certificate's issuer nor its responder signed the OCSP response")]
    Signature,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CHAIN: &[u8] = include_bytes!("../../certs/server.pem");

    fn chain() -> Vec<CertificateDer<'static>> {
        let chain = rustls_pemfile::certs(&mut &CHAIN[..]).collect::<Result<_, _>>();
        chain.expect("a chain")
    }

    // tests/staples.rs covers the output of `openssl ocsp`.
    #[test]
    fn an_invalid_response_is_no_staple() {
        let refusal = |status| vec![0x30, 3, 0x0A, 1, status];
        for (response, expected) in [
            (vec![], "not an OCSP response (RFC 6960) in DER: "),
            (CHAIN.to_vec(), "not an OCSP response (RFC 6960) in DER: "),
            (
                chain()[0].to_vec(),
                "not an OCSP response (RFC 6960) in DER: ",
            ),
            (refusal(0), "not a basic OCSP response"),
            (refusal(3), "the OCSP responder answered TryLater"),
            (refusal(6), "the OCSP responder answered Unauthorized"),
        ] {
            let error = Staple::new(response, &chain()).expect_err("no staple");
            assert!(error.to_string().starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_staple_is_valid_from_this_update_to_next_update() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let staple = |next_update| Staple {
            response: Vec::new(),
            this_update: at(10),
            next_update,
        };
        let bounded = staple(Some(at(20)));
        assert_eq!(bounded.is_stale(at(9)), Some(Stale::Until(at(10))));
        assert_eq!(bounded.is_stale(at(10)), None);
        assert_eq!(bounded.is_stale(at(20)), None);
        assert_eq!(bounded.is_stale(at(21)), Some(Stale::Since(at(20))));
        // RFC 6960 §4.2.2.1: without `nextUpdate`, newer information is always available.
        assert_eq!(staple(None).is_stale(at(1_000)), None);
    }

    #[test]
    fn serial_numbers_are_compared_as_numbers() {
        assert_eq!(magnitude(&[0, 0xC8]), magnitude(&[0xC8]));
        assert_ne!(magnitude(&[1, 0]), magnitude(&[1]));
        assert_eq!(magnitude(&[0]), magnitude(&[]));
    }
}
