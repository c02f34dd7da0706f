//! Finds the end of a received header, and parses it.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::facts::Endpoint;

/// The client that a header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// No client: the connection is the proxy's own, as for a health check, or the proxy does not know
    /// the client. The addresses of the socket are used.
    Socket,
    /// The addresses of a client. A Unix socket without a name has no address.
    Client {
        source: Option<Endpoint>,
        destination: Option<Endpoint>,
    },
}

/// Why a header is refused. The fault is the proxy's, or that of a client that connects in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the PROXY protocol header is missing")]
    Missing,
    #[error("the PROXY protocol header is longer than {LONGEST_V1} (v1) or {LONGEST} (v2) bytes")]
    TooLong,
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    #[error("the checksum of the PROXY protocol header is wrong")]
    Checksum,
}

/// The length of the header at the start of a stream. `None` if the header is longer than `bytes` and
/// more has to be read.
///
/// Bytes that cannot be a header are refused at the first wrong byte, without waiting for more.
///
/// # Errors
///
/// The stream does not begin with a header, or the header is too long.
pub(crate) fn extent(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    if begins_with(bytes, V1) {
        return extent_v1(bytes);
    }
    if begins_with(bytes, V2) {
        return extent_v2(bytes);
    }
    Err(HeaderError::Missing)
}

/// Whether the two are equal up to the end of the shorter one.
fn begins_with(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn extent_v1(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    let line = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = line.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return match bytes.len() {
            ..LONGEST_V1 => Ok(None),
            _ => Err(HeaderError::TooLong),
        };
    };
    match &line[end..] {
        [b'\r', b'\n', ..] => Ok(Some(end + 2)),
        [b'\r'] if bytes.len() < LONGEST_V1 => Ok(None),
        [b'\r'] => Err(HeaderError::TooLong),
        _ => Err(HeaderError::Malformed),
    }
}

fn extent_v2(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    // The high four bits are the version, the low four the command (§2.2).
    if bytes
        .get(V2.len())
        .is_some_and(|byte| !matches!(byte, 0x20 | 0x21))
    {
        return Err(HeaderError::Malformed);
    }
    let Some(&[high, low]) = bytes.get(FIXED - 2..FIXED) else {
        return Ok(None);
    };
    match FIXED + usize::from(u16::from_be_bytes([high, low])) {
        length if length > LONGEST => Err(HeaderError::TooLong),
        length if length > bytes.len() => Ok(None),
        length => Ok(Some(length)),
    }
}

/// Parses a complete header, from its first byte to its last.
///
/// # Errors
///
/// The header violates the specification.
pub(crate) fn parse(bytes: &[u8]) -> Result<Origin, HeaderError> {
    if extent(bytes)? != Some(bytes.len()) {
        return Err(HeaderError::Malformed);
    }
    let Some(header) = bytes.strip_prefix(V2) else {
        return parse_v1(bytes).ok_or(HeaderError::Malformed);
    };
    let (origin, vectors) = parse_v2(header).ok_or(HeaderError::Malformed)?;
    check_vectors(bytes, vectors.len())?;
    Ok(origin)
}

fn parse_v1(bytes: &[u8]) -> Option<Origin> {
    let line = bytes.strip_suffix(b"\r\n")?;
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        // The rest of the line is ignored (§2.1).
        [b"PROXY", b"UNKNOWN", ..] => Some(Origin::Socket),
        [b"PROXY", b"TCP4", ref addresses @ ..] => client_v1::<Ipv4Addr>(addresses),
        [b"PROXY", b"TCP6", ref addresses @ ..] => client_v1::<Ipv6Addr>(addresses),
        _ => None,
    }
}

fn client_v1<T: FromStr + Into<IpAddr>>(addresses: &[&[u8]]) -> Option<Origin> {
    let &[from, to, from_port, to_port] = addresses else {
        return None;
    };
    let ip = |word| str::from_utf8(word).ok()?.parse::<T>().ok();
    let source = (ip(from)?, port_v1(from_port)?);
    let destination = (ip(to)?, port_v1(to_port)?);
    Some(client(source, destination))
}

/// Parses a port without a sign and without leading zeros; `u16` would accept both (§2.1).
fn port_v1(word: &[u8]) -> Option<u16> {
    match word {
        [b'0'] | [b'1'..=b'9', ..] => str::from_utf8(word).ok()?.parse().ok(),
        _ => None,
    }
}

