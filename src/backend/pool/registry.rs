//! The addresses that workers have registered for a backend.
//!
//! A reload may replace the backend, and its registry goes over to the next one of the name: so
//! there is one list, and no moment at which a worker could be in the wrong one.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Target, Targets};
use crate::address::Address;
use crate::atomic_watch::AtomicWatch;
use crate::pace::Pace;

/// The addresses, and how many they are.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// Read by each connection that is dialled to one of them, for as long as it takes to count a
    /// reference, and written when one comes or goes.
    targets: RwLock<Targets>,
    count: AtomicWatch,
    closed: CancellationToken,
    /// Whether the last that was said is that connections wait in vain.
    is_deserted: AtomicBool,
    deserted: Pace,
    disowned: Pace,
    hung: Pace,
    /// The process that was last found hung.
    last_hung: AtomicI32,
}

impl Registry {
    /// Adds an address until the registration is dropped. It serves as long as the listener there is
    /// that of the user who registers it.
    pub(crate) fn register(self: &Arc<Self>, address: &Address, uid: u32) -> Registration {
        let target = Target::new(address, Some(uid));
        self.change(|targets| targets.push(Arc::clone(&target)));
        Registration {
            registry: Arc::clone(self),
            target,
        }
    }

    /// Tells all who are registered that their backend takes no workers any more, and who comes
    /// later too: one may have found the registry just before it was closed.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// The listener at a registered address is another user's: nobody is sent there any more.
    pub(super) fn disown(&self, target: &Target, owner: u32) {
        target.disowned.cancel();
        // Whoever may register could otherwise fill the log.
        if !self.disowned.is_due() {
            return;
        }
        warn!(
            address = %target.address,
            "address withdrawn: user {} registered it, but the listener there belongs to user \
             {owner}; a worker may register only addresses where it listens itself",
            target.registrant.unwrap_or_default()
        );
    }

    /// No worker came for a connection in time. Said once, until one does, and at most once a second:
    /// where every other connection finds a worker, both lines would be said for each.
    pub(crate) fn missed(&self, backend: &str) {
        if !self.is_deserted.load(Ordering::Relaxed)
            && self.deserted.is_due()
            && !self.is_deserted.swap(true, Ordering::Relaxed)
        {
            warn!(
                backend,
                "no worker takes connections in time; they end as expired (timeouts.backend); start \
                 more workers"
            );
        }
    }

    /// A worker took a connection. Said when the opposite was.
    pub(crate) fn taken(&self, backend: &str) {
        // Nearly always so, and then nothing is written that all workers read.
        if self.is_deserted.load(Ordering::Relaxed)
            && self.is_deserted.swap(false, Ordering::Relaxed)
        {
            info!(backend, "workers take connections again");
        }
    }

    /// A worker has not read that a connection is its own. Said once for each process, which may have
    /// asked for many, and at most once a second.
    pub(crate) fn hung(&self, backend: &str, pid: Option<i32>) {
        let pid = pid.unwrap_or_default();
        if self.last_hung.swap(pid, Ordering::Relaxed) != pid && self.hung.is_due() {
            warn!(
                backend,
                pid,
                "a worker did not read its OK in time; closed all sockets on which its process \
                 waits; its connections wait for another worker"
            );
        }
    }

    pub(super) fn count(&self) -> &AtomicWatch {
        &self.count
    }

    pub(super) fn targets(&self) -> Targets {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&targets)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Target>>)) {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = targets.to_vec();
        change(&mut next);
        let count = next.len();
        *targets = next.into();
        // Under the lock, so that the last of two changes is the one that is counted. Nobody who
        // is woken by it runs here.
        self.count.change(|_| count);
    }
}

/// Why nobody is sent to an address any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The backend takes no workers now.
    ByReload,
    /// The listener there is another user's than the one who registered it.
    AsForeign,
}

/// An address that serves for as long as somebody vouches for it. Dropping it withdraws it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    target: Arc<Target>,
}

impl Registration {
    /// Ends when nobody is sent to the address any more, whoever vouches for it.
    pub(crate) async fn closed(&self) -> Withdrawn {
        tokio::select! {
            () = self.registry.closed.cancelled() => Withdrawn::ByReload,
            () = self.target.disowned.cancelled() => Withdrawn::AsForeign,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry
            .change(|targets| targets.retain(|target| !Arc::ptr_eq(target, &self.target)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_that_come_and_go_with_each_connection_are_no_flood() {
        let registry = Registry::default();
        let mut said = 0;
        for _ in 0..1000 {
            registry.missed("app");
            said += usize::from(registry.is_deserted.load(Ordering::Relaxed));
            registry.taken("app");
            assert!(!registry.is_deserted.load(Ordering::Relaxed));
        }
        assert_eq!(said, 1);
    }
}
