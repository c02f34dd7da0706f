//! Takes a connection from its source, or closes it before any work is done for it.

use std::sync::Arc;

use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::authority::Authority;
use crate::client::Transport;
use crate::facts::{Endpoint, Facts, StreamFacts};
use crate::id::Id;
use crate::ledger::{LedgerRecord, NoRoom, Via};
use crate::limits::{FirstStage, Permit, Place};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;
use crate::tunnel::StatusCode;

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
    /// What is known already of a stream in a tunnel.
    pub stream: Option<Stream<'a>>,
}

/// A stream in a tunnel: its client has proved its identity to the carrier.
pub(crate) struct Stream<'a> {
    pub carrier: &'a LedgerRecord,
    pub authority: Authority,
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

impl Stream<'_> {
    fn inherit(&self, facts: &mut Facts) {
        let carrier = self.carrier.facts();
        facts.tls = carrier.tls.clone();
        facts.identity = carrier.identity.clone();
        facts.set_stream(StreamFacts {
            tunnel: carrier.id,
            authority: self.authority.as_str().into(),
        });
    }
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
        stream,
    } = arrival;
    let facts = |peer| {
        let mut facts = Facts::of(Id::random());
        facts.listener = Some(Arc::clone(&listener.name));
        facts.peer = peer;
        facts.local = local.cloned().or_else(|| transport.local());
        facts
    };
    let (client, first, via) = match &listener.proxies {
        // The carrier has had the header, and the handshake.
        _ if stream.is_some() => (peer.as_ref(), FirstStage::Backend, Via::Direct),
        // The front bounds the connections of an address. Here, those of one that is above a limit would come back
        // again and again, before all others.
        _ if transport.is_offered() => (None, FirstStage::Backend, Via::Direct),
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
        transport.turn_away(StatusCode::TOO_MANY_REQUESTS);
        return Err(Outcome::Shed);
    }
    let ip = client.and_then(Endpoint::ip);
    let (permit, place) = match state.limits.admit(ip, first) {
        Ok(admitted) => admitted,
        Err(limit) => {
            let no_room = NoRoom::Limit(limit.key());
            state.ledger.refused(name, peer.as_ref(), no_room);
            transport.turn_away(StatusCode::TOO_MANY_REQUESTS);
            return Err(Outcome::OverLimit);
        }
    };
    let mut facts = facts(peer);
    if let Some(stream) = &stream {
        stream.inherit(&mut facts);
    }
    let record = state.ledger.open(facts, via);
    if let Some(chain) = stream.and_then(|it| it.carrier.entry().chain()) {
        record.entry().keep_chain(chain);
    }
    Ok(Box::new(Accepted {
        config,
        listener,
        transport,
        permit,
        place,
        record,
    }))
}
