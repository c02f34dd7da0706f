//! The sockets that this Vestibule listens on: none of them is a backend, or connections would run in
//! circles until there is no descriptor left.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::address::Address;
use crate::facts::Endpoint;

/// The listeners, the gate, and what else is open; a reload replaces them.
#[derive(Debug, Default)]
pub(crate) struct OwnSockets(ArcSwap<Vec<OwnSocket>>);

/// One that is bound, and what it is called in messages.
#[derive(Clone, Debug)]
pub(crate) struct OwnSocket {
    pub endpoint: Endpoint,
    pub name: String,
}

impl OwnSockets {
    pub(crate) fn replace(&self, doors: Vec<OwnSocket>) {
        self.0.store(Arc::new(doors));
    }

    /// The one of them that is at the address, as far as one can tell without a name server.
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

    /// Whether a connection to the port may be one of ours: nearly always not, and then there is
    /// nothing to be asked.
    pub(super) fn has_port(&self, port: u16) -> bool {
        let doors = self.0.load();
        doors.iter().any(|door| match &door.endpoint {
            Endpoint::Tcp(ours) => ours.port() == port,
            Endpoint::Unix(_) => false,
        })
    }

    /// Whether a connection has one of ours at its other end.
    pub(super) fn is_at_the_end(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let (here, there) = (local.ip().to_canonical(), peer.ip().to_canonical());
        // The machine speaks to itself from the address that it speaks to, or on loopback.
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

/// Whether a socket that is bound to all addresses takes connections to this one.
fn is_any(bound: IpAddr, to: IpAddr) -> bool {
    match bound {
        IpAddr::V4(ip) => ip.is_unspecified() && to.is_ipv4(),
        // Ours take IPv4 as well.
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
