//! The number of log lines that the command line could not write. It writes the log, and the metrics
//! of the library contain the number.

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds lines that were dropped.
pub fn add(lines: u64) {
    LOST.fetch_add(lines, Ordering::Relaxed);
}

/// The number of lines since the start of the process.
pub(crate) fn total() -> u64 {
    LOST.load(Ordering::Relaxed)
}

static LOST: AtomicU64 = AtomicU64::new(0);
