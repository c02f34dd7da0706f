//! Filters that select open connections, and the snapshots that they return.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{ConnectionState, Entry};
use super::index::Name;
use crate::facts::Facts;
use crate::id::Id;

/// Selects open connections. A connection matches if it meets every condition that is set.
///
/// A query by id, tunnel, identity, peer, backend or listener does not scan all connections; a query by
/// state or server name alone does.
///
/// ```
/// use vestibule::{ConnectionFilter, ConnectionState};
///
/// let waiting = ConnectionFilter::all()
///     .backend("app")
///     .state(ConnectionState::Waiting);
/// # let _ = waiting;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct ConnectionFilter {
    id: Option<Id>,
    identity: Option<String>,
    peer: Option<IpAddr>,
    backend: Option<String>,
    listener: Option<String>,
    sni: Option<String>,
    tunnel: Option<Id>,
    state: Option<ConnectionState>,
}

impl ConnectionFilter {
    /// Matches every connection.
    pub fn all() -> Self {
        Self::default()
    }

    /// Only the connection with this id.
    pub fn id(mut self, id: impl Into<Id>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Only clients whose certificate has this name, for example `cn:alice`,
    /// `dns:web.corp.example`, `uri:spiffe://corp/web`, `ou:ops`, or `sha256:` followed by 64
    /// lowercase hexadecimal digits. Names are compared byte by byte, without wildcards.
    pub fn identity(mut self, name: impl Into<String>) -> Self {
        self.identity = Some(name.into());
        self
    }

    /// Only clients with this IP address.
    pub fn peer(mut self, ip: IpAddr) -> Self {
        self.peer = Some(ip.to_canonical());
        self
    }

    /// Only connections whose route chose the backend with this name.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.backend = Some(name.into());
        self
    }

    /// Only connections of the listener with this name.
    pub fn listener(mut self, name: impl Into<String>) -> Self {
        self.listener = Some(name.into());
        self
    }

    /// Only clients that asked for this server name (SNI, RFC 6066 §3). ASCII case is ignored.
    pub fn sni(mut self, name: impl Into<String>) -> Self {
        self.sni = Some(name.into());
        self
    }

    /// Only streams of the tunnel that the connection with this id carries.
    pub fn tunnel(mut self, id: impl Into<Id>) -> Self {
        self.tunnel = Some(id.into());
        self
    }

    /// Only connections in this state.
    pub fn state(mut self, state: ConnectionState) -> Self {
        self.state = Some(state);
        self
    }

    /// Whether no condition is set.
    pub(super) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn wanted_id(&self) -> Option<Id> {
        self.id
    }

    /// The condition with an index that usually matches the fewest connections.
    pub(super) fn rarest_name(&self) -> Option<Name<'_>> {
        let identity = self.identity.as_deref().map(Name::Identity);
        let peer = self.peer.map(Name::Peer);
        let backend = self.backend.as_deref().map(Name::Backend);
        let listener = self.listener.as_deref().map(Name::Listener);
        let tunnel = self.tunnel.map(Name::Tunnel);
        tunnel.or(identity).or(peer).or(backend).or(listener)
    }

    pub(super) fn matches(&self, entry: &Entry) -> bool {
        let facts = entry.facts();
        let tls = facts.tls.as_ref();
        let identity = facts.identity.as_ref();
        let sni = tls.and_then(|tls| tls.sni.as_deref());
        holds(&self.id, |id| *id == entry.id)
            && holds(&self.identity, |name| {
                identity.is_some_and(|it| it.is_named(name))
            })
            && holds(&self.peer, |ip| facts.peer_ip() == Some(*ip))
            && holds(&self.backend, |name| facts.backend == *name)
            && holds(&self.listener, |name| {
                facts.listener.as_deref() == Some(name)
            })
            && holds(&self.sni, |name| {
                sni.is_some_and(|sni| sni.eq_ignore_ascii_case(name))
            })
            && holds(&self.tunnel, |id| facts.tunnel() == Some(*id))
            && holds(&self.state, |state| *state == entry.state())
    }
}

/// A condition that is not set always holds.
fn holds<T>(asked: &Option<T>, is_so: impl FnOnce(&T) -> bool) -> bool {
    asked.as_ref().is_none_or(is_so)
}

/// A snapshot of an open connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenConnection {
    /// What was known of the connection.
    pub facts: Arc<Facts>,
    /// The stage of the connection.
    pub state: ConnectionState,
    /// Payload bytes from the client that the backend's socket has taken.
    pub bytes_in: u64,
    /// Payload bytes from the backend that the client's socket has taken.
    pub bytes_out: u64,
    /// The time since accept.
    pub age: Duration,
    /// The time since a byte of payload moved in either direction, or since accept if none has.
    pub idle: Duration,
    /// Of a connection that carries a tunnel, the number of open streams in it, at most 65,534 of them. They include
    /// the offers and connections of network workers.
    pub streams: Option<u16>,
}

impl OpenConnection {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            facts: entry.facts(),
            state: entry.state(),
            bytes_in: entry.traffic.from_client.get(),
            bytes_out: entry.traffic.to_client.get(),
            age: entry.age(),
            idle: entry.idle(),
            streams: entry.carried(),
        }
    }
}
