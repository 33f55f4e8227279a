//! The watchdog: a process of its own that holds nothing but the run's id, and undoes the run when its worker is lost.
//! It judges nothing and prolongs nothing while the worker lives.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::recover::{self, Loss};
use super::undo::{message_of, undo};
use super::{Journal, Notifier, Outcome, Phase, RunError, RunRecord, StepResult};
use crate::{LeaseHolder, LeaseOutcome, Platform, PlatformError};

/// How the watch ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// The worker closed the run itself, or somebody else recovered it.
    Closed,
    /// The worker was lost; this is the record as the watchdog closed it.
    Undone(Box<RunRecord>),
    /// There is no such run.
    Missing,
    /// Another watchdog lives and watches.
    Relieved,
}

/// How often it looks, and how long it tries.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Between two looks at the record.
    pub poll: Duration,
    /// How long failing undo steps are tried again before the run is closed as incomplete.
    pub retry_for: Duration,
    /// Told about the end that the watchdog brings about.
    pub notifier: Option<Notifier>,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(200),
            retry_for: Duration::from_mins(10),
            notifier: None,
        }
    }
}

/// Watches the run until it is closed. Enters itself in the record first, unless another watchdog that lives is there.
pub async fn watch(
    platform: Arc<dyn Platform>,
    id: &str,
    me: LeaseHolder,
    journal: &Journal,
    options: &WatchOptions,
) -> Result<Watched, RunError> {
    let platform = platform.as_ref();
    let mut lost: Option<Lost> = None;
    loop {
        // A platform that does not answer now may answer later; the watch goes on.
        match look(platform, id, &me, journal, options, &mut lost).await {
            Ok(Some(end)) => return Ok(end),
            Ok(None) => {}
            Err(RunError::Platform(error)) => {
                tracing::warn!(run = %id, error = %message_of(&error), "the watchdog could not look");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(options.poll.max(platform.pace())).await;
    }
}

/// Since when the worker is lost, and under which epoch the watchdog acts.
struct Lost {
    since: Timestamp,
    epoch: u64,
}

async fn look(
    platform: &dyn Platform,
    id: &str,
    me: &LeaseHolder,
    journal: &Journal,
    options: &WatchOptions,
    lost: &mut Option<Lost>,
) -> Result<Option<Watched>, RunError> {
    let Some(mut record) = platform.record(id).await? else {
        return Ok(Some(Watched::Missing));
    };
    if record.phase == Phase::Closed {
        return Ok(Some(Watched::Closed));
    }
    if let Some(service) = record.service()
        && let Err(error) = platform.lapse(service).await
    {
        tracing::warn!(run = %id, error = %message_of(&error), "could not see whether a share has lapsed");
    }
    if record.watchdog.as_ref() != Some(me) {
        let other = record.watchdog.as_ref();
        if other.is_some_and(|other| platform.holder_alive(other) == Some(true)) {
            return Ok(Some(Watched::Relieved));
        }
        record.watchdog = Some(me.clone());
        return match platform.update_record(&record).await {
            Ok(_) | Err(PlatformError::RecordConflict { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    if lost.as_ref().is_some_and(|lost| lost.epoch != record.epoch) {
        // Another worker has taken the run up.
        *lost = None;
    }
    if lost.is_none() {
        let Some(loss) = recover::loss(platform, &record).await? else {
            return Ok(None);
        };
        let Some(fenced) = recover::fence(platform, id).await? else {
            return Ok(Some(Watched::Closed));
        };
        note_loss(platform, journal, &fenced, loss);
        *lost = Some(Lost {
            since: platform.now(),
            epoch: fenced.epoch,
        });
        record = fenced;
    }
    let Some(lost) = lost else { return Ok(None) };
    hold_leases(platform, &record, me).await?;
    let waited = platform.now().duration_since(lost.since);
    let before = record.undo.clone();
    let report = undo(platform, &mut record, |step| {
        waited >= jiff::SignedDuration::from_secs(i64::try_from(step.after_seconds).unwrap_or(i64::MAX))
    })
    .await;
    let pending = record.undo.iter().any(|step| step.result.is_none());
    let failing = record
        .undo
        .iter()
        .any(|step| matches!(step.result, Some(StepResult::Failed { .. })));
    let give_up = waited.unsigned_abs() >= options.retry_for;
    if pending || (failing && !give_up) {
        if record.undo != before {
            match platform.update_record(&record).await {
                Ok(_) | Err(PlatformError::RecordConflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        return Ok(None);
    }
    let closed = match recover::close(platform, record, Outcome::Lost, "its worker was lost; undone").await {
        Ok(closed) => closed,
        Err(RunError::Platform(PlatformError::RecordConflict { .. })) => return Ok(None),
        Err(error) => return Err(error),
    };
    recover::note_undo(platform, journal, &closed, &report);
    if let Some(notifier) = &options.notifier {
        notifier
            .tell(&closed, Notifier::ending(&closed), journal, platform.now())
            .await;
    }
    Ok(Some(Watched::Undone(Box::new(closed))))
}

fn note_loss(platform: &dyn Platform, journal: &Journal, record: &RunRecord, loss: Loss) {
    // A journal that cannot be written must not keep the undo from happening.
    let _ = journal.append(
        platform.now(),
        "worker_lost",
        json!({ "loss": loss, "epoch": record.epoch }),
    );
    let _ = journal.sync();
}

/// Keeps other runs away until the undo is done.
async fn hold_leases(platform: &dyn Platform, record: &RunRecord, me: &LeaseHolder) -> Result<(), RunError> {
    let ttl = Duration::from_secs_f64(
        record
            .worker
            .as_ref()
            .map_or(15.0, |worker| worker.lease_seconds.max(1.0)),
    );
    for name in &record.locks {
        if let LeaseOutcome::Held(held) = platform.acquire_lease(name, me, ttl).await?
            && held.holder.run == record.id
        {
            platform.replace_lease(&held, me, ttl).await?;
        }
    }
    Ok(())
}
