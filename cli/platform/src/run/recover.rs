//! Undoing what a dead run left, by hand (`recover`), by its watchdog, or by the next run that needs its lock. Never
//! touches a run whose worker lives and holds its leases.

use serde_json::json;

use super::undo::{message_of, undo};
use super::{Journal, Outcome, Phase, RunError, RunRecord, StepResult, UndoReport};
use crate::{LeaseHolder, Platform, PlatformError};

/// A run that is not over although nobody works on it, or whose undo is incomplete.
#[derive(Debug, Clone, PartialEq)]
pub struct Orphan {
    /// Its record.
    pub record: RunRecord,
    /// Why it counts as lost.
    pub loss: Loss,
    /// Whether its watchdog lives, so that it will be undone without help.
    pub watched: bool,
}

/// Why nobody works on a run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// Its worker's process has ended.
    Dead,
    /// Its worker has stopped renewing its leases.
    Expired,
    /// It is closed, but something could not be undone.
    UndoIncomplete,
}

/// What recovering one run came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Recovered {
    /// It was over already; nothing was left to do.
    Nothing,
    /// Its worker lives; abort it instead.
    Running(Box<RunRecord>),
    /// It is closed now; `record.outcome` and the report say how far the undo came.
    Closed {
        /// The record as closed.
        record: Box<RunRecord>,
        /// Field by field.
        report: UndoReport,
    },
}

/// All runs that need recovery. Cheap: it reads records and leases, nothing else.
pub async fn orphans(platform: &dyn Platform) -> Result<Vec<Orphan>, RunError> {
    let mut orphans = Vec::new();
    for record in platform.records().await? {
        if let Some(loss) = loss(platform, &record).await? {
            let watched = loss != Loss::UndoIncomplete
                && record
                    .watchdog
                    .as_ref()
                    .is_some_and(|watchdog| platform.holder_alive(watchdog) == Some(true));
            orphans.push(Orphan { record, loss, watched });
        }
    }
    Ok(orphans)
}

/// Undoes one run, if nobody works on it. Idempotent.
pub async fn recover(platform: &dyn Platform, id: &str, journal: &Journal) -> Result<Recovered, RunError> {
    loop {
        match recover_once(platform, id, journal).await {
            // The watchdog, or another recovery, was faster; undoing twice ends the same.
            Err(RunError::Platform(PlatformError::RecordConflict { .. })) => {}
            other => return other,
        }
    }
}

async fn recover_once(platform: &dyn Platform, id: &str, journal: &Journal) -> Result<Recovered, RunError> {
    let mut record = platform
        .record(id)
        .await?
        .ok_or_else(|| PlatformError::RecordMissing { run: id.to_owned() })?;
    match loss(platform, &record).await? {
        None if record.phase == Phase::Closed => Ok(Recovered::Nothing),
        None => Ok(Recovered::Running(Box::new(record))),
        Some(Loss::UndoIncomplete) => {
            for step in &mut record.undo {
                if step.result != Some(StepResult::Undone) {
                    step.result = None;
                }
            }
            finish(platform, record, Loss::UndoIncomplete, journal).await
        }
        Some(loss) => {
            let Some(record) = fence(platform, id).await? else {
                return Ok(Recovered::Nothing);
            };
            finish(platform, record, loss, journal).await
        }
    }
}

