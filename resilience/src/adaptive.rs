//! The limit on calls at one time that finds itself: it rises while more calls do not make answers slower, and falls when
//! they do. It rejects what is above it and queues nothing. The rule is in `gradient`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use self::gradient::Gradient;
use crate::clock;
use crate::error::{BuildError, By, Rejected};
use crate::gate::{Gate, MAX_LIMIT};
use crate::verdict::{Kind, Verdict};

mod gradient;

/// Bounds of the limit, and how it moves. The defaults are those of Netflix' `Gradient2Limit`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct AdaptiveSettings {
    /// The limit at first: 20.
    pub initial: usize,
    /// Never below: 20.
    pub min: usize,
    /// Never above: 200.
    pub max: usize,
    /// Weight of a new estimate against the old one, in (0, 1]: 0.2.
    pub smoothing: f64,
    /// How many times the usual latency is not yet taken for queueing, at least 1: 1.5.
    pub tolerance: f64,
    /// Calls that each new estimate allows on top, before smoothing, so that the limit can rise: 4.
    pub growth: f64,
    /// Latencies are averaged over this time, and over ten calls at least, before the limit moves: 100 ms.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub window: Duration,
    /// Windows that the usual latency is averaged over, at least 10: 600. Once in so many the limit is halved for one
    /// window, to see whether answers are quicker then.
    pub long_window: u32,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self {
            initial: 20,
            min: 20,
            max: 200,
            smoothing: 0.2,
            tolerance: 1.5,
            growth: 4.0,
            window: Duration::from_millis(100),
            long_window: 600,
        }
    }
}

impl AdaptiveSettings {
    /// Whether they make sense, alone and together.
    ///
    /// # Errors
    /// A bound of zero or above 2³¹ - 1, `min` above `max`, `initial` outside of them, or a number that is none.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let checks = [
            (self.min >= 1, "min", "must be at least 1"),
            (self.max <= MAX_LIMIT, "max", "must be below 2147483648"),
            (self.min <= self.max, "min", "must not be above concurrency_limit.max"),
            (
                (self.min..=self.max).contains(&self.initial),
                "initial",
                "must lie between concurrency_limit.min and concurrency_limit.max",
            ),
            (
                self.smoothing > 0.0 && self.smoothing <= 1.0,
                "smoothing",
                "must be above 0 and at most 1",
            ),
            (
                self.tolerance >= 1.0 && self.tolerance.is_finite(),
                "tolerance",
                "must be at least 1",
            ),
            (
                self.growth > 0.0 && self.growth.is_finite(),
                "growth",
                "must be above 0",
            ),
            (!self.window.is_zero(), "window", "must be above zero"),
            (self.long_window >= 10, "long_window", "must be at least 10"),
        ];
        match checks.into_iter().find(|(holds, ..)| !holds) {
            Some((_, key, problem)) => Err(BuildError::new(name, &format!("concurrency_limit.{key}"), problem)),
            None => Ok(()),
        }
    }
}

/// Limits calls at one time to what the dependency bears. Clones share.
///
/// Put it directly around an attempt: what it measures must have no waiting of ours in it, neither in queues nor between
/// retries.
#[derive(Debug, Clone)]
pub struct AdaptiveLimit {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    gate: Gate,
    gradient: Mutex<Gradient>,
    rejected: AtomicU64,
    dropped: AtomicU64,
}

/// A call inside, without a share in the limit; it must go back through [`AdaptiveLimit::settle`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Token {
    started: Duration,
}

