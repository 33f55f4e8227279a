//! A rate limit for every client or tenant, with a bound on how many it remembers. What a key is, a name or an address,
//! is the caller's matter.
//!
//! A key whose bucket is full again is as good as a new one, so forgetting it changes nothing: such keys go first. When
//! all remembered keys are in use, new ones share one bucket with the rate of a single key. So whoever makes up many
//! keys takes neither memory nor another client's place, and a new client is still served when that bucket has room.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::gcra::{Bucket, Gcra};
use super::{gcra, nanos};
use crate::clock;
use crate::error::{BuildError, By, Rejected};
use crate::shard::Shards;

/// Limits calls in a time for every key. Clones share.
pub struct KeyedRateLimit<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    name: Arc<str>,
    shards: Shards<Shard<K>>,
    /// The bucket of the keys that do not fit.
    overflow: Bucket,
    settings: Mutex<KeyedRateLimitSettings>,
    overflowed: AtomicU64,
    rejected: AtomicU64,
}

/// Settings of a limit by key: `rate_limit = { limit = 10, per = "1s", burst = 20, max_keys = 10000 }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct KeyedRateLimitSettings {
    /// Calls of one key in the time [`KeyedRateLimitSettings::per`]. Default 100.
    pub limit: u32,
    /// The time. Default 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub per: Duration,
    /// Calls of one key that may come at once after a quiet time. Default: the limit.
    pub burst: Option<u32>,
    /// Keys that are remembered at one time; above a thousand they are spread over 16 shards, each with its share.
    /// Default 10 000.
    pub max_keys: usize,
}

impl Default for KeyedRateLimitSettings {
    fn default() -> Self {
        Self {
            limit: 100,
            per: Duration::from_secs(1),
            burst: None,
            max_keys: 10_000,
        }
    }
}

impl KeyedRateLimitSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// As [`super::RateLimitSettings::check`], and no keys.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        self.gcra(name).map(drop)
    }

    fn gcra(&self, name: &str) -> Result<Gcra, BuildError> {
        if self.max_keys == 0 {
            return Err(BuildError::new(name, "rate_limit.max_keys", "must be at least 1"));
        }
        gcra(name, "rate_limit", self.limit, self.per, self.burst)
    }
}

impl<K: Hash + Eq + Clone> KeyedRateLimit<K> {
    /// A limit that remembers no key yet.
    ///
    /// # Errors
    /// As [`KeyedRateLimitSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: KeyedRateLimitSettings) -> Result<Self, BuildError> {
        let name = name.into();
        let gcra = settings.gcra(&name)?;
        let shards = Shards::new(settings.max_keys, || Shard {
            gcra,
            room: 0,
            keys: HashMap::new(),
            queue: BinaryHeap::new(),
        });
        let room = shards.share(settings.max_keys);
        for mut shard in shards.each() {
            shard.room = room;
        }
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                shards,
                overflow: Bucket::default(),
                settings: Mutex::new(settings),
                overflowed: AtomicU64::new(0),
                rejected: AtomicU64::new(0),
            }),
        })
    }

    /// One call of `key`, now or not at all. A key that is known costs one lock and no allocation.
    ///
    /// # Errors
    /// [`Rejected`] with the time after which it would have gone on.
    pub fn try_acquire<Q>(&self, key: &Q) -> Result<(), Rejected>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let now = nanos(clock::now());
        let mut shard = self.inner.shards.of(key);
        let taken = shard.take(key, now);
        let gcra = shard.gcra;
        drop(shard);
        let refused = match taken {
            Some(Ok(())) => return Ok(()),
            Some(Err(wait)) => Some(wait),
            None => {
                self.inner.overflowed.fetch_add(1, Relaxed);
                match self.inner.overflow.take(gcra, now, 1, 0) {
                    Ok(_) => return Ok(()),
                    Err(wait) => wait,
                }
            }
        };
        self.inner.rejected.fetch_add(1, Relaxed);
        Err(Rejected {
            by: By::RateLimit,
            name: Arc::clone(&self.inner.name),
            retry_after: refused.map(Duration::from_nanos),
        })
    }

    /// Other settings from now on. Every key keeps what it used; keys beyond a lower bound stay until they are not in
    /// use.
    ///
    /// # Errors
    /// As [`KeyedRateLimitSettings::check`]; then nothing is changed.
    pub fn reload(&self, settings: KeyedRateLimitSettings) -> Result<(), BuildError> {
        let inner = &*self.inner;
        let new = settings.gcra(&inner.name)?;
        let mut current = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let old = current.gcra(&inner.name)?;
        let now = nanos(clock::now());
        let room = inner.shards.share(settings.max_keys);
        for mut shard in inner.shards.each() {
            shard.change(now, new, room);
        }
        inner.overflow.carry(now, old, new);
        *current = settings;
        Ok(())
    }

    /// Figures now.
    pub fn snapshot(&self) -> KeyedRateLimitSnapshot {
        let inner = &*self.inner;
        let now = nanos(clock::now());
        let settings = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        KeyedRateLimitSnapshot {
            per_second: f64::from(settings.limit) / settings.per.as_secs_f64(),
            burst: settings.burst.unwrap_or(settings.limit),
            max_keys: settings.max_keys,
            keys: inner.shards.each().map(|shard| shard.keys.len()).sum(),
            keys_in_use: inner
                .shards
                .each()
                .map(|shard| shard.keys.values().filter(|full_at| **full_at > now).count())
                .sum(),
            overflowed: inner.overflowed.load(Relaxed),
            rejected: inner.rejected.load(Relaxed),
        }
    }
}

