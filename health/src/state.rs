//! The deciding part, pure: what a row of answers makes of one check, and what all checks make of the service.
//! It knows no clock and no task; times are arguments.

use std::time::Duration;

use crate::check::{OnDown, Outcome, Reason, Role};

/// State of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not every critical check has passed yet.
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

/// Settled status of one check or of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
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
    pub(crate) role: Role,
    pub(crate) on_down: OnDown,
    pub(crate) down_after: u32,
    pub(crate) up_after: u32,
    pub(crate) status: Status,
    pub(crate) reason: Option<Reason>,
    pub(crate) passed_once: bool,
    pub(crate) failures: u32,
    pub(crate) successes: u32,
    /// The status that [`Record::stale`] replaced, so that one answer restores it.
    stale: bool,
    pub(crate) transitions: [u64; 3],
    pub(crate) runs: u64,
}

impl Record {
    pub(crate) fn new(role: Role, on_down: OnDown, down_after: u32, up_after: u32) -> Self {
        Self {
            role,
            on_down,
            down_after: down_after.max(1),
            up_after: up_after.max(1),
            status: Status::Fail,
            reason: Some(Reason::Pending),
            passed_once: false,
            failures: 0,
            successes: 0,
            stale: false,
            transitions: [0; 3],
            runs: 0,
        }
    }

    /// Takes one answer; true when the settled status changed.
    pub(crate) fn answer(&mut self, outcome: &Outcome) -> bool {
        self.runs += 1;
        self.stale = false;
        let (good, reason) = match outcome {
            Outcome::Pass => (Some(Status::Pass), None),
            Outcome::Warn(failure) => (Some(Status::Warn), Some(failure.reason)),
            Outcome::Fail(failure) => (None, Some(failure.reason)),
        };
        let Some(good) = good else {
            self.failures = self.failures.saturating_add(1);
            self.successes = 0;
            self.reason = reason;
            return self.failures >= self.down_after && self.settle(Status::Fail);
        };
        self.successes = self.successes.saturating_add(1);
        self.failures = 0;
        // The very first success counts at once: a start should not wait for a second round.
        let settled = !self.passed_once || self.status != Status::Fail || self.successes >= self.up_after;
        self.passed_once = true;
        if settled {
            self.reason = reason;
            return self.settle(good);
        }
        false
    }

    /// No answer for too long; true when the settled status changed.
    pub(crate) fn no_answer(&mut self) -> bool {
        if self.stale {
            return false;
        }
        self.stale = true;
        self.successes = 0;
        self.failures = self.down_after;
        self.reason = Some(Reason::Stale);
        self.settle(Status::Fail)
    }

    fn settle(&mut self, status: Status) -> bool {
        if self.status == status {
            return false;
        }
        self.status = status;
        self.transitions[status as usize] += 1;
        true
    }
}

/// State of a service that is not told to stop, from its checks. `started` says that it was ready before.
pub(crate) fn aggregate<'a>(records: impl Iterator<Item = &'a Record> + Clone, started: bool) -> State {
    if !started
        && records
            .clone()
            .any(|record| record.role == Role::Critical && !record.passed_once)
    {
        return State::Starting;
    }
    let mut state = State::Ready;
    for record in records {
        match (record.status, record.role, record.on_down) {
            (_, Role::Informative, _) | (Status::Pass, _, _) => {}
            (Status::Fail, Role::Critical, OnDown::NotReady) => return State::NotReady,
            // A degraded check that has not run yet says nothing.
            (Status::Fail, Role::Degraded, _) if record.runs == 0 && record.reason == Some(Reason::Pending) => {}
            _ => state = State::Degraded,
        }
    }
    state
}

/// When the last answer is too old: three intervals and one timeout.
pub(crate) fn stale_after(interval: Duration, timeout: Duration) -> Duration {
    interval.saturating_mul(3).saturating_add(timeout)
}
