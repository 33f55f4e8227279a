//! A table cut into shards, each behind a lock of its own, so that calls for different keys seldom meet. Which shard a
//! key is in cannot be guessed from outside: the hash is seeded.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Below this many entries one lock does.
const WORTH_IT: usize = 1024;
const SHARDS: usize = 16;

/// Shards of a table with parts of the type `T`.
#[derive(Debug)]
pub(crate) struct Shards<T> {
    seed: RandomState,
    parts: Box<[Mutex<T>]>,
}

impl<T> Shards<T> {
    /// As many shards as are worth it for `entries`.
    pub(crate) fn new(entries: usize, mut part: impl FnMut() -> T) -> Self {
        let count = if entries < WORTH_IT { 1 } else { SHARDS };
        Self {
            seed: RandomState::new(),
            parts: (0..count).map(|_| Mutex::new(part())).collect(),
        }
    }

    /// What one shard may hold when all of them may hold `entries`; at least one entry.
    pub(crate) fn share(&self, entries: usize) -> usize {
        (entries / self.parts.len()).max(1)
    }

    /// The shard of a key. The lock must not be held across an await.
    pub(crate) fn of<Q: Hash + ?Sized>(&self, key: &Q) -> MutexGuard<'_, T> {
        let place = match self.parts.len() {
            1 => 0,
            count => self.seed.hash_one(key) as usize % count,
        };
        lock(&self.parts[place])
    }

    /// All shards, one after the other.
    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, T>> {
        self.parts.iter().map(lock)
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
