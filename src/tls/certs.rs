//! A certificate chain and its key, read from PEM and checked against each other.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::aws_lc_rs::sign::any_supported_type;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::ResolvesServerCert;
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};

/// A chain whose key is known to match it.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<CertifiedKey>);

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its private key (PKCS#8, PKCS#1 or
    /// SEC1).
    pub(crate) fn from_files(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        let chain = std::fs::read(chain).map_err(CertificateError::ReadChain)?;
        let key = std::fs::read(key).map_err(CertificateError::ReadKey)?;
        Self::from_pem(&chain, &key)
    }

    pub(crate) fn from_pem(mut chain: &[u8], mut key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<CertificateDer<'static>> = rustls_pemfile::certs(&mut chain)
            .collect::<io::Result<_>>()
            .map_err(CertificateError::ParseChain)?;
        if chain.is_empty() {
            return Err(CertificateError::EmptyChain);
        }
        let key: PrivateKeyDer<'static> = rustls_pemfile::private_key(&mut key)
            .map_err(CertificateError::ParseKey)?
            .ok_or(CertificateError::NoKey)?;
        let key = any_supported_type(&key).map_err(CertificateError::UnusableKey)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(CertificateError::Mismatch)?;
        Ok(Self(Arc::new(certified)))
    }

    /// Whether this is the certificate whose key everybody has.
    pub(crate) fn is_for_development(&self) -> bool {
        Self::for_development().is_ok_and(|development| self.0.cert == development.0.cert)
    }

    /// The server certificate of certs/, compiled in.
    pub(crate) fn for_development() -> Result<Self, CertificateError> {
        Self::from_pem(DEVELOPMENT_CHAIN, DEVELOPMENT_KEY)
    }

    pub(super) fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        Arc::new(SingleCertAndKey::from((*self.0).clone()))
    }

    pub(super) fn client_resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(SingleCertAndKey::from((*self.0).clone()))
    }
}

/// What is wrong with a chain or key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("cannot read the certificate chain: {0}")]
    ReadChain(io::Error),
    #[error("cannot read the private key: {0}")]
    ReadKey(io::Error),
    #[error("the certificate chain is not PEM: {0}")]
    ParseChain(io::Error),
    #[error(
        "there is no certificate in the chain file; it starts with -----BEGIN CERTIFICATE-----"
    )]
    EmptyChain,
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
            Self::ReadChain(_) | Self::ParseChain(_) | Self::EmptyChain => false,
            Self::ReadKey(_)
            | Self::ParseKey(_)
            | Self::NoKey
            | Self::UnusableKey(_)
            | Self::Mismatch(_) => true,
        }
    }
}

const DEVELOPMENT_CHAIN: &[u8] = include_bytes!("../../certs/server.pem");
const DEVELOPMENT_KEY: &[u8] = include_bytes!("../../certs/server-key.pem");
