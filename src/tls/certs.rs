//! A certificate chain and its private key, read from PEM and checked against each other.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use tokio_rustls::rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use super::name;
use super::ocsp::Staple;
use super::pem::{Pem, PemError, Position};
use super::time::system_time;
use super::x509::parse;

/// A chain and its matching key, and the properties of the first certificate.
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

/// Chains alone are compared: equal chains have the same key.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.0.key.cert, &self.0.key.ocsp) == (&other.0.key.cert, &other.0.key.ocsp)
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Reads a chain, our own certificate first, and its private key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// The peer judges whether the certificate is valid. Here it must only be readable and match
    /// its key.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8], role: Role) -> Result<Self, CertificateError> {
        let chain_pem = Pem::read(chain).map_err(CertificateError::ParseChain)?;
        let chain = chain_pem.certificates();
        if chain.is_empty() {
            return Err(no_certificate(&chain_pem));
        }
        let mut parsed = Vec::new();
        for (der, position) in &chain {
            parsed.push(parse(der).map_err(|why| CertificateError::Malformed(*position, why))?);
        }
        let own = &parsed[0];
        if role == Role::Server && own.version() != X509Version::V3 {
            return Err(CertificateError::Version(own.version().0 + 1));
        }
        let key = fitting_key(&parsed, key)?;
        let (names, algorithm) = (names(own), describe(own, key.algorithm()));
        let not_before = system_time(own.validity().not_before);
        let not_after = system_time(own.validity().not_after);
        let chain = chain.iter().map(|(der, _)| der.clone()).collect();
        Ok(Self(Arc::new(Inner {
            key: Arc::new(CertifiedKey::new(chain, key)),
            names,
            not_before,
            not_after,
            algorithm,
        })))
    }

    /// The same certificate with an OCSP response for its [`Self::chain`].
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

    pub(crate) fn is_stapled(&self) -> bool {
        self.0.key.ocsp.is_some()
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.key.cert
    }

    /// The DNS names and IP addresses that the certificate is for.
    pub(crate) fn names(&self) -> &[String] {
        &self.0.names
    }

    /// The times from which and until which it is valid.
    pub(crate) fn validity(&self) -> RangeInclusive<SystemTime> {
        self.0.not_before..=self.0.not_after
    }

    /// The type of its key, in words.
    pub(crate) fn key_type(&self) -> &str {
        &self.0.algorithm
    }

    /// Whether this is the development certificate, whose key is public.
    pub(crate) fn is_for_development(&self) -> bool {
        self.0.key.cert == *DEVELOPMENT_DER
    }

    /// The server certificate from certs/, compiled in.
    pub(crate) fn for_development() -> Result<Self, CertificateError> {
        Self::from_pem(DEVELOPMENT_CHAIN, DEVELOPMENT_KEY, Role::Server)
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

/// Who the certificate is shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// To clients. No client accepts a version 1 certificate.
    Server,
    /// To servers. Some compare it byte by byte and accept any version.
    Client,
}

fn no_certificate(pem: &Pem) -> CertificateError {
    match pem.keys().is_empty() && pem.encrypted_key().is_none() {
        true => CertificateError::EmptyChain(pem.holds()),
        false => CertificateError::Swapped,
    }
}

/// The key that matches the first certificate, if the file has several.
fn fitting_key(
    chain: &[X509Certificate<'_>],
    pem: &[u8],
) -> Result<Arc<dyn SigningKey>, CertificateError> {
    let pem = Pem::read(pem).map_err(CertificateError::ParseKey)?;
    let keys = pem.keys();
    if keys.is_empty() {
        return Err(match pem.encrypted_key() {
            Some(line) => CertificateError::Encrypted(line),
            None => CertificateError::NoKey(pem.holds()),
        });
    }
    let usable = keys.iter().filter_map(|key| any_supported_type(key).ok());
    let usable: Vec<_> = usable.collect();
    let fits = |certificate: &X509Certificate<'_>| {
        usable
            .iter()
            .find(|key| is_key_of(key.as_ref(), certificate))
    };
    if let Some(key) = fits(&chain[0]) {
        return Ok(Arc::clone(key));
    }
    let fitting = chain.iter().position(|it| fits(it).is_some());
    Err(match fitting {
        Some(index) => CertificateError::NotFirst {
            nth: index + 1,
            fitting: name::shown(chain[index].subject()),
            first: name::shown(chain[0].subject()),
        },
        // The matching key may be the one that could not be read.
        None if usable.len() < keys.len() => CertificateError::UnusableKey,
        None => match pem.encrypted_key() {
            Some(line) => CertificateError::Encrypted(line),
            None => CertificateError::Mismatch(name::shown(chain[0].subject())),
        },
    })
}

