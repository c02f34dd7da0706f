//! An address of a backend, and the tunnels to it, as the API shows them.

use serde::Serialize;

use crate::backend::AddressStatus;
use crate::backend::tunnels::TunnelCounts;

#[derive(Serialize)]
pub(super) struct Address {
    address: String,
    /// By order of an operator: `up`, `drain` or `down`.
    state: &'static str,
    /// `up` or `down`.
    health: &'static str,
    /// Connections and attempts.
    connections: usize,
    error: Option<String>,
    /// Those to it. `null` if it is not reached through tunnels.
    tunnels: Option<Tunnels>,
    /// The uid that registered it at the gate.
    registered_by: Option<u32>,
    /// The socket addresses of a host name.
    resolved: Vec<Address>,
}

impl Address {
    pub(super) fn of(status: AddressStatus) -> Self {
        Self {
            address: status.address,
            state: status.state.as_str(),
            health: match status.is_up {
                true => "up",
                false => "down",
            },
            connections: status.open,
            error: status.last_error,
            tunnels: status.tunnels.map(Tunnels::from),
            registered_by: status.registrant,
            resolved: status.found.into_iter().map(Self::of).collect(),
        }
    }
}

/// Open tunnels and their streams.
#[derive(Serialize)]
pub(super) struct Tunnels {
    open: usize,
    streams: usize,
}

impl From<TunnelCounts> for Tunnels {
    fn from(counts: TunnelCounts) -> Self {
        Self {
            open: counts.tunnels,
            streams: counts.streams,
        }
    }
}
