//! When to try again, and how long to wait. Waiting and the budget's state are others' matter (`pipeline`, `budget`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::budget::{Budget, BudgetSettings, BudgetSnapshot};
use crate::error::BuildError;
use crate::event::{Event, Tell};
use crate::verdict::{Kind, Safety, Verdict};

/// The longest that any wait may be: what is longer was meant in another unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How waits are spread, so that clients do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Jitter {
    /// Anything between zero and the exponential wait (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    Full,
    /// Exactly the exponential wait: for tests.
    None,
}

/// Settings of retries; in TOML `[policy.NAME] retry = { .. }`.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct RetrySettings {
    /// Retries after the first attempt. Default 2.
    pub max: u32,
    /// The first wait; each is twice the one before. Default 50 ms.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub base: Duration,
    /// The longest wait. Default 1 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub cap: Duration,
    /// The longest wait that a server may ask for; a longer one ends the call. Default 60 s.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::length"))]
    pub hint_cap: Duration,
    /// How waits are spread. Default [`Jitter::Full`].
    pub jitter: Jitter,
    /// How much more traffic retries may make. Default: 20 % of the requests, and 3 a second.
    pub budget: Option<BudgetSettings>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max: 2,
            base: Duration::from_millis(50),
            cap: Duration::from_secs(1),
            hint_cap: Duration::from_secs(60),
            jitter: Jitter::Full,
            budget: Some(BudgetSettings::default()),
        }
    }
}

/// Retries as code describes them: settings, and perhaps a budget that several policies share.
#[derive(Debug, Clone, Default)]
pub struct Retry {
    settings: RetrySettings,
    budget: Option<Budget>,
}

impl From<RetrySettings> for Retry {
    fn from(settings: RetrySettings) -> Self {
        Self { settings, budget: None }
    }
}

impl Retry {
    /// Retries after the first attempt. Default 2.
    #[must_use]
    pub fn max(mut self, retries: u32) -> Self {
        self.settings.max = retries;
        self
    }

    /// First wait and the longest one; each is twice the one before. Default 50 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.settings.base = base;
        self.settings.cap = cap;
        self
    }

    /// How waits are spread. Default [`Jitter::Full`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.settings.jitter = jitter;
        self
    }

    /// The longest wait that a server may ask for; a longer one ends the call. Default 60 s.
    #[must_use]
    pub fn hint_cap(mut self, cap: Duration) -> Self {
        self.settings.hint_cap = cap;
        self
    }

    /// The budget, perhaps shared with other policies.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// No budget: retries are bounded by [`Retry::max`] alone, and a failing dependency gets that much more traffic.
    #[must_use]
    pub fn without_budget(mut self) -> Self {
        self.settings.budget = None;
        self.budget = None;
        self
    }

    pub(crate) fn into_parts(self) -> (RetrySettings, Option<Budget>) {
        (self.settings, self.budget)
    }
}

impl RetrySettings {
    /// Whether they make sense, for the policy `name`.
    ///
    /// # Errors
    /// Waits of zero or of more than a day, a first wait above the longest one, a budget that can never be spent.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let refuse = |key, problem| Err(BuildError::new(name, key, problem));
        if self.base.is_zero() {
            return refuse("retry.base", "must be above zero");
        }
        if self.base > self.cap {
            return refuse("retry.base", "must not be longer than retry.cap");
        }
        if self.cap > LONGEST {
            return refuse("retry.cap", "must be at most a day");
        }
        if self.hint_cap.is_zero() || self.hint_cap > LONGEST {
            return refuse("retry.hint_cap", "must be above zero and at most a day");
        }
        self.budget.as_ref().map_or(Ok(()), |budget| budget.check(name))
    }

    /// When the last attempt begins, if each one before takes `attempt`, every wait is as long as it may be and no server
    /// asks for more.
    pub(crate) fn latest(&self, attempt: Duration) -> Duration {
        let mut latest = attempt.saturating_mul(self.max);
        // From some number on every wait is the cap.
        let doubling = self.max.min(64);
        for retry in 0..doubling {
            latest = latest.saturating_add(self.backoff_for(retry));
        }
        latest.saturating_add(self.cap.saturating_mul(self.max - doubling))
    }

    fn backoff_for(&self, retry: u32) -> Duration {
        // Doubled step by step, since two to the power of `retry` fits nowhere; 64 steps make any wait longer than a day.
        let doubled = (0..retry.min(64)).fold(self.base, |wait, _| wait.saturating_mul(2));
        doubled.min(self.cap)
    }

    /// The wait before retry number `retry` (from 0), without a hint; `spread` in 0..=1 is the jitter.
    fn delay(&self, retry: u32, spread: f64) -> Duration {
        let full = self.backoff_for(retry);
        match self.jitter {
            Jitter::None => full,
            Jitter::Full => full.mul_f64(spread),
        }
    }
}

