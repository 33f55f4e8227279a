//! Undo by compare-and-set per field: a value goes back to what it was if, and only if, it is still what the run made it.
//! It never sets a default and never forces; what somebody else changed meanwhile is a conflict, reported and left alone.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::RunRecord;
use crate::{Cas, Field, Platform, PlatformError};

/// How to undo the change of one field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoStep {
    /// The order of the changes; undone from the highest down.
    pub order: u32,
    /// The field.
    pub field: Field,
    /// What it had before the run touched it; `null` is absent.
    pub before: Option<Value>,
    /// What the run may have made of it: the value before and after the change that was under way.
    pub ours: Vec<Option<Value>>,
    /// How long after the loss of the worker the watchdog waits before it undoes this step, in seconds. An abort does
    /// not wait.
    #[serde(default)]
    pub after_seconds: u64,
    /// What came of it, once it was tried.
    #[serde(default)]
    pub result: Option<StepResult>,
}

/// What came of undoing one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StepResult {
    /// The field has its former value.
    Undone,
    /// Somebody else changed the field; it was left alone.
    Conflict {
        /// What it has.
        actual: Option<Value>,
    },
    /// The platform could not do it; may be tried again.
    Failed {
        /// Why.
        message: String,
    },
}

impl UndoStep {
    /// Whether nothing is left to do: undone, or in conflict (which only a person can resolve).
    pub fn settled(&self) -> bool {
        matches!(self.result, Some(StepResult::Undone | StepResult::Conflict { .. }))
    }
}

/// What came of an undo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct UndoReport {
    /// The steps with their results, in the order tried.
    pub steps: Vec<UndoStep>,
}

impl UndoReport {
    /// Whether every field has its former value.
    pub fn complete(&self) -> bool {
        self.steps
            .iter()
            .all(|step| matches!(step.result, Some(StepResult::Undone)))
    }

    /// Fields that somebody else changed.
    pub fn conflicts(&self) -> impl Iterator<Item = &UndoStep> {
        self.steps
            .iter()
            .filter(|step| matches!(step.result, Some(StepResult::Conflict { .. })))
    }

    /// Fields that could not be reached; worth another try.
    pub fn failures(&self) -> impl Iterator<Item = &UndoStep> {
        self.steps
            .iter()
            .filter(|step| matches!(step.result, Some(StepResult::Failed { .. })))
    }
}

/// Undoes the steps of `record` for which `due` holds, last change first, and notes the results in it. Idempotent: a
/// step that is done is skipped, and doing one twice ends the same. A failure does not stop the others.
///
/// The caller stores the record; when it dies before, the next undo finds the former values and agrees.
pub async fn undo(
    platform: &dyn Platform,
    record: &mut RunRecord,
    due: impl Fn(&UndoStep) -> bool + Send,
) -> UndoReport {
    let mut order: Vec<usize> = (0..record.undo.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(record.undo[index].order));
    // One step may need another first (a version that is stable cannot be removed): go on while anything moves.
    loop {
        let mut moved = false;
        let mut failed = false;
        for &index in &order {
            let step = &mut record.undo[index];
            if !step.settled() && due(step) {
                step.result = Some(undo_step(platform, step).await);
                moved |= step.settled();
                failed |= !step.settled();
            }
        }
        if !(moved && failed) {
            break;
        }
    }
    UndoReport {
        steps: order.iter().map(|&index| record.undo[index].clone()).collect(),
    }
}

async fn undo_step(platform: &dyn Platform, step: &UndoStep) -> StepResult {
    // Two rounds: the value may lapse by itself (a leased share) between the read and the change.
    let mut conflict = None;
    for _ in 0..3 {
        let actual = match platform.get(&step.field).await {
            Ok(actual) => actual,
            Err(PlatformError::UnknownService { .. }) if step.before.is_none() => return StepResult::Undone,
            Err(error) => {
                return StepResult::Failed {
                    message: message_of(&error),
                };
            }
        };
        if actual == step.before {
            return StepResult::Undone;
        }
        if !step.ours.contains(&actual) {
            return StepResult::Conflict { actual };
        }
        match platform
            .compare_and_set(None, &step.field, actual.as_ref(), step.before.as_ref())
            .await
        {
            Ok(Cas::Applied) => return StepResult::Undone,
            Ok(Cas::Conflict { actual }) => conflict = Some(actual),
            Err(error) => {
                return StepResult::Failed {
                    message: message_of(&error),
                };
            }
        }
    }
    StepResult::Conflict {
        actual: conflict.flatten(),
    }
}

/// An error with its causes on one line.
pub(crate) fn message_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
