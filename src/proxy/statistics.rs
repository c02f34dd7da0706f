//! Counts of a running proxy at one moment.

use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

/// Counts of a running proxy at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Open connections, from accept to close.
    pub open: usize,
    /// The open connections that have no backend yet.
    pub pending: usize,
    /// The pending connections that wait at the rendezvous.
    pub waiting: usize,
    ended: [(Outcome, u64); Outcome::ALL.len()],
}

impl Statistics {
    pub(crate) fn of(state: &ProxyState) -> Self {
        Self {
            open: state.ledger.open_connections(),
            pending: state.limits.pending(),
            waiting: state.rendezvous.len(),
            ended: Outcome::ALL.map(|outcome| (outcome, state.ledger.ended(outcome))),
        }
    }

    /// The number of connections that have ended with this outcome, since the start.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended
            .iter()
            .find(|(this, _)| *this == outcome)
            .map_or(0, |(_, count)| *count)
    }
}