/// Whether a verdict asks for another attempt, and why: the reason for metrics, and the server's hint.
pub(crate) fn reason(verdict: Verdict, safety: Safety) -> Option<(Reason, Option<Duration>)> {
    let idempotent = safety == Safety::Idempotent;
    match verdict {
        Verdict::Failure(Kind::NotSent) => Some((Reason::NotSent, None)),
        Verdict::Failure(Kind::Transient) if idempotent => Some((Reason::Transient, None)),
        Verdict::Failure(Kind::Timeout) if idempotent => Some((Reason::Timeout, None)),
        // A server that names a time says that it did not do the work.
        Verdict::Overload { hint } if idempotent || hint.is_some() => Some((Reason::Overload, hint)),
        _ => None,
    }
}

/// Why a retry is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    NotSent,
    Transient,
    Timeout,
    Overload,
}

impl Reason {
    pub(crate) const ALL: [Self; 4] = [Self::NotSent, Self::Transient, Self::Timeout, Self::Overload];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Transient => "transient",
            Self::Timeout => "timeout",
            Self::Overload => "overload",
        }
    }
}

/// Retries as the calls of a policy meet them. Settings are read after failures alone, so a lock around them is cheap.
#[derive(Debug)]
pub(crate) struct Retrier {
    settings: Mutex<RetrySettings>,
    /// Whether anything is ever repeated: asked in every call.
    repeats: AtomicBool,
    budget: Budget,
    /// Whether the budget is asked. A policy without one may be given it by a reload.
    limited: AtomicBool,
    /// Whether the budget is others' too: then a reload leaves it alone.
    shared: bool,
    made: [AtomicU64; Reason::ALL.len()],
}

impl Retrier {
    /// With a shared budget, or one of its own.
    pub(crate) fn new(name: &str, settings: RetrySettings, shared: Option<Budget>) -> Result<Self, BuildError> {
        Ok(Self {
            repeats: AtomicBool::new(settings.max > 0),
            limited: AtomicBool::new(shared.is_some() || settings.budget.is_some()),
            shared: shared.is_some(),
            budget: match shared {
                Some(budget) => budget,
                None => Budget::from_settings(name, settings.budget.clone().unwrap_or_default())?,
            },
            settings: Mutex::new(settings),
            made: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// Counts a call.
    #[inline]
    pub(crate) fn begin(&self, coarse: impl FnOnce() -> u64) {
        if let Some(budget) = self.budget() {
            budget.deposit_at(coarse());
        }
    }

    /// Counts what an attempt came to.
    #[inline]
    pub(crate) fn attempted(&self, verdict: Verdict) {
        if let Some(budget) = self.budget() {
            budget.record(verdict);
        }
    }

    /// The budget, if retries are bounded by one.
    #[inline]
    pub(crate) fn budget(&self) -> Option<&Budget> {
        self.limited.load(Ordering::Relaxed).then_some(&self.budget)
    }

    /// Whether there is another attempt after number `number`, and the wait before it. `left` is the time until the
    /// nearest limit around the retries.
    pub(crate) fn next(
        &self,
        teller: &impl Tell,
        verdict: Verdict,
        safety: Safety,
        number: u32,
        left: Option<Duration>,
    ) -> Option<Duration> {
        let (reason, hint) = reason(verdict, safety)?;
        let delay = {
            let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
            if number > settings.max || hint.is_some_and(|hint| hint > settings.hint_cap) {
                return None;
            }
            let own = settings.delay(number - 1, fastrand::f64());
            hint.map_or(own, |hint| hint.max(own))
        };
        // Waiting for what comes too late helps nobody: the last result is the answer.
        if left.is_some_and(|left| delay >= left) {
            return None;
        }
        if self.budget().is_some_and(|budget| !budget.try_withdraw()) {
            teller.tell(|name| Event::BudgetExhausted { name });
            return None;
        }
        self.made[reason as usize].fetch_add(1, Ordering::Relaxed);
        teller.tell(|name| Event::Retry {
            name,
            attempt: number,
            reason: reason.as_str(),
            delay,
        });
        Some(delay)
    }

    /// Other settings from now on; the budget keeps what it counted. A shared budget stays as it is.
    pub(crate) fn reload(&self, name: &str, settings: RetrySettings) -> Result<(), BuildError> {
        if !self.shared {
            if let Some(new) = &settings.budget {
                self.budget.reload(name, new.clone())?;
            }
            self.limited.store(settings.budget.is_some(), Ordering::Relaxed);
        }
        self.repeats.store(settings.max > 0, Ordering::Relaxed);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    #[inline]
    pub(crate) fn repeats(&self) -> bool {
        self.repeats.load(Ordering::Relaxed)
    }

    pub(crate) fn snapshot(&self) -> RetrySnapshot {
        RetrySnapshot {
            retries: Reason::ALL
                .into_iter()
                .map(|reason| (reason.as_str(), self.made[reason as usize].load(Ordering::Relaxed)))
                .collect(),
            budget: self.budget().map(Budget::snapshot),
        }
    }
}

/// Figures of retries.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RetrySnapshot {
    /// Retries made since the start, by reason (`not_sent`, `transient`, `timeout`, `overload`).
    pub retries: Vec<(&'static str, u64)>,
    /// The budget, if there is one.
    pub budget: Option<BudgetSnapshot>,
}
