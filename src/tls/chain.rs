//! What every peer will find wrong with a chain of ours, said before it does.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::certs::{Role, parse};
use super::name::{self, Normal};
use super::pinned;
use super::roots::Roots;
use super::signed::Signed;
use super::time::system_time;

/// Something in a chain or among authorities that has dates.
pub(crate) struct Dated {
    pub what: String,
    pub from: SystemTime,
    pub until: SystemTime,
}

/// What is behind the first certificate of a chain.
pub(crate) fn behind(chain: &[CertificateDer<'static>]) -> Vec<Dated> {
    let numbered = (2..).zip(chain.iter().skip(1));
    let dated = numbered.filter_map(|(nth, der)| {
        let certificate = parse(der).ok()?;
        let name = name::shown(certificate.subject());
        Some(dated(
            format!("certificate {nth} of the chain ({name})"),
            &certificate,
        ))
    });
    dated.collect()
}

/// Authorities that were named on purpose, in an order that does not change.
pub(crate) fn authorities(roots: &Roots) -> Vec<Dated> {
    let dated = roots.certificates().filter_map(|der| {
        let certificate = parse(der).ok()?;
        let name = name::shown(certificate.subject());
        Some(self::dated(format!("the authority {name}"), &certificate))
    });
    let mut dated: Vec<Dated> = dated.collect();
    dated.sort_by(|a, b| (&a.what, a.until).cmp(&(&b.what, b.until)));
    dated
}

fn dated(what: String, certificate: &X509Certificate<'_>) -> Dated {
    let validity = certificate.validity();
    Dated {
        what,
        from: system_time(validity.not_before),
        until: system_time(validity.not_after),
    }
}

/// What is wrong with it that has nothing to do with today.
pub(crate) fn flaws(chain: &[CertificateDer<'static>], role: Role) -> Vec<Flaw> {
    let certificates: Vec<_> = chain.iter().filter_map(|der| parse(der).ok()).collect();
    let mut flaws = Vec::new();
    for (index, pair) in certificates.windows(2).enumerate() {
        if !has_issued(&pair[1], &pair[0], &chain[index]) {
            flaws.push(Flaw::NotIssuer {
                nth: index + 2,
                name: name::shown(pair[1].subject()),
                issued: name::shown(pair[0].subject()),
                issuer: name::shown(pair[0].issuer()),
            });
        }
    }
    if let Some(last) = certificates.last()
        && is_from_an_intermediate(last)
    {
        flaws.push(Flaw::NoIssuer(name::shown(last.issuer())));
    }
    if let Some(own) = certificates.first()
        && !pinned::is_for(own, role)
    {
        flaws.push(Flaw::Purpose(role));
    }
    flaws
}

/// Who has issued the last certificate of a chain, if that is not in it: a root, or one that is missing.
pub(crate) fn issuer_beyond(chain: &[CertificateDer<'static>]) -> Option<String> {
    let last = parse(chain.last()?).ok()?;
    let is_its_own = last.subject().as_raw() == last.issuer().as_raw();
    (!is_its_own).then(|| name::shown(last.issuer()))
}

/// Whether clients give up on it without a staple (RFC 7633).
pub(crate) fn must_staple(certificate: &CertificateDer<'_>) -> bool {
    let features = parse(certificate).ok().and_then(|certificate| {
        let mut extensions = certificate.extensions().iter();
        let found = extensions.find(|it| it.oid.to_id_string() == TLS_FEATURES)?;
        Some(found.value.to_vec())
    });
    // A SEQUENCE of small numbers: 5 is status_request.
    features.is_some_and(|features| features.windows(3).any(|it| it == [2, 1, 5]))
}

/// By name, and by key where the signature can be verified.
fn has_issued(issuer: &X509Certificate<'_>, issued: &X509Certificate<'_>, der: &[u8]) -> bool {
    let is_named = Normal::of(issuer.subject().as_raw()) == Normal::of(issued.issuer().as_raw());
    let is_signed = Signed::read(der)
        .is_ok_and(|signed| !signed.is_verifiable() || signed.is_by(issuer.public_key().raw));
    is_named && is_signed
}

/// One that says where its issuer's certificate can be had, as public authorities make them, and whose
/// issuer is no root that this machine knows. Of a private one nobody can tell.
fn is_from_an_intermediate(certificate: &X509Certificate<'_>) -> bool {
    let is_its_own = certificate.subject().as_raw() == certificate.issuer().as_raw();
    let says_where = certificate.extensions().iter().any(|it| {
        let ParsedExtension::AuthorityInfoAccess(access) = it.parsed_extension() else {
            return false;
        };
        let mut places = access.accessdescs.iter();
        places.any(|place| place.access_method.to_id_string() == CA_ISSUERS)
    });
    !is_its_own && says_where && !PLATFORM.contains(&Normal::of(certificate.issuer().as_raw()))
}

/// The names of the roots of this machine: asked for each of thousands of certificates.
static PLATFORM: LazyLock<HashSet<Normal>> = LazyLock::new(|| {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let names = certificates.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Normal::of(certificate.subject().as_raw()))
    });
    names.collect()
});

/// What peers will refuse, or some of them.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    #[error(
        "certificate {nth} of the chain ({name}) has not issued the one before it ({issued}); put the \
         intermediate certificate of {issuer} there"
    )]
    NotIssuer {
        nth: usize,
        name: String,
        issued: String,
        issuer: String,
    },
    #[error(
        "the chain ends before its issuer {0}, an intermediate authority as far as can be seen here; \
         append its certificate, or clients that do not have it refuse the chain"
    )]
    NoIssuer(String),
    #[error(
        "the certificate is not for {}: its extended key usage does not have {}, and peers refuse it",
        match .0 { Role::Server => "servers", Role::Client => "clients" },
        match .0 { Role::Server => "serverAuth", Role::Client => "clientAuth" }
    )]
    Purpose(Role),
}

const TLS_FEATURES: &str = "1.3.6.1.5.5.7.1.24";
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";
