//! What operators see of a backend's addresses.

use std::sync::atomic::Ordering;

use super::{AddressState, Pool, Target};
use crate::address::Address;
use crate::backend::dial::Place;
use crate::backend::tunnels::{TunnelCounts, Tunnels};

/// One address of a backend at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressStatus {
    /// As configured or registered.
    pub address: String,
    /// By order of an operator.
    pub state: AddressState,
    pub is_up: bool,
    /// Connections and attempts.
    pub open: usize,
    /// The latest error since the address last answered.
    pub last_error: Option<String>,
    /// The tunnels to it. `None` if the backend is not reached through tunnels.
    pub tunnels: Option<TunnelCounts>,
    /// The uid that registered it; `None` if it is configured.
    pub registrant: Option<u32>,
    /// The socket addresses of a host name, as far as they are known.
    pub found: Vec<AddressStatus>,
}

impl Pool {
    /// The addresses as configured, then those that workers registered.
    pub(crate) fn addresses(&self) -> Vec<AddressStatus> {
        let targets = self.targets();
        let tunnels = self.tunnels.as_ref();
        targets.iter().map(|it| it.status(tunnels)).collect()
    }
}

impl Target {
    /// A host name is up while one of its socket addresses is.
    fn status(&self, tunnels: Option<&Tunnels>) -> AddressStatus {
        let found = self.found.get();
        let error = || found.iter().find_map(|it| it.last_error());
        AddressStatus {
            address: self.shown(),
            state: self.state_ordered(),
            is_up: self.counts_as_up()
                && (found.is_empty() || found.iter().any(|it| it.counts_as_up())),
            open: self.all_open(),
            last_error: self.last_error().or_else(error),
            tunnels: tunnels.map(|it| self.tunnels(it)),
            registrant: self.registrant,
            found: found.iter().map(|it| it.status(tunnels)).collect(),
        }
    }

    /// The connections and attempts at the address, or at the socket addresses of a name.
    pub(super) fn all_open(&self) -> usize {
        let found = self.found.get();
        let all = std::iter::once(self).chain(found.iter().map(|it| &**it));
        all.map(|it| it.open.load(Ordering::Relaxed)).sum()
    }

    fn tunnels(&self, tunnels: &Tunnels) -> TunnelCounts {
        let found = self.found.get();
        let all = std::iter::once(self).chain(found.iter().map(|it| &**it));
        all.filter_map(|it| Some(tunnels.count(it.place.as_ref()?)))
            .sum()
    }

    /// As configured or registered; a socket address of a name by itself.
    fn shown(&self) -> String {
        match &self.place {
            Some(Place::Tcp(address)) if self.is_of_name => Address::from(*address).to_string(),
            _ => self.address.to_string(),
        }
    }

    /// Unlike [`Target::is_down`], also between two retries.
    fn counts_as_up(&self) -> bool {
        !self.is_disowned() && (self.is_well() || self.state().is_up())
    }
}
