//! The PROXY protocol: a header before a stream with the addresses of its client.
//!
//! ```text
//! client ─► load balancer ══ header, client's bytes ══► Vestibule ══ header, plaintext ══► backend
//!                              incoming: trusted              outgoing: our facts
//! ```
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`; comments name its sections. This module
//! parses and writes bytes, without IO.

mod incoming;
mod outgoing;

use std::str::FromStr;

use ipnet::IpNet;

pub(crate) use self::incoming::{HeaderError, LONGEST, Origin, USUAL, extent, parse};
pub(crate) use self::outgoing::{header, own_header};
use crate::facts::Endpoint;

/// The version of the header that a backend gets.
///
/// ```
/// use vestibule::ProxyProtocol;
///
/// assert_eq!("v2".parse(), Ok(ProxyProtocol::V2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// Version 1 (§2.1): a line of text with the addresses, at most 107 bytes.
    V1,
    /// Version 2 (§2.2): a binary header with the addresses, the UUID, and the TLS version, cipher,
    /// SNI, ALPN and CN. At most 536 bytes.
    V2,
}

impl FromStr for ProxyProtocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => Err("expected v1 or v2"),
        }
    }
}

/// The networks whose headers are trusted. No other peer may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trusted(Vec<IpNet>);

impl Trusted {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// A peer without an IP address came over a Unix socket, where file permissions decide who may
    /// connect.
    pub(crate) fn contains(&self, peer: Option<&Endpoint>) -> bool {
        match peer.and_then(Endpoint::ip) {
            Some(ip) => self.0.iter().any(|network| network.contains(&ip)),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
