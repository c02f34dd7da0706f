//! Finds the connections of an identity, backend, peer or listener without a scan of all
//! connections.
//!
//! ```text
//! id ──► one shard of 16 ─► entries: id ─► entry
//!                           └ names: (hash of a name, id), sorted: equal names are neighbours
//! ```
//!
//! The index has hashes instead of names: an entry has four names or more, and each would cost
//! memory on every idle connection. If two names have the same hash, a query sees a few entries too
//! many; the caller then compares the names.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::Entry;
use crate::facts::Facts;
use crate::id::Id;
use crate::identity::Identity;

/// The names that connections are found by.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Name<'a> {
    Listener(&'a str),
    Backend(&'a str),
    Peer(IpAddr),
    /// One name of an identity, for example `cn:alice`.
    Identity(&'a str),
    /// The connection that carries the stream.
    Tunnel(Id),
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// With a random key: clients choose some of the names, and must not be able to cause
    /// collisions.
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Id, Arc<Entry>>,
    names: BTreeSet<(u64, Id)>,
}

/// Ids are random, so two workers rarely want the same lock at the same time.
const SHARDS: usize = 16;

impl Index {
    /// Adds an entry under the names that are known so far.
    pub(super) fn insert(&self, entry: &Arc<Entry>) {
        let facts = entry.facts();
        let mut shard = self.shard(entry.id);
        shard.entries.insert(entry.id, Arc::clone(entry));
        each_name(&facts, |name| {
            shard.names.insert((self.hash(name), entry.id));
        });
    }

    pub(super) fn remove(&self, entry: &Entry) {
        let facts = entry.facts();
        let mut shard = self.shard(entry.id);
        shard.entries.remove(&entry.id);
        each_name(&facts, |name| {
            shard.names.remove(&(self.hash(name), entry.id));
        });
        shard.give_back();
    }

    /// Adds a name to an entry.
    pub(super) fn add(&self, id: Id, name: Name<'_>) {
        let hash = self.hash(name);
        self.shard(id).names.insert((hash, id));
    }

    pub(super) fn add_identity(&self, id: Id, identity: &Identity) {
        let mut shard = self.shard(id);
        each_name_of(identity, |name| {
            shard.names.insert((self.hash(Name::Identity(name)), id));
        });
    }

    /// Removes a name from an entry.
    pub(super) fn take_away(&self, id: Id, name: Name<'_>) {
        let hash = self.hash(name);
        self.shard(id).names.remove(&(hash, id));
    }

    pub(super) fn get(&self, id: Id) -> Option<Arc<Entry>> {
        self.shard(id).entries.get(&id).cloned()
    }

    /// The entries that may have this name: all entries with it, and rarely another one.
    pub(super) fn named(&self, name: Name<'_>) -> Vec<Arc<Entry>> {
        let hash = self.hash(name);
        let range = (hash, Id::MIN)..=(hash, Id::MAX);
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            let ids = shard.names.range(range.clone());
            found.extend(ids.filter_map(|(_, id)| shard.entries.get(id).cloned()));
        }
        found
    }

    /// All entries. Shards are locked one at a time, so a worker waits for one of 16 at most.
    pub(super) fn all(&self) -> Vec<Arc<Entry>> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).entries.values().cloned());
        }
        all
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let mut shards = self.shards.iter().map(lock);
        shards.all(|shard| shard.entries.is_empty() && shard.names.is_empty())
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let shards = self.shards.iter().map(lock);
        shards.map(|shard| shard.entries.capacity()).sum()
    }

    fn hash(&self, name: Name<'_>) -> u64 {
        self.hasher.hash_one(name)
    }

    fn shard(&self, id: Id) -> MutexGuard<'_, Shard> {
        let [byte, ..] = *id.as_bytes();
        lock(&self.shards[usize::from(byte) % SHARDS])
    }
}

impl Shard {
    /// Returns the memory of a burst when it is over.
    fn give_back(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > KEPT {
            *self = Self::default();
        }
    }
}

/// The capacity that an empty shard keeps.
const KEPT: usize = 64;

fn each_name(facts: &Facts, mut of: impl FnMut(Name<'_>)) {
    if let Some(listener) = &facts.listener {
        of(Name::Listener(listener));
    }
    if let Some(ip) = facts.peer_ip() {
        of(Name::Peer(ip));
    }
    if !facts.backend.is_empty() {
        of(Name::Backend(&facts.backend));
    }
    if let Some(tunnel) = facts.tunnel() {
        of(Name::Tunnel(tunnel));
    }
    if let Some(identity) = &facts.identity {
        each_name_of(identity, |name| of(Name::Identity(name)));
    }
}

fn each_name_of(identity: &Identity, mut of: impl FnMut(&str)) {
    identity.names().for_each(|name| of(&name));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
