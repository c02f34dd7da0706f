//! Which certificate a client is shown: by the name that it asks for, then by what it can verify.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{SignatureAlgorithm, SignatureScheme};

use super::certs::Certificate;
use crate::pattern::normal;

/// The certificates of a listener. Names are looked up, however many there are.
pub(crate) struct Hosts {
    certificates: Vec<Certificate>,
    /// In lower case; `*.example.com` is under `*.example.com`. Indices in the order in which they
    /// are tried.
    by_name: HashMap<String, Vec<usize>>,
    /// For a client that asks for no name of these, or for none at all.
    fallback: Vec<usize>,
    unknown_sni: UnknownSni,
    /// Whether one is for an IP address; most have none, and connections need not ask.
    has_addresses: bool,
}

/// What becomes of a client that asks for a name that no certificate has, or for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownSni {
    /// It is shown the first certificate.
    First,
    /// It is refused with `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

impl Hosts {
    /// # Panics
    ///
    /// Without any certificate.
    pub(crate) fn new(certificates: Vec<Certificate>, unknown_sni: UnknownSni) -> Self {
        let first = certificates.first().expect("a listener has a certificate");
        let mut order: Vec<usize> = (0..certificates.len()).collect();
        // A signature with RSA costs ten times one with an elliptic curve.
        order.sort_by_key(|index| certificates[*index].algorithm() == SignatureAlgorithm::RSA);
        let mut by_name = HashMap::<String, Vec<usize>>::new();
        for index in &order {
            for name in certificates[*index].names() {
                let indices = by_name.entry(name.to_ascii_lowercase()).or_default();
                if indices.last() != Some(index) {
                    indices.push(*index);
                }
            }
        }
        // The first, and those that are there beside it for clients which cannot verify it.
        let mut fallback = vec![0];
        for index in order {
            let names = certificates[index].names();
            if index != 0 && names.iter().any(|name| first.names().contains(name)) {
                fallback.push(index);
            }
        }
        fallback.sort_by_key(|index| certificates[*index].algorithm() == SignatureAlgorithm::RSA);
        let has_addresses = by_name.keys().any(|name| name.parse::<IpAddr>().is_ok());
        Self {
            certificates,
            has_addresses,
            by_name,
            fallback,
            unknown_sni,
        }
    }

    pub(crate) fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// Whether one of them is the certificate whose key everybody has.
    pub(crate) fn is_for_development(&self) -> bool {
        self.certificates
            .iter()
            .any(Certificate::is_for_development)
    }

    /// Whether there is a certificate for a client that asks for this name.
    pub(super) fn has(&self, sni: Option<&str>) -> bool {
        self.unknown_sni == UnknownSni::First || self.named(sni).is_some()
    }

    /// The certificate for a client that can verify any.
    pub(crate) fn shown(&self, sni: Option<&str>) -> Option<&Certificate> {
        self.choose(sni, ALL)
    }

    /// An exact name first, then a wildcard for its first label (RFC 9525 §6.3).
    fn named(&self, sni: Option<&str>) -> Option<&[usize]> {
        let name = normal(sni?);
        let found = self.by_name.get(&*name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        });
        found.map(Vec::as_slice)
    }

    fn choose(&self, sni: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Certificate> {
        if !self.has(sni) {
            return None;
        }
        let candidates = self.named(sni).unwrap_or(&self.fallback);
        let mut candidates = candidates.iter().map(|index| &self.certificates[*index]);
        let first = candidates.clone().next();
        // If it can verify none of them, rustls says so with the alert for that.
        candidates
            .find(|certificate| certificate.can_sign(schemes))
            .or(first)
    }
}

/// For clients that ask for no name: the certificates that have the address they connected to.
#[derive(Debug)]
pub(super) struct AtAddress {
    hosts: Arc<Hosts>,
    address: String,
}

impl Hosts {
    /// `None` if no certificate has this address.
    pub(super) fn at(self: &Arc<Self>, address: IpAddr) -> Option<AtAddress> {
        if !self.has_addresses {
            return None;
        }
        let address = address.to_canonical().to_string();
        self.by_name.contains_key(&address).then(|| AtAddress {
            hosts: Arc::clone(self),
            address,
        })
    }
}

impl ResolvesServerCert for AtAddress {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let chosen = self.hosts.choose(Some(&self.address), schemes);
        chosen.map(Certificate::key)
    }
}

impl ResolvesServerCert for Hosts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
            .map(Certificate::key)
    }
}

/// The rest follows from it.
impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("certificates", &self.certificates)
            .field("unknown_sni", &self.unknown_sni)
            .finish_non_exhaustive()
    }
}

/// With which every kind of key can sign.
const ALL: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];
