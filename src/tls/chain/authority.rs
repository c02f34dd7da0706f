//! Whether an authority may issue what it has issued (RFC 5280 §6.1.4).

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};

use super::path::Link;
use crate::tls::certs::Role;
use crate::tls::pinned;

/// Why peers refuse a chain with this authority.
#[derive(Debug)]
pub(crate) enum Unfit {
    NoAuthority,
    NoCertSign,
    Purpose(Role),
    TooLong { allowed: u32, below: usize },
    Name(String),
}

/// What is wrong with the last certificate of `path`, which leads up from our own.
pub(super) fn unfit(path: &[&Link<'_>], role: Role) -> Vec<Unfit> {
    let [own, between @ .., authority] = path else {
        return Vec::new();
    };
    let certificate = &authority.certificate;
    let mut unfit = Vec::new();
    // If it is not an authority, nothing else matters.
    if !is_authority(authority) {
        return vec![Unfit::NoAuthority];
    }
    if let Ok(Some(usage)) = certificate.key_usage()
        && !usage.value.key_cert_sign()
    {
        unfit.push(Unfit::NoCertSign);
    }
    if !pinned::is_for(certificate, role) {
        unfit.push(Unfit::Purpose(role));
    }
    let below = between.iter().filter(|it| !it.is_its_own()).count();
    if let Some(allowed) = longest(certificate)
        && usize::try_from(allowed).is_ok_and(|allowed| below > allowed)
    {
        unfit.push(Unfit::TooLong { allowed, below });
    }
    let refused = refused_name(certificate, &own.certificate);
    unfit.extend(refused.map(Unfit::Name));
    unfit
}

/// Roots of version 1 have no extensions, and count as authorities because clients know them.
fn is_authority(link: &Link<'_>) -> bool {
    match link.certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        Ok(None) => link.is_its_own(),
        Err(_) => false,
    }
}

fn longest(certificate: &X509Certificate<'_>) -> Option<u32> {
    let constraints = certificate.basic_constraints().ok()??;
    constraints.value.path_len_constraint
}

/// The first name of `own` that the authority may not issue certificates for.
fn refused_name(authority: &X509Certificate<'_>, own: &X509Certificate<'_>) -> Option<String> {
    let constraints = authority.name_constraints().ok()??.value;
    let names = own.subject_alternative_name().ok()??.value;
    let excluded = constraints.excluded_subtrees.as_deref().unwrap_or_default();
    let permitted = constraints
        .permitted_subtrees
        .as_deref()
        .unwrap_or_default();
    let is_refused = |name: &&GeneralName<'_>| {
        let has = |trees: &[GeneralSubtree<'_>]| {
            let within: Vec<bool> = trees
                .iter()
                .filter_map(|it| within(name, &it.base))
                .collect();
            (!within.is_empty()).then(|| within.contains(&true))
        };
        has(excluded) == Some(true) || has(permitted) == Some(false)
    };
    let refused = names.general_names.iter().find(is_refused)?;
    Some(match refused {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => super::ip(bytes).map_or("?".into(), |ip| ip.to_string()),
        _ => "?".into(),
    })
}

/// `None` if the constraint is for another kind of name and does not apply.
fn within(name: &GeneralName<'_>, base: &GeneralName<'_>) -> Option<bool> {
    match (name, base) {
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => Some(is_below(
            &name.to_ascii_lowercase(),
            &base.to_ascii_lowercase(),
        )),
        (GeneralName::IPAddress(address), GeneralName::IPAddress(network)) => {
            // An address of the other IP version is another kind of name (RFC 5280 §4.2.1.10).
            (network.len() == 2 * address.len()).then(|| is_in(address, network))
        }
        _ => None,
    }
}

/// `example.com` includes itself and all names below it; `.example.com` only the names below it; an
/// empty base includes every name.
fn is_below(name: &str, base: &str) -> bool {
    match name.strip_suffix(base) {
        Some(rest) => {
            rest.is_empty() || base.is_empty() || base.starts_with('.') || rest.ends_with('.')
        }
        None => false,
    }
}

/// A network consists of an address and a mask.
fn is_in(address: &[u8], network: &[u8]) -> bool {
    let (base, mask) = network.split_at(address.len());
    let mut bytes = address.iter().zip(base).zip(mask);
    bytes.all(|((address, base), mask)| address & mask == base & mask)
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAuthority => f.write_str(
                "is not a certificate authority; issue it again with \
                 `basicConstraints=critical,CA:TRUE`",
            ),
            Self::NoCertSign => f.write_str(
                "may not issue certificates, because its key usage does not have keyCertSign; \
                 issue it again with keyCertSign",
            ),
            Self::Purpose(role) => {
                let (who, usage) = super::words_of(*role);
                write!(
                    f,
                    "may not issue certificates for {who}, because its extended key usage does not \
                     have {usage}; issue it again with {usage}, or without an extended key usage"
                )
            }
            Self::TooLong { allowed, below } => write!(
                f,
                "has a pathlen of {allowed}, but the chain has more authorities below it \
                 ({below}); issue it again with a larger pathlen or without one"
            ),
            Self::Name(name) => write!(
                f,
                "may not issue certificates for {name}, because of its name constraints; use a \
                 certificate without this name, or one from another authority"
            ),
        }
    }
}
