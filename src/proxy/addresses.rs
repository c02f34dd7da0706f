//! Takes addresses of backends out of service and back.

use std::fmt;

use super::Running;
use crate::address::Address;
use crate::backend::{ActiveBackend, AddressState};
use crate::journal::{Event, EventKind};
use crate::proxy_state::ProxyState;

impl Running {
    /// Changes the state of an address of a backend: one that is configured or registered, or one of the
    /// current socket addresses of a host name. The state of a name is valid for all of its socket addresses.
    ///
    /// A reload keeps the state while the backend keeps the address; a restart, a new registration, and an
    /// answer of the name server without the address do not. While no address may have connections, new
    /// ones wait as if none answered.
    ///
    /// [`AddressState::Down`] ends the connections at the address as
    /// [`Outcome::Killed`](crate::Outcome::Killed). None that was dialled before survives.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// use vestibule::AddressState;
    ///
    /// let config: vestibule::Config = r#"
    ///     [[listener]]
    ///     name = "plain"
    ///     address = "tcp:127.0.0.1:0"
    ///     [[backend]]
    ///     name = "app"
    ///     to = ["tcp:127.0.0.1:9000", "tcp:127.0.0.1:9001"]
    /// "#
    /// .parse()?;
    /// let running = vestibule::Proxy::builder(config).bind().await?.start();
    /// let changed = running.set_address_state("app", &"127.0.0.1:9000".parse()?, AddressState::Drain)?;
    /// assert_eq!((changed.open, changed.killed), (0, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        set(&self.state, backend, address, state)
    }
}

/// See [`Running::set_address_state`].
pub(crate) fn set(
    state: &ProxyState,
    backend: &str,
    address: &Address,
    to: AddressState,
) -> Result<AddressChange, UnknownAddress> {
    let config = state.config.load_full();
    let Some(found) = config.backends.get(backend) else {
        let backends = config.backends.keys().cloned().collect();
        return Err(UnknownAddress::backend(backend, backends));
    };
    let Some(ordered) = found.order(address, to) else {
        return Err(UnknownAddress::address(backend, address, known(found)));
    };
    publish(state, found, address, to);
    let killed = match to {
        AddressState::Down => state.ledger.end_at(backend, &ordered.numbers),
        AddressState::Up | AddressState::Drain => 0,
    };
    Ok(AddressChange {
        open: ordered.open,
        killed,
    })
}

fn publish(proxy: &ProxyState, backend: &ActiveBackend, address: &Address, state: AddressState) {
    if !proxy.journal.is_observed() {
        return;
    }
    let address = address.to_string();
    let all = backend.addresses();
    let mut all = all
        .iter()
        .flat_map(|it| std::iter::once(it).chain(&it.found));
    let is_up = all.any(|it| it.address == address && it.is_up);
    proxy.journal.publish(Event::now(EventKind::Backend {
        backend: backend.name().to_owned(),
        address,
        state: state.as_str(),
        health: if is_up { "up" } else { "down" },
        reason: Some("by order of an operator".into()),
    }));
}

/// The addresses that the backend has.
fn known(backend: &ActiveBackend) -> Vec<String> {
    let all = backend.addresses().into_iter();
    all.flat_map(|it| std::iter::once(it.address).chain(it.found.into_iter().map(|it| it.address)))
        .collect()
}

/// What the change of an address's state has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressChange {
    /// The connections and attempts at the address when its state changed.
    pub open: usize,
    /// How many connections were told to end, without those that were ending already.
    pub killed: usize,
}

/// There is no such backend, or it has no such address. The message lists what there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UnknownAddress {
    message: String,
}

impl UnknownAddress {
    fn backend(name: &str, known: Vec<String>) -> Self {
        let known = list("backends", known);
        Self {
            message: format!("there is no backend {name:?}; {known}"),
        }
    }

    fn address(backend: &str, address: impl fmt::Display, known: Vec<String>) -> Self {
        let address = address.to_string();
        let known = list("addresses", known);
        Self {
            message: format!("backend {backend:?} has no address {address:?}; {known}"),
        }
    }

    /// For a text that is no address.
    pub(crate) fn unreadable(state: &ProxyState, backend: &str, text: &str) -> Self {
        let config = state.config.load_full();
        match config.backends.get(backend) {
            Some(found) => Self::address(backend, text, known(found)),
            None => Self::backend(backend, config.backends.keys().cloned().collect()),
        }
    }
}

/// What there is, in order.
fn list(what: &str, mut known: Vec<String>) -> String {
    if known.is_empty() {
        return format!("it has no {what} now");
    }
    known.sort();
    known.dedup();
    let more = known.len().saturating_sub(MOST_LISTED);
    known.truncate(MOST_LISTED);
    let known = known.join(", ");
    match more {
        0 => format!("{what}: {known}"),
        more => format!("{what}: {known} and {more} more"),
    }
}

/// A message is for people to read.
const MOST_LISTED: usize = 50;
