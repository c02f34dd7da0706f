//! Where a connection waits under its id until exactly one claimer has it.
//!
//! ```text
//! announce(facts) ─► Ticket ── redeem ─► the claimer's stream
//!                      ▲  └── expired, withdrawn, dropped, drained ─► nobody's
//! claim(id, stream) ───┘ one gets it, every other has its stream back
//! ```
//!
//! One lock decides (see [`table`]): whether a claim or the deadline came first has one answer,
//! and there is no moment at which both or neither have happened.

mod table;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::fmt;
use std::future::poll_fn;

use tokio::sync::mpsc;

use self::sync::{Arc, Mutex, MutexGuard};
use self::table::Table;
pub(crate) use self::table::{Accepted, Event, Place, Resolution};
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::id::Id;

/// A table of connections that wait for somebody to serve them.
///
/// Vestibule's gate is built on one; a program that terminates TLS itself can use it alone.
/// Cloning gives another handle to the same table.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use std::time::Duration;
/// use vestibule::{Facts, Rendezvous};
///
/// let rendezvous = Rendezvous::new();
/// let facts = Facts::new("app");
/// let id = facts.id;
///
/// let ticket = rendezvous.announce(facts);
/// rendezvous.claim(id, "a stream").expect("the first claim");
/// assert_eq!(rendezvous.claim(id, "another").unwrap_err().into_stream(), "another");
///
/// assert_eq!(ticket.redeem(Duration::from_secs(5)).await, Ok("a stream"));
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Rendezvous<S> {
    table: Arc<Mutex<Table<S>>>,
    confirm: Confirm<S>,
}

/// Tells a claimer that the connection is its own, and gives the claimer back if that failed.
///
/// Called with the table locked, so that being told and having it are one event: it must not
/// block, and must not use the rendezvous.
pub(crate) type Confirm<S> = fn(S, &Facts) -> Result<S, S>;

impl<S> Rendezvous<S> {
    /// An empty table.
    pub fn new() -> Self {
        Self::confirmed_by(|stream, _| Ok(stream))
    }

    pub(crate) fn confirmed_by(confirm: Confirm<S>) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new())),
            confirm,
        }
    }

    /// Lets a connection wait under `facts.id` for a claimer.
    pub fn announce(&self, facts: Facts) -> Ticket<S> {
        self.announce_again(std::sync::Arc::new(facts), None)
    }

    /// As [`Rendezvous::announce`], in the place of an earlier announcement if there was one.
    pub(crate) fn announce_again(
        &self,
        facts: std::sync::Arc<Facts>,
        place: Option<Place>,
    ) -> Ticket<S> {
        let id = facts.id;
        let announced = self.lock().announce(facts, place, self.confirm);
        Ticket {
            rendezvous: self.clone(),
            id,
            place: announced.ok(),
            over: announced.err(),
        }
    }

    /// Claims the connection that waits under `id`.
    ///
    /// # Errors
    ///
    /// Gives the stream back when nothing waits under `id`: it never did, was claimed by another,
    /// or is no longer wanted.
    pub fn claim(&self, id: impl Into<Id>, stream: S) -> Result<(), Unclaimed<S>> {
        let claimed = self.lock().claim(id.into(), stream, self.confirm);
        match claimed {
            Ok(waker) => {
                waker.inspect(|waker| waker.wake_by_ref());
                Ok(())
            }
            Err(stream) => Err(Unclaimed(stream)),
        }
    }

    /// Takes the oldest waiting connection of `backend`, or queues the claimer for the next one.
    pub(crate) fn accept(&self, backend: &str, claimer: S) -> Accepted<S> {
        let accepted = self.lock().accept(backend, claimer, self.confirm);
        if let Accepted::Matched(Some(waker)) = &accepted {
            waker.wake_by_ref();
        }
        accepted
    }

    /// What waits for `backend` now, and every event from now on.
    ///
    /// A receiver that falls `capacity` events behind is dropped from the list: its channel ends.
    pub(crate) fn watch(
        &self,
        backend: &str,
        capacity: usize,
    ) -> (Vec<std::sync::Arc<Facts>>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (self.lock().watch(backend, sender), receiver)
    }

    /// Drops the queued claimers that are not alive any more.
    pub(crate) fn prune(&self, alive: impl FnMut(&S) -> bool) {
        let dead = self.lock().prune(alive);
        drop(dead);
    }

    /// Lets the watchers of `backend` go, and returns the claimers that are queued for it.
    pub(crate) fn dismiss(&self, backend: &str) -> Vec<S> {
        self.lock().dismiss(backend)
    }

    /// Resolves all that waits as drained and lets nothing wait from now on. Returns the queued
    /// claimers.
    pub(crate) fn drain(&self) -> Vec<S> {
        let (wakers, claimers) = self.lock().drain();
        wakers.into_iter().for_each(std::task::Waker::wake);
        claimers
    }

    /// How many connections wait, or were claimed and not yet redeemed.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table<S>> {
        // A panic under the lock could only come from a bug here; the table is consistent at
        // every point where one could happen, and one connection's panic must not end the others.
        self.table
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<S> Clone for Rendezvous<S> {
    fn clone(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            confirm: self.confirm,
        }
    }
}

