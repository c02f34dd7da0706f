//! Counts the connections of each client, without one lock for all.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::sharded::{Sharded, shrink};
use super::{Exceeded, most};

/// The number of connections of each client.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// `u64::MAX` means unlimited, and then nothing is counted.
    most: AtomicU64,
    pub(super) open: Sharded<K, u64>,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(super) fn new(setting: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            most: most(setting).into(),
            open: Sharded::default(),
        })
    }

    pub(super) fn change(&self, setting: Option<usize>) {
        self.most.store(most(setting), Ordering::Relaxed);
    }

    /// The limit of each client; `None` is unlimited.
    pub(super) fn limit(&self) -> Option<u64> {
        let most = self.most.load(Ordering::Relaxed);
        (most != u64::MAX).then_some(most)
    }

    /// Takes a place for the client and calls `take`. If the client has no room or `take` fails,
    /// nothing is counted.
    pub(super) fn take<T>(
        self: &Arc<Self>,
        client: K,
        exceeded: Exceeded,
        take: impl FnOnce() -> Result<T, Exceeded>,
    ) -> Result<(Option<Share<K>>, T), Exceeded> {
        let most = self.most.load(Ordering::Relaxed);
        if most == u64::MAX {
            return Ok((None, take()?));
        }
        let mut open = self.open.of(&client);
        let used = open.get(&client).copied().unwrap_or_default();
        if used >= most {
            return Err(exceeded);
        }
        let taken = take()?;
        open.insert(client.clone(), used + 1);
        drop(open);
        let share = Share {
            shares: Arc::clone(self),
            client,
        };
        Ok((Some(share), taken))
    }
}

/// A place among the connections of one client. Dropping it makes room for another one.
#[derive(Debug)]
#[must_use]
pub(super) struct Share<K: Clone + Eq + Hash> {
    shares: Arc<Shares<K>>,
    client: K,
}

impl<K: Clone + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut open = self.shares.open.of(&self.client);
        if let Some(used) = open.get_mut(&self.client) {
            *used -= 1;
            if *used == 0 {
                open.remove(&self.client);
            }
        }
        shrink(&mut open);
    }
}
