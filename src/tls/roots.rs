//! Trusted certificate authorities: PEM bundles, or the roots of the platform.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::name;
use super::pem::{Pem, PemError, Position};
use super::words::words;
use super::x509::parse;

/// At least one certificate authority.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    store: Arc<RootCertStore>,
    /// The certificates that the configuration names. Each may also be the certificate of a peer.
    certificates: Arc<HashSet<CertificateDer<'static>>>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.store.roots == other.store.roots && self.certificates == other.certificates
    }
}

impl Eq for Roots {}

impl Roots {
    /// The authorities of one bundle. Each must be usable, because the configuration names it. A
    /// revocation list in the bundle is an error, because it would not be in force.
    pub(crate) fn from_pem(bundle: &[u8]) -> Result<Self, RootsError> {
        let pem = Pem::read(bundle).map_err(RootsError::Parse)?;
        match pem.lists().first() {
            Some((_, line)) => Err(RootsError::List(*line)),
            None => Self::of(&pem),
        }
    }

    /// Like [`Self::from_pem`], for a bundle whose revocation lists are in force.
    pub(crate) fn beside_lists(bundle: &[u8]) -> Result<Self, RootsError> {
        Self::of(&Pem::read(bundle).map_err(RootsError::Parse)?)
    }

    fn of(pem: &Pem) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        let mut certificates = HashSet::new();
        for (der, position) in pem.certificates() {
            let parsed = parse(&der);
            let parsed = parsed.map_err(|why| RootsError::Malformed(position, why))?;
            let name = name::shown(parsed.subject());
            store
                .add(der.clone())
                .map_err(|error| RootsError::Unusable(position, name, words(&error).to_string()))?;
            certificates.insert(der);
        }
        match store.is_empty() {
            true => Err(RootsError::Empty(pem.holds())),
            false => Ok(Self {
                store: Arc::new(store),
                certificates: Arc::new(certificates),
            }),
        }
    }

    /// The roots of this machine that can be used.
    pub(crate) fn of_platform() -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        match store.is_empty() {
            true => Err(RootsError::NoPlatform),
            false => Ok(Self {
                store: Arc::new(store),
                certificates: Arc::default(),
            }),
        }
    }

    /// All authorities of these; `None` if the list is empty.
    pub(crate) fn union(all: Vec<Self>) -> Option<Self> {
        let mut all = all.into_iter();
        let mut union = all.next()?;
        for other in all {
            let store = Arc::make_mut(&mut union.store);
            store.roots.extend_from_slice(&other.store.roots);
            let certificates = Arc::make_mut(&mut union.certificates);
            certificates.extend(other.certificates.iter().cloned());
        }
        Some(union)
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.store)
    }

    /// The certificates that the configuration names.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter()
    }

    /// Whether the certificate is one of these, byte for byte.
    pub(super) fn have(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.contains(certificate)
    }
}

/// Why no authorities could be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootsError {
    #[error(
        "line {0} begins a revocation list, which has no effect in a file of authorities; remove \
         it, or (for a listener) name this file in `crl` too"
    )]
    List(usize),
    #[error("the bundle is not PEM: {0}")]
    Parse(PemError),
    #[error(
        "the bundle has no certificate, which starts with -----BEGIN CERTIFICATE-----; the file \
         contains {0}"
    )]
    Empty(String),
    #[error("cannot read {0}: {1}; remove it, or get it again")]
    Malformed(Position, String),
    #[error("cannot use {0} ({1}): {2}; remove it, or get it again")]
    Unusable(Position, String, String),
    #[error(
        "this machine has no trusted certificate authorities; install the package \
         `ca-certificates`, or name a bundle"
    )]
    NoPlatform,
}
