//! Which headers are accepted and which are refused, at every length.

use super::*;

fn v1(line: &str) -> Vec<u8> {
    format!("{line}\r\n").into_bytes()
}

fn client(source: &str, destination: &str) -> Origin {
    Origin::Client {
        source: tcp(source),
        destination: tcp(destination),
    }
}

fn unix(source: &[u8], destination: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 216];
    block[..source.len()].copy_from_slice(source);
    block[108..108 + destination.len()].copy_from_slice(destination);
    block
}

/// Valid headers, and their meaning.
fn right() -> Vec<(Vec<u8>, Origin)> {
    [
        of_version_1(),
        of_addresses(),
        of_nobody(),
        of_unix_sockets(),
        with_vectors(),
    ]
    .concat()
}

fn ipv4() -> Origin {
    client("192.0.2.7:51234", "198.51.100.1:443")
}

fn of_version_1() -> Vec<(Vec<u8>, Origin)> {
    vec![
        (v1("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443"), ipv4()),
        (
            v1("PROXY TCP6 2001:db8::1 ::1 0 65535"),
            client("[2001:db8::1]:0", "[::1]:65535"),
        ),
        (
            v1("PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 443"),
            ipv4(),
        ),
        (v1("PROXY UNKNOWN"), Origin::Socket),
        (
            v1("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"),
            Origin::Socket,
        ),
        (v1(&format!("PROXY UNKNOWN {:x<91}", "")), Origin::Socket),
    ]
}

