//! The rendezvous as plain data: every operation is one step under one lock.
//!
//! ```text
//!          announce               claim, accept
//! (nothing) ─────► Waiting(waker) ─────────────► Claimed(stream) ─ poll ─► (nothing)
//!                      └── withdraw, drain ─► (nothing)
//! ```
//!
//! An offer is resolved when it leaves `Waiting`, and only by these arrows. No operation waits, wakes
//! or drops a stream: it returns what the caller has to wake or drop after it has released the lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::task::{Poll, Waker};

use tokio::sync::mpsc;

use super::{Confirm, Unredeemed};
use crate::facts::Facts;
use crate::id::Id;

pub(super) struct Table<S> {
    offers: HashMap<Id, Offer<S>>,
    queues: HashMap<String, Queue<S>>,
    /// Grows with every announcement, and so gives the order of waiting.
    next_place: u64,
    drained: bool,
}

struct Offer<S> {
    facts: Arc<Facts>,
    place: Place,
    state: State<S>,
}

enum State<S> {
    Waiting(Option<Waker>),
    Claimed(S),
}

/// The offers, claimers and watchers of one backend.
struct Queue<S> {
    /// The offers in the state `Waiting`, oldest first.
    waiting: BTreeMap<Place, Id>,
    /// The claimers that wait for any offer of the backend. Empty while an offer waits.
    claimers: VecDeque<S>,
    watchers: Vec<mpsc::Sender<Event>>,
}

impl<S> Table<S> {
    pub(super) fn new() -> Self {
        Self {
            offers: HashMap::new(),
            queues: HashMap::new(),
            next_place: 0,
            drained: false,
        }
    }

    pub(super) fn announce(
        &mut self,
        facts: Arc<Facts>,
        place: Option<Place>,
        confirm: Confirm<S>,
    ) -> Result<Place, Unredeemed> {
        if self.drained {
            return Err(Unredeemed::Drained);
        }
        if self.offers.contains_key(&facts.id) {
            return Err(Unredeemed::Duplicate);
        }
        let place = place.unwrap_or_else(|| {
            self.next_place += 1;
            Place(self.next_place)
        });
        let queue = queue(&mut self.queues, &facts.backend);
        queue.tell(&Event::Offer(Arc::clone(&facts)));
        let state = match queue.next_alive(&facts, confirm) {
            Some(claimer) => {
                queue.tell(&Event::Gone(facts.id, Resolution::Claimed));
                State::Claimed(claimer)
            }
            None => {
                queue.waiting.insert(place, facts.id);
                State::Waiting(None)
            }
        };
        self.offers.insert(
            facts.id,
            Offer {
                facts,
                place,
                state,
            },
        );
        Ok(place)
    }

    /// Gives the offer to the claimer, or gives the claimer back. If `backend` is given, the offer must be one of this
    /// backend.
    pub(super) fn claim(
        &mut self,
        id: Id,
        backend: Option<&str>,
        claimer: S,
        confirm: Confirm<S>,
    ) -> Result<Option<Waker>, S> {
        let Some(Offer {
            facts,
            place,
            state,
        }) = self.offers.get_mut(&id)
        else {
            return Err(claimer);
        };
        let State::Waiting(waker) = state else {
            return Err(claimer);
        };
        if backend.is_some_and(|backend| backend != facts.backend) {
            return Err(claimer);
        }
        let claimer = confirm(claimer, facts)?;
        let waker = waker.take();
        *state = State::Claimed(claimer);
        let queue = queue(&mut self.queues, &facts.backend);
        queue.waiting.remove(place);
        queue.tell(&Event::Gone(id, Resolution::Claimed));
        Ok(waker)
    }

    pub(super) fn accept(&mut self, backend: &str, claimer: S, confirm: Confirm<S>) -> Accepted<S> {
        if self.drained {
            return Accepted::Drained(claimer);
        }
        let queue = queue(&mut self.queues, backend);
        let Some((_, &oldest)) = queue.waiting.first_key_value() else {
            queue.claimers.push_back(claimer);
            return Accepted::Queued;
        };
        match self.claim(oldest, None, claimer, confirm) {
            Ok(waker) => Accepted::Matched(waker),
            Err(claimer) => Accepted::Gone(claimer),
        }
    }

    pub(super) fn poll(&mut self, id: Id, waker: &Waker) -> Poll<Result<S, Unredeemed>> {
        match self.offers.get_mut(&id).map(|offer| &mut offer.state) {
            Some(State::Waiting(stored)) => {
                if !stored
                    .as_ref()
                    .is_some_and(|stored| stored.will_wake(waker))
                {
                    *stored = Some(waker.clone());
                }
                Poll::Pending
            }
            Some(State::Claimed(_)) => Poll::Ready(self.remove(id).ok_or(Unredeemed::Drained)),
            // Only its own ticket and a drain remove an offer.
            None => Poll::Ready(Err(Unredeemed::Drained)),
        }
    }

    /// Ends the waiting. Returns the claimer if there was a claim first. A repeated call does nothing.
    pub(super) fn withdraw(&mut self, id: Id, resolution: Resolution) -> Option<S> {
        let offer = self.offers.get(&id)?;
        if let State::Waiting(_) = offer.state {
            let queue = queue(&mut self.queues, &offer.facts.backend);
            queue.waiting.remove(&offer.place);
            queue.tell(&Event::Gone(id, resolution));
        }
        self.remove(id)
    }

