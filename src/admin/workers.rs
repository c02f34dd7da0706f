//! Workers and fronts, as the API shows them.

use std::sync::Arc;

use humantime::format_rfc3339_millis;
use serde::Serialize;

use super::address::Address;
use crate::active_config::{ActiveFront, ActiveJoin, FrontState};
use crate::backend::ActiveBackend;
use crate::proxy::WaitingWorkers;
use crate::proxy_state::ProxyState;

/// The workers that wait for connections of a backend.
#[derive(Serialize)]
pub(super) struct Workers {
    /// At the gate.
    local: usize,
    /// Offers of network workers.
    network: usize,
    /// The tunnels with these offers.
    tunnels: usize,
    watching: usize,
    registered: usize,
}

impl Workers {
    pub(super) fn of(backend: &ActiveBackend, state: &ProxyState) -> Option<Self> {
        let waiting = WaitingWorkers::of(backend, state)?;
        Some(Self {
            local: waiting.local,
            network: waiting.network,
            tunnels: waiting.tunnels,
            watching: waiting.watching,
            registered: waiting.registered,
        })
    }
}

/// One `[[join]]`.
#[derive(Serialize)]
pub(super) struct Join {
    backend: String,
    /// What it offers to each front.
    offers: usize,
    /// The local server: `up` or `down`. While it is down, nothing is offered.
    server: &'static str,
    /// Of the local server.
    addresses: Vec<Address>,
    fronts: Vec<Front>,
}

#[derive(Serialize)]
struct Front {
    address: String,
    /// `connecting`, `joined` or `failing`.
    state: &'static str,
    since: String,
    /// Why it is `failing`.
    trouble: Option<String>,
    tunnels: usize,
    /// Those that wait for a connection.
    offers: usize,
    /// Open ones that the front has given.
    connections: usize,
    /// Since the start, or since the reload that has changed this join.
    served: u64,
}

impl Join {
    pub(super) fn all(state: &ProxyState) -> Vec<Self> {
        let config = state.config.load();
        config.joins.iter().map(Self::of).collect()
    }

    fn of(join: &Arc<ActiveJoin>) -> Self {
        let addresses = join.server.addresses().into_iter();
        Self {
            backend: join.settings.backend.clone(),
            offers: join.settings.offers,
            server: match *join.is_down.borrow() {
                true => "down",
                false => "up",
            },
            addresses: addresses.map(Address::of).collect(),
            fronts: join.fronts.iter().map(Front::of).collect(),
        }
    }
}

impl Front {
    fn of(front: &ActiveFront) -> Self {
        let status = front.status();
        let (state, trouble) = match status.state {
            FrontState::Connecting => ("connecting", None),
            FrontState::Joined => ("joined", None),
            FrontState::Failing(what) => ("failing", Some(what)),
        };
        Self {
            address: front.address.to_string(),
            state,
            since: format_rfc3339_millis(status.since).to_string(),
            trouble,
            tunnels: front.tunnels.count(),
            offers: front.offers.count(),
            connections: front.open.count(),
            served: front.given(),
        }
    }
}
