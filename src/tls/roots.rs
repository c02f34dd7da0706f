//! Whose signature on a certificate counts: bundles of PEM, or what the platform trusts.

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
    /// Their certificates, where they were named on purpose: each may be that of a peer as well.
    certificates: Arc<HashSet<CertificateDer<'static>>>,
}

impl PartialEq for Roots {
    fn eq(&self, other: &Self) -> bool {
        self.store.roots == other.store.roots && self.certificates == other.certificates
    }
}

impl Eq for Roots {}

impl Roots {
    /// The authorities of one bundle, each of which must be usable: it was named on purpose. So was a
    /// revocation list, which would not be in force here.
    pub(crate) fn from_pem(bundle: &[u8]) -> Result<Self, RootsError> {
        let pem = Pem::read(bundle).map_err(RootsError::Parse)?;
        match pem.lists().first() {
            Some((_, line)) => Err(RootsError::List(*line)),
            None => Self::of(&pem),
        }
    }

    /// As [`Self::from_pem`], of a bundle whose revocation lists are in force.
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

    /// What this machine trusts, as far as it can be used.
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

    /// All that any of these trust; `None` if there are none of them.
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

    /// Those that were named on purpose.
    pub(super) fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.certificates.iter()
    }

    /// Whether it is one of theirs, byte for byte.
    pub(super) fn have(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.contains(certificate)
    }
}

/// Why nobody would be trusted.
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
