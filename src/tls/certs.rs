//! A certificate chain and its key, read from PEM and checked against each other.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use tokio_rustls::rustls;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use super::ocsp::Staple;
use super::time::system_time;

/// A chain whose key is known to match it, and what its first certificate says.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: SystemTime,
    not_after: SystemTime,
    algorithm: String,
}

/// The key belongs to the chain, so that of equal chains it is the same one.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.key.cert, &self.0.key.ocsp) == (&other.0.key.cert, &other.0.key.ocsp)
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its private key (PKCS#8, PKCS#1 or
    /// SEC1).
    pub(crate) fn from_pem(mut chain: &[u8], mut key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = rustls_pemfile::certs(&mut chain)
            .collect::<io::Result<_>>()
            .map_err(CertificateError::ParseChain)?;
        let Some(own) = chain.first() else {
            return Err(CertificateError::EmptyChain);
        };
        let (_, parsed) = X509Certificate::from_der(own)
            .map_err(|error| CertificateError::Malformed(error.to_string()))?;
        if parsed.version() != X509Version::V3 {
            return Err(CertificateError::Version(parsed.version().0 + 1));
        }
        let names = names(&parsed);
        let (not_before, not_after) = (
            system_time(parsed.validity().not_before),
            system_time(parsed.validity().not_after),
        );
        let key: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut key)
            .map_err(CertificateError::ParseKey)?
            .ok_or(CertificateError::NoKey)?;
        let key = any_supported_type(&key).map_err(CertificateError::UnusableKey)?;
        let algorithm = describe(&parsed, key.algorithm());
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(CertificateError::Mismatch)?;
        Ok(Self(Arc::new(Inner {
            key: Arc::new(certified),
            names,
            not_before,
            not_after,
            algorithm,
        })))
    }

    /// The same, with a response that was made for its [`Self::chain`].
    pub(crate) fn with_staple(&self, staple: Staple) -> Self {
        let inner = &self.0;
        Self(Arc::new(Inner {
            key: Arc::new(CertifiedKey {
                ocsp: Some(staple.into_response()),
                ..(*inner.key).clone()
            }),
            names: inner.names.clone(),
            algorithm: inner.algorithm.clone(),
            ..**inner
        }))
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.key.cert
    }

    /// The DNS names and IP addresses that it is for.
    pub(crate) fn names(&self) -> &[String] {
        &self.0.names
    }

    /// From when on it is valid, and until when.
    pub(crate) fn validity(&self) -> RangeInclusive<SystemTime> {
        self.0.not_before..=self.0.not_after
    }

    /// The kind of its key, for people.
    pub(crate) fn key_type(&self) -> &str {
        &self.0.algorithm
    }

    /// Whether this is the certificate whose key everybody has.
    pub(crate) fn is_for_development(&self) -> bool {
        self.0.key.cert == *DEVELOPMENT_DER
    }

    /// The server certificate of certs/, compiled in.
    pub(crate) fn for_development() -> Result<Self, CertificateError> {
        Self::from_pem(DEVELOPMENT_CHAIN, DEVELOPMENT_KEY)
    }

    pub(super) fn algorithm(&self) -> SignatureAlgorithm {
        self.0.key.key.algorithm()
    }

    pub(super) fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.0.key.key.choose_scheme(schemes).is_some()
    }

    pub(super) fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from((*self.0.key).clone()))
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.key)
    }
}

/// The names in the extension made for them, and without that the common name, as of old.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let Some(alternative) = alternative else {
        let common = certificate.subject().iter_common_name();
        return common
            .filter_map(|name| name.as_str().ok().map(str::to_owned))
            .collect();
    };
    let names = alternative.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn describe(certificate: &X509Certificate<'_>, algorithm: SignatureAlgorithm) -> String {
    let bits = match certificate.public_key().parsed() {
        Ok(key) if key.key_size() > 0 => format!(" {}", key.key_size()),
        _ => String::new(),
    };
    let name = match algorithm {
        SignatureAlgorithm::RSA => "RSA",
        SignatureAlgorithm::ECDSA => "ECDSA",
        SignatureAlgorithm::ED25519 => return "Ed25519".into(),
        other => return format!("{other:?}"),
    };
    format!("{name}{bits}")
}

/// What is wrong with a chain or key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the certificate chain is not PEM: {0}")]
    ParseChain(io::Error),
    #[error(
        "there is no certificate in the chain file; it starts with -----BEGIN CERTIFICATE-----"
    )]
    EmptyChain,
    #[error("the first certificate of the chain cannot be read: {0}")]
    Malformed(String),
    #[error(
        "the first certificate of the chain is of version {0}, which no client takes; issue it as \
         version 3, with its names as extensions (`openssl x509 -req -extfile`)"
    )]
    Version(u32),
    #[error("the private key is not PEM: {0}")]
    ParseKey(io::Error),
    #[error(
        "there is no private key in the key file; PKCS#8, PKCS#1 and SEC1 are read, unencrypted"
    )]
    NoKey,
    #[error("the private key cannot be used: {0}")]
    UnusableKey(rustls::Error),
    #[error("the private key does not belong to the first certificate of the chain ({0})")]
    Mismatch(rustls::Error),
}

impl CertificateError {
    /// Whether the key's file is at fault, not the chain's.
    pub(crate) fn is_of_the_key(&self) -> bool {
        match self {
            Self::ParseChain(_) | Self::EmptyChain | Self::Malformed(_) | Self::Version(_) => false,
            Self::ParseKey(_) | Self::NoKey | Self::UnusableKey(_) | Self::Mismatch(_) => true,
        }
    }
}

const DEVELOPMENT_CHAIN: &[u8] = include_bytes!("../../certs/server.pem");
const DEVELOPMENT_KEY: &[u8] = include_bytes!("../../certs/server-key.pem");

/// To compare with: each of thousands of certificates is asked whether it is this one.
static DEVELOPMENT_DER: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let chain: io::Result<_> = rustls_pemfile::certs(&mut &DEVELOPMENT_CHAIN[..]).collect();
    chain.expect("the compiled-in certificate is tested")
});

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_development_certificate_is_recognized_and_no_other_is() {
        let it = Certificate::for_development().expect("it is tested");
        assert!(it.is_for_development());
        let key = rcgen::KeyPair::generate().expect("a key");
        let other = rcgen::CertificateParams::default().self_signed(&key);
        let other = other.expect("a certificate").pem();
        let other = Certificate::from_pem(other.as_bytes(), key.serialize_pem().as_bytes());
        assert!(!other.expect("a certificate").is_for_development());
    }

    /// It is asked about each of thousands, at start and in each reload.
    #[test]
    fn to_recognize_a_certificate_costs_a_fraction_of_reading_one() {
        const TIMES: u32 = 40;
        let round = |what: &dyn Fn()| {
            let start = Instant::now();
            (0..TIMES).for_each(|_| what());
            start.elapsed()
        };
        // The least of five: whatever else the machine does only adds to it.
        let took = |what: &dyn Fn()| (0..5).map(|_| round(what)).min();
        let it = Certificate::for_development().expect("it is tested");
        let read = took(&|| drop(Certificate::for_development()));
        let recognized = took(&|| assert!(it.is_for_development()));
        assert!(
            recognized < read.map(|it| it / 4),
            "{recognized:?}, {read:?}"
        );
    }
}