fn of_addresses() -> Vec<(Vec<u8>, Origin)> {
    let mut ipv6 = vec![0x20, 1, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    ipv6.extend([0; 15]);
    ipv6.extend([1, 0, 80, 1, 0xBB]);
    let mapped = [&[0; 10][..], &[0xFF, 0xFF, 192, 0, 2, 7]].concat();
    let mapped = [&mapped[..], &mapped, &[0, 80, 1, 0xBB]].concat();
    vec![
        (v2(0x21, 0x11, IPV4), ipv4()),
        (
            v2(0x21, 0x21, &ipv6),
            client("[2001:db8::1]:80", "[::1]:443"),
        ),
        (
            v2(0x21, 0x21, &mapped),
            client("192.0.2.7:80", "192.0.2.7:443"),
        ),
    ]
}

fn of_nobody() -> Vec<(Vec<u8>, Origin)> {
    vec![
        // LOCAL: the proxy's own connection, whatever else the header says.
        (v2(0x20, 0x00, b""), Origin::Socket),
        (v2(0x20, 0x11, IPV4), Origin::Socket),
        (v2(0x20, 0xFF, b"anything"), Origin::Socket),
        // The client is not known, or the addresses are of no use for a stream.
        (v2(0x21, 0x00, b""), Origin::Socket),
        (
            v2(0x21, 0x00, &vector(0x02, b"example.com")),
            Origin::Socket,
        ),
        (v2(0x21, 0x12, IPV4), Origin::Socket),
        (v2(0x21, 0x32, &unix(b"/a", b"/b")), Origin::Socket),
    ]
}

fn of_unix_sockets() -> Vec<(Vec<u8>, Origin)> {
    let every = |path: &str| Some(Endpoint::Unix(path.into()));
    vec![
        (
            v2(0x21, 0x31, &unix(b"/run/client", b"/run/front")),
            Origin::Client {
                source: every("/run/client"),
                destination: every("/run/front"),
            },
        ),
        (
            v2(0x21, 0x31, &unix(b"", b"\0abstract")),
            Origin::Client {
                source: None,
                destination: None,
            },
        ),
        (
            v2(0x21, 0x31, &unix(&[b'p'; 108], b"")),
            Origin::Client {
                source: every(&"p".repeat(108)),
                destination: None,
            },
        ),
    ]
}

fn with_vectors() -> Vec<(Vec<u8>, Origin)> {
    let with = |vectors: &[Vec<u8>]| v2(0x21, 0x11, &[IPV4, &vectors.concat()].concat());
    let longest = LONGEST - 16 - IPV4.len() - 3;
    vec![
        (with(&[vector(0x04, b""), vector(0xE0, b"custom")]), ipv4()),
        (with(&[vector(0x04, &vec![0; longest])]), ipv4()),
        (checksummed(), ipv4()),
    ]
}

/// A header with a checksum that another implementation computed, with a table.
fn checksummed() -> Vec<u8> {
    let block = [IPV4, &vector(0x03, &[0; 4]), &vector(0x02, b"x")].concat();
    let mut header = v2(0x21, 0x11, &block);
    header[31..35].copy_from_slice(&CHECKSUM);
    header
}

const CHECKSUM: [u8; 4] = [0x33, 0x4A, 0x0C, 0x09];

#[test]
fn a_header_names_the_client_of_a_connection() {
    for (header, origin) in right() {
        assert_eq!(parse(&header), Ok(origin), "{}", header.escape_ascii());
    }
}

#[test]
fn a_partial_header_and_one_with_more_bytes_after_it_are_refused() {
    for (header, _) in right() {
        let text = header.escape_ascii().to_string();
        for length in 0..header.len() {
            assert!(parse(&header[..length]).is_err(), "{length} of {text}");
        }
        assert!(parse(&[&header[..], b"\n"].concat()).is_err(), "{text}");
    }
}

#[test]
fn the_end_of_a_header_does_not_depend_on_the_bytes_after_it() {
    for (header, _) in right() {
        for length in 0..header.len() {
            let part = &header[..length];
            assert_eq!(extent(part), Ok(None), "{}", part.escape_ascii());
        }
        for rest in [&b""[..], b"\x16", b"\r\n", b"PROXY ", &[0; 600]] {
            let stream = [&header, rest].concat();
            assert_eq!(extent(&stream), Ok(Some(header.len())));
        }
    }
}

#[test]
fn bytes_that_cannot_be_a_header_are_refused_at_the_first_wrong_byte() {
    for (bytes, error) in [
        (&b"\x16"[..], HeaderError::Missing),
        (b"G", HeaderError::Missing),
        (b"\n", HeaderError::Missing),
        (b"PROXX", HeaderError::Missing),
        (b"PROXYX", HeaderError::Missing),
        (b"\r\n\r\n\0\r\nQUIT\r", HeaderError::Missing),
        (b"PROXY TCP4\n", HeaderError::Malformed),
        (b"PROXY TCP4\rx", HeaderError::Malformed),
        (b"\r\n\r\n\0\r\nQUIT\n\x11", HeaderError::Malformed),
        (b"\r\n\r\n\0\r\nQUIT\n\x22", HeaderError::Malformed),
    ] {
        let text = bytes.escape_ascii();
        assert_eq!(extent(bytes), Err(error), "{text}");
        assert_eq!(extent(&bytes[..bytes.len() - 1]), Ok(None), "{text}");
    }
}

#[test]
fn a_header_that_is_one_byte_too_long_is_refused() {
    let line = v1(&format!("PROXY UNKNOWN {:x<92}", ""));
    assert_eq!(line.len(), 108);
    for length in 0..107 {
        assert_eq!(extent(&line[..length]), Ok(None), "{length}");
    }
    for length in 107..=108 {
        assert_eq!(extent(&line[..length]), Err(HeaderError::TooLong));
    }
    assert_eq!(
        extent(&[b"PROXY ", &[b'x'; 101][..]].concat()),
        Err(HeaderError::TooLong)
    );

    let block = v2(0x21, 0x00, &vector(0x04, &[0; LONGEST - 16 - 3 + 1]));
    assert_eq!(block.len(), LONGEST + 1);
    assert_eq!(extent(&block[..15]), Ok(None));
    assert_eq!(extent(&block[..16]), Err(HeaderError::TooLong));
}

#[test]
fn headers_that_violate_the_specification_are_refused() {
    let lines = [
        "PROXY ",
        "PROXY TCP4",
        "PROXY TCP4 ",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 ",
        "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443 7",
        "PROXY TCP4  192.0.2.7 198.51.100.1 51234 443",
        "PROXY  TCP4 192.0.2.7 198.51.100.1 51234 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 65536 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 +1 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 -1 443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 1 0443",
        "PROXY TCP4 192.0.2.7 198.51.100.1 00 443",
        "PROXY TCP4 192.0.2.07 198.51.100.1 1 443",
        "PROXY TCP4 192.0.2 198.51.100.1 1 443",
        "PROXY TCP4 ::1 ::1 1 443",
        "PROXY TCP6 192.0.2.7 198.51.100.1 1 443",
        "PROXY TCP6 ::1%lo ::1 1 443",
        "PROXY TCP6 [::1] ::1 1 443",
        "PROXY tcp4 192.0.2.7 198.51.100.1 1 443",
        "PROXY UDP4 192.0.2.7 198.51.100.1 1 443",
        "PROXY UNKNOWNS",
        "PROXY UNKNOW ",
    ];
    for line in lines {
        let header = v1(line);
        assert_eq!(extent(&header), Ok(Some(header.len())), "{line}");
        assert_eq!(parse(&header), Err(HeaderError::Malformed), "{line}");
    }
    let block = |vectors: &[u8]| v2(0x21, 0x11, &[IPV4, vectors].concat());
    for header in [
        v2(0x21, 0x11, b""),
        v2(0x21, 0x11, &IPV4[..11]),
        v2(0x21, 0x21, IPV4),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x01, IPV4),
        v2(0x21, 0x13, IPV4),
        v2(0x21, 0x41, IPV4),
        v2(0x21, 0x10, IPV4),
        v2(0x21, 0x00, b"x"),
        block(b"\x04"),
        block(b"\x04\x00"),
        block(b"\x04\x00\x01"),
        block(&[vector(0x04, b""), vec![0x04, 0, 2, 0]].concat()),
        block(&vector(0x03, b"")),
        block(&vector(0x03, &[0; 5])),
    ] {
        let text = header.escape_ascii().to_string();
        assert_eq!(extent(&header), Ok(Some(header.len())), "{text}");
        assert_eq!(parse(&header), Err(HeaderError::Malformed), "{text}");
    }
}

#[test]
fn a_checksum_covers_the_whole_header() {
    let header = checksummed();
    assert!(parse(&header).is_ok());
    // After the family: not every change there leaves a valid header.
    for at in (16..header.len()).filter(|at| !matches!(at, 28..31 | 35..38)) {
        let mut changed = header.clone();
        changed[at] ^= 1;
        assert_eq!(parse(&changed), Err(HeaderError::Checksum), "byte {at}");
    }
}
