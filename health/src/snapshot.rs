//! What is known of a service's health at one moment, as plain data: for metrics, details and tests. Where it comes from
//! is `board`, how it looks as JSON is `details`.

use crate::check::Reason;
use crate::spec::Role;
use crate::state::{State, Status};

/// Everything that is known of a service's health. Made by [`Health::snapshot`](crate::Health::snapshot).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Snapshot {
    /// State of the service.
    pub state: State,
    /// Every check, in the order of the builder.
    pub checks: Vec<CheckSnapshot>,
    /// Every group.
    pub groups: Vec<GroupSnapshot>,
    /// Every liveness check.
    pub liveness: Vec<LivenessSnapshot>,
}

/// What is known of one check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CheckSnapshot {
    /// Its name.
    pub name: String,
    /// What it asks for: `datastore`, `system`, `component`.
    pub component_type: &'static str,
    /// What it means for the service.
    pub role: Role,
    /// Settled status; `fail` with reason `pending` before the first answer.
    pub status: Status,
    /// Why it is not `pass`; also said while failures are too few to change the status.
    pub reason: Option<Reason>,
    /// Failures since the last success.
    pub failures_in_a_row: u32,
    /// Runs since the start.
    pub runs: u64,
    /// How often it turned to pass, warn, fail.
    pub transitions: [u64; 3],
    /// Time that the last run took.
    pub duration_seconds: f64,
    /// Time since the last answer.
    pub age_seconds: f64,
    /// When it last succeeded.
    pub last_success: Option<jiff::Timestamp>,
}

/// What is known of one group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupSnapshot {
    /// Its name.
    pub name: String,
    /// The worst of its checks, where only a critical one can fail it.
    pub status: Status,
}

/// What is known of one liveness check.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LivenessSnapshot {
    /// Its name.
    pub name: String,
    /// What it said just now.
    pub alive: bool,
}
