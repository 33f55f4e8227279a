//! What holds for a service after its canaries and roll-backs: a promotion that was taken back later is none any more.
//! It reads records alone and says nothing about what runs.

use opsctl_platform::run::{Outcome, Phase, RunRecord};
use serde::{Deserialize, Serialize};

use crate::report::Status;
use crate::{rollback, worker};

/// A roll-back that came after a canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Later {
    /// The run's id.
    pub run: String,
    /// The version left.
    pub from: String,
    /// The version gone back to.
    pub to: String,
    /// How it ended; absent while it is under way.
    pub outcome: Option<Outcome>,
    /// The record's last word.
    pub message: Option<String>,
}

/// What holds for a canary: where it was when its own run ended, and what came of it since.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// Where the canary is now.
    pub status: Status,
    /// The newest roll-back of its version.
    pub rollback: Option<Later>,
}

/// What holds for `canary`, whose own report says `status`, after all `records` (oldest first) of its platform.
pub fn standing(canary: &RunRecord, status: Status, version: &str, records: &[RunRecord]) -> Standing {
    let later = records
        .iter()
        .rev()
        .take_while(|record| record.id != canary.id)
        .filter(|record| record.kind == rollback::KIND && record.target == canary.target)
        .filter_map(later)
        .find(|later| later.from == version);
    let status = match (status, later.as_ref()) {
        (Status::Promoted, Some(later)) => match later.outcome {
            Some(Outcome::Passed) => Status::RolledBack,
            Some(Outcome::UndoIncomplete) => Status::UndoIncomplete,
            None => Status::RollingBack,
            Some(_) => Status::Promoted,
        },
        (status, _) => status,
    };
    Standing {
        status,
        rollback: later,
    }
}

fn later(record: &RunRecord) -> Option<Later> {
    let spec: rollback::Spec = serde_json::from_value(record.spec.clone()).ok()?;
    Some(Later {
        run: record.id.clone(),
        from: spec.from,
        to: spec.to.version,
        outcome: record.outcome,
        message: record.message.clone(),
    })
}

/// The newest canary that made `stable` the stable version of `service`: what a roll-back reads to know what ran before.
pub fn promotion<'a>(records: &'a [RunRecord], service: &str, stable: &str) -> Option<&'a RunRecord> {
    records.iter().rev().find(|record| {
        record.kind == worker::KIND
            && record.phase == Phase::Closed
            && record.outcome == Some(Outcome::Passed)
            && record.service() == Some(service)
            && record.spec["version"]["version"] == stable
    })
}