impl AdaptiveLimit {
    /// Starts at `settings.initial`.
    ///
    /// # Errors
    /// Those of [`AdaptiveSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: AdaptiveSettings) -> Result<Self, BuildError> {
        let name = name.into();
        settings.check(&name)?;
        Ok(Self {
            inner: Arc::new(Inner {
                name,
                gate: Gate::new(settings.initial),
                gradient: Mutex::new(Gradient::new(settings)),
                rejected: AtomicU64::new(0),
                dropped: AtomicU64::new(0),
            }),
        })
    }

    /// Changes the settings; the limit stays as near to where it is as the new bounds allow.
    ///
    /// # Errors
    /// Those of [`AdaptiveSettings::check`]; nothing is changed then.
    pub fn reload(&self, settings: AdaptiveSettings) -> Result<(), BuildError> {
        settings.check(&self.inner.name)?;
        let mut gradient = self.gradient();
        gradient.reload(settings);
        self.apply(&gradient);
        Ok(())
    }

    /// Lets a call in. Say how it went with [`Sample::record`].
    ///
    /// # Errors
    /// When as many are inside as the limit is now.
    pub fn acquire(&self) -> Result<Sample, Rejected> {
        let token = self.admit()?;
        Ok(Sample {
            limit: self.clone(),
            token,
            verdict: None,
        })
    }

    /// [`AdaptiveLimit::acquire`] without a clone; [`AdaptiveLimit::settle`] is owed.
    pub(crate) fn admit(&self) -> Result<Token, Rejected> {
        if self.inner.gate.try_enter() {
            Ok(Token { started: clock::now() })
        } else {
            Err(self.refuse())
        }
    }

    /// [`AdaptiveLimit::admit`] for one that may use only `share`, in (0, 1], of the limit. A refusal is not counted.
    pub(crate) fn admit_share(&self, share: f64) -> Option<Token> {
        let limit = self.inner.gate.count().limit;
        // Everybody has a share in one place.
        let places = ((limit as f64 * share).round() as usize).max(1);
        let entered = self.inner.gate.try_enter_below(places);
        entered.then(|| Token { started: clock::now() })
    }

    /// Ends a call. Without a verdict it was cancelled, and says nothing.
    pub(crate) fn settle(&self, token: Token, verdict: Option<Verdict>) {
        if let Some(verdict) = verdict {
            self.measure(token, verdict);
        }
        self.leave();
    }

    /// The first half of [`AdaptiveLimit::settle`], for a call that stays inside after it was answered.
    pub(crate) fn measure(&self, token: Token, verdict: Verdict) {
        match verdict {
            Verdict::Success | Verdict::Ignore | Verdict::Begun => self.answered(token),
            Verdict::Overload { .. } | Verdict::Failure(Kind::Timeout) => self.dropped(token),
            // A failure is often quick, and how quick says nothing of the load.
            Verdict::Failure(_) | Verdict::LocalReject => {}
        }
    }

    /// The second half of [`AdaptiveLimit::settle`].
    pub(crate) fn leave(&self) {
        self.inner.gate.leave();
    }

    /// What the limit is and what it did.
    pub fn snapshot(&self) -> AdaptiveSnapshot {
        let count = self.inner.gate.count();
        AdaptiveSnapshot {
            limit: count.limit,
            in_flight: count.in_flight,
            rejected: self.inner.rejected.load(Ordering::Relaxed),
            dropped: self.inner.dropped.load(Ordering::Relaxed),
            usual_latency: self.gradient().usual_latency(),
        }
    }

    fn answered(&self, token: Token) {
        let mut gradient = match self.inner.gradient.try_lock() {
            Ok(gradient) => gradient,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Somebody else is adding a sample: one less does not change an average, a wait would change latencies.
            Err(TryLockError::WouldBlock) => return,
        };
        let now = clock::now();
        let in_flight = self.inner.gate.count().in_flight;
        gradient.answered(now, now.saturating_sub(token.started), in_flight);
        self.apply(&gradient);
    }

    fn dropped(&self, token: Token) {
        self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        let mut gradient = self.gradient();
        gradient.dropped(clock::now(), token.started);
        self.apply(&gradient);
    }

    /// Makes the estimate the limit; the lock that `gradient` is behind keeps an older one from coming later.
    fn apply(&self, gradient: &Gradient) {
        let limit = gradient.limit();
        if limit != self.inner.gate.count().limit {
            self.inner.gate.set_limit(limit);
        }
    }

    fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.inner.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self) -> Rejected {
        self.inner.rejected.fetch_add(1, Ordering::Relaxed);
        Rejected {
            by: By::ConcurrencyLimit,
            name: Arc::clone(&self.inner.name),
            retry_after: None,
        }
    }
}

/// A call inside. Dropped without a record it was cancelled: its place is free, its latency does not count.
#[derive(Debug)]
#[must_use]
pub struct Sample {
    limit: AdaptiveLimit,
    token: Token,
    verdict: Option<Verdict>,
}

impl Sample {
    /// Ends the call. Its latency counts when it was answered; a timeout or an overload lowers the limit; other
    /// failures say nothing.
    pub fn record(mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        self.limit.settle(self.token, self.verdict);
    }
}

/// Figures of an adaptive limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AdaptiveSnapshot {
    /// The limit now.
    pub limit: usize,
    /// Calls inside.
    pub in_flight: usize,
    /// Calls refused since the start.
    pub rejected: u64,
    /// Timeouts and overloads since the start.
    pub dropped: u64,
    /// The latency that new ones are compared to, once there is one.
    pub usual_latency: Option<Duration>,
}