/// rustls can compare them too, but it parses the certificate first, and refuses some that our
/// peers accept.
fn is_key_of(key: &dyn SigningKey, certificate: &X509Certificate<'_>) -> bool {
    let Some(own) = key.public_key() else {
        return false;
    };
    let Ok((_, own)) = SubjectPublicKeyInfo::from_der(&own) else {
        return false;
    };
    let its = certificate.public_key();
    // The parameters are left out: some certificates omit the NULL of RSA.
    (own.algorithm.oid() == its.algorithm.oid())
        && own.subject_public_key.data == its.subject_public_key.data
}

/// The subject alternative names; the common name if there are none, as in old certificates.
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

pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
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

/// Why a chain or key is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the certificate chain is not PEM: {0}")]
    ParseChain(PemError),
    #[error(
        "the chain file has no certificate, which starts with -----BEGIN CERTIFICATE-----; the \
         file contains {0}"
    )]
    EmptyChain(String),
    #[error("contains a private key and no certificate; check whether chain and key are swapped")]
    Swapped,
    #[error("cannot read {0}: {1}; get it again")]
    Malformed(Position, String),
    #[error(
        "the first certificate of the chain has version {0}, which no client accepts; issue it as \
         version 3, with its names as extensions (`openssl x509 -req -extfile`)"
    )]
    Version(u32),
    #[error("the private key is not PEM: {0}")]
    ParseKey(PemError),
    #[error(
        "the key file has no private key; it needs an unencrypted PKCS#8, PKCS#1 or SEC1 key; the \
         file contains {0}"
    )]
    NoKey(String),
    #[error(
        "the private key in line {0} is encrypted; decrypt it with `openssl pkey -in FILE -out \
         DECRYPTED`, and protect the new file (`chmod 600`)"
    )]
    Encrypted(usize),
    #[error(
        "the private key is damaged or of an unsupported kind; supported are RSA of 2048 bits or \
         more, ECDSA on P-256, P-384 and P-521, and Ed25519"
    )]
    UnusableKey,
    #[error(
        "the private key belongs to certificate {nth} of the chain ({fitting}), not to the first \
         one ({first}); move that certificate to the front"
    )]
    NotFirst {
        nth: usize,
        fitting: String,
        first: String,
    },
    #[error(
        "the private key belongs to no certificate of the chain, which starts with {0}; use the \
         key with which the certificate was requested"
    )]
    Mismatch(String),
}

impl CertificateError {
    /// The file that has to be corrected.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::Swapped => Fault::Swap,
            Self::ParseChain(_)
            | Self::EmptyChain(_)
            | Self::Malformed(..)
            | Self::Version(_)
            | Self::NotFirst { .. } => Fault::Chain,
            Self::ParseKey(_)
            | Self::NoKey(_)
            | Self::Encrypted(_)
            | Self::UnusableKey
            | Self::Mismatch(_) => Fault::Key,
        }
    }
}

/// Which of the two files is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Chain,
    Key,
    /// The chain file. The message continues a sentence that begins with its name.
    Swap,
}

const DEVELOPMENT_CHAIN: &[u8] = include_bytes!("../../certs/server.pem");
const DEVELOPMENT_KEY: &[u8] = include_bytes!("../../certs/server-key.pem");

/// Parsed once: each of possibly thousands of certificates is compared with it.
static DEVELOPMENT_DER: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    let pem = Pem::read(DEVELOPMENT_CHAIN).expect("the compiled-in certificate is tested");
    pem.certificates().into_iter().map(|(der, _)| der).collect()
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
        let other = Certificate::from_pem(
            other.as_bytes(),
            key.serialize_pem().as_bytes(),
            Role::Server,
        );
        assert!(!other.expect("a certificate").is_for_development());
    }

    /// This check runs for each of possibly thousands of certificates, at the start and at each
    /// reload.
    #[test]
    fn recognizing_a_certificate_costs_a_fraction_of_reading_one() {
        const TIMES: u32 = 40;
        let round = |what: &dyn Fn()| {
            let start = Instant::now();
            (0..TIMES).for_each(|_| what());
            start.elapsed()
        };
        // The minimum of five: other load on the machine can only add time.
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
