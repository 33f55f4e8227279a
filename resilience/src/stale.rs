//! The last good answers, for when there is none: a bounded cache that a policy falls back on. It is no cache to save
//! calls with: the dependency is asked every time.

mod clock_table;

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::clock_table::ClockTable;
use crate::clock;
use crate::error::{BuildError, Error};
use crate::layer::AnyError;
use crate::pipeline::{Attempt, Pipeline};
use crate::shard::Shards;
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// Remembers the last good answer of every key, as many as fit and as long as they are of use. Clones share.
///
/// Answers are cloned into the cache and out of it: put large ones into an `Arc`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{Pipeline, StaleCache, StaleSettings};
///
/// let policy = Pipeline::builder("prices").build()?;
/// let prices = StaleCache::new("prices", StaleSettings::default())?;
/// let read = || async { Ok::<_, std::io::Error>(42) };
/// let fail = || async { Err(std::io::Error::other("down")) };
///
/// assert!(!prices.call(&policy, "apple", |_| read()).await?.is_stale());
/// let answer = prices.call(&policy, "apple", |_| fail()).await?;
/// assert!(answer.is_stale());
/// assert_eq!(answer.into_value(), 42);
/// # Ok(()) }
/// ```
pub struct StaleCache<K, V> {
    inner: Arc<Inner<K, V>>,
}

struct Inner<K, V> {
    name: Arc<str>,
    shards: Shards<ClockTable<K, V>>,
    /// Nanoseconds.
    max_age: AtomicU64,
    settings: Mutex<StaleSettings>,
    fallbacks: [AtomicU64; 3],
    missed: AtomicU64,
}

/// Settings of a cache of stale answers: `stale = { capacity = 1000, max_age = "1h" }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct StaleSettings {
    /// Answers that are remembered; above a thousand they are spread over 16 shards, each with its share. Which one goes
    /// when they are full is found with the CLOCK algorithm: nearly the one not asked for the longest. Default 1000.
    pub capacity: usize,
    /// Age beyond which an answer is of no use. Default 1 h.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub max_age: Duration,
}

impl Default for StaleSettings {
    fn default() -> Self {
        Self {
            capacity: 1000,
            max_age: Duration::from_secs(3600),
        }
    }
}

impl StaleSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// No place, no time.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        if self.capacity == 0 {
            return Err(BuildError::new(name, "stale.capacity", "must be at least 1"));
        }
        if self.max_age.is_zero() {
            return Err(BuildError::new(name, "stale.max_age", "must be above zero"));
        }
        Ok(())
    }
}

/// An answer of some time ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale<V> {
    /// The answer.
    pub value: V,
    /// Time since it was given.
    pub age: Duration,
}

/// An answer, and whether it is of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<V> {
    /// The dependency gave it now.
    Fresh(V),
    /// It gave it some time ago, and now there is none.
    Stale {
        /// The answer and its age.
        stale: Stale<V>,
        /// Why there is none now.
        reason: FallbackReason,
    },
}

impl<V> Answer<V> {
    /// The answer, whatever its age.
    pub fn into_value(self) -> V {
        match self {
            Self::Fresh(value)
            | Self::Stale {
                stale: Stale { value, .. },
                ..
            } => value,
        }
    }

    /// Whether it is of some time ago.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}

/// Why an answer of some time ago was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FallbackReason {
    /// A policy refused the call.
    Rejected,
    /// A time limit ended it.
    Timeout,
    /// The dependency failed, or asked for less.
    Failure,
}

