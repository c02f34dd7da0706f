//! What operators see of a backend.

pub(crate) use super::pool::AddressStatus;
use super::{ActiveBackend, Kind};

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
}
