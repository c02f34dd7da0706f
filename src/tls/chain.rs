//! Finds the problems in a chain of ours that peers will find, and reports them first.

mod authority;
mod path;

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::SystemTime;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use self::authority::Unfit;
use self::path::{Link, path};
use super::certs::{Role, ip};
use super::name::{self, Normal};
use super::pinned;
use super::roots::Roots;
use super::signed::Signed;
use super::time::system_time;
use super::x509::parse;

/// A certificate with a validity period: part of a chain, or an authority.
pub(crate) struct Dated {
    pub what: String,
    pub from: SystemTime,
    pub until: SystemTime,
}

/// The certificates after the first one of a chain.
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

/// The authorities that the configuration names, in a stable order.
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

/// The problems that do not depend on the current time.
pub(crate) fn flaws(chain: &[CertificateDer<'static>], role: Role) -> Vec<Flaw> {
    let links = Link::all(chain);
    let path = path(&links);
    let mut flaws = disorder(&path);
    flaws.extend(strays(&links, &path));
    let is_gap = |it: &Flaw| matches!(it, Flaw::NotIssuer { .. } | Flaw::OtherKey { .. });
    let has_gap = flaws.iter().any(is_gap);
    if let Some(last) = path.last()
        && !has_gap
        && is_from_an_intermediate(last)
    {
        flaws.push(Flaw::NoIssuer(last.issuer_name()));
    }
    flaws.extend(unfit(&path, role));
    flaws.extend(path.iter().filter_map(|it| weakly_signed(it)));
    flaws.extend(path.first().into_iter().flat_map(|own| of_own(own, role)));
    flaws
}

/// Certificates that stand before one that they have issued.
fn disorder(path: &[&Link<'_>]) -> Vec<Flaw> {
    let pairs = path.windows(2);
    let wrong = pairs.filter(|pair| pair[1].nth < pair[0].nth);
    let flaws = wrong.map(|pair| Flaw::Order {
        nth: pair[1].nth,
        name: pair[1].name(),
        issued: pair[0].nth,
        issued_name: pair[0].name(),
    });
    flaws.collect()
}

/// Certificates that are not part of the path. One that has issued another certificate of the file
/// is not reported: it may be a second certificate of an authority, issued by another root.
fn strays(links: &[Link<'_>], path: &[&Link<'_>]) -> Vec<Flaw> {
    let is_on_it = |it: &Link<'_>| path.iter().any(|on| on.nth == it.nth);
    let stray = links.iter().filter(|it| !is_on_it(it));
    let flaws = stray.filter_map(|it| {
        let (nth, name) = (it.nth, it.name());
        if let Some(same) = links[..nth - 1].iter().find(|same| same.der == it.der) {
            let first = same.nth;
            return Some(Flaw::Twice { nth, name, first });
        }
        match path.last() {
            _ if it.is_above_any(links) => None,
            Some(end) if it.has_name_of_issuer(end) => Some(Flaw::OtherKey {
                nth,
                name,
                issued: end.name(),
            }),
            Some(end) if !end.is_its_own() && !PLATFORM.contains(&end.issuer) => {
                Some(Flaw::NotIssuer {
                    nth,
                    name,
                    issued: end.name(),
                    issuer: end.issuer_name(),
                })
            }
            _ => Some(Flaw::Stray { nth, name }),
        }
    });
    flaws.collect()
}

fn unfit(path: &[&Link<'_>], role: Role) -> Vec<Flaw> {
    let above = (2..=path.len()).map(|length| &path[..length]);
    let unfit = above.filter_map(|path| Some((*path.last()?, authority::unfit(path, role))));
    let flaws = unfit.flat_map(|(it, why)| {
        why.into_iter().map(|why| Flaw::Unfit {
            nth: it.nth,
            name: it.name(),
            is_root: it.is_its_own(),
            why,
        })
    });
    flaws.collect()
}

/// The signature of a root is not checked by peers.
fn weakly_signed(link: &Link<'_>) -> Option<Flaw> {
    let signed = Signed::read(link.der).ok()?;
    let hash = signed.broken_hash().filter(|_| !link.is_its_own())?;
    Some(Flaw::WeakHash {
        nth: link.nth,
        name: link.name(),
        hash,
    })
}

fn of_own(own: &Link<'_>, role: Role) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    if !pinned::is_for(&own.certificate, role) {
        flaws.push(Flaw::Purpose(role));
    }
    if let Ok(Some(usage)) = own.certificate.key_usage()
        && !usage.value.digital_signature()
    {
        flaws.push(Flaw::KeyUsage);
    }
    if role == Role::Server && !has_host(&own.certificate) {
        flaws.push(Flaw::NoHost);
    }
    flaws
}

/// Whether it has a name that clients compare. Most clients ignore the common name (RFC 9525 §2).
fn has_host(certificate: &X509Certificate<'_>) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    let mut names = names.value.general_names.iter();
    names.any(|it| matches!(it, GeneralName::DNSName(_) | GeneralName::IPAddress(_)))
}

/// The issuer of the last certificate of a chain, if the chain does not contain it.
pub(crate) struct Beyond {
    pub name: String,
    /// Whether it is a root of this machine. Other machines may have other roots.
    pub is_root_here: bool,
}

/// `None` if the chain contains its root.
pub(crate) fn beyond(chain: &[CertificateDer<'static>]) -> Option<Beyond> {
    let links = Link::all(chain);
    let path = path(&links);
    let last = path.last().filter(|it| !it.is_its_own())?;
    Some(Beyond {
        name: last.issuer_name(),
        is_root_here: PLATFORM.contains(&last.issuer),
    })
}

/// Whether clients refuse the certificate without a staple (RFC 7633).
pub(crate) fn must_staple(certificate: &CertificateDer<'_>) -> bool {
    let features = parse(certificate).ok().and_then(|certificate| {
        let mut extensions = certificate.extensions().iter();
        let found = extensions.find(|it| it.oid.to_id_string() == TLS_FEATURES)?;
        Some(found.value.to_vec())
    });
    // A SEQUENCE of small numbers; 5 is status_request.
    features.is_some_and(|features| features.windows(3).any(|it| it == [2, 1, 5]))
}

/// Whether the certificate says where to get its issuer's certificate, as public authorities do,
/// and the issuer is not a root of this machine. For a private authority this cannot be found out.
fn is_from_an_intermediate(link: &Link<'_>) -> bool {
    let says_where = link.certificate.extensions().iter().any(|it| {
        let ParsedExtension::AuthorityInfoAccess(access) = it.parsed_extension() else {
            return false;
        };
        let mut places = access.accessdescs.iter();
        places.any(|place| place.access_method.to_id_string() == CA_ISSUERS)
    });
    !link.is_its_own() && says_where && !PLATFORM.contains(&link.issuer)
}

/// The names of the roots of this machine. Loaded once: they are compared with possibly thousands
/// of certificates.
static PLATFORM: LazyLock<HashSet<Normal>> = LazyLock::new(|| {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let names = certificates.iter().filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Normal::of(certificate.subject().as_raw()))
    });
    names.collect()
});