impl FallbackReason {
    /// All reasons.
    pub const ALL: [Self; 3] = [Self::Rejected, Self::Timeout, Self::Failure];

    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Timeout => "timeout",
            Self::Failure => "failure",
        }
    }

    /// The reason for an older answer; none where there is an answer now.
    fn of(verdict: Verdict) -> Option<Self> {
        match verdict {
            Verdict::Success | Verdict::Ignore | Verdict::Begun => None,
            Verdict::LocalReject => Some(Self::Rejected),
            Verdict::Failure(Kind::Timeout) => Some(Self::Timeout),
            Verdict::Failure(_) | Verdict::Overload { .. } => Some(Self::Failure),
        }
    }

    /// The reason for an answer of one's own in place of this error.
    pub(crate) const fn of_error<E>(error: &Error<E>) -> Self {
        match error {
            Error::Rejected(_) => Self::Rejected,
            Error::Timeout { .. } => Self::Timeout,
            Error::Inner(_) => Self::Failure,
        }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> StaleCache<K, V> {
    /// An empty cache.
    ///
    /// # Errors
    /// As [`StaleSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: StaleSettings) -> Result<Self, BuildError> {
        let name = name.into();
        settings.check(&name)?;
        let shards = Shards::new(settings.capacity, ClockTable::default);
        let share = shards.share(settings.capacity);
        for mut table in shards.each() {
            table.resize(share);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                shards,
                max_age: AtomicU64::new(nanos(settings.max_age)),
                settings: Mutex::new(settings),
                fallbacks: std::array::from_fn(|_| AtomicU64::new(0)),
                missed: AtomicU64::new(0),
            }),
        })
    }

    /// Remembers an answer of now; another one may be forgotten for it.
    pub fn put(&self, key: K, value: V) {
        self.inner.shards.of(&key).put(key, value, clock::now());
    }

    /// The last good answer, if it is not too old.
    pub fn get<Q>(&self, key: &Q) -> Option<Stale<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let max_age = Duration::from_nanos(self.inner.max_age.load(Ordering::Relaxed));
        let (value, age) = self.inner.shards.of(key).get(key, clock::now(), max_age)?;
        Some(Stale { value, age })
    }

    /// [`Pipeline::call`] that answers with what was good before when there is no answer now. Every error of the
    /// dependency counts as a failure that may pass.
    ///
    /// # Errors
    /// Those of [`Pipeline::call`], when nothing is remembered.
    pub async fn call<F, Fut, E>(&self, policy: &Pipeline, key: K, op: F) -> Result<Answer<V>, Error<E>>
    where
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        self.call_with(policy, Safety::Idempotent, &AnyError, key, op).await
    }

    /// [`Pipeline::call_with`] that answers with what was good before when there is no answer now. Only successes are
    /// remembered; what `classify` ignores is an answer and is given back as it is.
    ///
    /// # Errors
    /// Those of [`Pipeline::call_with`], when nothing is remembered.
    pub async fn call_with<C, F, Fut, E>(
        &self,
        policy: &Pipeline,
        safety: Safety,
        classify: &C,
        key: K,
        op: F,
    ) -> Result<Answer<V>, Error<E>>
    where
        C: Classify<V, E> + ?Sized,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<V, E>>,
    {
        let result = policy.call_with(safety, classify, op).await;
        // A value may be a failure too: a response with the status 503.
        let verdict = match &result {
            Ok(value) => classify.classify(Ok(value)),
            Err(Error::Inner(error)) => classify.classify(Err(error)),
            Err(Error::Timeout { .. }) => Verdict::Failure(Kind::Timeout),
            Err(Error::Rejected(_)) => Verdict::LocalReject,
        };
        if let (Verdict::Success, Ok(value)) = (verdict, &result) {
            self.put(key, value.clone());
            return result.map(Answer::Fresh);
        }
        match FallbackReason::of(verdict).and_then(|reason| self.fall_back(&key, reason)) {
            Some(answer) => Ok(answer),
            None => result.map(Answer::Fresh),
        }
    }

    fn fall_back(&self, key: &K, reason: FallbackReason) -> Option<Answer<V>> {
        let Some(stale) = self.get(key) else {
            self.inner.missed.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.inner.fallbacks[reason as usize].fetch_add(1, Ordering::Relaxed);
        Some(Answer::Stale { stale, reason })
    }

    /// Other settings from now on. What is remembered stays, as far as it fits and is not too old.
    ///
    /// # Errors
    /// As [`StaleSettings::check`]; then nothing is changed.
    pub fn reload(&self, settings: StaleSettings) -> Result<(), BuildError> {
        let inner = &*self.inner;
        settings.check(&inner.name)?;
        let mut current = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let share = inner.shards.share(settings.capacity);
        for mut table in inner.shards.each() {
            table.resize(share);
        }
        inner.max_age.store(nanos(settings.max_age), Ordering::Relaxed);
        *current = settings;
        Ok(())
    }

    /// Figures now.
    pub fn snapshot(&self) -> StaleSnapshot {
        let inner = &*self.inner;
        let settings = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        StaleSnapshot {
            capacity: settings.capacity,
            entries: inner.shards.each().map(|table| table.len()).sum(),
            fallbacks: FallbackReason::ALL
                .into_iter()
                .map(|reason| {
                    (
                        reason.as_str(),
                        inner.fallbacks[reason as usize].load(Ordering::Relaxed),
                    )
                })
                .collect(),
            missed: inner.missed.load(Ordering::Relaxed),
        }
    }
}

impl<K, V> Clone for StaleCache<K, V> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, V> fmt::Debug for StaleCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleCache")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// Figures of a cache of stale answers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StaleSnapshot {
    /// Answers that may be remembered.
    pub capacity: usize,
    /// Answers that are remembered, too old ones included.
    pub entries: usize,
    /// Stale answers given since the start, by reason (`rejected`, `timeout`, `failure`).
    pub fallbacks: Vec<(&'static str, u64)>,
    /// Calls without an answer for which nothing was remembered.
    pub missed: u64,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
