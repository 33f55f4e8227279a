//! Faults put in on purpose, for drills: latency, errors and lost answers for a share of the calls, which end by
//! themselves. It decides which calls are hit and with what; hitting them is the pipeline's matter. Compiled only with the
//! feature `fault-injection`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::error::BuildError;
use crate::verdict::Verdict;

/// No fault lives longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// Faults at one time.
const MOST: usize = 16;
/// Parts in which shares are counted.
const WHOLE: u64 = 1_000_000;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It takes that much longer.
    Latency {
        /// Time before the dependency is asked.
        delay: Duration,
        /// Share of the calls, in (0, 100].
        percent: f64,
    },
    /// The dependency is not asked; the call ends as if it had answered with this verdict.
    Error {
        /// The verdict.
        verdict: Verdict,
        /// Share of the calls, in (0, 100].
        percent: f64,
    },
    /// The dependency is asked and its answer is lost, as when a connection breaks: the work is done, and the call ends
    /// as a failure that may pass.
    Abort {
        /// Share of the calls, in (0, 100].
        percent: f64,
    },
}

impl Fault {
    /// The name in JSON and metrics: `latency`, `error` or `abort`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Latency { .. } => "latency",
            Self::Error { .. } => "error",
            Self::Abort { .. } => "abort",
        }
    }

    const fn percent(&self) -> f64 {
        match self {
            Self::Latency { percent, .. } | Self::Error { percent, .. } | Self::Abort { percent } => *percent,
        }
    }

    /// Share in parts of [`WHOLE`].
    fn share(&self) -> u64 {
        (self.percent() * (WHOLE / 100) as f64).round() as u64
    }

    fn check(&self, name: &str) -> Result<(), BuildError> {
        if !(self.percent() > 0.0 && self.percent() <= 100.0) || self.share() == 0 {
            return Err(BuildError::new(
                name,
                "fault.percent",
                "must be at least 0.0001 and at most 100",
            ));
        }
        if matches!(self, Self::Latency { delay, .. } if delay.is_zero() || *delay > LONGEST) {
            return Err(BuildError::new(
                name,
                "fault.delay",
                "must be above zero and at most an hour",
            ));
        }
        Ok(())
    }
}

/// What one call is hit with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injected {
    /// Wait before anything else; zero for none.
    pub delay: Duration,
    /// The verdict to end with without asking the dependency.
    pub error: Option<Verdict>,
    /// Whether the dependency's answer is lost. Without effect beside an error.
    pub abort: bool,
}

/// The faults of one policy. Clones share.
#[derive(Debug, Clone)]
pub struct Faults {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    /// Whether there are faults: all that calls look at while there are none.
    any: AtomicBool,
    active: Mutex<Active>,
}

#[derive(Debug, Default)]
struct Active {
    faults: Vec<Running>,
    next_id: u64,
    hits: u64,
}

#[derive(Debug)]
struct Running {
    id: u64,
    fault: Fault,
    share: u64,
    /// Runs up by the share with every call; a call that carries it over the whole is hit.
    sum: u64,
    end: Duration,
}

/// A fault that is active.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveFault {
    /// Its number, from 1.
    pub id: u64,
    /// The fault.
    pub fault: Fault,
    /// Time until it ends.
    pub left: Duration,
}

/// Figures of the faults of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct FaultsSnapshot {
    /// Faults that are active.
    pub active: usize,
    /// Calls hit since the start.
    pub hits: u64,
}

impl Faults {
    /// No faults yet.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                name: name.into(),
                any: AtomicBool::new(false),
                active: Mutex::default(),
            }),
        }
    }

    /// Puts a fault in, beside those that are there; it ends after `ttl`. The number is for logs.
    ///
    /// # Errors
    /// A share or a delay that makes no sense, a time of zero or above an hour, more than 16 faults at one time.
    pub fn inject(&self, fault: Fault, ttl: Duration) -> Result<u64, BuildError> {
        let name = &*self.inner.name;
        fault.check(name)?;
        if ttl.is_zero() || ttl > LONGEST {
            return Err(BuildError::new(
                name,
                "fault.ttl",
                "must be above zero and at most an hour",
            ));
        }
        let end = clock::now() + ttl;
        let mut active = self.lock();
        if active.faults.len() >= MOST {
            return Err(BuildError::new(name, "fault", "must not be more than 16 at one time"));
        }
        active.next_id += 1;
        let id = active.next_id;
        active.faults.push(Running {
            id,
            fault,
            share: fault.share(),
            // Faults beside each other begin at different places, so that equal shares do not hit the same calls. The
            // golden section spreads any number of them.
            sum: (id - 1).wrapping_mul(618_034) % WHOLE,
            end,
        });
        self.inner.any.store(true, Ordering::Release);
        Ok(id)
    }

    /// Ends all of them.
    pub fn clear(&self) {
        let mut active = self.lock();
        active.faults.clear();
        self.inner.any.store(false, Ordering::Release);
    }

    /// Those that are there now.
    pub fn active(&self) -> Vec<ActiveFault> {
        let now = clock::now();
        let active = self.lock();
        active
            .faults
            .iter()
            .map(|running| ActiveFault {
                id: running.id,
                fault: running.fault,
                left: running.end.saturating_sub(now),
            })
            .collect()
    }

    /// Figures now.
    pub fn snapshot(&self) -> FaultsSnapshot {
        let active = self.lock();
        FaultsSnapshot {
            active: active.faults.len(),
            hits: active.hits,
        }
    }

    /// What the next call is hit with. Every n-th call is, not one by chance: of `n` calls a fault hits its share of `n`,
    /// to less than one call. While there is no fault this is one load.
    pub fn next(&self) -> Option<Injected> {
        if !self.inner.any.load(Ordering::Acquire) {
            return None;
        }
        let mut active = self.lock();
        let mut injected = Injected {
            delay: Duration::ZERO,
            error: None,
            abort: false,
        };
        let mut hit = false;
        for running in &mut active.faults {
            running.sum += running.share;
            if running.sum < WHOLE {
                continue;
            }
            running.sum -= WHOLE;
            hit = true;
            match running.fault {
                Fault::Latency { delay, .. } => injected.delay += delay,
                Fault::Error { verdict, .. } => injected.error = injected.error.or(Some(verdict)),
                Fault::Abort { .. } => injected.abort = true,
            }
        }
        active.hits += u64::from(hit);
        hit.then_some(injected)
    }

    /// The faults, without those that are over.
    fn lock(&self) -> MutexGuard<'_, Active> {
        let now = clock::now();
        let mut active = self.inner.active.lock().unwrap_or_else(PoisonError::into_inner);
        active.faults.retain(|running| running.end > now);
        self.inner.any.store(!active.faults.is_empty(), Ordering::Release);
        active
    }
}
