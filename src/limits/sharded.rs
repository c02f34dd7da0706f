//! A map that many threads change without one lock for all.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    /// With a random key: with a known hash, clients could choose addresses that share a lock.
    hasher: RandomState,
    shards: [Shard<K, V>; SHARDS],
}

/// A lock is held for one look-up. With this many shards two workers rarely want the same one at
/// the same time.
pub(super) const SHARDS: usize = 64;

/// Each on a cache line of its own, so that neighbouring locks do not slow each other down.
#[derive(Debug)]
#[repr(align(64))]
struct Shard<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Shard(Mutex::default())),
        }
    }
}

impl<K: Eq + Hash, V> Sharded<K, V> {
    /// The shard that `key` belongs to.
    pub(super) fn of(&self, key: &K) -> MutexGuard<'_, HashMap<K, V>> {
        self.at(self.hasher.hash_one(key) as usize % SHARDS)
    }

    /// The shard with this index, below [`SHARDS`].
    pub(super) fn at(&self, index: usize) -> MutexGuard<'_, HashMap<K, V>> {
        let Shard(entries) = &self.shards[index];
        entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the memory of a burst from many clients after they have left.
pub(super) fn shrink<K: Eq + Hash, V>(shard: &mut HashMap<K, V>) {
    let room = shard.len() + ROOM;
    if shard.capacity() > 8 * room {
        shard.shrink_to(room);
    }
}

/// The capacity that a shard always keeps.
pub(super) const ROOM: usize = 8;