/// Returns the TLVs after the addresses, too. `header` begins after the signature.
fn parse_v2(header: &[u8]) -> Option<(Origin, &[u8])> {
    let (&[command, family, _, _], block) = header.split_first_chunk()?;
    match (command, family) {
        // LOCAL: everything after it is skipped, even if it is malformed (§2.2).
        (0x20, _) => Some((Origin::Socket, &[])),
        (_, 0x00) => Some((Origin::Socket, block)),
        (_, 0x11) => client_v2::<4>(block),
        (_, 0x21) => client_v2::<16>(block),
        (_, 0x31) => unix(block),
        // The addresses of a datagram mean nothing for a stream. HAProxy and nginx skip them, too.
        (_, 0x12) => Some((Origin::Socket, block.get(2 * (4 + 2)..)?)),
        (_, 0x22) => Some((Origin::Socket, block.get(2 * (16 + 2)..)?)),
        (_, 0x32) => Some((Origin::Socket, block.get(2 * UNIX_PATH..)?)),
        _ => None,
    }
}

fn client_v2<const N: usize>(block: &[u8]) -> Option<(Origin, &[u8])>
where
    IpAddr: From<[u8; N]>,
{
    let (from, rest) = block.split_first_chunk::<N>()?;
    let (to, rest) = rest.split_first_chunk::<N>()?;
    let (from_port, rest) = rest.split_first_chunk()?;
    let (to_port, vectors) = rest.split_first_chunk()?;
    let source = (*from, u16::from_be_bytes(*from_port));
    let destination = (*to, u16::from_be_bytes(*to_port));
    Some((client(source, destination), vectors))
}

fn client<T: Into<IpAddr>>(source: (T, u16), destination: (T, u16)) -> Origin {
    let endpoint = |(ip, port): (T, u16)| {
        let ip: IpAddr = ip.into();
        Some(Endpoint::Tcp(SocketAddr::new(ip.to_canonical(), port)))
    };
    Origin::Client {
        source: endpoint(source),
        destination: endpoint(destination),
    }
}

fn unix(block: &[u8]) -> Option<(Origin, &[u8])> {
    let path = |place: &[u8]| {
        let length = place.iter().position(|byte| *byte == 0);
        let name = &place[..length.unwrap_or(place.len())];
        // The path is empty, or it is an abstract name, which begins with a zero byte.
        (!name.is_empty()).then(|| Endpoint::Unix(PathBuf::from(OsStr::from_bytes(name))))
    };
    let (source, rest) = block.split_at_checked(UNIX_PATH)?;
    let (destination, vectors) = rest.split_at_checked(UNIX_PATH)?;
    let origin = Origin::Client {
        source: path(source),
        destination: path(destination),
    };
    Some((origin, vectors))
}

/// Checks that the TLVs, the last `length` bytes, are complete. A receiver that knows the checksum has
/// to verify it (§2.2.3).
fn check_vectors(bytes: &[u8], length: usize) -> Result<(), HeaderError> {
    let mut at = bytes.len() - length;
    while at < bytes.len() {
        let Some(&[kind, high, low]) = bytes.get(at..at + 3) else {
            return Err(HeaderError::Malformed);
        };
        let start = at + 3;
        at = start + usize::from(u16::from_be_bytes([high, low]));
        let value = bytes.get(start..at).ok_or(HeaderError::Malformed)?;
        if kind == CHECKSUM {
            let sum = value.try_into().map_err(|_| HeaderError::Malformed)?;
            if crc32c(bytes, start..at) != u32::from_be_bytes(sum) {
                return Err(HeaderError::Checksum);
            }
        }
    }
    Ok(())
}

/// The CRC-32C (RFC 3720 §B.4) of `bytes`. The bytes in `hole` count as zeros.
fn crc32c(bytes: &[u8], hole: std::ops::Range<usize>) -> u32 {
    let mut crc = u32::MAX;
    for (at, byte) in bytes.iter().enumerate() {
        let byte = if hole.contains(&at) { 0 } else { *byte };
        crc = (crc >> 8) ^ CRC32C[usize::from(crc as u8 ^ byte)];
    }
    !crc
}

/// The table for one byte per step: bit by bit, a header of 8 KiB would take 65,536 steps.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1) * 0x82F6_3B78);
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// The longest header that is accepted. Cloud load balancers put certificates and names of their own
/// into TLVs.
pub(crate) const LONGEST: usize = 8 * 1024;
/// Room for the addresses of two Unix sockets and 304 bytes of TLVs: most headers fit (§2.2).
pub(crate) const USUAL: usize = 536;
/// With two IPv6 addresses of full length (§2.1).
const LONGEST_V1: usize = 107;

const V1: &[u8] = b"PROXY ";
pub(super) const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, command, family and length of version 2.
const FIXED: usize = 16;
const UNIX_PATH: usize = 108;
/// PP2_TYPE_CRC32C.
const CHECKSUM: u8 = 0x03;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        // RFC 3720 §B.4.
        assert_eq!(crc32c(&[0; 32], 0..0), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32], 0..0), 0x62A8_AB43);
        assert_eq!(crc32c(&[0xFF; 32], 0..32), 0x8A91_36AA);
    }
}
