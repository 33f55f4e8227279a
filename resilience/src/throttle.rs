//! Client throttling: asks a dependency less that refuses much, so that refusing does not become its main work. Calls
//! are let through by chance, as the dependency accepts them (Google, "Site Reliability Engineering", chapter 21,
//! "Handling Overload"). It is no breaker: some calls always pass, and it never waits.

mod counts;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::counts::Counts;
use crate::clock;
use crate::error::{BuildError, By, Rejected};
use crate::verdict::{Kind, Verdict};

/// Refuses a call with the probability `max(0, (requests - k * accepts) / (requests + 1))`, at most `max_reject`.
/// Clones share.
///
/// Every call is a request, those refused here as well, and is counted before it is made. What the dependency answered is
/// accepted: successes, answers that say nothing of its health, failures that are permanent. Overload, time-outs,
/// failures that may pass and requests that could not be sent are not. A call that was cancelled, or refused by a policy
/// further in, says nothing and is taken out again.
#[derive(Clone)]
pub struct Throttle {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    requests: Counts,
    accepts: Counts,
    // The settings as the hot path needs them: numbers as bits, nanoseconds.
    k: AtomicU64,
    max_reject: AtomicU64,
    floor: AtomicU64,
    window: AtomicU64,
    settings: Mutex<ThrottleSettings>,
    rejected: AtomicU64,
    /// Numbers in 0..1; none is the thread's own generator.
    chance: Option<Box<dyn Fn() -> f64 + Send + Sync>>,
}

/// Settings of a throttle: `throttle = { k = 2.0, window = "2m", max_reject = 0.9, min_per_sec = 5.0 }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct ThrottleSettings {
    /// Requests per accept that are made on: at 2 as many as are accepted are made in vain. Default 2.
    pub k: f64,
    /// Window of the counts. It must be longer than the slowest call, whose accept would come too late else.
    /// Default 2 min.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub window: Duration,
    /// The greatest probability, so that a dependency that is well again is found out. Default 0.9.
    pub max_reject: f64,
    /// Nothing is refused while the window holds fewer requests than this many a second. Default 5, as Finagle's
    /// `NackAdmissionFilter`.
    pub min_per_sec: f64,
}

impl Default for ThrottleSettings {
    fn default() -> Self {
        Self {
            k: 2.0,
            window: Duration::from_secs(120),
            max_reject: 0.9,
            min_per_sec: 5.0,
        }
    }
}

impl ThrottleSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// A `k` below one, which refuses what is accepted; a probability outside (0, 1]; a window under 10 ms or over a
    /// day; a floor that is negative; numbers that are none.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let problem = if !(self.k >= 1.0 && self.k.is_finite()) {
            ("throttle.k", "must be at least 1")
        } else if self.window < Duration::from_millis(10) || self.window > Duration::from_secs(86_400) {
            ("throttle.window", "must be at least 10 ms and at most a day")
        } else if !(self.max_reject > 0.0 && self.max_reject <= 1.0) {
            ("throttle.max_reject", "must be above 0 and at most 1")
        } else if !(self.min_per_sec >= 0.0 && self.min_per_sec.is_finite()) {
            ("throttle.min_per_sec", "must be at least 0")
        } else {
            return Ok(());
        };
        Err(BuildError::new(name, problem.0, problem.1))
    }

    fn floor(&self) -> f64 {
        self.min_per_sec * self.window.as_secs_f64()
    }
}

impl Throttle {
    /// A throttle that has seen nothing.
    ///
    /// # Errors
    /// As [`ThrottleSettings::check`].
    pub fn new(name: impl Into<Arc<str>>, settings: ThrottleSettings) -> Result<Self, BuildError> {
        Self::build(name.into(), settings, None)
    }

