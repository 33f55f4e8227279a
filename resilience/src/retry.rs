//! When to try again, and how long to wait. Waiting and the budget's state are others' matter (`pipeline`, `budget`).

use std::time::Duration;

use rand::Rng;

use crate::budget::{Budget, BudgetSnapshot};
use crate::verdict::{Kind, Safety, Verdict};

/// How waits are spread, so that clients do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jitter {
    /// Anything between zero and the exponential wait (Brooker, "Exponential Backoff And Jitter", AWS 2015).
    Full,
    /// Exactly the exponential wait: for tests.
    None,
}

/// Settings of retries.
#[derive(Debug, Clone)]
pub struct Retry {
    pub(crate) max: u32,
    pub(crate) base: Duration,
    pub(crate) cap: Duration,
    pub(crate) hint_cap: Duration,
    pub(crate) jitter: Jitter,
    pub(crate) budget: Option<Budget>,
}

impl Default for Retry {
    /// 2 retries, 50 ms doubling up to 1 s with full jitter, hints up to 60 s, budget 20 % and 3 a second.
    fn default() -> Self {
        Self {
            max: 2,
            base: Duration::from_millis(50),
            cap: Duration::from_secs(1),
            hint_cap: Duration::from_secs(60),
            jitter: Jitter::Full,
            budget: Some(Budget::new(0.2, 3.0)),
        }
    }
}

impl Retry {
    /// Retries after the first attempt. Default 2.
    #[must_use]
    pub fn max(mut self, retries: u32) -> Self {
        self.max = retries;
        self
    }

    /// First wait and the longest one; each is twice the one before. Default 50 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.base = base;
        self.cap = cap;
        self
    }

    /// How waits are spread. Default [`Jitter::Full`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The longest wait that a server may ask for; a longer one ends the call. Default 60 s.
    #[must_use]
    pub fn hint_cap(mut self, cap: Duration) -> Self {
        self.hint_cap = cap;
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
        self.budget = None;
        self
    }

    /// The wait before retry number `retry` (from 0), without a hint.
    pub(crate) fn delay(&self, retry: u32, rng: &mut impl Rng) -> Duration {
        let full = self.base.saturating_mul(2_u32.saturating_pow(retry)).min(self.cap);
        match self.jitter {
            Jitter::None => full,
            Jitter::Full => full.mul_f64(rng.random_range(0.0..=1.0)),
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

/// Figures of retries.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct RetrySnapshot {
    /// Retries made since the start, by reason (`not_sent`, `transient`, `timeout`, `overload`).
    pub retries: Vec<(&'static str, u64)>,
    /// The budget, if there is one.
    pub budget: Option<BudgetSnapshot>,
}
