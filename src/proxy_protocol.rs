//! The PROXY protocol: a header in front of a stream that says whose the stream is.
//!
//! ```text
//! client ─► load balancer ══ header, client's bytes ══► Vestibule ══ header, plaintext ══► backend
//!                              incoming: trusted              outgoing: what we know
//! ```
//!
//! The specification is HAProxy's `doc/proxy-protocol.txt`; its sections are named where a choice
//! was made. This module knows bytes and facts alone: who reads and writes them is the flow.

mod incoming;
mod outgoing;

use std::str::FromStr;

use ipnet::IpNet;

pub(crate) use self::incoming::{HeaderError, LONGEST, Origin, USUAL, extent, parse};
pub(crate) use self::outgoing::header;
use crate::facts::Endpoint;

/// Which form of the header a backend gets.
///
/// ```
/// use vestibule::ProxyProtocol;
///
/// assert_eq!("v2".parse(), Ok(ProxyProtocol::V2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// A line of text with the addresses.
    V1,
    /// A binary block with the addresses, and what TLS agreed on.
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

/// Whose headers are believed. Nobody else may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trusted(Vec<IpNet>);

impl Trusted {
    pub(crate) fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// A peer without an IP address came over a Unix socket, and is let in by whose directory that is in.
    pub(crate) fn contains(&self, peer: Option<&Endpoint>) -> bool {
        match peer.and_then(Endpoint::ip) {
            Some(ip) => self.0.iter().any(|network| network.contains(&ip)),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests;