impl<K> Clone for KeyedRateLimit<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K> fmt::Debug for KeyedRateLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedRateLimit")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// Figures of a limit by key.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct KeyedRateLimitSnapshot {
    /// Calls a second of one key, on average.
    pub per_second: f64,
    /// Calls of one key at once.
    pub burst: u32,
    /// Keys that may be remembered.
    pub max_keys: usize,
    /// Keys that are remembered.
    pub keys: usize,
    /// Those of them whose bucket is not full.
    pub keys_in_use: usize,
    /// Calls of keys that did not fit, since the start.
    pub overflowed: u64,
    /// Calls refused since the start.
    pub rejected: u64,
}

/// The keys of one shard.
struct Shard<K> {
    gcra: Gcra,
    room: usize,
    /// When each key's bucket is full again.
    keys: HashMap<K, u64>,
    /// Every key once, by the moment from which it may be forgotten, as it was known when it was put here: later uses
    /// move that moment on, which shows when the key's turn comes.
    queue: BinaryHeap<Turn<K>>,
}

impl<K: Hash + Eq + Clone> Shard<K> {
    /// Takes one call of `key`, or says the wait; `None` when there is no room for the key.
    fn take<Q>(&mut self, key: &Q, now: u64) -> Option<Result<(), u64>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let gcra = self.gcra;
        if let Some(full_at) = self.keys.get_mut(key) {
            let (after, wait) = gcra.take(*full_at, now, 1)?;
            if wait > 0 {
                return Some(Err(wait));
            }
            *full_at = after;
            return Some(Ok(()));
        }
        self.forget(now);
        if self.keys.len() >= self.room {
            return None;
        }
        let (full_at, _) = gcra.take(0, now, 1)?;
        let key = key.to_owned();
        self.keys.insert(key.clone(), full_at);
        self.queue.push(Turn { at: full_at, key });
        Some(Ok(()))
    }

    /// Forgets a few keys that are not in use; in a full shard at least one, if there is one. What it looks at in vain
    /// was used since, so the work is paid by those uses: a new key costs the logarithm of the keys, on average.
    fn forget(&mut self, now: u64) {
        let mut forgotten = 0;
        while forgotten < 2 || self.keys.len() >= self.room {
            let Some(turn) = self.queue.peek() else { return };
            if turn.at > now {
                return;
            }
            let Some(turn) = self.queue.pop() else { return };
            match self.keys.get(&turn.key) {
                Some(full_at) if *full_at > now => self.queue.push(Turn { at: *full_at, ..turn }),
                _ => {
                    self.keys.remove(&turn.key);
                    forgotten += 1;
                }
            }
        }
    }

    fn change(&mut self, now: u64, new: Gcra, room: usize) {
        for full_at in self.keys.values_mut() {
            *full_at = self.gcra.carry(*full_at, now, new);
        }
        self.gcra = new;
        self.room = room;
        let keys = self.keys.iter();
        self.queue = keys
            .map(|(key, full_at)| Turn {
                at: *full_at,
                key: key.clone(),
            })
            .collect();
    }
}

/// A place in the queue; the earliest is the greatest, as the heap wants it.
struct Turn<K> {
    at: u64,
    key: K,
}

impl<K> Ord for Turn<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl<K> PartialOrd for Turn<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> PartialEq for Turn<K> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<K> Eq for Turn<K> {}
