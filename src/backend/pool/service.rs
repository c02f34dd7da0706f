//! Takes addresses out of service and back, as an operator orders.

use std::sync::Arc;

use super::{AddressState, Pool, Target};
use crate::address::Address;
use crate::backend::dial::Place;

/// What an order was about.
#[derive(Debug)]
pub(crate) struct Ordered {
    /// The numbers in the ledger of the connections at the address.
    pub numbers: Vec<u32>,
    /// Connections and attempts at the address, at the time of the order.
    pub open: usize,
}

impl Pool {
    /// Changes the state of an address: one that is configured or registered, or a socket address of a
    /// host name. `None` if there is no such address.
    pub(crate) fn order(&self, address: &Address, state: AddressState) -> Option<Ordered> {
        let targets = self.named(address);
        if targets.is_empty() {
            return None;
        }
        targets.iter().for_each(|target| target.order.set(state));
        if state == AddressState::Up {
            self.recovered.notify_waiters();
        }
        self.tunnels.iter().for_each(|it| it.look_again());
        let numbers = targets.iter().flat_map(|target| target.order.numbers());
        Some(Ordered {
            numbers: numbers.collect(),
            open: targets.iter().map(|target| target.all_open()).sum(),
        })
    }

    /// Whether there are addresses, and an operator has taken all of them out of service.
    pub(super) fn is_out_of_service(&self) -> bool {
        let targets = self.targets();
        !targets.is_empty() && targets.iter().all(|target| target.is_out_of_service())
    }

    /// From now on its tunnels end with their last streams.
    pub(crate) fn retire_tunnels(&self) {
        self.tunnels.iter().for_each(|it| it.retire());
    }

    /// Waits until there may be a place in a tunnel; for ever without tunnels.
    pub(super) async fn freed(&self) {
        match &self.tunnels {
            Some(tunnels) => tunnels.freed().await,
            None => std::future::pending().await,
        }
    }

    fn named(&self, address: &Address) -> Vec<Arc<Target>> {
        let place = Place::of(address);
        let is_it = |target: &Target| match &place {
            Some(_) => target.place == place,
            None => target.place.is_none() && target.address == *address,
        };
        let mut named = Vec::new();
        for target in self.targets().iter() {
            let found = target.found.get();
            let all = std::iter::once(target).chain(found.iter());
            named.extend(all.filter(|it| is_it(it)).map(Arc::clone));
        }
        named
    }
}

impl Target {
    /// A name is out of service also if all of its socket addresses are.
    fn is_out_of_service(&self) -> bool {
        let found = self.found.get();
        let are_out = !found.is_empty() && found.iter().all(|it| !it.is_in_service());
        !self.is_in_service() || are_out
    }
}
