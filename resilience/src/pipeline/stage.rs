//! The parts of a policy as a call meets them: what it costs to enter one, and what leaving it with a result does.
//! The order and the waiting are `track`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::breaker::{Breaker, Token};
use crate::bulkhead::{Bulkhead, Waiting};
use crate::error::{By, Rejected, Scope};
use crate::hedge::Hedger;
use crate::retry::Retrier;
use crate::verdict::Verdict;

/// Parts of a policy, in the standard order: the first is the outermost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// Stops asking what fails.
    Breaker,
    /// Time for one attempt.
    AttemptTimeout,
}

impl Part {
    /// All parts in the standard order.
    pub const STANDARD: [Self; 7] = [
        Self::Deadline,
        Self::Gate,
        Self::Bulkhead,
        Self::Retry,
        Self::Hedge,
        Self::Breaker,
        Self::AttemptTimeout,
    ];

    /// The name in TOML and in snapshots.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Gate => "gate",
            Self::Bulkhead => "bulkhead",
            Self::Retry => "retry",
            Self::Hedge => "hedge",
            Self::Breaker => "breaker",
            Self::AttemptTimeout => "attempt_timeout",
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
    Breaker(Breaker),
    AttemptTimeout(TimeLimit),
}

/// What a call holds of a stage that it is in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    Nothing,
    /// Ends at this moment, in nanoseconds after the beginning of the track.
    Limit {
        ends: u64,
        scope: Scope,
    },
    Place,
    Tries(u32),
    Token(Token),
}

/// What entering a stage came to.
pub(super) enum Entered {
    In(Held),
    /// In a queue, with the longest wait.
    Queue(Waiting, Option<Duration>),
    Refused(Rejected),
}

impl Stage {
    pub(crate) fn part(&self) -> Part {
        match self {
            Self::Deadline(_) => Part::Deadline,
            Self::Gate(_) => Part::Gate,
            Self::Bulkhead(_) => Part::Bulkhead,
            Self::Retry(_) => Part::Retry,
            Self::Hedge(_) => Part::Hedge,
            Self::Breaker(_) => Part::Breaker,
            Self::AttemptTimeout(_) => Part::AttemptTimeout,
        }
    }

    /// Enters a stage that is no time limit.
    pub(super) fn enter(&self) -> Entered {
        match self {
            Self::Gate(breaker) => match breaker.gate() {
                Ok(()) => Entered::In(Held::Nothing),
                Err(refusal) => Entered::Refused(refusal.named(breaker)),
            },
            Self::Bulkhead(bulkhead) => {
                if bulkhead.try_enter() {
                    return Entered::In(Held::Place);
                }
                match bulkhead.wait() {
                    Ok(waiting) => Entered::Queue(waiting, bulkhead.max_wait()),
                    Err(rejected) => Entered::Refused(rejected),
                }
            }
            Self::Retry(retrier) => {
                retrier.begin();
                Entered::In(Held::Tries(1))
            }
            Self::Breaker(breaker) => match breaker.admit() {
                Ok(token) => Entered::In(Held::Token(token)),
                Err(rejected) => Entered::Refused(rejected),
            },
            Self::Deadline(_) | Self::AttemptTimeout(_) | Self::Hedge(_) => Entered::In(Held::Nothing),
        }
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

    /// Leaves the stage; `verdict` is absent when the call was dropped or cut off further out.
    pub(super) fn leave(&self, held: Held, verdict: Option<Verdict>) {
        match (self, held) {
            (Self::Bulkhead(bulkhead), Held::Place) => bulkhead.leave(),
            (Self::Breaker(breaker), Held::Token(token)) => breaker.settle(token, verdict),
            _ => {}
        }
    }
}

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
    pub(crate) fn nanos(&self) -> Option<u64> {
        let nanos = self.0.load(Ordering::Relaxed);
        (nanos > 0).then_some(nanos)
    }

    pub(crate) fn get(&self) -> Option<Duration> {
        self.nanos().map(Duration::from_nanos)
    }
}
