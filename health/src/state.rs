//! The deciding part, pure: what a row of answers makes of one check, and what all checks make of the service.
//! It knows no clock and no task; times are arguments.

use std::time::Duration;

use crate::check::{Outcome, Reason};
use crate::spec::{OnDown, Role, Rule};

/// State of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not every required check has passed yet.
    Starting,
    /// All is well.
    Ready,
    /// It takes traffic, something is missing.
    Degraded,
    /// It should get no traffic for now.
    NotReady,
    /// It was told to stop and finishes what it has.
    Draining,
    /// It has stopped.
    Stopped,
}

impl State {
    /// All states, in the order of a life.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Ready,
        Self::Degraded,
        Self::NotReady,
        Self::Draining,
        Self::Stopped,
    ];

    /// Whether traffic should come.
    pub const fn takes_traffic(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }

    /// What a readiness probe is told: `pass`, `warn` when degraded, else `fail`.
    pub const fn readiness(self) -> Status {
        match self {
            Self::Ready => Status::Pass,
            Self::Degraded => Status::Warn,
            Self::Starting | Self::NotReady | Self::Draining | Self::Stopped => Status::Fail,
        }
    }

    /// The name in JSON and metrics: `starting`, `ready`, `degraded`, `not_ready`, `draining`, `stopped`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::NotReady => "not_ready",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// Settled status of one check or of the whole, the better before the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Well.
    Pass,
    /// Works, with a remark.
    Warn,
    /// Does not work.
    Fail,
}

impl Status {
    /// `pass`, `warn` or `fail`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What is known of one check.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) rule: Rule,
    pub(crate) status: Status,
    pub(crate) reason: Option<Reason>,
    pub(crate) passed_once: bool,
    pub(crate) failures: u32,
    successes: u32,
    /// The status that it had before no answer came for too long: nothing was heard against it, so one success brings
    /// it back.
    stale: Option<Status>,
    pub(crate) transitions: [u64; 3],
    pub(crate) runs: u64,
}

impl Record {
    pub(crate) fn new(rule: Rule) -> Self {
        Self {
            rule,
            status: Status::Fail,
            reason: Some(Reason::Pending),
            passed_once: false,
            failures: 0,
            successes: 0,
            stale: None,
            transitions: [0; 3],
            runs: 0,
        }
    }

    /// Takes one answer; true when the settled status changed.
    pub(crate) fn answer(&mut self, outcome: &Outcome) -> bool {
        self.runs += 1;
        let before_stale = self.stale.take();
        let (good, reason) = match outcome {
            Outcome::Pass => (Status::Pass, None),
            Outcome::Warn(failure) => (Status::Warn, Some(failure.reason)),
            Outcome::Fail(failure) => {
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
                self.reason = Some(failure.reason);
                return self.failures >= self.rule.down_after && self.settle(Status::Fail);
            }
        };
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        // The very first success counts at once: a start should not wait for a second round.
        let counts = !self.passed_once
            || before_stale.unwrap_or(self.status) != Status::Fail
            || self.successes >= self.rule.up_after;
        self.passed_once = true;
        if counts {
            self.reason = reason;
        }
        counts && self.settle(good)
    }

    /// No answer for too long; true when the settled status changed.
    pub(crate) fn no_answer(&mut self) -> bool {
        if self.stale.is_some() {
            return false;
        }
        self.stale = Some(self.status);
        self.successes = 0;
        self.reason = Some(Reason::Stale);
        self.settle(Status::Fail)
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    fn settle(&mut self, status: Status) -> bool {
        if self.status == status {
            return false;
        }
        self.status = status;
        self.transitions[status as usize] += 1;
        true
    }

    /// A check that was never heard says nothing, unless it was waited for in vain.
    fn is_silent(&self) -> bool {
        self.runs == 0 && !self.is_stale()
    }
}

/// State of a service that is not told to stop, from its checks. `started` says that it was ready before.
pub(crate) fn aggregate<'a>(records: impl Iterator<Item = &'a Record> + Clone, started: bool) -> State {
    let missing = |record: &Record| record.rule.required && (!record.passed_once || record.status == Status::Fail);
    if !started && records.clone().any(missing) {
        return State::Starting;
    }
    let mut state = State::Ready;
    for record in records {
        match (record.status, record.rule.role, record.rule.on_down) {
            (_, Role::Informative, _) | (Status::Pass, _, _) => {}
            (Status::Fail, _, _) if record.is_silent() => {}
            (Status::Fail, Role::Critical, OnDown::NotReady) => return State::NotReady,
            _ => state = State::Degraded,
        }
    }
    state
}

/// Status of a group of checks: a critical one that fails makes it fail, any other failure or remark makes it warn.
pub(crate) fn group<'a>(records: impl Iterator<Item = &'a Record>) -> Status {
    records
        .map(|record| match (record.rule.role, record.status) {
            (Role::Informative, _) => Status::Pass,
            (Role::Degraded, Status::Fail) => Status::Warn,
            (_, status) => status,
        })
        .max()
        .unwrap_or(Status::Pass)
}

/// When the last answer is too old: three intervals and one timeout.
pub(crate) fn stale_after(interval: Duration, timeout: Duration) -> Duration {
    interval.saturating_mul(3).saturating_add(timeout)
}
