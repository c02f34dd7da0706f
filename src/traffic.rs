//! Byte counts of a connection, and the time of its last byte, readable while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::moment::{Moment, SharedMoment};

/// Payload bytes, counted after the receiving side's socket has taken them.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub from_client: Counter,
    pub to_client: Counter,
    last: SharedMoment,
}

impl Traffic {
    /// Bytes have moved, or their receiver has acknowledged some. The relay knows the time anyway.
    pub(crate) fn moved(&self, at: Moment) {
        self.last.set(at);
    }

    /// When bytes last moved in either direction. Without any, the time of the accept.
    pub(crate) fn last(&self) -> Moment {
        self.last.get()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, bytes: usize) {
        // Only the connection's own thread writes this, so a read-modify-write is not necessary.
        self.0.store(self.get() + bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
