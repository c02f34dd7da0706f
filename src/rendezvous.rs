//! The rendezvous: a connection waits under its id until exactly one claimer gets it.
//!
//! ```text
//! announce(facts) ─► Ticket ── redeem ─► the claimer's stream
//!                      ▲  └── expired, withdrawn, dropped, drained ─► no claimer gets it
//! claim(id, stream) ───┘ one claimer gets it, every other gets its stream back
//! ```
//!
//! One lock (see [`table`]) decides between a claim and the deadline: exactly one of them comes first.

mod table;
#[cfg(test)]
mod tests;
pub(crate) mod watching;
pub(crate) mod wire;

use std::fmt;
use std::future::poll_fn;
use std::task::Waker;

use tokio::sync::mpsc;

use self::sync::{Arc, Mutex, MutexGuard};
use self::table::Table;
pub(crate) use self::table::{Accepted, Event, Place, Resolution};
use crate::deadline::Deadline;
use crate::facts::Facts;
use crate::id::Id;

/// A table of connections that wait for a claimer.
///
/// Vestibule's gate uses one. A program that terminates TLS itself can use it alone. A clone is another
/// handle to the same table. The number of connections is not limited: the caller bounds it.
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

/// Tells a claimer that it has the connection. Gives the claimer back if that fails.
///
/// It is called with the table locked, so that the claimer is told and gets the connection in one step.
/// It must not block, and must not use the rendezvous.
pub(crate) type Confirm<S> = fn(S, &Facts) -> Result<S, S>;

impl<S> Rendezvous<S> {
    /// Makes an empty table.
    pub fn new() -> Self {
        Self::confirmed_by(|stream, _| Ok(stream))
    }

