//! How many bytes a connection has moved, for whoever looks while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// Payload bytes, counted when the receiving side's socket has taken them.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub from_client: Counter,
    pub to_client: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, bytes: usize) {
        // Written by the connection's own thread alone, so no read-modify-write is needed.
        self.0.store(self.get() + bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
