//! The header that a backend gets: the client's addresses, and in version 2 what TLS agreed on.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ProxiedAddress, ProxyHeader, SslInfo, Tlv};

use super::ProxyProtocol;
use super::incoming::USUAL;
use crate::facts::{Endpoint, Facts, TlsFacts};

/// The bytes that come before the first one of the client.
///
/// A client on a Unix socket has no address: it is `UNKNOWN` in version 1, and LOCAL in version 2,
/// which is what every receiver has to accept (§2.2); the vectors are there for those that read them.
/// PROXY with the family UNSPEC or UNIX would say it better, but HAProxy, which sends the first, takes
/// neither (seen with 2.6).
pub(crate) fn header(version: ProxyProtocol, facts: &Facts) -> Vec<u8> {
    let addresses = addresses(facts);
    let mut bytes = Vec::with_capacity(USUAL);
    let written = match version {
        ProxyProtocol::V1 => ProxyHeader::with_tlvs(addresses, []).encode_v1(&mut bytes),
        ProxyProtocol::V2 => {
            ProxyHeader::with_tlvs(addresses, vectors(facts)).encode_v2(&mut bytes)
        }
    };
    written.expect("addresses of one family, streams, and vectors that fit");
    bytes
}

/// Source and destination in one family; `None` if either is not known as an IP address.
fn addresses(facts: &Facts) -> Option<ProxiedAddress> {
    let (source, destination) = (ip(facts.peer.as_ref())?, ip(facts.local.as_ref())?);
    if source.is_ipv4() == destination.is_ipv4() {
        return Some(ProxiedAddress::stream(source, destination));
    }
    Some(ProxiedAddress::stream(mapped(source), mapped(destination)))
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
fn vectors(facts: &Facts) -> Vec<Tlv<'_>> {
    let mut vectors = vec![Tlv::UniqueId(facts.id.as_bytes()[..].into())];
    if let Some(tls) = &facts.tls {
        vectors.push(Tlv::Ssl(ssl(tls, facts)));
        let sni = tls.sni.as_deref();
        vectors.extend(sni.map(|name| Tlv::Authority(name.into())));
        let alpn = tls.alpn.as_deref();
        vectors.extend(alpn.map(|name| Tlv::Alpn(name.as_bytes().into())));
    }
    let mut room = USUAL - FIXED_AND_IPV6;
    vectors.retain(|vector| {
        let mut bytes = Vec::new();
        vector.encode(&mut bytes);
        let fits = bytes.len() <= room;
        room -= if fits { bytes.len() } else { 0 };
        fits
    });
    vectors
}

fn ssl(tls: &TlsFacts, facts: &Facts) -> SslInfo<'static> {
    let identity = facts.identity.as_ref();
    // A resumed session has the certificate of the one that it resumes, and was not sent one.
    let on_this_connection = identity.is_some() && !tls.resumed;
    let verify = u32::from(identity.is_none());
    let mut ssl = SslInfo::new(true, on_this_connection, identity.is_some(), verify);
    ssl.append_tlv(Tlv::SslVersion(format!("TLSv{}", tls.version).into()));
    if let Some(cipher) = &tls.cipher {
        ssl.append_tlv(Tlv::SslCipher(openssl_name(cipher).into()));
    }
    // Half a name could be somebody else's: a longer one than X.520 allows is left out whole.
    let cn = identity.and_then(|identity| identity.cn.as_deref());
    if let Some(cn) = cn.filter(|cn| cn.chars().count() <= LONGEST_CN) {
        ssl.append_tlv(Tlv::SslCn(cn.into()));
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

const FIXED_AND_IPV6: usize = 16 + 36;
/// X.520's ub-common-name, in characters.
const LONGEST_CN: usize = 64;
