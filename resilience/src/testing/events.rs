//! [`Events`]: a listener that remembers what happened, in order. Figures are [`assert`](super::assert())'s.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::breaker::State;
use crate::clock;
use crate::error::{By, Scope};
use crate::event::{Event, Listener};

/// Remembers everything that it is told. Clones share: give one to `listener(..)` and keep one.
#[derive(Debug, Clone)]
pub struct Events {
    told: Arc<Mutex<Vec<Told>>>,
    began: Duration,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// When, since the recording began.
    pub at: Duration,
    /// Name of the policy or breaker.
    pub name: String,
    /// What.
    pub what: What,
}

/// What happened, as in [`Event`]. As text it is what [`Events::assert_exactly`] is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// `closed -> open`
    Transition {
        /// From.
        from: State,
        /// To.
        to: State,
    },
    /// `retry 1: transient`
    Retry {
        /// Number of the attempt that failed, from 1.
        attempt: u32,
        /// Why it is repeated.
        reason: &'static str,
        /// Wait before the next one; not part of the text.
        delay: Duration,
    },
    /// `budget exhausted`
    BudgetExhausted,
    /// `timeout: attempt`
    Timeout(Scope),
    /// `rejected: breaker`
    Rejected(By),
    /// `fallback: failure`, with its reason
    Fallback(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transition { from, to } => write!(f, "{} -> {}", from.as_str(), to.as_str()),
            Self::Retry { attempt, reason, .. } => write!(f, "retry {attempt}: {reason}"),
            Self::BudgetExhausted => f.write_str("budget exhausted"),
            Self::Timeout(scope) => write!(f, "timeout: {}", scope.as_str()),
            Self::Rejected(by) => write!(f, "rejected: {}", by.as_str()),
            Self::Fallback(reason) => write!(f, "fallback: {reason}"),
        }
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener for Events {
    fn event(&self, event: &Event<'_>) {
        let (name, what) = match *event {
            Event::Transition { name, from, to } => (name, What::Transition { from, to }),
            Event::Retry {
                name,
                attempt,
                reason,
                delay,
            } => (name, What::Retry { attempt, reason, delay }),
            Event::BudgetExhausted { name } => (name, What::BudgetExhausted),
            Event::Timeout { name, scope } => (name, What::Timeout(scope)),
            Event::Rejected { name, by } => (name, What::Rejected(by)),
            Event::Fallback { name, reason } => (name, What::Fallback(reason)),
        };
        let at = clock::now().saturating_sub(self.began);
        let name = name.to_owned();
        self.told().push(Told { at, name, what });
    }
}

impl Events {
    /// Begins a recording.
    pub fn new() -> Self {
        Self {
            told: Arc::default(),
            began: clock::now(),
        }
    }

    /// Everything so far, in order.
    pub fn all(&self) -> Vec<Told> {
        self.told().clone()
    }

    /// How often something happened: `events.count(|what| matches!(what, What::Retry { .. }))`.
    pub fn count(&self, is_it: impl Fn(&What) -> bool) -> usize {
        self.told().iter().filter(|told| is_it(&told.what)).count()
    }

    /// Forgets what happened so far.
    pub fn clear(&self) {
        self.told().clear();
    }

    /// This happened, in this order, and nothing else: `["retry 1: transient", "closed -> open"]`; see [`What`].
    #[track_caller]
    pub fn assert_exactly(&self, expected: &[&str]) {
        let texts: Vec<String> = self.told().iter().map(|told| told.what.to_string()).collect();
        assert!(texts == expected, "expected exactly {expected:?}; {self}");
    }

    /// This happened in this order, with anything else in between.
    #[track_caller]
    pub fn assert_in_order(&self, expected: &[&str]) {
        let told = self.all();
        let mut texts = told.iter().map(|told| told.what.to_string());
        for wanted in expected {
            let found = texts.any(|text| text == *wanted);
            assert!(found, "expected {wanted:?} in its place in {expected:?}; {self}");
        }
    }

    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What happened, a line each.
impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.told();
        if told.is_empty() {
            return f.write_str("nothing happened");
        }
        f.write_str("what happened:")?;
        for Told { at, name, what } in told.iter() {
            write!(f, "\n  {at:>10.3?}  {name}  {what}")?;
        }
        Ok(())
    }
}
