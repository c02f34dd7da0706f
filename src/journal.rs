//! Hands events to their subscribers, and never waits for one.
//!
//! ```text
//! ledger, supervisor, admin ─ publish ─► Journal ─┬─► queue ─► Subscription ─► audit log
//!                                                 └─► queue ─► Subscription ─► event streams
//!                                                      │ full: dropped and counted
//! ```

mod event;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

pub(crate) use self::event::{Author, ConnectionEnd, Event, EventKind};

/// What happens in a proxy, for observers on other threads.
///
/// The journal keeps no events. When it is dropped, its subscriptions end after the events that are
/// queued.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Changed only under the lock of `dropped`.
    queues: ArcSwap<Vec<Arc<Queue>>>,
    /// The total of lost events by subscriber. The entries stay when a subscription ends.
    dropped: Mutex<BTreeMap<&'static str, Arc<AtomicU64>>>,
}

/// The publisher's side of a subscription.
#[derive(Debug)]
struct Queue {
    sender: mpsc::Sender<Arc<Event>>,
    counts: Arc<Counts>,
}

/// The events that were lost.
#[derive(Debug)]
struct Counts {
    /// The events that this subscription has lost.
    lost: AtomicU64,
    /// The events that all subscriptions of this name have lost.
    total: Arc<AtomicU64>,
}

/// Receives the events that are published from now on. Dropping it ends the subscription.
#[derive(Debug)]
#[must_use = "dropping it ends the subscription"]
pub(crate) struct Subscription {
    receiver: mpsc::Receiver<Arc<Event>>,
    counts: Arc<Counts>,
    /// Not a strong reference, and no sender: the subscription ends with the journal.
    journal: Weak<Journal>,
}

/// Ends a subscription from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Unsubscriber {
    counts: Arc<Counts>,
    journal: Weak<Journal>,
}

impl Unsubscriber {
    /// No event is queued from now on. [`Subscription::receive`] returns those that are queued, and then 0.
    pub(crate) fn unsubscribe(&self) {
        if let Some(journal) = self.journal.upgrade() {
            journal.unsubscribe(&self.counts);
        }
    }
}

impl Journal {
    /// Whether anybody receives what is published. A publisher asks first, so that an event is made
    /// only if somebody receives it: the answer is one load.
    pub(crate) fn is_observed(&self) -> bool {
        !self.queues.load().is_empty()
    }

    /// Hands the event to all subscriptions. Never blocks: an event that does not fit into a queue is
    /// dropped there, and counted.
    pub(crate) fn publish(&self, event: Event) {
        let queues = self.queues.load();
        if queues.is_empty() {
            return;
        }
        let event = Arc::new(event);
        for queue in queues.iter() {
            // It also fails if the subscription is being dropped. Then nobody misses the event.
            if let Err(mpsc::error::TrySendError::Full(_)) =
                queue.sender.try_send(Arc::clone(&event))
            {
                queue.counts.lose(1);
            }
        }
    }

    /// Subscribes to all events from now on. `what` is the name of the subscriber in
    /// [`Journal::dropped`]; `capacity`, at least 1, is how many events may wait for it.
    pub(crate) fn subscribe(self: &Arc<Self>, what: &'static str, capacity: usize) -> Subscription {
        let (sender, receiver) = mpsc::channel(capacity);
        let mut dropped = self.totals();
        let counts = Arc::new(Counts {
            lost: AtomicU64::new(0),
            total: Arc::clone(dropped.entry(what).or_default()),
        });
        let queue = Arc::new(Queue {
            sender,
            counts: Arc::clone(&counts),
        });
        let mut queues = self.queues.load().to_vec();
        queues.push(queue);
        self.queues.store(Arc::new(queues));
        drop(dropped);
        Subscription {
            receiver,
            counts,
            journal: Arc::downgrade(self),
        }
    }

    /// The number of events that subscribers with this name have lost so far.
    pub(crate) fn dropped(&self, what: &str) -> u64 {
        let totals = self.totals();
        totals
            .get(what)
            .map_or(0, |total| total.load(Ordering::Relaxed))
    }

    fn unsubscribe(&self, counts: &Arc<Counts>) {
        let guard = self.totals();
        let mut queues = self.queues.load().to_vec();
        queues.retain(|it| !Arc::ptr_eq(&it.counts, counts));
        self.queues.store(Arc::new(queues));
        drop(guard);
    }

    fn totals(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<AtomicU64>>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn lose(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
        self.total.fetch_add(events, Ordering::Relaxed);
    }
}

impl Subscription {
    pub(crate) fn unsubscriber(&self) -> Unsubscriber {
        Unsubscriber {
            counts: Arc::clone(&self.counts),
            journal: Weak::clone(&self.journal),
        }
    }

    /// Waits for events, and appends up to `most` of them to `events`. Returns how many it appended: 0
    /// after the subscription has ended, or the journal was dropped, and its last event received.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no event is lost.
    pub(crate) async fn receive(&mut self, events: &mut Vec<Arc<Event>>, most: usize) -> usize {
        self.receiver.recv_many(events, most).await
    }

    /// The next event that is queued, without waiting.
    pub(crate) fn next_queued(&mut self) -> Option<Arc<Event>> {
        self.receiver.try_recv().ok()
    }

    /// The number of events that this subscription has lost so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    /// Adds to the total of [`Journal::dropped`] events that were received and could not be passed on.
    pub(crate) fn lose(&self, events: u64) {
        self.counts.total.fetch_add(events, Ordering::Relaxed);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.unsubscriber().unsubscribe();
    }
}
