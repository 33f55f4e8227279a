//! The end of a promotion: the old version goes, and the change stays. Not the promotion itself.
//!
//! Until here the record says how to go back. From its next write on it says how to go forward: the switch is kept, and
//! the one step left is that the old version be absent. Whoever finds the run dead after that (watchdog, `recover`) takes
//! the old version away, so that no instant leaves two versions or none.

use super::WorkError;
use opsctl_platform::run::{Notifier, Outcome, Phase, Run, RunError, RunRecord, StepResult};
use opsctl_platform::{Cas, Field, Platform, PlatformError};
use serde_json::json;

/// A switch that was made and is to stay.
pub(crate) struct Switch<'a> {
    /// The service.
    pub(crate) service: &'a str,
    /// The version that is stable now.
    pub(crate) new: &'a str,
    /// The version that was, and goes.
    pub(crate) old: &'a str,
}

/// Takes the old version away and closes the run as passed.
pub(crate) async fn finish(run: Run, switch: &Switch<'_>, notifier: Option<&Notifier>) -> Result<RunRecord, WorkError> {
    let platform = run.platform().clone();
    let platform = platform.as_ref();
    let old = Field::version(switch.service, switch.old);
    let value = platform.get(&old).await?;
    let mut record = commit(platform, run.record().clone(), switch, &old, value.as_ref()).await?;
    run.event("finishing", json!({ "version": switch.old }))?;
    if value.is_some() {
        let cas = platform
            .compare_and_set(Some(&record.fence()), &old, value.as_ref(), None)
            .await?;
        if let Cas::Conflict { actual } = cas
            && actual.is_some()
        {
            // Somebody changed the old version meanwhile; it is theirs now.
            run.event("conflict", json!({ "field": old.to_string(), "actual": actual }))?;
        }
    }
    for step in &mut record.undo {
        step.result = Some(StepResult::Undone);
    }
    record.phase = Phase::Closed;
    "finished".clone_into(&mut record.step);
    record.outcome = Some(Outcome::Passed);
    record.message = Some(format!("the stable version of {} is {}", switch.service, switch.new));
    record.ended_at = Some(platform.now());
    let record = store(platform, record).await?;
    for name in &record.locks {
        // A lease that cannot be given back ends by itself.
        let _ = platform.release_lease(name, run.holder()).await;
    }
    run.event(
        "run_closed",
        json!({ "outcome": record.outcome, "message": record.message }),
    )?;
    run.journal().sync()?;
    if let Some(notifier) = notifier {
        notifier
            .tell(&record, Notifier::ending(&record), run.journal(), platform.now())
            .await;
    }
    Ok(record)
}

/// The one write after which the way is forward.
async fn commit(
    platform: &dyn Platform,
    mut record: RunRecord,
    switch: &Switch<'_>,
    old: &Field,
    value: Option<&serde_json::Value>,
) -> Result<RunRecord, WorkError> {
    for field in [
        Field::stable_version(switch.service),
        Field::version(switch.service, switch.new),
    ] {
        record.keep(&field);
    }
    if value.is_some() && !record.undo.iter().any(|step| step.field == *old) {
        record.plan_change(old.clone(), None, value.cloned(), 0);
    }
    store(platform, record).await
}

/// Stores the record over what others wrote into it (a request to stop comes too late now; the watchdog's name stays).
async fn store(platform: &dyn Platform, mut record: RunRecord) -> Result<RunRecord, WorkError> {
    loop {
        match platform.update_record(&record).await {
            Ok(revision) => {
                record.revision = revision;
                return Ok(record);
            }
            Err(PlatformError::RecordConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        match platform
            .record(&record.id)
            .await?
            .filter(|stored| stored.admits(&record.fence()))
        {
            None => {
                return Err(WorkError::Run(RunError::Fenced { run: record.id }));
            }
            Some(stored) => {
                record.revision = stored.revision;
                record.cancel = stored.cancel;
                record.watchdog = stored.watchdog;
            }
        }
    }
}
