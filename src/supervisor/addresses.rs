//! The states of backends' addresses.

use super::SupervisorHandle;
use crate::address::Address;
use crate::backend::AddressState;
use crate::proxy::{self, AddressChange, UnknownAddress};

impl SupervisorHandle {
    /// See [`Running::set_address_state`](crate::Running::set_address_state).
    ///
    /// # Errors
    ///
    /// There is no such backend, or it has no such address. Then nothing has changed.
    pub fn set_address_state(
        &self,
        backend: &str,
        address: &Address,
        state: AddressState,
    ) -> Result<AddressChange, UnknownAddress> {
        proxy::set_address_state(self.state(), backend, address, state)
    }
}
