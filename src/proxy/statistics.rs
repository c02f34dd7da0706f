//! A moment's view of a running proxy.

use crate::outcome::Outcome;
use crate::proxy_state::ProxyState;

/// A moment's view of a running proxy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Connections from accept to close.
    pub open: usize,
    /// Of these, those that no backend has yet.
    pub pending: usize,
    /// Of these, those that wait at the rendezvous.
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

    /// How many connections have ended in this way.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        self.ended
            .iter()
            .find(|(this, _)| *this == outcome)
            .map_or(0, |(_, count)| *count)
    }
}