impl<S> Default for Rendezvous<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for Rendezvous<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// A connection's place at the rendezvous.
///
/// Dropping the ticket withdraws the announcement, as one whose client is gone; a later claim gets its
/// stream back.
#[must_use = "dropping the ticket withdraws the announcement"]
pub struct Ticket<S> {
    rendezvous: Rendezvous<S>,
    id: Id,
    place: Option<Place>,
    /// Set once nothing waits for this ticket: it was refused, or has been resolved. The id may
    /// then be that of another ticket, whose place this one must not touch.
    over: Option<Unredeemed>,
}

impl<S> Ticket<S> {
    /// Waits until the connection is claimed, at most until `deadline`.
    ///
    /// A claim that came before the deadline is honoured, even if this is polled after it.
    ///
    /// # Errors
    ///
    /// Says why nobody has the connection. It can then not be claimed any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the ticket, which withdraws the announcement.
    pub async fn redeem(mut self, deadline: impl Into<Deadline>) -> Result<S, Unredeemed> {
        match deadline.into().bound(self.wait()).await {
            Ok(resolved) => resolved,
            Err(_) => self
                .withdraw(Resolution::Expired)
                .ok_or(Unredeemed::Expired),
        }
    }

    /// Where in the queue of its backend it waits, or waited.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Waits for a claim without giving the place up when cancelled.
    pub(crate) async fn wait(&mut self) -> Result<S, Unredeemed> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let resolved = poll_fn(|cx| self.rendezvous.lock().poll(self.id, cx.waker())).await;
        self.over = Some(Unredeemed::Drained);
        resolved
    }

    /// Ends the waiting, unless a claim came first: then the claimer's stream is returned.
    pub(crate) fn withdraw(mut self, resolution: Resolution) -> Option<S> {
        match self.over.replace(Unredeemed::Expired) {
            None => self.rendezvous.lock().withdraw(self.id, resolution),
            Some(_) => None,
        }
    }
}

impl<S> Drop for Ticket<S> {
    fn drop(&mut self) {
        if self.over.is_none() {
            let claimed = self
                .rendezvous
                .lock()
                .withdraw(self.id, Resolution::ClientGone);
            drop(claimed);
        }
    }
}

impl<S> fmt::Debug for Ticket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Why a ticket could not be redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unredeemed {
    /// Nobody claimed the connection before the deadline.
    #[error("nobody claimed the connection in time")]
    Expired,
    /// The rendezvous is being drained.
    #[error("the rendezvous is draining")]
    Drained,
    /// Another connection waits under the same id.
    #[error("another connection with this id is waiting")]
    Duplicate,
}

/// A claim of an id under which nothing waits. Holds the claimer's stream.
#[derive(PartialEq, Eq, thiserror::Error)]
#[error("no connection with this id is waiting")]
pub struct Unclaimed<S>(S);

impl<S> Unclaimed<S> {
    /// The stream that was offered.
    pub fn into_stream(self) -> S {
        self.0
    }
}

impl<S> fmt::Debug for Unclaimed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unclaimed")
    }
}

/// The lock that the model checker can watch.
mod sync {
    #[cfg(vestibule_loom)]
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};
    #[cfg(not(vestibule_loom))]
    pub(super) use std::sync::{Arc, Mutex, MutexGuard};
}
