//! What operators see of a backend's addresses.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Pool, Target};

/// One address of a backend at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AddressStatus {
    /// As configured or registered.
    pub address: String,
    pub is_up: bool,
    /// Connections and attempts.
    pub open: usize,
    /// The latest error since the address last answered.
    pub last_error: Option<String>,
    /// The uid that registered it; `None` if it is configured.
    pub registrant: Option<u32>,
}

impl Pool {
    /// The addresses as configured, then those that workers registered.
    pub(crate) fn addresses(&self) -> Vec<AddressStatus> {
        let targets = self.targets();
        targets.iter().map(|target| target.status()).collect()
    }
}

impl Target {
    /// A host name is up while one of its socket addresses is.
    fn status(&self) -> AddressStatus {
        let found = match self.place {
            Some(_) => Vec::new(),
            None => self.found.get().iter().map(Arc::clone).collect(),
        };
        let opens = found.iter().map(|it| it.open.load(Ordering::Relaxed));
        let error = || found.iter().find_map(|it| it.last_error());
        AddressStatus {
            address: self.address.to_string(),
            is_up: self.counts_as_up()
                && (found.is_empty() || found.iter().any(|it| it.counts_as_up())),
            open: self.open.load(Ordering::Relaxed) + opens.sum::<usize>(),
            last_error: self.last_error().or_else(error),
            registrant: self.registrant,
        }
    }

    /// Unlike [`Target::is_down`], also between two retries.
    fn counts_as_up(&self) -> bool {
        !self.is_disowned() && (self.is_well() || self.state().retry_at.is_none())
    }
}
