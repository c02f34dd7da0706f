//! Chooses the certificate for a client: by the name that it asks for, and then by what it can
//! verify.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{SignatureAlgorithm, SignatureScheme};

use super::TlsAcceptor;
use super::certs::Certificate;
use crate::pattern::normal;

/// The certificates of a listener. The look-up takes the same time for any number of names.
pub(crate) struct Hosts {
    certificates: Vec<Certificate>,
    /// Names in lower case; a wildcard name is stored as `*.example.com`. The values are indices of
    /// certificates, in the order in which they are tried.
    by_name: HashMap<String, Vec<usize>>,
    /// For a client without SNI, or with a name that no certificate has.
    fallback: Vec<usize>,
    unknown_sni: UnknownSni,
    /// Whether a certificate has an IP address. Most listeners have none and skip the look-up.
    has_addresses: bool,
}

/// What happens to a client without SNI, or with a name that no certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownSni {
    /// The client gets the first certificate.
    First,
    /// The client is refused with the alert `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

impl Hosts {
    /// # Panics
    ///
    /// If there are no certificates.
    pub(crate) fn new(certificates: Vec<Certificate>, unknown_sni: UnknownSni) -> Self {
        let first = certificates.first().expect("a listener has a certificate");
        let mut order: Vec<usize> = (0..certificates.len()).collect();
        // An RSA signature costs ten times as much as one with an elliptic curve.
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
        // The first certificate, and those that share a name with it for clients that cannot
        // verify it.
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

    /// Whether one of them is the development certificate, whose key is public.
    pub(crate) fn is_for_development(&self) -> bool {
        self.certificates
            .iter()
            .any(Certificate::is_for_development)
    }

    /// Whether there is a certificate for a client with this SNI.
    pub(super) fn has(&self, sni: Option<&str>) -> bool {
        self.unknown_sni == UnknownSni::First || self.named(sni).is_some()
    }

    /// The certificate for a client with this SNI that can verify every type of key.
    pub(crate) fn shown(&self, sni: Option<&str>) -> Option<&Certificate> {
        self.choose(sni, ALL)
    }

    /// An exact name first, then a wildcard for the first label (RFC 9525 §6.3).
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
        // If the client can verify none of them, rustls sends the right alert.
        candidates
            .find(|certificate| certificate.can_sign(schemes))
            .or(first)
    }
}

/// For clients without SNI: the certificates for the IP address that they connected to.
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

/// The index follows from the certificates and is not shown.
impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts")
            .field("certificates", &self.certificates)
            .field("unknown_sni", &self.unknown_sni)
            .finish_non_exhaustive()
    }
}

/// At least one scheme for every type of key.
const ALL: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

impl TlsAcceptor {
    /// The certificates of the listener.
    pub(crate) fn certificates(&self) -> &[Certificate] {
        self.hosts.certificates()
    }
}
