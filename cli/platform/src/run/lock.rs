//! Locks of runs: a lease per service (or other object) touched, so that a drill and a canary on one service exclude each
//! other. A lease is taken from another run only when that run is dead or its lease is over, and only after its undo.

use std::time::Duration;

use super::recover::{self, Loss};
use super::{Journal, Phase, RunError};
use crate::{Lease, LeaseHolder, LeaseOutcome, Platform};

/// The lease that every run that changes `service` takes, whatever its kind.
pub fn name_for_service(service: &str) -> String {
    format!("service-{service}")
}

/// Who holds a lock and may not be disturbed; `None` when it could be taken.
pub async fn busy(platform: &dyn Platform, name: &str) -> Result<Option<Lease>, RunError> {
    let Some(lease) = platform.lease(name).await? else {
        return Ok(None);
    };
    Ok((!stale(platform, &lease).await?).then_some(lease))
}

/// Takes the lock `name`, if need be after undoing the dead run that had it.
///
/// Errors: [`RunError::Locked`] while a living run has it; [`RunError::UndoIncomplete`] when the dead run's changes could
/// not be undone, then the lock stays with it.
pub(super) async fn acquire(
    platform: &dyn Platform,
    name: &str,
    holder: &LeaseHolder,
    ttl: Duration,
    journal: &Journal,
) -> Result<Lease, RunError> {
    let mut outcome = platform.acquire_lease(name, holder, ttl).await?;
    // Every round either ends or follows a change made by somebody else.
    for _ in 0..8 {
        let old = match outcome {
            LeaseOutcome::Acquired(lease) => return Ok(lease),
            LeaseOutcome::Held(lease) => lease,
        };
        // Our own run's lease, held by its lost worker or its watchdog: the record's new epoch has fenced them.
        if old.holder.run != holder.run {
            if !stale(platform, &old).await? {
                return Err(RunError::Locked { lease: Box::new(old) });
            }
            let loss = if platform.holder_alive(&old.holder) == Some(false) {
                Loss::Dead
            } else {
                Loss::Expired
            };
            if let Some(done) = recover::undo_lost(platform, &old.holder.run, loss, journal).await?
                && done.outcome == Some(super::Outcome::UndoIncomplete)
            {
                return Err(RunError::UndoIncomplete { run: done.id });
            }
        }
        outcome = platform.replace_lease(&old, holder, ttl).await?;
        if let LeaseOutcome::Held(_) = outcome {
            // It changed meanwhile: perhaps released.
            outcome = platform.acquire_lease(name, holder, ttl).await?;
        }
    }
    match outcome {
        LeaseOutcome::Acquired(lease) => Ok(lease),
        LeaseOutcome::Held(lease) => Err(RunError::Locked { lease: Box::new(lease) }),
    }
}

/// Whether a lease is left over: its holder is dead, its time is over, or its run is closed and about to give it back.
async fn stale(platform: &dyn Platform, lease: &Lease) -> Result<bool, RunError> {
    if platform.holder_alive(&lease.holder) == Some(false) || lease.expired(platform.now()) {
        return Ok(true);
    }
    let record = platform.record(&lease.holder.run).await?;
    Ok(record.is_some_and(|record| record.phase == Phase::Closed))
}
