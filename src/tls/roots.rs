//! Whose signature on a certificate counts: bundles of PEM, or what the platform trusts.

use std::io;
use std::sync::Arc;

use tokio_rustls::rustls::{self, RootCertStore};

/// At least one certificate authority.
#[derive(Clone, Debug)]
pub(crate) struct Roots(Arc<RootCertStore>);

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.0.roots == other.0.roots
    }
}

impl Eq for Roots {}

impl Roots {
    /// The authorities of one bundle, each of which must be usable: it was named on purpose.
    pub(crate) fn from_pem(mut bundle: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut bundle) {
            let certificate = certificate.map_err(RootsError::Parse)?;
            store.add(certificate).map_err(RootsError::Unusable)?;
        }
        match store.is_empty() {
            true => Err(RootsError::Empty),
            false => Ok(Self(Arc::new(store))),
        }
    }

    /// What this machine trusts, as far as it can be used.
    pub(crate) fn of_platform() -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        match store.is_empty() {
            true => Err(RootsError::NoPlatform),
            false => Ok(Self(Arc::new(store))),
        }
    }

    /// All that any of these trust; `None` if there are none of them.
    pub(crate) fn union(all: Vec<Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let Self(mut store) = all.next()?;
        for Self(other) in all {
            Arc::make_mut(&mut store)
                .roots
                .extend_from_slice(&other.roots);
        }
        Some(Self(store))
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

/// Why nobody would be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    #[error("the bundle is not PEM: {0}")]
    Parse(io::Error),
    #[error("there is no certificate in the bundle; it starts with -----BEGIN CERTIFICATE-----")]
    Empty,
    #[error("a certificate of the bundle cannot be used: {0}")]
    Unusable(rustls::Error),
    #[error(
        "this machine trusts no certificate authority; install its package `ca-certificates`, or \
         name a bundle"
    )]
    NoPlatform,
}
