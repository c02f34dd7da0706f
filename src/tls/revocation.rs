//! What authorities have revoked, held against the whole path from a certificate to its authority.
//!
//! A certificate is revoked if any list of its issuer has it. rustls asks one list for each issuer, the
//! first by name: but a file is appended to, and an authority with a new key has its old name.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::iter::once;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use der::Decode;
use der::asn1::AnyRef;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use webpki::{BorrowedCertRevocationList, CertRevocationList, Error, VerifiedPath};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::signed::Signed;

/// The lists of all authorities.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// By the name of who has revoked, in DER.
    by_issuer: HashMap<Box<[u8]>, Vec<List>>,
}

impl Revocations {
    pub(super) fn is_empty(&self) -> bool {
        self.by_issuer.is_empty()
    }

    /// # Errors
    ///
    /// A certificate of the path is revoked.
    pub(super) fn check(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        let own: &webpki::Cert<'_> = path.end_entity();
        let certificates = once(own).chain(path.intermediate_certificates());
        let keys = path
            .intermediate_certificates()
            .map(|issuer| content(&issuer.subject_public_key_info()))
            .chain(once(path.anchor().subject_public_key_info.to_vec()));
        for (certificate, key) in certificates.zip(keys) {
            let lists = self.by_issuer.get(certificate.issuer());
            let mut lists = lists.into_iter().flatten();
            if lists.any(|list| list.has(certificate.serial()) && list.is_by(&key)) {
                return Err(Error::CertRevoked);
            }
        }
        Ok(())
    }
}

impl FromIterator<List> for Revocations {
    fn from_iter<T: IntoIterator<Item = List>>(lists: T) -> Self {
        let mut by_issuer = HashMap::<_, Vec<_>>::new();
        for list in lists {
            by_issuer.entry(list.issuer.clone()).or_default().push(list);
        }
        Self { by_issuer }
    }
}

/// A certificate revocation list (RFC 5280 §5), whole and direct.
pub(crate) struct List {
    issuer: Box<[u8]>,
    /// Serial numbers.
    revoked: HashSet<Box<[u8]>>,
    der: CertificateRevocationListDer<'static>,
    /// With which key it was signed, once that is known: one of an authority between is not before
    /// a certificate of it comes.
    signer: OnceLock<Box<[u8]>>,
    next_update: Option<SystemTime>,
}

impl List {
    /// # Errors
    ///
    /// It is no such list; or one of the authorities has its name, and none that has it has signed
    /// it: whom it is from nobody can tell.
    pub(crate) fn new(
        der: CertificateRevocationListDer<'static>,
        authorities: &RootCertStore,
    ) -> Result<Self, ListError> {
        let (_, parsed) = CertificateRevocationList::from_der(&der)
            .map_err(|error| ListError::Malformed(error.to_string()))?;
        let next_update = parsed.next_update().map(|time| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.timestamp().max(0).unsigned_abs())
        });
        let list = BorrowedCertRevocationList::from_der(&der).map_err(ListError::Unusable)?;
        let revoked = (&list).into_iter();
        let revoked = revoked
            .map(|entry| entry.map(|entry| entry.serial_number.into()))
            .collect::<Result<_, _>>()
            .map_err(ListError::Unusable)?;
        let issuer = CertRevocationList::from(list).issuer().into();
        let list = Self {
            issuer,
            revoked,
            der,
            signer: OnceLock::new(),
            next_update,
        };
        let namesakes = authorities.roots.iter();
        let mut namesakes = namesakes
            .filter(|authority| *authority.subject == *list.issuer)
            .peekable();
        let is_foreign = namesakes.peek().is_some()
            && !namesakes.any(|authority| list.is_by(&authority.subject_public_key_info));
        match is_foreign {
            true => Err(ListError::Foreign),
            false => Ok(list),
        }
    }

    /// When it was to be replaced, if that was before `now`.
    pub(crate) fn is_stale(&self, now: SystemTime) -> Option<SystemTime> {
        self.next_update.filter(|next| *next < now)
    }

    fn has(&self, serial: &[u8]) -> bool {
        self.revoked.contains(serial)
    }

    /// Whether it was signed with this key. Asked once for the right one: a long list takes long.
    fn is_by(&self, key: &[u8]) -> bool {
        if let Some(signer) = self.signer.get() {
            return **signer == *key;
        }
        let is_by = Signed::read(&self.der).is_ok_and(|signed| signed.is_by_content(key));
        if is_by {
            // Another thread may have found the same.
            let _ = self.signer.set(key.into());
        }
        is_by
    }
}

/// Without what may be megabytes.
impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("revoked", &self.revoked.len())
            .field("next_update", &self.next_update)
            .finish_non_exhaustive()
    }
}

/// What is in the outer SEQUENCE of a key, which is how an authority's is given.
fn content(key: &[u8]) -> Vec<u8> {
    AnyRef::from_der(key).map_or_else(|_| Vec::new(), |key| key.value().to_vec())
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    #[error("not a certificate revocation list (RFC 5280 §5), in PEM or DER: {0}")]
    Malformed(String),
    #[error("the revocation list cannot be used: {0}")]
    Unusable(Error),
    #[error(
        "an authority of `client_ca` has the name in the revocation list, and has not signed it; \
         get the list again, or take one of a former key away"
    )]
    Foreign,
}
