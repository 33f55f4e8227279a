//! The record of a run: what it is, how far it is, and how to undo it. Written before each change, by compare-and-set on
//! its revision. It holds no events (see [`Journal`](super::Journal)) and no report.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::undo::UndoStep;
use crate::{Fence, Field, LeaseHolder};

/// What kind of run; decides the words of reports, nothing here.
pub type Kind = String;

/// The record of one run, schema `opsctl.run/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// `opsctl.run/v1`.
    pub schema: String,
    /// Short, sortable by start time, unique: see [`RunRecord::new_id`].
    pub id: String,
    /// `drill/pod-kill`, `canary`, `restore` …
    pub kind: Kind,
    /// What it acts on: `service/orders`.
    pub target: String,
    /// Who asked: user and host.
    pub actor: String,
    /// Why, in the actor's words.
    pub reason: Option<String>,
    /// The environment, e.g. `local`.
    pub environment: String,
    /// The cluster, if any.
    pub cluster: Option<String>,
    /// What was asked for, in the kind's own words; enough to go on after a take-over.
    pub spec: Value,
    /// Where it is.
    pub phase: Phase,
    /// The kind's own name for what it is doing, e.g. `step 2 of 3`.
    pub step: String,
    /// How it ended; set when the phase is `closed`.
    pub outcome: Option<Outcome>,
    /// Why it ended so, for people.
    pub message: Option<String>,
    /// Somebody asked it to stop.
    pub cancel: Option<Cancel>,
    /// Counts take-overs. A worker with an older epoch may change nothing.
    pub epoch: u64,
    /// The process that made the record and sees to it that a worker takes it up.
    #[serde(default)]
    pub starter: Option<LeaseHolder>,
    /// The process that works on it.
    pub worker: Option<Worker>,
    /// The process that watches the worker.
    pub watchdog: Option<LeaseHolder>,
    /// Names of the leases that it holds.
    pub locks: Vec<String>,
    /// How to undo what it changed, in the order of the changes; undone backwards.
    pub undo: Vec<UndoStep>,
    /// Counters and statistics, in the kind's own words; a take-over goes on with them.
    pub stats: Value,
    /// When it was made.
    pub started_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
    /// When it was closed.
    pub ended_at: Option<Timestamp>,
    /// Counts writes; the compare-and-set key. 0 before it is stored.
    pub revision: u64,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was changed yet.
    Preparing,
    /// Changes may have been made.
    Active,
    /// Changes are being undone.
    Undoing,
    /// Over; nothing may be changed for it any more.
    Closed,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked and the answer is yes.
    Passed,
    /// It did what was asked and the answer is no.
    Failed,
    /// Not enough or no valid data.
    Inconclusive,
    /// A guard of the platform did not allow it, such as a disruption budget.
    Refused,
    /// Stopped on request, and undone.
    Aborted,
    /// Its worker was lost; undone by somebody else.
    Lost,
    /// Another run has the lock; nothing was changed.
    Locked,
    /// It could not do its work; undone.
    Error,
    /// Something could not be undone; `undo` says what.
    UndoIncomplete,
}

/// A request to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
}

/// Why a run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Ctrl-C of the attached terminal.
    Interrupt,
    /// An abort command.
    Abort,
    /// The platform goes down.
    Down,
}

/// The process that works on a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// The very process.
    pub process: LeaseHolder,
    /// For how long its locks live without a heartbeat, in seconds.
    pub lease_seconds: f64,
}

/// Where to tell about runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// An `http://` URL; gets a POST with one JSON document per event.
    pub webhook: String,
}

impl RunRecord {
    /// A new record, not stored yet.
    pub fn new(
        id: impl Into<String>,
        kind: impl Into<String>,
        target: impl Into<String>,
        spec: Value,
        now: Timestamp,
    ) -> Self {
        Self {
            schema: "opsctl.run/v1".to_owned(),
            id: id.into(),
            kind: kind.into(),
            target: target.into(),
            actor: String::new(),
            reason: None,
            environment: String::new(),
            cluster: None,
            spec,
            phase: Phase::Preparing,
            step: String::new(),
            outcome: None,
            message: None,
            cancel: None,
            epoch: 1,
            starter: None,
            worker: None,
            watchdog: None,
            locks: Vec::new(),
            undo: Vec::new(),
            stats: Value::Null,
            started_at: now,
            updated_at: now,
            ended_at: None,
            revision: 0,
        }
    }

    /// An id such as `20260314-092653-7f3a`: the start time in UTC and 16 random bits, so that ids sort by start.
    pub fn new_id(now: Timestamp) -> String {
        let suffix: u16 = rand::random();
        format!("{}-{suffix:04x}", now.strftime("%Y%m%d-%H%M%S"))
    }

    /// The service that the target is, if it is one.
    pub fn service(&self) -> Option<&str> {
        self.target.strip_prefix("service/")
    }

    /// The fence of its present worker.
    pub fn fence(&self) -> Fence {
        Fence::new(&self.id, self.epoch)
    }

    /// Whether a worker with `fence` may still change things.
    pub fn admits(&self, fence: &Fence) -> bool {
        self.id == fence.run && self.epoch == fence.epoch && self.phase != Phase::Closed
    }

    /// Notes that `field` is about to be changed to `new`, having had `before`. A field that this run has changed before
    /// keeps its first `before`, and the previous value stays acceptable as ours: the change may not happen.
    pub fn plan_change(&mut self, field: Field, before: Option<Value>, new: Option<Value>, after_seconds: u64) {
        if let Some(step) = self.undo.iter_mut().find(|step| step.field == field && !step.settled()) {
            step.ours.retain(|ours| *ours == before);
            if !step.ours.contains(&new) {
                step.ours.push(new);
            }
            step.after_seconds = after_seconds;
            return;
        }
        let order = self
            .undo
            .iter()
            .map(|step| step.order)
            .max()
            .map_or(0, |order| order + 1);
        self.undo.push(UndoStep {
            order,
            field,
            before,
            ours: vec![new],
            after_seconds,
            result: None,
        });
    }

    /// Forgets the undo step of a field: its change is meant to stay.
    pub fn keep(&mut self, field: &Field) {
        self.undo.retain(|step| step.field != *field || step.settled());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("small number of seconds")
    }

    #[test]
    fn ids_sort_by_start() {
        let a = RunRecord::new_id(at(1_000_000_000));
        let b = RunRecord::new_id(at(1_000_000_001));
        assert!(a.starts_with("20010909-014640-"), "{a}");
        assert!(a < b);
    }

    #[test]
    fn a_second_change_keeps_the_first_before_and_accepts_both_values() {
        let mut record = RunRecord::new("r", "canary", "service/orders", json!({}), at(0));
        let field = Field::canary("orders");
        record.plan_change(field.clone(), None, Some(json!(10)), 0);
        record.plan_change(field.clone(), Some(json!(10)), Some(json!(50)), 0);
        assert_eq!(record.undo.len(), 1);
        assert_eq!(record.undo[0].before, None);
        assert_eq!(record.undo[0].ours, [Some(json!(10)), Some(json!(50))]);
        record.plan_change(field, Some(json!(50)), Some(json!(100)), 0);
        assert_eq!(record.undo[0].ours, [Some(json!(50)), Some(json!(100))]);
    }
}
