//! Takes a connection in, wherever it comes from, or closes it before any work is done for it.

use std::sync::Arc;

use crate::active_config::{ActiveConfig, ListenerConfig};
use crate::client::Transport;
use crate::facts::{Endpoint, Facts};
use crate::id::Id;
use crate::ledger::{LedgerRecord, Via};
use crate::limits::{FirstStage, Permit, Place};
use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

/// A connection as it comes from its source.
pub(crate) struct Arrival<'a> {
    /// Those of its moment.
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub transport: Transport,
    pub peer: Option<Endpoint>,
    /// Where it connected to, if its source knows; its socket is asked otherwise.
    pub local: Option<&'a Endpoint>,
}

/// A connection that was taken in.
pub(crate) struct Accepted {
    pub config: Arc<ActiveConfig>,
    pub listener: Arc<ListenerConfig>,
    pub transport: Transport,
    /// Room among the open connections.
    pub permit: Permit,
    /// Room among those that no backend has yet.
    pub place: Place,
    pub record: LedgerRecord,
}

/// # Errors
///
/// How the connection has ended.
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
    let (client, begins, via) = match &listener.proxies {
        // Before it takes a place: no share bounds how many one address could have of them.
        Some(trusted) if !trusted.contains(peer.as_ref()) => {
            state.ledger.denied(facts(peer));
            return Err(Outcome::Denied);
        }
        // Where a load balancer tells of the client, its own connections are nobody's share,
        // nor has it been said yet whose handshake it is.
        Some(_) => (None, FirstStage::ProxyHeader, Via::Proxy),
        None => (peer.as_ref(), listener.begins(), Via::Direct),
    };
    let ip = client.and_then(Endpoint::ip);
    let (permit, place) = match state.limits.admit(ip, begins) {
        Ok(admitted) => admitted,
        Err(limit) => {
            let name = &listener.name;
            state.ledger.refused(name, peer.as_ref(), limit.key());
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
