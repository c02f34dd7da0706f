//! The sockets that this Vestibule listens on. None of them may be a backend: connections would run
//! in a loop until no descriptor is left.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::address::Address;
use crate::facts::Endpoint;

/// The listeners, the gate, and other listening sockets. A reload replaces the list.
#[derive(Debug, Default)]
pub(crate) struct OwnSockets(ArcSwap<Vec<OwnSocket>>);

/// A bound socket, and its name in messages.
#[derive(Clone, Debug)]
pub(crate) struct OwnSocket {
    pub endpoint: Endpoint,
    pub name: String,
    /// The listener that it belongs to; `None` for the gate and the admin API.
    pub listener: Option<String>,
}

impl OwnSockets {
    pub(crate) fn replace(&self, doors: Vec<OwnSocket>) {
        self.0.store(Arc::new(doors));
    }

    /// The endpoints of a listener.
    pub(crate) fn of_listener(&self, name: &str) -> Vec<Endpoint> {
        let sockets = self.0.load();
        let own = sockets
            .iter()
            .filter(|it| it.listener.as_deref() == Some(name));
        own.map(|it| it.endpoint.clone()).collect()
    }

    /// The name of the own socket at the address, if it can be found without a name server.
    pub(crate) fn at(&self, address: &Address) -> Option<String> {
        let doors = self.0.load();
        let door = doors.iter().find(|door| door.is_at(address));
        door.map(|door| door.name.clone())
    }

    pub(super) fn is_path(&self, path: &Path) -> bool {
        let doors = self.0.load();
        doors.iter().any(|door| match &door.endpoint {
            Endpoint::Unix(ours) => ours == path,
            Endpoint::Tcp(_) => false,
        })
    }

    /// Whether a port is one of ours. It rarely is, and then no further check is necessary.
    pub(super) fn has_port(&self, port: u16) -> bool {
        let doors = self.0.load();
        doors.iter().any(|door| match &door.endpoint {
            Endpoint::Tcp(ours) => ours.port() == port,
            Endpoint::Unix(_) => false,
        })
    }

    /// Whether the other end of a connection is one of our sockets.
    pub(super) fn is_at_the_end(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let (here, there) = (local.ip().to_canonical(), peer.ip().to_canonical());
        // A connection to the own machine has the same address at both ends, or a loopback address.
        let is_here = there.is_loopback() || here == there;
        let doors = self.0.load();
        is_here
            && doors.iter().any(|door| match &door.endpoint {
                Endpoint::Tcp(ours) if ours.port() != peer.port() => false,
                Endpoint::Tcp(ours) => ours.ip() == there || is_any(ours.ip(), there),
                Endpoint::Unix(_) => false,
            })
    }
}

impl OwnSocket {
    pub(crate) fn is_at(&self, address: &Address) -> bool {
        match (&self.endpoint, address) {
            (Endpoint::Unix(ours), Address::Unix(path)) => is_same_file(ours, path),
            (Endpoint::Tcp(ours), Address::Tcp { .. }) => {
                Address::from(*ours).is_reached_by(address)
            }
            (Endpoint::Unix(_), Address::Tcp { .. }) | (Endpoint::Tcp(_), Address::Unix(_)) => {
                false
            }
        }
    }
}

/// Whether a socket that is bound to all addresses accepts connections to this one.
fn is_any(bound: IpAddr, to: IpAddr) -> bool {
    match bound {
        IpAddr::V4(ip) => ip.is_unspecified() && to.is_ipv4(),
        // Our IPv6 sockets accept IPv4 as well.
        IpAddr::V6(ip) => ip.is_unspecified(),
    }
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    one == other || identity(one).is_some_and(|it| identity(other) == Some(it))
}
