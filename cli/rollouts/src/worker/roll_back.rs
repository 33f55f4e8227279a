//! The way back: no traffic for the canary, wait until what it has is answered, then take its instances away.
//! When to go it is the judge's decision.

use super::{WorkError, Worker, finish};
use crate::analysis::Verdict;
use crate::judge::Cause;
use crate::report::Report;
use crate::rollback::drained;
use opsctl_platform::Field;
use opsctl_platform::run::{Outcome, RunError};
use serde_json::json;
use std::time::Duration;

/// Between two looks at requests under way.
const POLL: Duration = Duration::from_millis(100);
/// How often an undo that the platform could not do is tried again.
const TRIES: u32 = 5;

/// How a canary ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is the stable version, and its bake is over.
    Promoted,
    /// It was taken away.
    RolledBack(Cause),
}

impl Worker {
    /// Takes the canary away, in order. Every part is idempotent.
    pub(super) async fn roll_back(&mut self, cause: Cause) -> Result<End, WorkError> {
        self.run.step("roll back").await?;
        self.run
            .event("rolling_back", json!({ "cause": cause, "why": cause.describe() }))?;
        self.save().await?;
        let service = self.spec.service.clone();
        // After a promotion the old version gets everything back first; then no share is left to the new one.
        for field in [Field::stable_version(&service), Field::canary(&service)] {
            self.run.undo_field(&field).await?;
        }
        self.run.event("share_removed", json!({}))?;
        // One that never had a share has no requests under way.
        if self.judge.first_share_at().is_some() {
            self.drain().await?;
        }
        let mut report = self.run.undo().await?;
        for _ in 1..TRIES {
            if report.failures().next().is_none() {
                break;
            }
            tokio::time::sleep(self.spec.interval.min(Duration::from_secs(1))).await;
            report = self.run.undo().await?;
        }
        self.gone().await;
        Ok(End::RolledBack(cause))
    }

    /// Waits until the canary has no requests under way and gets no new ones; not longer than the drain limit.
    async fn drain(&self) -> Result<(), WorkError> {
        let (service, version) = (&self.spec.service, &self.spec.version.version);
        let left = drained(self.platform(), service, version, self.spec.drain_timeout).await;
        self.run
            .event("drained", json!({ "complete": left == Some(0), "in_flight": left }))?;
        Ok(())
    }

    /// Waits until no instance of the canary is left; the platform takes them away by itself.
    async fn gone(&self) {
        let version = &self.spec.version.version;
        let limit = tokio::time::Instant::now() + self.spec.drain_timeout;
        while tokio::time::Instant::now() < limit {
            match self.platform().service(&self.spec.service).await {
                Ok(state) if state.instances.iter().all(|i| i.version != *version) => return,
                _ => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// Closes the run and makes the report.
    pub(super) async fn end(self, end: End) -> Result<Report, WorkError> {
        let Self {
            run,
            spec,
            judge,
            options,
            trouble,
        } = self;
        let journal = run.journal().clone();
        let record = match end {
            End::Promoted => {
                let switch = finish::Switch {
                    service: &spec.service,
                    new: &spec.version.version,
                    old: &spec.stable,
                };
                finish::finish(run, &switch, options.notifier.as_ref()).await?
            }
            End::RolledBack(cause) => {
                let outcome = match cause {
                    Cause::Worse
                    | Cause::ObjectiveMissed
                    | Cause::CriterionMissed
                    | Cause::NeverReady
                    | Cause::Died => Outcome::Failed,
                    Cause::Requested => Outcome::Aborted,
                    Cause::HeldTooLong if judge.verdict() == Verdict::Pass => Outcome::Aborted,
                    Cause::HeldTooLong | Cause::Inconclusive => Outcome::Inconclusive,
                    Cause::Interference => Outcome::Error,
                    Cause::Undone => Outcome::Lost,
                };
                let why = match (cause, trouble) {
                    (Cause::Died, Some(trouble)) => format!("{} ({trouble})", cause.describe()),
                    _ => cause.describe().to_owned(),
                };
                run.close(outcome, &why).await?
            }
        };
        let events = journal.events().map_err(RunError::from)?;
        Ok(Report::new(&record, &events)?)
    }
}
