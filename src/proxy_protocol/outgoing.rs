//! The header that a backend gets: the client's addresses, and in version 2 what TLS agreed on.

use std::net::{IpAddr, SocketAddr};

use super::ProxyProtocol;
use super::incoming::{USUAL, V2};
use crate::facts::{Endpoint, Facts, TlsFacts};

/// The bytes that come before the first one of the client.
///
/// A client on a Unix socket has no address: it is `UNKNOWN` in version 1, and LOCAL in version 2,
/// which is what every receiver has to accept (§2.2); the vectors are there for those that read them.
/// PROXY with the family UNSPEC or UNIX would say it better, but HAProxy, which sends the first, takes
/// neither (seen with 2.6).
pub(crate) fn header(version: ProxyProtocol, facts: &Facts) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => line(addresses(facts)).into_bytes(),
        ProxyProtocol::V2 => block(addresses(facts), &vectors(facts)),
    }
}

fn line(addresses: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((source, destination)) = addresses else {
        return "PROXY UNKNOWN\r\n".into();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    let ports = format!("{} {}", source.port(), destination.port());
    format!("PROXY {family} {from} {to} {ports}\r\n")
}

fn block(addresses: Option<(SocketAddr, SocketAddr)>, vectors: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(USUAL);
    let mut command_and_family = [0x20, 0x00];
    if let Some((source, destination)) = addresses {
        command_and_family = [0x21, if source.is_ipv4() { 0x11 } else { 0x21 }];
        for end in [source, destination] {
            match end.ip() {
                IpAddr::V4(ip) => block.extend(ip.octets()),
                IpAddr::V6(ip) => block.extend(ip.octets()),
            }
        }
        block.extend(source.port().to_be_bytes());
        block.extend(destination.port().to_be_bytes());
    }
    block.extend(vectors);
    // `vectors` holds the whole header to USUAL.
    let length = (block.len() as u16).to_be_bytes();
    [V2, &command_and_family, &length, &block].concat()
}

/// Source and destination in one family; `None` if either is not known as an IP address.
fn addresses(facts: &Facts) -> Option<(SocketAddr, SocketAddr)> {
    let (source, destination) = (ip(facts.peer.as_ref())?, ip(facts.local.as_ref())?);
    if source.is_ipv4() == destination.is_ipv4() {
        return Some((source, destination));
    }
    Some((mapped(source), mapped(destination)))
}

fn ip(endpoint: Option<&Endpoint>) -> Option<SocketAddr> {
    match endpoint? {
        Endpoint::Tcp(address) => {
            Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
        }
        Endpoint::Unix(_) => None,
    }
}

/// The address as an IPv6 one, which it may have come as (RFC 4291 §2.5.5.2).
fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The most important first: what would make the header longer than we take one ourselves is left out.
fn vectors(facts: &Facts) -> Vec<u8> {
    let mut all = vec![vector(UNIQUE_ID, facts.id.as_bytes())];
    if let Some(tls) = &facts.tls {
        all.push(vector(SSL, &ssl(tls, facts)));
        let sni = tls.sni.as_deref();
        all.extend(sni.map(|name| vector(AUTHORITY, name.as_bytes())));
        let alpn = tls.alpn.as_deref();
        all.extend(alpn.map(|name| vector(ALPN, name.as_bytes())));
    }
    let mut vectors = Vec::new();
    for vector in all {
        if FIXED_AND_IPV6 + vectors.len() + vector.len() <= USUAL {
            vectors.extend(vector);
        }
    }
    vectors
}

/// A value that is too long for its length is also too long for the header.
fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u16).to_be_bytes();
    [&[kind], &length[..], value].concat()
}

fn ssl(tls: &TlsFacts, facts: &Facts) -> Vec<u8> {
    let identity = facts.identity.as_ref();
    let mut client = CLIENT_SSL;
    if identity.is_some() {
        client |= CLIENT_CERT_SESS;
        // A resumed session has the certificate of the one that it resumes, and was not sent one.
        client |= if tls.resumed { 0 } else { CLIENT_CERT_CONN };
    }
    let verify = u32::from(identity.is_none());
    let mut ssl = [&[client], &verify.to_be_bytes()[..]].concat();
    let version = format!("TLSv{}", tls.version);
    ssl.extend(vector(SSL_VERSION, version.as_bytes()));
    if let Some(cipher) = &tls.cipher {
        ssl.extend(vector(SSL_CIPHER, openssl_name(cipher).as_bytes()));
    }
    // Half a name could be somebody else's: a longer one than X.520 allows is left out whole.
    let cn = identity.and_then(|identity| identity.cn.as_deref());
    if let Some(cn) = cn.filter(|cn| cn.chars().count() <= LONGEST_CN) {
        ssl.extend(vector(SSL_CN, cn.as_bytes()));
    }
    ssl
}

/// The name that OpenSSL has for a suite, which backends compare with; rustls's for one that it lacks.
fn openssl_name(suite: &str) -> String {
    let name = match suite {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        // Of TLS 1.3, where rustls writes the version into the name and everybody else does not.
        suite => return suite.replacen("TLS13_", "TLS_", 1),
    };
    name.to_owned()
}

// §2.2, with `PP2_TYPE_`, `PP2_SUBTYPE_` and `PP2_` before them.
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

const FIXED_AND_IPV6: usize = 16 + 36;
/// X.520's ub-common-name, in characters.
const LONGEST_CN: usize = 64;