    pub(crate) fn confirmed_by(confirm: Confirm<S>) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new())),
            confirm,
        }
    }

    /// Makes a connection wait under `facts.id` for a claimer. If the id is already in use, or the
    /// table is drained, [`Ticket::redeem`] says so.
    pub fn announce(&self, facts: Facts) -> Ticket<S> {
        self.announce_again(std::sync::Arc::new(facts), None)
    }

    /// As [`Rendezvous::announce`], but at the place of an earlier announcement if one is given.
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
    /// No connection waits under `id`: it never did, another claimer has it, or it has expired or was
    /// withdrawn. The error gives the stream back.
    pub fn claim(&self, id: impl Into<Id>, stream: S) -> Result<(), Unclaimed<S>> {
        let claimed = self.lock().claim(id.into(), None, stream, self.confirm);
        woken(claimed)
    }

    /// As [`Rendezvous::claim`], but only a connection that waits for `backend`.
    pub(crate) fn claim_of(&self, backend: &str, id: Id, stream: S) -> Result<(), Unclaimed<S>> {
        let claimed = self.lock().claim(id, Some(backend), stream, self.confirm);
        woken(claimed)
    }

    /// Claims the oldest waiting connection of `backend`, or queues the claimer for the next one.
    pub(crate) fn accept(&self, backend: &str, claimer: S) -> Accepted<S> {
        let accepted = self.lock().accept(backend, claimer, self.confirm);
        if let Accepted::Matched(Some(waker)) = &accepted {
            waker.wake_by_ref();
        }
        accepted
    }

    /// Returns the connections that wait for `backend` now, and a channel for every event from now on.
    ///
    /// A receiver that is `capacity` events behind is dropped: its channel ends.
    pub(crate) fn watch(
        &self,
        backend: &str,
        capacity: usize,
    ) -> (Vec<std::sync::Arc<Facts>>, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(capacity);
        (self.lock().watch(backend, sender), receiver)
    }

    /// Drops the queued claimers that are no longer alive.
    pub(crate) fn prune(&self, alive: impl FnMut(&S) -> bool) {
        let dead = self.lock().prune(alive);
        drop(dead);
    }

    /// Drops the watchers of `backend`, and returns its queued claimers.
    pub(crate) fn dismiss(&self, backend: &str) -> Vec<S> {
        self.lock().dismiss(backend)
    }

    /// The number of queued claimers for which `counts` returns true, and of watchers.
    pub(crate) fn clients(&self, counts: impl Fn(&S) -> bool) -> (usize, usize) {
        self.lock().clients(counts)
    }

    /// Looks at the queued claimers of a backend, and returns the number of its watchers. `look` runs under the lock.
    pub(crate) fn clients_of(&self, backend: &str, look: impl FnMut(&S)) -> usize {
        self.lock().clients_of(backend, look)
    }

    /// Resolves all waiting connections as drained, and refuses all later ones. Returns the queued
    /// claimers.
    pub(crate) fn drain(&self) -> Vec<S> {
        let (wakers, claimers) = self.lock().drain();
        wakers.into_iter().for_each(Waker::wake);
        claimers
    }

    /// The number of connections that wait, or that were claimed but not redeemed yet.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no connection waits, and none was claimed but not redeemed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table<S>> {
        // Only a bug here could panic under the lock. The table is consistent wherever that could
        // happen, and a panic in one connection must not end the others.
        self.table
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Wakes the ticket that was claimed, after the lock was released.
fn woken<S>(claimed: Result<Option<Waker>, S>) -> Result<(), Unclaimed<S>> {
    let waker = claimed.map_err(Unclaimed)?;
    waker.inspect(Waker::wake_by_ref);
    Ok(())
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

/// The handle of a waiting connection.
///
/// Dropping the ticket withdraws the announcement, as for a client that has left. A later claim gets
/// its stream back.
#[must_use = "dropping the ticket withdraws the announcement"]
pub struct Ticket<S> {
    rendezvous: Rendezvous<S>,
    id: Id,
    place: Option<Place>,
    /// Set when nothing waits for this ticket any more: it was refused or resolved. From then on the id
    /// may belong to another ticket, which this one must not touch.
    over: Option<Unredeemed>,
}

impl<S> Ticket<S> {
    /// Waits until the connection is claimed, at most until `deadline`. Returns the claimer's stream.
    ///
    /// A claim that came before the deadline counts, even if the future is polled only later.
    ///
    /// # Errors
    ///
    /// The reason why no claimer has the connection. It cannot be claimed any more.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future drops the ticket, which withdraws the announcement.
    pub async fn redeem(mut self, deadline: impl Into<Deadline>) -> Result<S, Unredeemed> {
        match deadline.into().bound(self.wait()).await {
            Ok(resolved) => resolved,
            Err(_) => self
                .withdraw(Resolution::Expired)
                .ok_or(Unredeemed::Expired),
        }
    }

    /// The place in the queue of its backend, now or when it waited.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// Waits for a claim. If the future is dropped, the ticket keeps its place.
    pub(crate) async fn wait(&mut self) -> Result<S, Unredeemed> {
        if let Some(over) = self.over {
            return Err(over);
        }
        let resolved = poll_fn(|cx| self.rendezvous.lock().poll(self.id, cx.waker())).await;
        self.over = Some(Unredeemed::Drained);
        resolved
    }

    /// Ends the waiting. If a claim came first, returns the claimer's stream.
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

/// Why a ticket was not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unredeemed {
    /// No claimer came before the deadline.
    #[error("nobody claimed the connection in time")]
    Expired,
    /// The rendezvous is being drained.
    #[error("the rendezvous is draining")]
    Drained,
    /// Another connection waits under the same id.
    #[error("another connection with this id is waiting")]
    Duplicate,
}

/// The error of a claim: no connection waits under the id. Holds the claimer's stream.
#[derive(PartialEq, Eq, thiserror::Error)]
#[error("no connection with this id is waiting")]
pub struct Unclaimed<S>(S);

impl<S> Unclaimed<S> {
    /// The claimer's stream.
    pub fn into_stream(self) -> S {
        self.0
    }
}

impl<S> fmt::Debug for Unclaimed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unclaimed")
    }
}

/// Synchronization types; loom's when loom checks the models.
mod sync {
    #[cfg(vestibule_loom)]
    pub(super) use loom::sync::{Arc, Mutex, MutexGuard};
    #[cfg(not(vestibule_loom))]
    pub(super) use std::sync::{Arc, Mutex, MutexGuard};
}
