//! Tests of the header against bytes that are written as in the specification.

mod incoming;
mod outgoing;

use super::*;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("a short block");
    let fixed = [SIGNATURE, &[command, family], &length.to_be_bytes()].concat();
    [&fixed, block].concat()
}

/// A type, a length and a value.
fn vector(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("a short value");
    [&[kind], &length.to_be_bytes()[..], value].concat()
}

/// 192.0.2.7:51234 to 198.51.100.1:443.
const IPV4: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xC8, 0x22, 0x01, 0xBB];

fn tcp(address: &str) -> Option<Endpoint> {
    Some(Endpoint::Tcp(address.parse().expect("an address")))
}

#[test]
fn peers_outside_the_networks_are_not_trusted() {
    let networks = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"];
    let networks = networks.map(|network| network.parse().expect("a network"));
    let trusted = Trusted::new(networks.to_vec());
    for (peer, expected) in [
        ("10.255.0.1:1", true),
        ("[::ffff:10.0.0.1]:1", true),
        ("[2001:db8::1]:1", true),
        ("192.0.2.1:1", true),
        ("11.0.0.1:1", false),
        ("192.0.2.2:1", false),
        ("[::1]:1", false),
        ("[::ffff:11.0.0.1]:1", false),
    ] {
        assert_eq!(trusted.contains(tcp(peer).as_ref()), expected, "{peer}");
    }
    assert!(trusted.contains(None));
    assert!(trusted.contains(Some(&Endpoint::Unix("/run/lb.sock".into()))));
    assert!(!Trusted::default().contains(tcp("10.0.0.1:1").as_ref()));
}