    /// The same with numbers in 0..1 from `chance` in place of random ones: for tests.
    ///
    /// # Errors
    /// As [`ThrottleSettings::check`].
    pub fn with_chance(
        name: impl Into<Arc<str>>,
        settings: ThrottleSettings,
        chance: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<Self, BuildError> {
        Self::build(name.into(), settings, Some(Box::new(chance)))
    }

    fn build(
        name: Arc<str>,
        settings: ThrottleSettings,
        chance: Option<Box<dyn Fn() -> f64 + Send + Sync>>,
    ) -> Result<Self, BuildError> {
        settings.check(&name)?;
        let inner = Inner {
            name,
            requests: Counts::default(),
            accepts: Counts::default(),
            k: AtomicU64::default(),
            max_reject: AtomicU64::default(),
            floor: AtomicU64::default(),
            window: AtomicU64::default(),
            settings: Mutex::new(settings.clone()),
            rejected: AtomicU64::new(0),
            chance,
        };
        inner.apply(&settings);
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Asks for one call. Say with the permit how it ended; dropping it says that it was cancelled.
    ///
    /// # Errors
    /// [`Rejected`], by chance.
    pub fn acquire(&self) -> Result<ThrottlePermit<'_>, Rejected> {
        let token = self.admit()?;
        Ok(ThrottlePermit {
            throttle: self,
            token: Some(token),
        })
    }

    /// Asks for one call of a pipeline, which says with [`Throttle::settle`] how it ended.
    pub(crate) fn admit(&self) -> Result<Token, Rejected> {
        let inner = &*self.inner;
        let turn = inner.turn();
        let probability = inner.probability(turn);
        inner.requests.add(turn, 1);
        if probability > 0.0 && inner.chance.as_ref().map_or_else(fastrand::f64, |chance| chance()) < probability {
            inner.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(Rejected {
                by: By::Throttle,
                name: Arc::clone(&inner.name),
                // The next call may pass: it is chance, not time.
                retry_after: None,
            });
        }
        Ok(Token { turn })
    }

    /// Says how a call ended; no verdict is a call that was cancelled.
    pub(crate) fn settle(&self, token: Token, verdict: Option<Verdict>) {
        let inner = &*self.inner;
        match verdict {
            Some(Verdict::Success | Verdict::Ignore | Verdict::Begun | Verdict::Failure(Kind::Permanent)) => {
                inner.accepts.add(inner.turn(), 1);
            }
            Some(Verdict::Overload { .. } | Verdict::Failure(Kind::NotSent | Kind::Transient | Kind::Timeout)) => {}
            Some(Verdict::LocalReject) | None => inner.requests.take_back(token.turn),
        }
    }

    /// Other settings from now on; the counts stay. With another window they count as made now.
    ///
    /// # Errors
    /// As [`ThrottleSettings::check`]; then nothing is changed.
    pub fn reload(&self, settings: ThrottleSettings) -> Result<(), BuildError> {
        let inner = &*self.inner;
        settings.check(&inner.name)?;
        let mut current = inner.settings.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = inner.turn();
        let (requests, accepts) = (inner.requests.sum(turn), inner.accepts.sum(turn));
        inner.apply(&settings);
        if current.window != settings.window {
            let turn = inner.turn();
            inner.requests.restart(turn, requests);
            inner.accepts.restart(turn, accepts);
        }
        *current = settings;
        Ok(())
    }

    /// Figures now.
    pub fn snapshot(&self) -> ThrottleSnapshot {
        let inner = &*self.inner;
        let turn = inner.turn();
        ThrottleSnapshot {
            requests: inner.requests.sum(turn),
            accepts: inner.accepts.sum(turn),
            reject_probability: inner.probability(turn),
            rejected: inner.rejected.load(Ordering::Relaxed),
        }
    }
}

impl Inner {
    fn turn(&self) -> u32 {
        let window = Duration::from_nanos(self.window.load(Ordering::Relaxed));
        counts::turn(clock::now(), window)
    }

    /// The probability with which the next call is refused.
    fn probability(&self, turn: u32) -> f64 {
        let number = |bits: &AtomicU64| f64::from_bits(bits.load(Ordering::Relaxed));
        let requests = self.requests.sum(turn) as f64;
        if requests < number(&self.floor) {
            return 0.0;
        }
        let accepts = self.accepts.sum(turn) as f64;
        let probability = (requests - number(&self.k) * accepts) / (requests + 1.0);
        probability.clamp(0.0, number(&self.max_reject))
    }

    fn apply(&self, settings: &ThrottleSettings) {
        let nanos = u64::try_from(settings.window.as_nanos()).unwrap_or(u64::MAX);
        self.k.store(settings.k.to_bits(), Ordering::Relaxed);
        self.max_reject.store(settings.max_reject.to_bits(), Ordering::Relaxed);
        self.floor.store(settings.floor().to_bits(), Ordering::Relaxed);
        self.window.store(nanos, Ordering::Relaxed);
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("name", &self.inner.name)
            .finish_non_exhaustive()
    }
}

/// One call that was let through, for those who keep its end themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token {
    turn: u32,
}

/// Right to make one call.
#[derive(Debug)]
#[must_use = "dropping a permit says that the call was cancelled"]
pub struct ThrottlePermit<'a> {
    throttle: &'a Throttle,
    token: Option<Token>,
}

impl ThrottlePermit<'_> {
    /// Says how the call ended.
    pub fn record(mut self, verdict: Verdict) {
        if let Some(token) = self.token.take() {
            self.throttle.settle(token, Some(verdict));
        }
    }
}

impl Drop for ThrottlePermit<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.throttle.settle(token, None);
        }
    }
}

/// Figures of a throttle.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ThrottleSnapshot {
    /// Requests in the window, those refused here included.
    pub requests: u64,
    /// Those of them that the dependency accepted.
    pub accepts: u64,
    /// The probability with which the next call is refused.
    pub reject_probability: f64,
    /// Calls refused since the start.
    pub rejected: u64,
}
