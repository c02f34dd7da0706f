//! What operators see of a backend.

pub(crate) use super::pool::AddressStatus;
use super::{ActiveBackend, AddressState, Kind, Ordered};
use crate::address::Address;

impl ActiveBackend {
    /// How connections reach the backend: `dialled`, `gate`, `hello` or `echo`.
    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Dialled(..) => "dialled",
            Kind::Claimed(_) => "gate",
            Kind::Hello(_) => "hello",
            Kind::Echo => "echo",
        }
    }

    /// The addresses that are dialled, with their health. A built-in backend has none.
    pub(crate) fn addresses(&self) -> Vec<AddressStatus> {
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => pool.addresses(),
            Kind::Hello(_) | Kind::Echo => Vec::new(),
        }
    }

    /// Changes the state of an address. `None` if the backend has no such address.
    pub(crate) fn order(&self, address: &Address, state: AddressState) -> Option<Ordered> {
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => pool.order(address, state),
            Kind::Hello(_) | Kind::Echo => None,
        }
    }
}
