//! The header that a backend gets: the client's addresses and, in version 2, TLS facts.

use std::net::{IpAddr, SocketAddr};

use super::ProxyProtocol;
use super::incoming::{USUAL, V2};
use crate::facts::{Endpoint, Facts, TlsFacts};

/// Makes the header, which goes before the first byte of the client.
///
/// A client on a Unix socket has no address. It is `UNKNOWN` in version 1 and LOCAL in version 2, which
/// every receiver has to accept (§2.2). The TLVs are there for receivers that read them. PROXY with the
/// family UNSPEC or UNIX would be more precise, but HAProxy accepts neither (seen with 2.6), although
/// it sends the first itself.
pub(crate) fn header(version: ProxyProtocol, facts: &Facts) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => line(addresses(facts)).into_bytes(),
        ProxyProtocol::V2 => block(addresses(facts), &vectors(facts)),
    }
}

/// The header of a connection that has no client, as for a health check: `UNKNOWN` in version 1 and
/// LOCAL in version 2 (§2.2).
pub(crate) fn own_header(version: ProxyProtocol) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => line(None).into_bytes(),
        ProxyProtocol::V2 => block(None, &[]),
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
    // `vectors` keeps the whole header within USUAL.
    let length = (block.len() as u16).to_be_bytes();
    [V2, &command_and_family, &length, &block].concat()
}

/// Source and destination in one address family. `None` if either is not an IP address.
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

/// The address as an IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2).
fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The TLVs, the most important first. A TLV that would make the header longer than [`USUAL`] is left
/// out.
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

/// A value too long for the 16-bit length is also too long for the header, so it is left out later.
fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = (value.len() as u16).to_be_bytes();
    [&[kind], &length[..], value].concat()
}

fn ssl(tls: &TlsFacts, facts: &Facts) -> Vec<u8> {
    let identity = facts.identity.as_ref();
    let mut client = CLIENT_SSL;
    if identity.is_some() {
        client |= CLIENT_CERT_SESS;
        // A resumed session has the certificate of the original session; the client did not send one in
        // this connection.
        client |= if tls.resumed { 0 } else { CLIENT_CERT_CONN };
    }
    let verify = u32::from(identity.is_none());
    let mut ssl = [&[client], &verify.to_be_bytes()[..]].concat();
    let version = format!("TLSv{}", tls.version);
    ssl.extend(vector(SSL_VERSION, version.as_bytes()));
    if let Some(cipher) = &tls.cipher {
        ssl.extend(vector(SSL_CIPHER, openssl_name(cipher).as_bytes()));
    }
    // A truncated name could be another client's name, so a name longer than X.520 allows is left out.
    let cn = identity.and_then(|identity| identity.cn.as_deref());
    if let Some(cn) = cn.filter(|cn| cn.chars().count() <= LONGEST_CN) {
        ssl.extend(vector(SSL_CN, cn.as_bytes()));
    }
    ssl
}

/// OpenSSL's name of a suite, which backends compare with. If OpenSSL has none, rustls's name.
fn openssl_name(suite: &str) -> String {
    let name = match suite {
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        // A suite of TLS 1.3: rustls's names contain the version, other programs' names do not.
        suite => return suite.replacen("TLS13_", "TLS_", 1),
    };
    name.to_owned()
}

// TLV types of §2.2, without their prefixes `PP2_TYPE_`, `PP2_SUBTYPE_` and `PP2_`.
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
/// ub-common-name of X.520, in characters.
const LONGEST_CN: usize = 64;