/// Closes a run that no worker has taken up: for the process that started the worker and saw it end. `None`: a worker
/// has it, or it is over.
pub async fn give_up(
    platform: &dyn Platform,
    id: &str,
    message: &str,
    journal: &Journal,
) -> Result<Option<RunRecord>, RunError> {
    loop {
        let mut record = platform
            .record(id)
            .await?
            .ok_or_else(|| PlatformError::RecordMissing { run: id.to_owned() })?;
        if record.phase == Phase::Closed || record.worker.is_some() {
            return Ok(None);
        }
        // Whoever takes it up meanwhile makes this a conflict.
        record.epoch += 1;
        match close(platform, record, Outcome::Error, message).await {
            Ok(record) => {
                let ended = json!({ "outcome": record.outcome, "message": record.message });
                let _ = journal.append(platform.now(), "run_closed", ended);
                let _ = journal.sync();
                return Ok(Some(record));
            }
            Err(RunError::Platform(PlatformError::RecordConflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Undoes all of a lost run at once, for one who needs its lock. `None`: there is no such record, or it is closed.
pub(super) async fn undo_lost(
    platform: &dyn Platform,
    id: &str,
    loss: Loss,
    journal: &Journal,
) -> Result<Option<RunRecord>, RunError> {
    loop {
        let Some(record) = fence(platform, id).await? else {
            return Ok(None);
        };
        match finish(platform, record, loss, journal).await {
            Ok(Recovered::Closed { record, .. }) => return Ok(Some(*record)),
            Ok(Recovered::Nothing | Recovered::Running(_)) => return Ok(None),
            Err(RunError::Platform(PlatformError::RecordConflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Why a run counts as lost; `None` while its worker lives and holds its leases or is about to take them, or when it ended
/// well.
pub(super) async fn loss(platform: &dyn Platform, record: &RunRecord) -> Result<Option<Loss>, RunError> {
    if record.phase == Phase::Closed {
        return Ok((record.outcome == Some(Outcome::UndoIncomplete)).then_some(Loss::UndoIncomplete));
    }
    let Some(worker) = &record.worker else {
        // Made, and not taken up yet, or fenced by somebody who died before closing it.
        let age = platform.now().duration_since(record.updated_at);
        let starter = record.starter.as_ref();
        let given_up = record.cancel.is_some()
            || starter.is_some_and(|starter| platform.holder_alive(starter) == Some(false))
            || age > jiff::SignedDuration::from_secs(UNCLAIMED_SECONDS);
        return Ok(given_up.then_some(Loss::Dead));
    };
    if platform.holder_alive(&worker.process) == Some(false) {
        return Ok(Some(Loss::Dead));
    }
    for name in &record.locks {
        let held = platform
            .lease(name)
            .await?
            .filter(|lease| lease.holder.run == record.id);
        let Some(lease) = held else {
            // A worker enters itself in the record first, and takes the locks then.
            let since = platform.now().duration_since(record.updated_at).as_secs_f64();
            if record.phase != Phase::Undoing && since < worker.lease_seconds / 3.0 {
                continue;
            }
            return Ok(Some(Loss::Expired));
        };
        if lease.expired(platform.now()) {
            return Ok(Some(Loss::Expired));
        }
        // A worker that merely stands still was fenced, and whoever fenced it keeps the lease: it has no say any more.
        if record.phase == Phase::Undoing && lease.holder != worker.process {
            return Ok(Some(Loss::Expired));
        }
    }
    Ok(None)
}

/// How long a new record may wait for its worker.
const UNCLAIMED_SECONDS: i64 = 30;

/// Ends the right of the run's worker to change anything. `None`: no such run, or closed.
pub(super) async fn fence(platform: &dyn Platform, id: &str) -> Result<Option<RunRecord>, RunError> {
    loop {
        let Some(mut record) = platform.record(id).await? else {
            return Ok(None);
        };
        if record.phase == Phase::Closed {
            return Ok(None);
        }
        record.epoch += 1;
        record.phase = Phase::Undoing;
        match platform.update_record(&record).await {
            Ok(revision) => {
                record.revision = revision;
                claim(platform, &record).await?;
                return Ok(Some(record));
            }
            Err(PlatformError::RecordConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Makes the raised epoch of `record` hold for changes that are under way, too.
///
/// Errors: only those that may pass. A field that cannot be touched cannot be undone either, and that will be told.
pub(super) async fn claim(platform: &dyn Platform, record: &RunRecord) -> Result<(), RunError> {
    for step in record.undo.iter().filter(|step| !step.settled()) {
        match platform.claim(&record.fence(), &step.field).await {
            Ok(()) => {}
            Err(error @ (PlatformError::Unreachable { .. } | PlatformError::TimedOut { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(run = %record.id, field = %step.field, error = %message_of(&error), "could not take charge of a field");
            }
        }
    }
    Ok(())
}

/// Undoes everything, closes the record, gives its leases back.
async fn finish(
    platform: &dyn Platform,
    mut record: RunRecord,
    loss: Loss,
    journal: &Journal,
) -> Result<Recovered, RunError> {
    let _ = journal.append(
        platform.now(),
        "undo_started",
        json!({ "run": record.id, "loss": loss }),
    );
    let report = undo(platform, &mut record, |_| true).await;
    let message = match loss {
        Loss::Dead => "its worker was lost; undone",
        Loss::Expired => "its worker stopped answering; undone",
        Loss::UndoIncomplete => "undone later",
    };
    let record = close(platform, record, Outcome::Lost, message).await?;
    note_undo(platform, journal, &record, &report);
    Ok(Recovered::Closed {
        record: Box::new(record),
        report,
    })
}

/// Closes a record whose undo was tried: `outcome`, or `UndoIncomplete` when the steps say so. Releases its leases.
pub(super) async fn close(
    platform: &dyn Platform,
    mut record: RunRecord,
    outcome: Outcome,
    message: &str,
) -> Result<RunRecord, RunError> {
    let incomplete = record.undo.iter().any(|step| step.result != Some(StepResult::Undone));
    record.phase = Phase::Closed;
    record.outcome = Some(if incomplete { Outcome::UndoIncomplete } else { outcome });
    record.message = Some(if incomplete {
        "some changes could not be undone".to_owned()
    } else {
        message.to_owned()
    });
    record.ended_at = Some(platform.now());
    record.revision = platform.update_record(&record).await?;
    release(platform, &record).await;
    Ok(record)
}

/// Gives back every lease that the run still has, whichever of its processes holds it.
pub(super) async fn release(platform: &dyn Platform, record: &RunRecord) {
    for name in &record.locks {
        if let Ok(Some(lease)) = platform.lease(name).await
            && lease.holder.run == record.id
            && let Err(error) = platform.release_lease(name, &lease.holder).await
        {
            // It ends by itself.
            tracing::warn!(lease = %name, error = %message_of(&error), "could not release a lease");
        }
    }
}

/// Writes what an undo came to into the journal.
pub(super) fn note_undo(platform: &dyn Platform, journal: &Journal, record: &RunRecord, report: &UndoReport) {
    let kind = if report.complete() { "undone" } else { "undo_incomplete" };
    let steps = serde_json::to_value(&report.steps).unwrap_or_default();
    let _ = journal.append(platform.now(), kind, json!({ "run": record.id, "steps": steps }));
    let _ = journal.sync();
}

/// The holder that stands for this process in the run `id`.
pub fn this_process(id: &str) -> LeaseHolder {
    let process = crate::process::Process::current();
    LeaseHolder {
        run: id.to_owned(),
        host: crate::process::host(),
        pid: process.pid,
        start_ticks: process.start_ticks,
    }
}
