//! The path through a chain from our certificate upwards, whatever the order in the file.
//!
//! ```text
//! file:  leaf  root  stray  intermediate        path:  leaf ─► intermediate ─► root
//!        1     2      3         4                       1          4            2
//! ```

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::tls::name::{self, Normal};
use crate::tls::signed::Signed;
use crate::tls::x509::parse;

/// A certificate of the file.
pub(super) struct Link<'a> {
    /// The position in the file, counted from 1.
    pub nth: usize,
    pub der: &'a CertificateDer<'static>,
    pub certificate: X509Certificate<'a>,
    subject: Normal,
    pub issuer: Normal,
}

impl<'a> Link<'a> {
    pub(super) fn all(chain: &'a [CertificateDer<'static>]) -> Vec<Self> {
        let links = (1..).zip(chain).filter_map(|(nth, der)| {
            let certificate = parse(der).ok()?;
            Some(Self {
                nth,
                der,
                subject: Normal::of(certificate.subject().as_raw()),
                issuer: Normal::of(certificate.issuer().as_raw()),
                certificate,
            })
        });
        links.collect()
    }

    /// Its name, for messages.
    pub(super) fn name(&self) -> String {
        name::shown(self.certificate.subject())
    }

    pub(super) fn issuer_name(&self) -> String {
        name::shown(self.certificate.issuer())
    }

    /// Whether issuer and subject are the same, as for a root and for other self-signed
    /// certificates.
    pub(super) fn is_its_own(&self) -> bool {
        self.subject == self.issuer
    }

    pub(super) fn has_name_of_issuer(&self, issued: &Self) -> bool {
        self.subject == issued.issuer
    }

    /// Whether the names match, and the signature too if it can be verified.
    fn has_issued(&self, issued: &Self) -> bool {
        let is_signed = || {
            Signed::read(issued.der).is_ok_and(|signed| {
                !signed.is_verifiable() || signed.is_by(self.certificate.public_key().raw)
            })
        };
        self.nth != issued.nth && self.has_name_of_issuer(issued) && is_signed()
    }

    /// Whether it has issued one of these.
    pub(super) fn is_above_any(&self, links: &[Self]) -> bool {
        links.iter().any(|it| self.has_issued(it))
    }
}

/// The path from the first certificate up to a root, or to the last one whose issuer is in the
/// file. It is empty only if there are no certificates.
pub(super) fn path<'l, 'a>(links: &'l [Link<'a>]) -> Vec<&'l Link<'a>> {
    let mut path: Vec<&Link<'_>> = links.first().into_iter().collect();
    while let Some(last) = path.last().filter(|it| !it.is_its_own()) {
        let is_on_it = |it: &&Link<'_>| path.iter().any(|on| on.der == it.der);
        let mut others = links.iter().filter(|it| !is_on_it(it));
        let Some(issuer) = others.find(|it| it.has_issued(last)) else {
            break;
        };
        path.push(issuer);
    }
    path
}
