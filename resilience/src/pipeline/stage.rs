//! The parts of a policy as a call meets them: what it costs to enter one, and what leaving it with a result does.
//! The order and the waiting are `track`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::settings::PipelineSettings;
use crate::adaptive::{self, AdaptiveLimit};
use crate::breaker::{self, Breaker};
use crate::bulkhead::{Bulkhead, Waiting};
use crate::error::{BuildError, By, Rejected};
use crate::hedge::Hedger;
use crate::rate::{RateLimit, Slot};
use crate::retry::Retrier;
use crate::throttle::{self, Throttle};
#[cfg(feature = "fault-injection")]
use crate::verdict::Kind;
use crate::verdict::Verdict;

/// Parts of a policy, in the standard order: the first is the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Part {
    /// Time for the whole call, and the caller's deadline.
    Deadline,
    /// A look at the breaker before anything else is done for the call; it counts nothing.
    Gate,
    /// So many calls at one time.
    Bulkhead,
    /// Other attempts after failures that may pass.
    Retry,
    /// A second attempt beside a slow first one.
    Hedge,
    /// Asks a dependency less that refuses much.
    Throttle,
    /// Stops asking what fails.
    Breaker,
    /// So many calls in a time.
    RateLimit,
    /// A limit of calls at one time that finds itself.
    ConcurrencyLimit,
    /// Time for one attempt.
    AttemptTimeout,
    /// Faults put in on purpose; with the feature `fault-injection`.
    Faults,
}

impl Part {
    /// All parts in the standard order.
    pub const STANDARD: [Self; 11] = [
        Self::Deadline,
        Self::Gate,
        Self::Bulkhead,
        Self::Retry,
        Self::Hedge,
        Self::Throttle,
        Self::Breaker,
        Self::RateLimit,
        Self::ConcurrencyLimit,
        Self::AttemptTimeout,
        Self::Faults,
    ];

    /// The name in TOML and in snapshots.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Gate => "gate",
            Self::Bulkhead => "bulkhead",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Throttle => "throttle",
            Self::Breaker => "breaker",
            Self::RateLimit => "rate_limit",
            Self::ConcurrencyLimit => "concurrency_limit",
            Self::AttemptTimeout => "attempt_timeout",
            Self::Faults => "faults",
        }
    }

    /// The setting that makes a policy have it.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Deadline => "timeout.total",
            Self::AttemptTimeout => "timeout.attempt",
            other => other.as_str(),
        }
    }
}

/// One part of one policy.
pub(crate) enum Stage {
    Deadline(TimeLimit),
    Gate(Breaker),
    Bulkhead(Bulkhead),
    Retry(Retrier),
    Hedge(Hedger),
    Throttle(Throttle),
    Breaker(Breaker),
    RateLimit(RateLimit),
    ConcurrencyLimit(AdaptiveLimit),
    AttemptTimeout(TimeLimit),
    #[cfg(feature = "fault-injection")]
    Faults(crate::Faults),
}

/// What a call holds of a stage that it is in, and gives back when it leaves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    Nothing,
    Place,
    Throttle(throttle::Token),
    Breaker(breaker::Token),
    Measured(adaptive::Token),
    /// The answer is going to be lost on purpose.
    #[cfg(feature = "fault-injection")]
    Abort,
}

/// What entering a stage came to.
pub(super) enum Entered {
    In(Held),
    /// In a queue, with the longest wait.
    Queue(Waiting, Option<Duration>),
    /// Goes on after a while, and holds the slot meanwhile.
    Later(Duration, Slot),
    Refused(Rejected),
    /// Ends with this verdict after a while, as a fault wants it.
    #[cfg(feature = "fault-injection")]
    Fault(crate::Injected),
}

impl Stage {
    pub(crate) fn part(&self) -> Part {
        match self {
            Self::Deadline(_) => Part::Deadline,
            Self::Gate(_) => Part::Gate,
            Self::Bulkhead(_) => Part::Bulkhead,
            Self::Retry(_) => Part::Retry,
            Self::Hedge(_) => Part::Hedge,
            Self::Throttle(_) => Part::Throttle,
            Self::Breaker(_) => Part::Breaker,
            Self::RateLimit(_) => Part::RateLimit,
            Self::ConcurrencyLimit(_) => Part::ConcurrencyLimit,
            Self::AttemptTimeout(_) => Part::AttemptTimeout,
            #[cfg(feature = "fault-injection")]
            Self::Faults(_) => Part::Faults,
        }
    }

