//! How many connections each client has, counted without one lock for all.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Exceeded, most};

/// How many connections each client has.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// `u64::MAX` is unlimited, and then nothing is counted.
    most: AtomicU64,
    /// Chosen by a keyed hash: who knew it could have all clients meet at one lock.
    hasher: RandomState,
    pub(super) shards: [Shard<K>; SHARDS],
}

/// A lock is held for one look-up, twice in a connection's life: with so many, two workers hardly
/// ever want the same at once.
pub(super) const SHARDS: usize = 64;

/// On a cache line of its own, so that neighbours do not slow each other down.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Shard<K>(pub(super) Mutex<HashMap<K, u64>>);

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(super) fn new(setting: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            most: most(setting).into(),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Shard(Mutex::default())),
        })
    }

    pub(super) fn change(&self, setting: Option<usize>) {
        self.most.store(most(setting), Ordering::Relaxed);
    }

    /// A place for the client, if it has room and `take` succeeds; nothing is counted otherwise.
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
        let mut open = self.open(&client);
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

    /// The counts among which that of `client` is.
    fn open(&self, client: &K) -> MutexGuard<'_, HashMap<K, u64>> {
        let Shard(open) = &self.shards[self.hasher.hash_one(client) as usize % SHARDS];
        open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among a client's connections. Dropping it makes room for another one of them.
#[derive(Debug)]
#[must_use]
pub(super) struct Share<K: Clone + Eq + Hash> {
    shares: Arc<Shares<K>>,
    client: K,
}

impl<K: Clone + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut open = self.shares.open(&self.client);
        if let Some(used) = open.get_mut(&self.client) {
            *used -= 1;
            if *used == 0 {
                open.remove(&self.client);
            }
        }
        shrink(&mut open);
    }
}

/// Gives back what a burst from many clients took, when they have left.
pub(super) fn shrink<K: Eq + Hash, V>(shard: &mut HashMap<K, V>) {
    let room = shard.len() + ROOM;
    if shard.capacity() > 8 * room {
        shard.shrink_to(room);
    }
}

/// What a shard may keep without being asked.
pub(super) const ROOM: usize = 8;