/// A problem for which some or all peers refuse the chain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Flaw {
    #[error(
        "certificate {nth} of the chain ({name}) did not issue the one before it ({issued}); put \
         the intermediate certificate of {issuer} there, or remove certificate {nth} if {issuer} \
         is a root"
    )]
    NotIssuer {
        nth: usize,
        name: String,
        issued: String,
        issuer: String,
    },
    #[error(
        "certificate {nth} of the chain ({name}) has the name of the issuer of {issued}, but not \
         its key; replace it with the certificate of this authority that has the right key"
    )]
    OtherKey {
        nth: usize,
        name: String,
        issued: String,
    },
    #[error("certificate {nth} of the chain ({name}) issued none of the others; remove it")]
    Stray { nth: usize, name: String },
    #[error(
        "certificate {nth} of the chain ({name}) is the same as certificate {first}; remove one of them"
    )]
    Twice {
        nth: usize,
        name: String,
        first: usize,
    },
    #[error(
        "certificate {nth} of the chain ({name}) is before certificate {issued} ({issued_name}), \
         which it issued; move it after that one"
    )]
    Order {
        nth: usize,
        name: String,
        issued: usize,
        issued_name: String,
    },
    #[error(
        "the certificate of the issuer {0} is missing from the chain, and is probably an \
         intermediate; append it, or clients that do not have it refuse the chain"
    )]
    NoIssuer(String),
    #[error(
        "{} refuse the chain: its certificate {nth} ({name}) {why}",
        match .is_root { true => "many peers", false => "peers" }
    )]
    Unfit {
        nth: usize,
        name: String,
        is_root: bool,
        why: Unfit,
    },
    #[error(
        "certificate {nth} of the chain ({name}) is signed with {hash}, which current peers \
         refuse; have it issued again with SHA-256"
    )]
    WeakHash {
        nth: usize,
        name: String,
        hash: &'static str,
    },
    #[error(
        "the certificate cannot be used for {}: its extended key usage does not have {}; peers \
         refuse it",
        words_of(*.0).0,
        words_of(*.0).1
    )]
    Purpose(Role),
    #[error(
        "the key usage of the certificate does not have digitalSignature; browsers and others \
         refuse it; have it issued again with digitalSignature"
    )]
    KeyUsage,
    #[error(
        "the certificate has no DNS name or IP address as subjectAltName; browsers and most other \
         clients refuse it and ignore its common name; have it issued again with \
         `subjectAltName=DNS:NAME`"
    )]
    NoHost,
}

impl Flaw {
    /// Whether every peer refuses it. Some do not check what the roots in their own list may do.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::Unfit { is_root, .. } => !is_root,
            Self::Purpose(_) => true,
            Self::NotIssuer { .. }
            | Self::OtherKey { .. }
            | Self::Stray { .. }
            | Self::Twice { .. }
            | Self::Order { .. }
            | Self::NoIssuer(_)
            | Self::WeakHash { .. }
            | Self::KeyUsage
            | Self::NoHost => false,
        }
    }
}

/// Who has the role, and the purpose that the certificate needs for it.
fn words_of(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::Server => ("servers", "serverAuth"),
        Role::Client => ("clients", "clientAuth"),
    }
}

const TLS_FEATURES: &str = "1.3.6.1.5.5.7.1.24";
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";
