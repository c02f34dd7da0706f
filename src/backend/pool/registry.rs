//! The addresses that workers registered for a backend.
//!
//! A reload may replace the backend. Its registry then moves to the new backend of the same name,
//! so that there is only one list, and a worker is never in the wrong one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Target, Targets};
use crate::address::Address;
use crate::backend::claimer::Culprit;
use crate::id::Id;
use crate::pace::Pace;

/// The addresses that workers have registered.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    /// A dial holds its lock only to count a reference.
    targets: watch::Sender<Targets>,
    closed: CancellationToken,
    /// Whether the latest log line said that no worker takes connections.
    is_deserted: AtomicBool,
    deserted: Pace,
    disowned: Pace,
    hung: Pace,
    /// The process id of the latest worker that hung.
    last_hung: AtomicI32,
}

impl Registry {
    /// Adds an address until the registration is dropped. The address is used only while its
    /// listener belongs to the uid that registered it.
    pub(crate) fn register(self: &Arc<Self>, address: &Address, uid: u32) -> Registration {
        let target = Target::new(address, Some(uid));
        self.change(|targets| targets.push(Arc::clone(&target)));
        Registration {
            registry: Arc::clone(self),
            target,
        }
    }

    /// Tells all registered workers that their backend takes no workers any more. This includes
    /// workers that come later: one may have found the registry just before it was closed.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// The listener at a registered address belongs to another uid: the address is not used any
    /// more.
    pub(super) fn disown(&self, target: &Target, owner: u32) {
        target.disowned.cancel();
        // A user who may register addresses could otherwise flood the log.
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

    /// No worker came for a connection in time. It is logged once until a worker takes a
    /// connection, and at most once a second: if workers come for every other connection, both
    /// lines would otherwise be logged for each.
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

    /// A worker took a connection. It is logged only after [`Self::missed`] was.
    pub(crate) fn taken(&self, backend: &str) {
        // This is nearly always false, and then no memory that the threads share is written.
        if self.is_deserted.load(Ordering::Relaxed)
            && self.is_deserted.swap(false, Ordering::Relaxed)
        {
            info!(backend, "workers take connections again");
        }
    }

    /// A worker has not read that it has a connection. It is logged once for each process, because
    /// a process may have many requests, and at most once a second.
    pub(crate) fn hung(&self, backend: &str, culprit: Option<Culprit>) {
        let pid = match culprit {
            Some(Culprit::Process(pid)) => pid,
            // No process has this id.
            None => 0,
            Some(Culprit::Tunnel(tunnel)) => return self.hung_in_tunnel(backend, tunnel),
        };
        if self.last_hung.swap(pid, Ordering::Relaxed) != pid && self.hung.is_due() {
            warn!(
                backend,
                pid,
                "a worker did not read its OK in time; closed all sockets on which its process \
                 waits; its connections wait for another worker"
            );
        }
    }

    /// As [`Self::hung`], at most once a second.
    fn hung_in_tunnel(&self, backend: &str, tunnel: Id) {
        if self.hung.is_due() {
            warn!(
                backend,
                tunnel = tunnel.short(),
                "a network worker did not confirm its connection in time; ended all streams on which \
                 its tunnel waits; its connections wait for another worker"
            );
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.borrow().is_empty()
    }

    /// The number of registered addresses.
    pub(crate) fn len(&self) -> usize {
        self.targets.borrow().len()
    }

    /// Sees each change of the addresses.
    pub(super) fn subscribe(&self) -> watch::Receiver<Targets> {
        self.targets.subscribe()
    }

    /// Waits until no address is registered.
    pub(super) async fn until_empty(&self) {
        // Fails only without a sender, and this has one. Here and below.
        let _ = self.targets.subscribe().wait_for(|it| it.is_empty()).await;
    }

    /// Waits until an address is registered.
    pub(super) async fn until_populated(&self) {
        let _ = self.targets.subscribe().wait_for(|it| !it.is_empty()).await;
    }

    pub(super) fn targets(&self) -> Targets {
        Arc::clone(&self.targets.borrow())
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Arc<Target>>)) {
        self.targets.send_modify(|targets| {
            let mut next = targets.to_vec();
            change(&mut next);
            *targets = next.into();
        });
    }
}

/// Why an address is not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// A reload: the backend takes no workers now.
    ByReload,
    /// The listener there belongs to another uid than the one that registered it.
    AsForeign,
}

/// Keeps an address in use. Dropping it withdraws the address.
#[derive(Debug)]
#[must_use]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    target: Arc<Target>,
}

impl Registration {
    /// Waits until the address is not used any more although it is still registered.
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
    fn workers_that_come_and_go_do_not_flood_the_log() {
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
