//! The rate limit: so many calls in a time, and so many at once. It says when a call may go on and sleeps only where it
//! is asked to; the arithmetic is in `gcra`, limits by client or tenant in `keyed`.

mod gcra;
mod keyed;
#[cfg(all(test, not(resilience_loom)))]
mod model;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::gcra::{Bucket, Gcra, Taken};
pub use self::keyed::{KeyedRateLimit, KeyedRateLimitSettings, KeyedRateLimitSnapshot};
use crate::clock;
use crate::error::{BuildError, By, Rejected};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// No wait and no filling of a burst is longer than this, so that sums of times always fit.
const LONGEST: Duration = Duration::from_secs(10 * YEAR.as_secs());

/// Limits calls in a time. Clones share.
///
/// In any time `t` at most `burst + t * limit / per` calls go on, however many threads ask. Waiting calls go on in the
/// order in which they asked.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use resilience::{RateLimit, RateLimitSettings};
///
/// let limit = RateLimit::new("mail", RateLimitSettings { limit: 2, ..RateLimitSettings::default() })?;
/// assert!(limit.try_acquire().is_ok());
/// assert!(limit.try_acquire().is_ok());
/// let refused = limit.try_acquire().unwrap_err();
/// assert!(refused.retry_after.is_some_and(|wait| wait.as_millis() <= 500));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RateLimit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    bucket: Bucket,
    // The settings as the hot path needs them. A call beside a reload may see one old and one new number: that is off by
    // less than one burst, once.
    interval: AtomicU64,
    span: AtomicU64,
    max_wait: AtomicU64,
    settings: Mutex<RateLimitSettings>,
    rejected: AtomicU64,
}

/// Settings of a rate limit: `rate_limit = { limit = 50, per = "1s", burst = 10, max_wait = "100ms" }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct RateLimitSettings {
    /// Calls in the time [`RateLimitSettings::per`]. Default 100.
    pub limit: u32,
    /// The time. The interval between calls is rounded up to whole nanoseconds. Default 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub per: Duration,
    /// Calls that may come at once after a quiet time. Default: the limit.
    pub burst: Option<u32>,
    /// The longest wait of a call that comes too early; zero refuses it at once. Default zero.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub max_wait: Duration,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self {
            limit: 100,
            per: Duration::from_secs(1),
            burst: None,
            max_wait: Duration::ZERO,
        }
    }
}

impl RateLimitSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// Zero, more than one call a nanosecond, a time beyond a year, a burst or a wait beyond ten.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        gcra(name, "rate_limit", self.limit, self.per, self.burst)?;
        if self.max_wait > LONGEST {
            return Err(BuildError::new(
                name,
                "rate_limit.max_wait",
                "must not be longer than ten years",
            ));
        }
        Ok(())
    }

    fn gcra(&self, name: &str) -> Result<Gcra, BuildError> {
        self.check(name)?;
        gcra(name, "rate_limit", self.limit, self.per, self.burst)
    }
}

