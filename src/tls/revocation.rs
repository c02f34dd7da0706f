//! Checks the whole path from a certificate to its authority against revocation lists.
//!
//! A certificate is revoked if any list of its issuer contains it. A list belongs to the key that
//! signed it: names are written in several ways, and an authority keeps its name when it gets a new
//! key. No list is ignored. If no authority has signed a list, its signer may be an intermediate
//! that only clients bring. Until one is found, the list is open: a client is refused if its issuer
//! has the name of an open list but not its key.

mod list;

use std::collections::HashMap;
use std::iter::once;

use der::Decode;
use der::asn1::AnyRef;
use tokio_rustls::rustls::pki_types::CertificateRevocationListDer;
use webpki::{Error, VerifiedPath};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

pub(crate) use self::list::List;
use super::name::Normal;
use super::pem::Pem;
use super::signed::Signed;

/// The revocation lists of a file, each with its line. A file with anything else is an error,
/// because a list that was skipped would not be in force.
pub(crate) fn lists_in(
    content: &[u8],
) -> Result<Vec<(CertificateRevocationListDer<'static>, usize)>, String> {
    let pem = Pem::read(content).map_err(|error| format!("not PEM: {error}"))?;
    // A file in DER contains exactly one list.
    if pem.is_binary() {
        return Ok(vec![(content.to_vec().into(), 1)]);
    }
    if let Some(line) = pem.no_certificate() {
        return Err(format!(
            "the CERTIFICATE block in line {line} is not a certificate; the label of a revocation \
             list is X509 CRL"
        ));
    }
    match pem.lists() {
        lists if lists.is_empty() => Err(format!(
            "not a certificate revocation list (RFC 5280 §5) in PEM or DER: the file contains {}",
            pem.holds()
        )),
        lists => Ok(lists),
    }
}

/// The lists of all authorities.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// The lists by the key that signed them, which is the content of a SubjectPublicKeyInfo.
    by_key: HashMap<Box<[u8]>, Vec<List>>,
    /// Lists of intermediates, whose keys are in the chains of clients.
    open: Vec<List>,
}

impl Revocations {
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.open.is_empty()
    }

    pub(super) fn lists(&self) -> impl Iterator<Item = &List> {
        self.by_key.values().flatten().chain(&self.open)
    }

    /// # Errors
    ///
    /// A certificate of the path is revoked, or a list in the name of its issuer has another or an
    /// unknown signer.
    pub(super) fn check(&self, path: &VerifiedPath<'_>) -> Result<(), Error> {
        let own: &webpki::Cert<'_> = path.end_entity();
        let certificates = once(own).chain(path.intermediate_certificates());
        let mut issuers = path.intermediate_certificates();
        for certificate in certificates {
            let issuer = match issuers.next() {
                Some(between) => Issuer::Between(between),
                None => Issuer::Anchor(&path.anchor().subject_public_key_info),
            };
            let key = issuer.key();
            let of_key = self.by_key.get(&*key).into_iter().flatten();
            let opened = self.open.iter().filter(|list| list.is_by(&key));
            let mut lists = of_key.chain(opened).peekable();
            let has_lists = lists.peek().is_some();
            if lists.any(|it| it.has(certificate.serial())) {
                return Err(Error::CertRevoked);
            }
            self.ensure_none_is_open(certificate.issuer(), &issuer, has_lists)?;
        }
        Ok(())
    }

    /// Like [`Self::check`], for a certificate that is itself trusted.
    pub(super) fn check_trusted(
        &self,
        certificate: &X509Certificate<'_>,
        der: &[u8],
    ) -> Result<(), Error> {
        let signed = Signed::read(der).map_err(|_| Error::BadDer)?;
        let is_by_signer = |list: &List| list.signer().is_some_and(|key| signed.is_by_content(key));
        let mut lists = self.lists();
        if lists.any(|list| list.has(certificate.raw_serial()) && is_by_signer(list)) {
            return Err(Error::CertRevoked);
        }
        let issuer = Normal::of(certificate.issuer().as_raw());
        let mut open = self.open.iter().filter(|list| !list.is_matched());
        match open.any(|list| list.is_named(&issuer)) {
            true => Err(Error::UnknownRevocationStatus),
            false => Ok(()),
        }
    }

    /// An open list in the issuer's name may revoke the certificate. It does not if the list names
    /// a former key of the issuer and the issuer has lists of its present key.
    fn ensure_none_is_open(
        &self,
        name: &[u8],
        issuer: &Issuer<'_>,
        has_lists: bool,
    ) -> Result<(), Error> {
        let mut open = self.open.iter().filter(|it| !it.is_matched()).peekable();
        if open.peek().is_none() {
            return Ok(());
        }
        let name = Normal::of_content(name);
        let identifier = issuer.key_identifier().filter(|_| has_lists);
        match open.any(|it| it.is_named(&name) && !it.is_of_another(identifier.as_deref())) {
            true => Err(Error::UnknownRevocationStatus),
            false => Ok(()),
        }
    }
}

impl FromIterator<List> for Revocations {
    fn from_iter<T: IntoIterator<Item = List>>(lists: T) -> Self {
        let mut revocations = Self::default();
        for list in lists {
            match list.signer() {
                Some(key) => {
                    let key = key.into();
                    revocations.by_key.entry(key).or_default().push(list);
                }
                None => revocations.open.push(list),
            }
        }
        revocations
    }
}

/// The issuer of a certificate on the path.
enum Issuer<'a> {
    Between(&'a webpki::Cert<'a>),
    /// The content of its SubjectPublicKeyInfo.
    Anchor(&'a [u8]),
}

impl Issuer<'_> {
    fn key(&self) -> Vec<u8> {
        match self {
            Self::Between(certificate) => content(&certificate.subject_public_key_info()),
            Self::Anchor(key) => key.to_vec(),
        }
    }

    /// Only the key of an anchor is known.
    fn key_identifier(&self) -> Option<Vec<u8>> {
        let Self::Between(certificate) = self else {
            return None;
        };
        let der = certificate.der();
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        parsed
            .extensions()
            .iter()
            .find_map(|it| match it.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    }
}

/// The content of the outer SEQUENCE of a key, which is the form that trust anchors have.
fn content(key: &[u8]) -> Vec<u8> {
    AnyRef::from_der(key).map_or_else(|_| Vec::new(), |key| key.value().to_vec())
}
