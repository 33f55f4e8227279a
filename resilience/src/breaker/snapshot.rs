//! What a breaker shows: its state, its counts, and how it changed. Plain data for metrics, JSON and tests.

use std::collections::VecDeque;

use super::settings::BreakerSettings;

/// How many of the last changes are remembered.
const REMEMBERED: usize = 16;

/// State of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the break is over.
    Open,
    /// A few probes pass; they decide.
    HalfOpen,
    /// A person refuses all calls.
    ForcedOpen,
    /// A person lets all calls pass.
    ForcedClosed,
}

impl State {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::ForcedOpen,
        Self::ForcedClosed,
    ];

    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

/// Calls since the start, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct BreakerCounts {
    /// Answered in time.
    pub success: u64,
    /// Failed.
    pub failure: u64,
    /// Answered, but slower than the limit.
    pub slow: u64,
    /// Answered in a way that says nothing of the dependency.
    pub ignored: u64,
    /// Dropped before an answer.
    pub cancelled: u64,
    /// Ended after the breaker had changed its state; without effect.
    pub stale: u64,
    /// Refused.
    pub rejected: u64,
    /// Let pass only because the breaker does no more than observe; counted besides by how they ended.
    pub spared: u64,
}

/// Outcomes in the order of the totals.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Success,
    Failure,
    Slow,
    Ignored,
    Cancelled,
    Stale,
    Rejected,
    Spared,
}

pub(super) const OUTCOMES: usize = 8;

impl From<[u64; OUTCOMES]> for BreakerCounts {
    fn from(totals: [u64; OUTCOMES]) -> Self {
        let of = |outcome: Outcome| totals[outcome as usize];
        Self {
            success: of(Outcome::Success),
            failure: of(Outcome::Failure),
            slow: of(Outcome::Slow),
            ignored: of(Outcome::Ignored),
            cancelled: of(Outcome::Cancelled),
            stale: of(Outcome::Stale),
            rejected: of(Outcome::Rejected),
            spared: of(Outcome::Spared),
        }
    }
}

/// Figures of a breaker.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct BreakerSnapshot {
    /// State now. A break that is over reads half-open, whether or not a call came since.
    pub state: State,
    /// Whether it only observes: then calls pass in every state.
    pub observe_only: bool,
    /// Milliseconds until a forced state ends by itself.
    pub forced_for_ms: Option<u64>,
    /// Share of failures in the window, 0 when it is empty.
    pub failure_ratio: f64,
    /// Calls in the window.
    pub window_calls: u64,
    /// Failures among them.
    pub window_failures: u64,
    /// Slow ones among them.
    pub window_slow: u64,
    /// Calls since the start.
    pub calls: BreakerCounts,
    /// Changes since the start: `transitions[from][to]` in the order of [`State::ALL`].
    pub transitions: [[u64; 5]; 5],
    /// The last 16 changes, oldest first.
    pub last_transitions: Vec<Change>,
    /// What it goes by.
    pub settings: BreakerSettings,
}

/// A change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// From.
    pub from: State,
    /// To.
    pub to: State,
    /// Milliseconds since.
    pub ago_ms: u64,
}

/// Changes of state, counted and the last of them remembered.
#[derive(Debug)]
pub(super) struct History {
    /// The state that was last told, so that every change is told once.
    told: State,
    counts: [[u64; 5]; 5],
    last: VecDeque<(State, State, u64)>,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            told: State::Closed,
            counts: [[0; 5]; 5],
            last: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Takes the state at `now`; from and to, if it is another than before.
    pub(super) fn note(&mut self, to: State, now: u64) -> Option<(State, State)> {
        let from = std::mem::replace(&mut self.told, to);
        if from == to {
            return None;
        }
        self.counts[from as usize][to as usize] += 1;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back((from, to, now));
        Some((from, to))
    }

    pub(super) const fn counts(&self) -> [[u64; 5]; 5] {
        self.counts
    }

    pub(super) fn last(&self, now: u64) -> Vec<Change> {
        self.last
            .iter()
            .map(|&(from, to, at)| Change {
                from,
                to,
                ago_ms: now.saturating_sub(at),
            })
            .collect()
    }
}
