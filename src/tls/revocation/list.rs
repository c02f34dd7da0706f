//! One certificate revocation list (RFC 5280 §5): complete and direct, in version 1 or 2.
//!
//! It is parsed here, because webpki refuses version 1, and x509-parser skips what it does not
//! understand. If an entry were skipped, a revoked client would be accepted.

mod content;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use self::content::{Parsed, magnitude};
use super::super::name::{self, Normal};
use super::super::signed::Signed;

/// A revocation list of an authority or an intermediate.
pub(crate) struct List {
    issuer: Normal,
    issuer_shown: String,
    /// Serial numbers without leading zeros.
    revoked: HashSet<Box<[u8]>>,
    this_update: SystemTime,
    next_update: Option<SystemTime>,
    /// The identifier of the key that signed it, if it contains one.
    key_identifier: Option<Box<[u8]>>,
    der: CertificateRevocationListDer<'static>,
    signer: Signer,
}

/// The key that signed a list, once it is known.
#[derive(Default)]
struct Signer {
    /// The content of its SubjectPublicKeyInfo.
    found: OnceLock<Box<[u8]>>,
    /// Digests of recent keys that did not sign it: a long list takes long to verify.
    others: Mutex<VecDeque<[u8; 32]>>,
}

impl List {
    /// # Errors
    ///
    /// It is not such a list, its signature algorithm is not supported, or an authority has its
    /// name but no authority has signed it.
    pub(crate) fn new(
        der: CertificateRevocationListDer<'static>,
        authorities: &RootCertStore,
    ) -> Result<Self, ListError> {
        let signed = Signed::read(&der).map_err(malformed)?;
        if !signed.is_verifiable() {
            return Err(ListError::Unverifiable(signed.algorithm()));
        }
        let parsed = Parsed::read(signed.message(), signed.algorithm_der())?;
        drop(signed);
        let (_, issuer) = X509Name::from_der(parsed.issuer).map_err(malformed)?;
        let list = Self {
            issuer: Normal::of(parsed.issuer),
            issuer_shown: name::shown(&issuer),
            revoked: parsed.revoked,
            this_update: parsed.this_update,
            next_update: parsed.next_update,
            key_identifier: parsed.key_identifier,
            signer: Signer::default(),
            der: der.clone(),
        };
        let is_namesake = list.find_signer(authorities);
        match is_namesake && list.signer().is_none() {
            true => Err(ListError::Foreign(list.issuer_shown)),
            false => Ok(list),
        }
    }

    /// Looks for the authority that signed the list, and returns whether one has its name.
    /// Authorities with its name are tried first: verifying a list of megabytes with each key of a
    /// large bundle takes seconds.
    fn find_signer(&self, authorities: &RootCertStore) -> bool {
        let (namesakes, others): (Vec<_>, Vec<_>) = authorities
            .roots
            .iter()
            .partition(|it| self.is_named(&Normal::of_content(&it.subject)));
        let is_namesake = !namesakes.is_empty();
        let mut all = namesakes.into_iter().chain(others);
        all.any(|it| self.is_by(&it.subject_public_key_info));
        is_namesake
    }

    /// The issuer that the list names.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer_shown
    }

    /// The number of revoked certificates.
    pub(crate) fn entries(&self) -> usize {
        self.revoked.len()
    }

    pub(crate) fn this_update(&self) -> SystemTime {
        self.this_update
    }

    pub(crate) fn next_update(&self) -> Option<SystemTime> {
        self.next_update
    }

    /// Whether its signer is known. For a list of an intermediate, the signer becomes known when a
    /// client brings the intermediate's certificate.
    pub(crate) fn is_matched(&self) -> bool {
        self.signer().is_some()
    }

    pub(super) fn signer(&self) -> Option<&[u8]> {
        self.signer.found.get().map(|key| &**key)
    }

    pub(super) fn has(&self, serial: &[u8]) -> bool {
        self.revoked.contains(magnitude(serial))
    }

    pub(super) fn is_named(&self, issuer: &Normal) -> bool {
        self.issuer == *issuer
    }

    /// Whether the list names another key than the one with this identifier.
    pub(super) fn is_of_another(&self, key_identifier: Option<&[u8]>) -> bool {
        match (&self.key_identifier, key_identifier) {
            (Some(own), Some(other)) => **own != *other,
            _ => false,
        }
    }

    /// Whether this key signed it. `key` is the content of a SubjectPublicKeyInfo.
    pub(super) fn is_by(&self, key: &[u8]) -> bool {
        if let Some(signer) = self.signer() {
            return *signer == *key;
        }
        let mut tried = [0; 32];
        tried.copy_from_slice(digest(&SHA256, key).as_ref());
        if self.others().contains(&tried) {
            return false;
        }
        let is_by = Signed::read(&self.der).is_ok_and(|signed| signed.is_by_content(key));
        if is_by {
            // Another thread may have set the same value.
            let _ = self.signer.found.set(key.into());
        } else {
            let mut others = self.others();
            others.truncate(MOST_OTHERS - 1);
            others.push_front(tried);
        }
        is_by
    }

    fn others(&self) -> std::sync::MutexGuard<'_, VecDeque<[u8; 32]>> {
        let others = self.signer.others.lock();
        others.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the entries, which may have megabytes.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("issuer", &self.issuer_shown)
            .field("revoked", &self.revoked.len())
            .field("next_update", &self.next_update)
            .finish_non_exhaustive()
    }
}

fn malformed(error: impl fmt::Display) -> ListError {
    ListError::Malformed(error.to_string())
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("not a certificate revocation list (RFC 5280 §5), in PEM or DER: {0}")]
    Malformed(String),
    #[error(
        "the revocation list is signed with {0}, which is not supported; have its authority sign \
         it with SHA-256 or better"
    )]
    Unverifiable(String),
    #[error(
        "the revocation list is a delta list, which is not supported; get the complete list of its \
         authority"
    )]
    Delta,
    #[error(
        "the revocation list is an indirect list (it covers certificates of other authorities), \
         which is not supported; get the list that each authority signs itself"
    )]
    Indirect,
    #[error("the revocation list is for attribute certificates, which TLS does not use")]
    OfAttributes,
    #[error("the revocation list has the critical extension {0}, which is not supported")]
    Critical(String),
    #[error(
        "an authority in `client_ca` has the issuer name of the revocation list, but did not sign \
         it ({0}); get the list again, or remove it if it was signed with an old key"
    )]
    Foreign(String),
}

/// The number of remembered keys that did not sign a list. Each certificate of an intermediate has
/// one.
const MOST_OTHERS: usize = 64;
