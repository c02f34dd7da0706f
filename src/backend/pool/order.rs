//! What an operator has ordered for an address: whether it may have connections.
//!
//! ```text
//! down: 1. the order, with a new count ─► 2. the ledger's connections at the address are ended
//! dial: 1. a pass, with the count ─► connect ─► 2. written into the ledger ─► 3. is the count the same?
//! ```
//!
//! Either step 2 of `down` finds a connection in the ledger, or step 3 of the dial finds another count.
//! So no connection that was dialled before the order survives it.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::dial::Place;

/// Whether an address of a backend may have connections, by order of an operator. Its health is
/// independent of this.
///
/// ```
/// use vestibule::AddressState;
///
/// assert_eq!("drain".parse(), Ok(AddressState::Drain));
/// assert_eq!(AddressState::Drain.to_string(), "drain");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AddressState {
    /// It gets connections.
    #[default]
    Up,
    /// It gets no new connections; those that it has go on.
    Drain,
    /// It gets no new connections, and those that it has are ended.
    Down,
}

impl AddressState {
    const ALL: [Self; 3] = [Self::Up, Self::Drain, Self::Down];

    /// The word for the admin API: `up`, `drain` or `down`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for AddressState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AddressState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|it| it.as_str() == text);
        found.ok_or("expected up, drain or down")
    }
}

/// The order for one address. A reload hands it on to the address's successor.
#[derive(Debug)]
pub(super) struct Order {
    /// Names the address in the ledger. Never 0.
    pub number: u32,
    /// The [`AddressState`] in the lowest two bits, and above them how often it was put down.
    word: AtomicU32,
    /// The orders for the socket addresses of a host name: those in the latest answer, and those that
    /// still have connections.
    found: Mutex<Vec<(Place, Arc<Order>)>>,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            number: next_number(),
            word: AtomicU32::new(0),
            found: Mutex::default(),
        }
    }
}

impl Order {
    pub(super) fn state(&self) -> AddressState {
        state_of(self.word())
    }

    pub(super) fn set(&self, state: AddressState) {
        let put_down = u32::from(state == AddressState::Down);
        let next = |word: u32| {
            let downs = (word >> STATE_BITS).wrapping_add(put_down);
            Some((downs << STATE_BITS) | state as u32)
        };
        // SeqCst, here and below: see the picture. It fails only if `next` returns `None`.
        let order = Ordering::SeqCst;
        let _ = self.word.fetch_update(order, order, next);
    }

    /// How often the address was put down, if it may have a new connection.
    pub(super) fn pass(&self) -> Option<u32> {
        let word = self.word();
        (state_of(word) == AddressState::Up).then_some(word >> STATE_BITS)
    }

    /// How often the address was put down.
    pub(super) fn downs(&self) -> u32 {
        self.word() >> STATE_BITS
    }

    /// The order for a socket address of this host name.
    pub(super) fn of(&self, place: &Place) -> Arc<Self> {
        let mut found = self.found();
        if let Some((_, order)) = found.iter().find(|(known, _)| known == place) {
            return Arc::clone(order);
        }
        let order = Arc::<Self>::default();
        found.push((place.clone(), Arc::clone(&order)));
        order
    }

    /// Forgets socket addresses that are not in the latest answer and have no connection.
    pub(super) fn forget_others(&self, places: &[Place]) {
        self.found()
            .retain(|(place, order)| places.contains(place) || Arc::strong_count(order) > 1);
    }

    /// The numbers in the ledger that this order is about.
    pub(super) fn numbers(&self) -> Vec<u32> {
        let found = self.found();
        let found = found.iter().map(|(_, order)| order.number);
        std::iter::once(self.number).chain(found).collect()
    }

    fn word(&self) -> u32 {
        self.word.load(Ordering::SeqCst)
    }

    fn found(&self) -> MutexGuard<'_, Vec<(Place, Arc<Self>)>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn state_of(word: u32) -> AddressState {
    let index = (word & ((1 << STATE_BITS) - 1)) as usize;
    *AddressState::ALL.get(index).unwrap_or(&AddressState::Up)
}

/// It comes round after four thousand million addresses. Two numbers are the same only if a connection
/// is that old.
fn next_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    match LAST.fetch_add(1, Ordering::Relaxed).wrapping_add(1) {
        0 => next_number(),
        number => number,
    }
}

const STATE_BITS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_how_often_it_was_down() {
        let order = Order::default();
        assert_eq!((order.state(), order.pass()), (AddressState::Up, Some(0)));
        for (state, pass) in [
            (AddressState::Drain, None),
            (AddressState::Up, Some(0)),
            (AddressState::Down, None),
            (AddressState::Up, Some(1)),
        ] {
            order.set(state);
            assert_eq!((order.state(), order.pass()), (state, pass));
        }
        assert_eq!(order.downs(), 1);
    }

    #[test]
    fn socket_addresses_are_forgotten_when_nobody_has_them() {
        let name = Order::default();
        let [a, b] = ["127.0.0.1:1", "127.0.0.2:1"].map(|it| Place::Tcp(it.parse().unwrap()));
        let held = name.of(&a);
        held.set(AddressState::Drain);
        name.forget_others(std::slice::from_ref(&b));
        assert_eq!(name.of(&a).state(), AddressState::Drain);
        assert!(name.numbers().contains(&held.number));
        drop(held);
        name.forget_others(&[b]);
        assert_eq!(name.of(&a).state(), AddressState::Up);
    }
}
