//! Which bytes are written.

use std::sync::Arc;

use super::*;
use crate::facts::{Facts, TlsFacts};
use crate::identity::Identity;

fn facts(peer: Option<Endpoint>, local: Option<Endpoint>) -> Facts {
    let mut facts = Facts::new("app");
    (facts.peer, facts.local) = (peer, local);
    facts
}

fn tls() -> TlsFacts {
    TlsFacts {
        version: "1.3",
        cipher: Some("TLS13_AES_128_GCM_SHA256"),
        sni: Some("api.example.com".into()),
        alpn: Some("h2".into()),
        ..TlsFacts::default()
    }
}

#[test]
fn version_1_is_a_line_with_the_addresses() {
    let unix = || Some(Endpoint::Unix("/run/front.sock".into()));
    let ipv4 = || tcp("198.51.100.1:443");
    for (peer, local, line) in [
        (
            tcp("192.0.2.7:51234"),
            ipv4(),
            "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443",
        ),
        (
            tcp("[::ffff:192.0.2.7]:51234"),
            tcp("[::ffff:198.51.100.1]:443"),
            "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443",
        ),
        (
            tcp("[2001:db8::7]:51234"),
            tcp("[2001:db8::1]:443"),
            "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443",
        ),
        (
            tcp("[2001:db8::7]:51234"),
            ipv4(),
            "PROXY TCP6 2001:db8::7 ::ffff:198.51.100.1 51234 443",
        ),
        (
            tcp("192.0.2.7:51234"),
            tcp("[2001:db8::1]:443"),
            "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 51234 443",
        ),
        (None, unix(), "PROXY UNKNOWN"),
        (unix(), unix(), "PROXY UNKNOWN"),
        (tcp("192.0.2.7:51234"), unix(), "PROXY UNKNOWN"),
        (tcp("192.0.2.7:51234"), None, "PROXY UNKNOWN"),
    ] {
        // Version 1 has no place for the facts of TLS.
        for tls in [None, Some(tls())] {
            let mut facts = facts(peer.clone(), local.clone());
            facts.tls = tls;
            let header = header(ProxyProtocol::V1, &facts);
            assert_eq!(String::from_utf8(header), Ok(format!("{line}\r\n")));
        }
    }
}

#[test]
fn version_2_has_the_addresses_and_the_facts() {
    let mut facts = facts(tcp("[::ffff:192.0.2.7]:51234"), tcp("198.51.100.1:443"));
    let id = vector(0x05, facts.id.as_bytes());
    let plain = v2(0x21, 0x11, &[IPV4, &id].concat());
    assert_eq!(header(ProxyProtocol::V2, &facts), plain);

    let version = vector(0x21, b"TLSv1.3");
    let cipher = vector(0x23, b"TLS_AES_128_GCM_SHA256");
    let authority = vector(0x02, b"api.example.com");
    let alpn = vector(0x01, b"h2");
    let ssl = |flags: &[u8], parts: &[&[u8]]| vector(0x20, &[flags, &parts.concat()].concat());
    facts.tls = Some(tls());
    let anonymous = ssl(&[1, 0, 0, 0, 1], &[&version, &cipher]);
    let block = [IPV4, &id, &anonymous, &authority, &alpn].concat();
    assert_eq!(header(ProxyProtocol::V2, &facts), v2(0x21, 0x11, &block));

    facts.identity = Some(Arc::new(Identity {
        cn: Some("alice".into()),
        ..Identity::default()
    }));
    let cn = vector(0x22, b"alice");
    for (resumed, flags) in [(false, 0b111), (true, 0b101)] {
        facts.tls = Some(TlsFacts { resumed, ..tls() });
        let named = ssl(&[flags, 0, 0, 0, 0], &[&version, &cipher, &cn]);
        let block = [IPV4, &id, &named, &authority, &alpn].concat();
        assert_eq!(header(ProxyProtocol::V2, &facts), v2(0x21, 0x11, &block));
    }
}

#[test]
fn a_client_without_an_address_gets_a_local_header_with_tlvs() {
    let mut facts = facts(None, Some(Endpoint::Unix("/run/front.sock".into())));
    facts.tls = Some(tls());
    let header = header(ProxyProtocol::V2, &facts);
    assert_eq!(header[12..14], [0x20, 0x00]);
    assert!(header.windows(15).any(|part| part == b"api.example.com"));
    assert_eq!(parse(&header), Ok(Origin::Socket));
}

#[test]
fn our_own_headers_are_accepted() {
    let addresses = [
        ("192.0.2.7:51234", "198.51.100.1:443"),
        ("[2001:db8::7]:1", "[2001:db8::1]:65535"),
        ("[2001:db8::7]:1", "198.51.100.1:443"),
    ];
    for (peer, local) in addresses {
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            let mut facts = facts(tcp(peer), tcp(local));
            facts.tls = Some(tls());
            let header = header(version, &facts);
            assert_eq!(extent(&header), Ok(Some(header.len())));
            let origin = Origin::Client {
                source: facts.peer.clone(),
                destination: facts.local.clone(),
            };
            assert_eq!(parse(&header), Ok(origin), "{version:?}");
        }
    }
}

#[test]
fn our_headers_never_exceed_our_own_limit() {
    let mut facts = facts(tcp("[2001:db8::7]:1"), tcp("[2001:db8::1]:2"));
    facts.identity = Some(Arc::new(Identity {
        cn: Some("é".repeat(64)),
        ..Identity::default()
    }));
    facts.tls = Some(TlsFacts {
        sni: Some("n".repeat(253).into()),
        alpn: Some("p".repeat(255).into()),
        ..tls()
    });
    let header = header(ProxyProtocol::V2, &facts);
    assert_eq!(extent(&header), Ok(Some(header.len())));
    let has = |part: &[u8]| header.windows(part.len()).any(|window| window == part);
    assert!(has(&vector(0x22, "é".repeat(64).as_bytes())));
    assert!(!has(&[b'p'; 255]), "no room was left for it");
}

#[test]
fn a_name_that_is_too_long_is_left_out_and_not_truncated() {
    let mut facts = facts(None, None);
    facts.tls = Some(tls());
    facts.identity = Some(Arc::new(Identity {
        cn: Some("a".repeat(65)),
        ..Identity::default()
    }));
    let header = header(ProxyProtocol::V2, &facts);
    assert!(!header.windows(2).any(|part| part == b"aa"));
}

/// OpenSSL's names, as `openssl ciphers -stdname` prints them.
#[test]
fn ciphers_have_the_names_that_backends_know() {
    for (suite, name) in [
        (
            "TLS13_CHACHA20_POLY1305_SHA256",
            "TLS_CHACHA20_POLY1305_SHA256",
        ),
        ("TLS13_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384"),
        (
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ),
        (
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
        ),
    ] {
        let mut facts = facts(None, None);
        facts.tls = Some(TlsFacts {
            cipher: Some(suite),
            ..tls()
        });
        let header = header(ProxyProtocol::V2, &facts);
        let expected = vector(0x23, name.as_bytes());
        assert!(header.windows(expected.len()).any(|part| part == expected));
    }
}
