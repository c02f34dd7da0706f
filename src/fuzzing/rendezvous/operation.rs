//! The operations on a rendezvous, and their results.

use crate::rendezvous::{Resolution, Unredeemed};

pub(super) const BACKENDS: [&str; 2] = ["a", "b"];

/// One operation. Tickets, ids, claimers and watchers are numbered from 0.
#[derive(Debug)]
pub(super) enum Operation {
    Announce { backend: usize, id: usize },
    Claim { id: usize, life: Life },
    Accept { backend: usize, life: Life },
    Die { claimer: usize },
    Prune,
    Poll { ticket: usize, task: usize },
    Withdraw { ticket: usize, why: Resolution },
    Drop { ticket: usize },
    Watch { backend: usize, capacity: usize },
    Read { watcher: usize, most: usize },
    Leave { watcher: usize },
    Drain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Dead,
}

/// The result of an operation. The numbers are those of claimers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Told,
    Queued,
    GivenBack(usize),
    Draining(usize),
    Pending,
    Redeemed(usize),
    Unredeemed(Unredeemed),
    Withdrawn(Option<usize>),
    /// The ids of the waiting offers.
    Waiting(Vec<usize>),
    Events(Vec<WatcherEvent>),
    /// By backend, and in their order.
    Drained(Vec<usize>),
}

/// An event of a watcher. The numbers are those of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatcherEvent {
    Offer(usize),
    Gone(usize, Resolution),
    Nothing,
    End,
}