/// The numbers behind a rate; `table` is the settings' name in TOML.
fn gcra(name: &str, table: &str, limit: u32, per: Duration, burst: Option<u32>) -> Result<Gcra, BuildError> {
    let refuse = |key: &str, problem: &str| Err(BuildError::new(name, &format!("{table}.{key}"), problem));
    if limit == 0 {
        return refuse("limit", "must be at least 1");
    }
    if per.is_zero() || per > YEAR {
        return refuse("per", "must be above zero and at most a year");
    }
    if burst == Some(0) {
        return refuse("burst", "must be at least 1");
    }
    if u128::from(limit) > per.as_nanos() {
        return refuse("limit", "must not be more than one call a nanosecond");
    }
    let interval = nanos(per).div_ceil(limit.into());
    let span = interval.saturating_mul(burst.unwrap_or(limit).into());
    if span > nanos(LONGEST) {
        return refuse("burst", "must fill again within ten years");
    }
    Ok(Gcra { interval, span })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl RateLimit {
    /// A limit with a full burst.
    ///
    /// # Errors
    /// As [`RateLimitSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: RateLimitSettings) -> Result<Self, BuildError> {
        let name = name.into();
        let gcra = settings.gcra(&name)?;
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                bucket: Bucket::default(),
                interval: AtomicU64::new(gcra.interval),
                span: AtomicU64::new(gcra.span),
                max_wait: AtomicU64::new(nanos(settings.max_wait)),
                settings: Mutex::new(settings),
                rejected: AtomicU64::new(0),
            }),
        })
    }

    /// One call, now or not at all.
    ///
    /// # Errors
    /// [`Rejected`] with the time after which it would have gone on.
    pub fn try_acquire(&self) -> Result<(), Rejected> {
        self.take(1, 0).map(drop)
    }

    /// A place for `calls` together, at most `max_wait` from now. It waits in [`Reservation::ready`] alone; dropped
    /// before that is over, the place is given back.
    ///
    /// # Errors
    /// [`Rejected`] when they would have to wait longer, with that wait; without a time when they are more than the
    /// burst and so can never go on together.
    pub fn reserve(&self, calls: u32) -> Result<Reservation<'_>, Rejected> {
        let slot = self.take(calls, self.inner.max_wait.load(Ordering::Relaxed))?;
        Ok(self.hold(slot))
    }

    /// One call, after a wait of at most `max_wait`.
    ///
    /// # Errors
    /// As [`RateLimit::reserve`], at once.
    pub async fn acquire(&self) -> Result<(), Rejected> {
        let slot = self.admit()?;
        if !slot.wait.is_zero() {
            self.hold(slot).ready().await;
        }
        Ok(())
    }

    /// Other settings from now on. What was used of the burst stays used, and who waits keeps the moment that was said.
    ///
    /// # Errors
    /// As [`RateLimitSettings::check`]; then nothing is changed.
    pub fn reload(&self, settings: RateLimitSettings) -> Result<(), BuildError> {
        let inner = &*self.inner;
        let new = settings.gcra(&inner.name)?;
        let mut current = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.gcra();
        inner.interval.store(new.interval, Ordering::Relaxed);
        inner.span.store(new.span, Ordering::Relaxed);
        inner.max_wait.store(nanos(settings.max_wait), Ordering::Relaxed);
        if old.interval != new.interval {
            inner.bucket.carry(nanos(clock::now()), old, new);
        }
        *current = settings;
        Ok(())
    }

    /// Figures now.
    pub fn snapshot(&self) -> RateLimitSnapshot {
        let inner = &*self.inner;
        let settings = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        RateLimitSnapshot {
            per_second: f64::from(settings.limit) / settings.per.as_secs_f64(),
            burst: settings.burst.unwrap_or(settings.limit),
            available: self.gcra().available(inner.bucket.full_at(), nanos(clock::now())),
            rejected: inner.rejected.load(Ordering::Relaxed),
        }
    }

    /// A place for one call of a pipeline, which waits for [`Slot::wait`] itself.
    pub(crate) fn admit(&self) -> Result<Slot, Rejected> {
        self.take(1, self.inner.max_wait.load(Ordering::Relaxed))
    }

    /// Gives back the place of a call that did not go on. It is right only while nobody took a place behind it, and
    /// without effect otherwise: those behind keep their moments, and the next call must not share one with them.
    pub(crate) fn give_back(&self, slot: &Slot) {
        self.inner.bucket.give_back(slot.taken);
    }

    fn hold(&self, slot: Slot) -> Reservation<'_> {
        Reservation {
            limit: self,
            starts: clock::now() + slot.wait,
            slot,
            used: false,
        }
    }

    fn take(&self, calls: u32, max_wait: u64) -> Result<Slot, Rejected> {
        let now = nanos(clock::now());
        match self.inner.bucket.take(self.gcra(), now, calls, max_wait) {
            Ok(taken) => Ok(Slot {
                taken,
                wait: Duration::from_nanos(taken.wait),
            }),
            Err(wait) => {
                self.inner.rejected.fetch_add(1, Ordering::Relaxed);
                Err(Rejected {
                    by: By::RateLimit,
                    name: Arc::clone(&self.inner.name),
                    retry_after: wait.map(Duration::from_nanos),
                })
            }
        }
    }

    fn gcra(&self) -> Gcra {
        Gcra {
            interval: self.inner.interval.load(Ordering::Relaxed),
            span: self.inner.span.load(Ordering::Relaxed),
        }
    }
}

/// A place under a rate limit, for those who keep the wait themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot {
    taken: Taken,
    /// Wait before going on; zero is at once.
    pub(crate) wait: Duration,
}

/// A place under a rate limit. Dropped before [`Reservation::ready`] is over, it is given back, unless another call has
/// taken a place behind it: then it is lost, and for its interval nobody goes on.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation<'a> {
    limit: &'a RateLimit,
    starts: Duration,
    slot: Slot,
    used: bool,
}

impl Reservation<'_> {
    /// Time until the calls may go on; zero is now.
    pub fn wait(&self) -> Duration {
        self.starts.saturating_sub(clock::now())
    }

    /// Waits until they may go on.
    pub async fn ready(mut self) {
        let wait = self.wait();
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.used = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.used {
            self.limit.give_back(&self.slot);
        }
    }
}

/// Figures of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct RateLimitSnapshot {
    /// Calls a second, on average.
    pub per_second: f64,
    /// Calls at once.
    pub burst: u32,
    /// Calls that would go on now.
    pub available: u64,
    /// Calls refused since the start.
    pub rejected: u64,
}
