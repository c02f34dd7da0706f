//! What the grown windows of all tunnels may bring, beyond what they have at rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The bytes for all tunnels of a proxy.
#[derive(Debug, Default)]
pub(crate) struct WindowBudget {
    taken: AtomicUsize,
    is_tight: AtomicBool,
}

impl WindowBudget {
    /// While the memory is tight, no window grows, and those that have grown shrink.
    pub(crate) fn tighten(&self, is_tight: bool) {
        self.is_tight.store(is_tight, Ordering::Relaxed);
    }

    pub(super) fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Relaxed)
    }

    #[cfg(any(test, fuzzing))]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A tunnel's part of the budget, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Grant {
    budget: Arc<WindowBudget>,
    bytes: usize,
}

impl Grant {
    pub(super) fn new(budget: Arc<WindowBudget>) -> Self {
        Self { budget, bytes: 0 }
    }

    pub(super) fn budget(&self) -> &WindowBudget {
        &self.budget
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes it at least as large. `false` without an effect: the others have the rest.
    pub(super) fn raise(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let taken = &self.budget.taken;
        let add = |taken: usize| Some(taken + more).filter(|taken| *taken <= MOST_IN_ALL);
        let is_raised = more == 0
            || taken
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
                .is_ok();
        if is_raised {
            self.bytes += more;
        }
        is_raised
    }

    pub(super) fn give_back(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// For all tunnels of a proxy.
pub(super) const MOST_IN_ALL: usize = 256 * 1024 * 1024;