    /// Enters a stage that is none of the usual ones, or a bulkhead without a free place.
    pub(super) fn enter(&self) -> Entered {
        let entered = match self {
            Self::Bulkhead(bulkhead) => {
                return match bulkhead.wait() {
                    Ok(waiting) => Entered::Queue(waiting, bulkhead.max_wait()),
                    Err(rejected) => Entered::Refused(rejected),
                };
            }
            Self::Gate(breaker) => match breaker.gate() {
                Ok(()) => Ok(Held::Nothing),
                Err(refusal) => Err(refusal.named(breaker)),
            },
            Self::Throttle(throttle) => throttle.admit().map(Held::Throttle),
            Self::ConcurrencyLimit(limit) => limit.admit().map(Held::Measured),
            Self::RateLimit(limit) => match limit.admit() {
                Ok(slot) if slot.wait.is_zero() => Ok(Held::Nothing),
                Ok(slot) => return Entered::Later(slot.wait, slot),
                Err(rejected) => Err(rejected),
            },
            #[cfg(feature = "fault-injection")]
            Self::Faults(faults) => match faults.next() {
                Some(injected) => return Entered::Fault(injected),
                None => Ok(Held::Nothing),
            },
            Self::Deadline(_) | Self::AttemptTimeout(_) | Self::Retry(_) | Self::Breaker(_) | Self::Hedge(_) => {
                Ok(Held::Nothing)
            }
        };
        match entered {
            Ok(held) => Entered::In(held),
            Err(rejected) => Entered::Refused(rejected),
        }
    }

    /// Takes other settings.
    pub(super) fn reload(&self, name: &str, settings: &PipelineSettings) -> Result<(), BuildError> {
        match self {
            Self::Deadline(limit) => limit.set(settings.timeout.total),
            Self::AttemptTimeout(limit) => limit.set(settings.timeout.attempt),
            Self::Bulkhead(bulkhead) => {
                if let Some(settings) = &settings.bulkhead {
                    bulkhead.reload(settings)?;
                }
            }
            Self::Retry(retrier) => {
                if let Some(settings) = &settings.retry {
                    retrier.reload(name, settings.clone())?;
                }
            }
            Self::Hedge(hedger) => {
                if let Some(settings) = &settings.hedge {
                    hedger.reload(settings.clone());
                }
            }
            Self::Throttle(throttle) => {
                if let Some(settings) = &settings.throttle {
                    throttle.reload(settings.clone())?;
                }
            }
            Self::Breaker(breaker) => {
                breaker.set_attempt_limit(settings.timeout.attempt);
                if let Some(settings) = &settings.breaker {
                    breaker.reload(settings.clone())?;
                }
            }
            Self::RateLimit(limit) => {
                if let Some(settings) = &settings.rate_limit {
                    limit.reload(settings.clone())?;
                }
            }
            Self::ConcurrencyLimit(limit) => {
                if let Some(settings) = &settings.concurrency_limit {
                    limit.reload(settings.clone())?;
                }
            }
            // The gate is the breaker once more.
            Self::Gate(_) => {}
            #[cfg(feature = "fault-injection")]
            Self::Faults(_) => {}
        }
        Ok(())
    }

    /// The refusal of one who waited for too long.
    pub(super) fn refuse(&self, name: &Arc<str>) -> Rejected {
        match self {
            Self::Bulkhead(bulkhead) => bulkhead.refuse(),
            _ => Rejected {
                by: By::Deadline,
                name: Arc::clone(name),
                retry_after: None,
            },
        }
    }

    /// Gives back a slot whose wait was cut off.
    pub(super) fn give_back(&self, slot: &Slot) {
        if let Self::RateLimit(limit) = self {
            limit.give_back(slot);
        }
    }

    /// Leaves the stage; `verdict` is absent when the call was dropped or cut off further out.
    #[inline]
    pub(super) fn leave(&self, held: Held, verdict: Option<Verdict>) {
        match (self, held) {
            (Self::Breaker(breaker), Held::Breaker(token)) => breaker.settle(token, verdict),
            (Self::Bulkhead(bulkhead), Held::Place) => bulkhead.leave(),
            (Self::Throttle(throttle), Held::Throttle(token)) => throttle.settle(token, verdict),
            (Self::ConcurrencyLimit(limit), Held::Measured(token)) => limit.settle(token, verdict),
            _ => {}
        }
    }
}

/// The verdict on an answer that was lost on purpose.
#[cfg(feature = "fault-injection")]
pub(super) const LOST: Verdict = Verdict::Failure(Kind::Transient);

/// A time limit that can be changed while calls are under it; the change holds for those that come.
#[derive(Debug)]
pub(crate) struct TimeLimit(AtomicU64);

impl TimeLimit {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let new = Self(AtomicU64::new(0));
        new.set(limit);
        new
    }

    pub(crate) fn set(&self, limit: Option<Duration>) {
        let nanos = limit.map_or(0, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        self.0.store(nanos, Ordering::Relaxed);
    }

    /// Nanoseconds; none is no limit.
    #[inline]
    pub(crate) fn nanos(&self) -> Option<u64> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos > 0).then_some(nanos)
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        self.nanos().map(Duration::from_nanos)
    }
}
