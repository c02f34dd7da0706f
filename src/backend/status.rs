//! What operators see of a backend.

use std::sync::Arc;
use std::time::Duration;

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

    /// Checks the addresses until the future is dropped, if the configuration says so. Each check takes at
    /// most `most`.
    pub(crate) fn checks(
        &self,
        most: Option<Duration>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        self.settings.check.as_ref()?;
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => Some(Arc::clone(pool).check_all(most)),
            Kind::Hello(_) | Kind::Echo => None,
        }
    }

    /// Called when the checks have ended, and this backend is not the active one of its name any more.
    pub(crate) fn retire(&self) {
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => pool.retire(),
            Kind::Hello(_) | Kind::Echo => {}
        }
    }

    /// Called when another backend has taken its place: its tunnels end with their last streams.
    pub(crate) fn retire_tunnels(&self) {
        match &self.kind {
            Kind::Dialled(pool, _) | Kind::Claimed(pool) => pool.retire_tunnels(),
            Kind::Hello(_) | Kind::Echo => {}
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
