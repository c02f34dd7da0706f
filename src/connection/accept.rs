//! Takes a connection from its source, or closes it before any work is done for it.

use std::sync::Arc;

use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::client::Transport;
use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::ledger::{LedgerRecord, NoRoom, Via};
use crate::limits::{FirstStage, Permit, Place};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

/// A connection as it comes from its source.
pub(crate) struct Arrival<'a> {
    /// The configuration at the time of the accept.
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub transport: Transport,
    pub peer: Option<Endpoint>,
    /// The address that the client connected to, if the source knows it; otherwise the socket is
    /// asked.
    pub local: Option<&'a Endpoint>,
}

/// A connection that has its place within the limits.
pub(crate) struct Accepted {
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub transport: Transport,
    /// Room among the open connections.
    pub permit: Permit,
    /// Room among the connections that have no backend yet.
    pub place: Place,
    pub record: LedgerRecord,
}

/// # Errors
///
/// The outcome of a connection that was closed here.
pub(crate) fn accept(arrival: Arrival<'_>, state: &ProxyState) -> Result<Box<Accepted>, Outcome> {
    let Arrival {
        config,
        listener,
        transport,
        peer,
        local,
    } = arrival;
    let facts = |peer| {
        let mut facts = Facts::of(Id::random());
        facts.listener = Some(Arc::clone(&listener.name));
        facts.peer = peer;
        facts.local = local.cloned().or_else(|| transport.local());
        facts
    };
    let (client, first, via) = match &listener.proxies {
        // This check comes before the connection takes a place: no limit per address bounds the
        // connections of a peer that is not trusted.
        Some(trusted) if !trusted.contains(peer.as_ref()) => {
            state.ledger.denied(facts(peer));
            return Err(Outcome::Denied);
        }
        // The peer is a load balancer. Its connections do not count for its own address, and the
        // client behind it is not known yet.
        Some(_) => (None, FirstStage::ProxyHeader, Via::Proxy),
        None => (peer.as_ref(), listener.first_stage(), Via::Direct),
    };
    let name = &listener.name;
    if !state.memory.admits(|| state.limits.pending()) {
        state.ledger.refused(name, peer.as_ref(), NoRoom::Memory);
        return Err(Outcome::Shed);
    }
    let ip = client.and_then(Endpoint::ip);
    let (permit, place) = match state.limits.admit(ip, first) {
        Ok(admitted) => admitted,
        Err(limit) => {
            let no_room = NoRoom::Limit(limit.key());
            state.ledger.refused(name, peer.as_ref(), no_room);
            return Err(Outcome::OverLimit);
        }
    };
    let record = state.ledger.open(facts(peer), via);
    Ok(Box::new(Accepted {
        config,
        listener,
        transport,
        permit,
        place,
        record,
    }))
}
