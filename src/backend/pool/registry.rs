//! The addresses that workers have registered with a pool.

use std::sync::{Arc, PoisonError, RwLock};

use super::{Target, Targets};
use crate::level::Level;

/// The addresses that workers have registered, and how many they are.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// Read by each connection that is dialled to one of them, for as long as it takes to count a
    /// reference, and written when one comes or goes.
    targets: RwLock<Targets>,
    count: Level,
}

impl Registry {
    /// Adds an address until the registration is dropped.
    pub(super) fn add(self: &Arc<Self>, target: Arc<Target>) -> Registration {
        self.change(|targets| targets.push(Arc::clone(&target)));
        Registration {
            registry: Arc::clone(self),
            target,
        }
    }

    pub(super) fn count(&self) -> &Level {
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

/// An address that serves for as long as somebody vouches for it. Dropping it withdraws it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    target: Arc<Target>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry
            .change(|targets| targets.retain(|target| !Arc::ptr_eq(target, &self.target)));
    }
}
