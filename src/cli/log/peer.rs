//! The addresses of clients that `--peer` selects.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

/// The addresses of clients.
#[derive(Clone, Debug)]
pub(in crate::cli) enum Peer {
    Network(IpNet),
    /// The path of a Unix socket, with `unix:`.
    Unix(String),
}

impl Peer {
    pub(super) fn has(&self, peer: &str) -> bool {
        match self {
            Self::Unix(path) => peer == path,
            Self::Network(network) => peer
                .parse::<SocketAddr>()
                .is_ok_and(|peer| network.contains(&peer.ip())),
        }
    }
}

impl FromStr for Peer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("unix:") {
            return Ok(Self::Unix(text.to_owned()));
        }
        let address = text.parse::<IpAddr>().map(|ip| ip.to_canonical().into());
        let network = address.or_else(|_| text.parse::<IpNet>());
        network
            .map(Self::Network)
            .map_err(|_| "expected an IP address, a network such as 192.0.2.0/24, or unix:/PATH")
    }
}