    pub(super) fn watch(&mut self, backend: &str, watcher: mpsc::Sender<Event>) -> Vec<Arc<Facts>> {
        let queue = queue(&mut self.queues, backend);
        queue.watchers.retain(|watcher| !watcher.is_closed());
        // After a drain there are no more events, so the channel ends at once.
        if !self.drained {
            queue.watchers.push(watcher);
        }
        let facts = |id| self.offers.get(id).map(|offer| Arc::clone(&offer.facts));
        queue.waiting.values().filter_map(facts).collect()
    }

    pub(super) fn prune(&mut self, mut alive: impl FnMut(&S) -> bool) -> Vec<S> {
        let mut dead = Vec::new();
        for queue in self.queues.values_mut() {
            // Once around, in place: the lock is held.
            for _ in 0..queue.claimers.len() {
                let Some(claimer) = queue.claimers.pop_front() else {
                    break;
                };
                match alive(&claimer) {
                    true => queue.claimers.push_back(claimer),
                    false => dead.push(claimer),
                }
            }
        }
        dead
    }

    pub(super) fn dismiss(&mut self, backend: &str) -> Vec<S> {
        let Some(queue) = self.queues.get_mut(backend) else {
            return Vec::new();
        };
        queue.watchers.clear();
        std::mem::take(&mut queue.claimers).into()
    }

    pub(super) fn drain(&mut self) -> (Vec<Waker>, Vec<S>) {
        self.drained = true;
        let (mut wakers, mut claimers) = (Vec::new(), Vec::new());
        for queue in self.queues.values_mut() {
            claimers.extend(queue.claimers.drain(..));
            for id in std::mem::take(&mut queue.waiting).into_values() {
                queue.tell(&Event::Gone(id, Resolution::Drained));
                if let Some(Offer {
                    state: State::Waiting(waker),
                    ..
                }) = self.offers.remove(&id)
                {
                    wakers.extend(waker);
                }
            }
            // This ends the channels, and with them the WATCH clients.
            queue.watchers.clear();
        }
        (wakers, claimers)
    }

    pub(super) fn len(&self) -> usize {
        self.offers.len()
    }

    /// The queued claimers for which `counts` returns true, and the watchers.
    pub(super) fn clients(&self, counts: impl Fn(&S) -> bool) -> (usize, usize) {
        let queues = || self.queues.values();
        let claimers = queues().flat_map(|queue| &queue.claimers);
        let watchers = queues().flat_map(|queue| &queue.watchers);
        (
            claimers.filter(|claimer| counts(claimer)).count(),
            watchers.filter(|watcher| !watcher.is_closed()).count(),
        )
    }

    /// Looks at the queued claimers of a backend, and returns the number of its watchers.
    pub(super) fn clients_of(&self, backend: &str, look: impl FnMut(&S)) -> usize {
        let Some(queue) = self.queues.get(backend) else {
            return 0;
        };
        queue.claimers.iter().for_each(look);
        let watchers = queue.watchers.iter();
        watchers.filter(|watcher| !watcher.is_closed()).count()
    }

    fn remove(&mut self, id: Id) -> Option<S> {
        match self.offers.remove(&id)?.state {
            State::Claimed(claimer) => Some(claimer),
            State::Waiting(_) => None,
        }
    }
}

impl<S> Queue<S> {
    /// The first claimer that can still be told that it has the offer.
    fn next_alive(&mut self, facts: &Facts, confirm: Confirm<S>) -> Option<S> {
        while let Some(claimer) = self.claimers.pop_front() {
            if let Ok(claimer) = confirm(claimer, facts) {
                return Some(claimer);
            }
        }
        None
    }

    /// Called under the lock, so that every watcher sees the events in the same order. A watcher whose
    /// channel is full is dropped: it delays nobody, and its channel ends.
    fn tell(&mut self, event: &Event) {
        self.watchers
            .retain(|watcher| watcher.try_send(event.clone()).is_ok());
    }
}

fn queue<'a, S>(queues: &'a mut HashMap<String, Queue<S>>, backend: &str) -> &'a mut Queue<S> {
    // Not `entry`, which would allocate the name each time. There are few backends, and their queues
    // stay.
    if !queues.contains_key(backend) {
        let queue = Queue {
            waiting: BTreeMap::new(),
            claimers: VecDeque::new(),
            watchers: Vec::new(),
        };
        queues.insert(backend.to_owned(), queue);
    }
    queues.get_mut(backend).expect("inserted above")
}

/// A place in the order of waiting. If the claimer of an offer turns out to be dead, the next
/// announcement of the same connection gets the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// The result for a claimer that takes any offer of its backend.
#[derive(Debug)]
pub(crate) enum Accepted<S> {
    /// It has the oldest offer. The waker is that of the offer's ticket.
    Matched(Option<Waker>),
    /// No offer waits. It will be told when one comes.
    Queued,
    /// It was gone before it could be told.
    Gone(S),
    /// The rendezvous is drained.
    Drained(S),
}

/// An event for a watcher.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Offer(Arc<Facts>),
    Gone(Id, Resolution),
}

impl Event {
    /// The line for a watcher, with its line end.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Offer(facts) => format!("OFFER {}\n", facts.to_json()),
            Self::Gone(id, why) => format!("GONE {id} {why}\n"),
        }
    }
}

/// How the waiting of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    Claimed,
    Dialled,
    Expired,
    ClientGone,
    /// The client is still there, but no longer admitted.
    Refused,
    Drained,
}

impl Resolution {
    pub(crate) const ALL: [Self; 6] = [
        Self::Claimed,
        Self::Dialled,
        Self::Expired,
        Self::ClientGone,
        Self::Refused,
        Self::Drained,
    ];

    /// The word for watchers and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Dialled => "dialled",
            Self::Expired => "expired",
            Self::ClientGone => "client_gone",
            Self::Refused => "refused",
            Self::Drained => "drained",
        }
    }
}

impl fmt::Display for Resolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
