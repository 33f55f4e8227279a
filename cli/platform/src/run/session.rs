//! A worker's hold on its run: leases kept alive, the record written before every change, orders from outside heard.
//! Dropping it without [`Run::close`] leaves the record open on purpose: that is what a crash looks like, and the watchdog
//! or `recover` undoes it.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::heartbeat::{Heartbeat, StartWatchdog};
use super::undo::{message_of, undo};
use super::{Cancel, Journal, JournalError, Notifier, Outcome, Phase, RunRecord, UndoReport, Worker, lock, recover};
use crate::{Cas, Fence, Field, Instance, KillMode, Lease, LeaseHolder, Platform, PlatformError, Tenant, Weight};

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another run has the lock.
    #[error("`{}` is locked by run `{}` ({} pid {})", .lease.name, .lease.holder.run, .lease.holder.host, .lease.holder.pid)]
    Locked {
        /// The lease as it is.
        lease: Box<Lease>,
    },
    /// The run is over, was taken over, or its leases are lost. Nothing may be changed any more.
    #[error("run `{run}` was fenced off: it lost its leases, was taken over, or closed")]
    Fenced {
        /// The run.
        run: String,
    },
    /// The run has a worker that lives.
    #[error("run `{run}` is worked on by process {pid}")]
    Running {
        /// The run.
        run: String,
        /// Its worker.
        pid: u32,
    },
    /// A field did not have the value that it was read with a moment ago.
    #[error("`{field}` was changed by somebody else")]
    Conflict {
        /// The field.
        field: Field,
        /// What it has.
        actual: Option<Value>,
    },
    /// Changes of a dead run could not be undone.
    #[error("changes of run `{run}` could not be undone")]
    UndoIncomplete {
        /// That run.
        run: String,
    },
    /// The watchdog did not come up.
    #[error("the watchdog of run `{run}` did not start within {} s", .limit.as_secs_f64())]
    NoWatchdog {
        /// The run.
        run: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The platform failed.
    #[error("the platform failed")]
    Platform(#[source] PlatformError),
    /// The journal failed.
    #[error("the journal failed")]
    Journal(#[from] JournalError),
}

impl From<PlatformError> for RunError {
    fn from(error: PlatformError) -> Self {
        match error {
            PlatformError::Fenced { run } => Self::Fenced { run },
            other => Self::Platform(other),
        }
    }
}

/// What the outside wants of the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    Run,
    /// Undo, report, close.
    Cancelled(Cancel),
    /// Change nothing any more, not even to undo: somebody else does.
    Fenced,
}

/// A run that this process works on.
pub struct Run {
    platform: Arc<dyn Platform>,
    record: RunRecord,
    journal: Journal,
    holder: LeaseHolder,
    ttl: Duration,
    control: watch::Receiver<Control>,
    heartbeat: AbortHandle,
    start_watchdog: Arc<OnceLock<StartWatchdog>>,
    notifier: Option<Notifier>,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.heartbeat.abort();
    }
}

impl Run {
    /// Stores `record` and takes it. For runs whose worker is the process that was asked.
    pub async fn begin(
        platform: Arc<dyn Platform>,
        mut record: RunRecord,
        holder: LeaseHolder,
        ttl: Duration,
        journal: Journal,
    ) -> Result<Self, RunError> {
        record.starter = Some(holder.clone());
        platform.create_record(&record).await?;
        Self::take(platform, &record.id, holder, ttl, journal).await
    }

    /// Becomes the worker of a stored run: a new one, or one whose worker was lost (`run attach`). Takes the locks
    /// `record.locks`, renews them every third of `ttl` and gives up on its own when it could not for two thirds.
    ///
    /// Errors: [`RunError::Running`] while its worker lives, [`RunError::Locked`] (a new record is closed then),
    /// [`RunError::Fenced`] when it is over.
    pub async fn take(
        platform: Arc<dyn Platform>,
        id: &str,
        holder: LeaseHolder,
        ttl: Duration,
        journal: Journal,
    ) -> Result<Self, RunError> {
        let record = loop {
            let mut record = platform
                .record(id)
                .await?
                .ok_or_else(|| PlatformError::RecordMissing { run: id.to_owned() })?;
            if record.phase == Phase::Closed {
                return Err(RunError::Fenced { run: id.to_owned() });
            }
            if let Some(worker) = &record.worker
                && worker.process != holder
                && recover::loss(platform.as_ref(), &record).await?.is_none()
            {
                return Err(RunError::Running {
                    run: id.to_owned(),
                    pid: worker.process.pid,
                });
            }
            record.epoch += 1;
            record.worker = Some(Worker {
                process: holder.clone(),
                lease_seconds: ttl.as_secs_f64(),
            });
            if record.phase == Phase::Undoing {
                record.phase = Phase::Active;
            }
            match platform.update_record(&record).await {
                Ok(revision) => break RunRecord { revision, ..record },
                Err(PlatformError::RecordConflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        };
        recover::claim(platform.as_ref(), &record).await?;
        for name in &record.locks {
            if let Err(error) = lock::acquire(platform.as_ref(), name, &holder, ttl, &journal).await {
                let (outcome, message) = match &error {
                    RunError::Locked { .. } => (Outcome::Locked, error.to_string()),
                    _ => (Outcome::Error, message_of(&error)),
                };
                if record.undo.is_empty() {
                    let _ = recover::close(platform.as_ref(), record.clone(), outcome, &message).await;
                }
                return Err(error);
            }
        }
        let (tell, control) = watch::channel(Control::Run);
        let start_watchdog = Arc::new(OnceLock::new());
        let beat = Heartbeat {
            platform: Arc::clone(&platform),
            journal: journal.clone(),
            start_watchdog: Arc::clone(&start_watchdog),
            fence: record.fence(),
            locks: record.locks.clone(),
            holder: holder.clone(),
            ttl,
            tell,
        };
        let heartbeat = tokio::spawn(beat.run()).abort_handle();
        journal.append(
            platform.now(),
            "run_taken",
            json!({ "epoch": record.epoch, "pid": holder.pid }),
        )?;
        Ok(Self {
            platform,
            record,
            journal,
            holder,
            ttl,
            control,
            heartbeat,
            start_watchdog,
            notifier: None,
        })
    }

    /// Tells `notifier` how the run starts and ends.
    #[must_use]
    pub fn with_notifier(mut self, notifier: Option<Notifier>) -> Self {
        self.notifier = notifier;
        self
    }

    /// The record as last written.
    pub fn record(&self) -> &RunRecord {
        &self.record
    }

    /// The run's id.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// The run's journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The platform that it changes.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// The right to change things for this run.
    pub fn fence(&self) -> Fence {
        self.record.fence()
    }

    /// What the outside wants now.
    pub fn control(&self) -> Control {
        self.control.borrow().clone()
    }

    /// Resolves when the run is cancelled or fenced. Cheap to call again and again; the future does not borrow the run.
    pub fn stopped(&self) -> impl Future<Output = Control> + Send + 'static {
        let mut control = self.control.clone();
        async move {
            match control.wait_for(|control| *control != Control::Run).await {
                Ok(control) => control.clone(),
                Err(_) => Control::Fenced,
            }
        }
    }

    /// Appends an event to the journal.
    pub fn event(&self, kind: &str, data: Value) -> Result<(), RunError> {
        self.journal.append(self.platform.now(), kind, data)?;
        Ok(())
    }

    /// Notes what the run does next, in the record and the journal, durably.
    pub async fn step(&mut self, step: &str) -> Result<(), RunError> {
        step.clone_into(&mut self.record.step);
        self.save().await?;
        self.journal.enter(step)?;
        Ok(())
    }

    /// Stores counters and statistics with which another worker could go on.
    pub async fn set_stats(&mut self, stats: Value) -> Result<(), RunError> {
        self.record.stats = stats;
        self.save().await
    }

    /// Tells the notifier that the run started. Failures are journal events.
    pub async fn announce(&self) {
        if let Some(notifier) = &self.notifier {
            notifier
                .tell(&self.record, "started", &self.journal, self.platform.now())
                .await;
        }
    }

    /// Starts a watchdog unless one lives, and another one whenever it dies, for as long as this worker has the run.
    /// `start` starts the process and does not wait for it; must be called in a tokio runtime. Only the first call counts.
    ///
    /// Errors: those of `start`. Later ones are logged, and tried again.
    pub fn keep_watched(
        &self,
        start: impl Fn() -> Result<(), PlatformError> + Send + Sync + 'static,
    ) -> Result<(), RunError> {
        let watchdog = self.record.watchdog.as_ref();
        let lives = watchdog.is_some_and(|watchdog| self.platform.holder_alive(watchdog) == Some(true));
        if !lives {
            start()?;
        }
        let _ = self.start_watchdog.set(Box::new(start));
        Ok(())
    }

    /// Waits until a watchdog has entered itself in the record. Call it before the first change.
    pub async fn await_watchdog(&mut self, limit: Duration) -> Result<(), RunError> {
        let wait = async {
            loop {
                let stored = self.platform.record(&self.record.id).await?;
                if let Some(record) = stored
                    && let Some(watchdog) = record.watchdog
                    && self.platform.holder_alive(&watchdog) == Some(true)
                {
                    return Ok::<_, RunError>(watchdog);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(watchdog) => {
                self.record.watchdog = Some(watchdog?);
                self.save().await
            }
            Err(_) => Err(RunError::NoWatchdog {
                run: self.record.id.clone(),
                limit,
            }),
        }
    }

    /// Changes a field: reads it, writes the undo step, changes it if it is still what was read.
    ///
    /// Errors: [`RunError::Conflict`] when somebody was faster, [`RunError::Fenced`] when this worker was replaced.
    pub async fn change(&mut self, field: &Field, new: Option<Value>) -> Result<(), RunError> {
        self.change_slowly(field, new, Duration::ZERO).await
    }

    /// As [`Run::change`]; when the worker is lost, the watchdog waits `grace` before it undoes this change, so that
    /// another worker can take the run up. An abort does not wait.
    pub async fn change_slowly(&mut self, field: &Field, new: Option<Value>, grace: Duration) -> Result<(), RunError> {
        let before = self.platform.get(field).await?;
        if before == new {
            return Ok(());
        }
        self.plan(field, before.clone(), new.clone(), grace).await?;
        let cas = self
            .platform
            .compare_and_set(Some(&self.fence()), field, before.as_ref(), new.as_ref())
            .await?;
        self.settle(field, cas)
    }

    /// Notes how a change that comes later is undone: after those that are made between this and it. For what has to
    /// follow another change both when it is made and when it is taken back.
    pub async fn foresee(&mut self, field: &Field, new: Option<Value>) -> Result<(), RunError> {
        let before = self.platform.get(field).await?;
        self.plan(field, before, new, Duration::ZERO).await
    }

    /// Gives a version a share of the traffic, as a lease: see [`Platform::grant_weight`].
    pub async fn grant_weight(
        &mut self,
        service: &str,
        version: &str,
        expect_percent: u8,
        percent: u8,
        lease: Duration,
    ) -> Result<(), RunError> {
        let field = Field::canary(service);
        let before = Weight::value(version, expect_percent, &self.record.id);
        let new = Weight::value(version, percent, &self.record.id);
        self.plan(&field, before, new, Duration::ZERO).await?;
        let fence = self.fence();
        let cas = self
            .platform
            .grant_weight(&fence, service, version, expect_percent, percent, lease)
            .await?;
        self.settle(&field, cas)
    }

    /// Prolongs the share: see [`Platform::renew_weight`].
    pub async fn renew_weight(&self, service: &str, lease: Duration) -> Result<(), RunError> {
        self.check()?;
        Ok(self.platform.renew_weight(&self.fence(), service, lease).await?)
    }

    /// Prolongs a fault: see [`Platform::renew_fault`].
    pub async fn renew_fault(&self, field: &Field, ttl: Duration) -> Result<(), RunError> {
        self.check()?;
        Ok(self.platform.renew_fault(&self.fence(), field, ttl).await?)
    }

    /// Ends sessions at a database: see [`Platform::end_sessions`]. Who had them opens others.
    pub async fn end_sessions(&self, field: &Field) -> Result<u64, RunError> {
        self.check()?;
        Ok(self.platform.end_sessions(&self.fence(), field).await?)
    }

    /// Kills one instance. There is no undo for it: the platform replaces it.
    pub async fn kill(&mut self, instance: &Instance, mode: KillMode) -> Result<jiff::Timestamp, RunError> {
        self.record.phase = Phase::Active;
        self.save().await?;
        self.event(
            "kill",
            json!({ "instance": instance.id, "uid": instance.uid, "version": instance.version, "mode": mode }),
        )?;
        Ok(self.platform.kill(&self.fence(), instance, mode).await?)
    }

    /// Has a tenant leave its node: see [`Platform::evict`]. There is no undo for it.
    pub async fn evict(&mut self, tenant: &Tenant) -> Result<jiff::Timestamp, RunError> {
        self.check()?;
        Ok(self.platform.evict(&self.fence(), tenant).await?)
    }

    /// A change is meant to stay: its undo step is dropped.
    pub async fn keep(&mut self, field: &Field) -> Result<(), RunError> {
        self.record.keep(field);
        self.save().await
    }

    /// As [`Run::keep`], of several changes that only stay together.
    pub async fn keep_all(&mut self, fields: &[Field]) -> Result<(), RunError> {
        for field in fields {
            self.record.keep(field);
        }
        self.save().await
    }

    /// Undoes every change, last first, and notes it. May be called again after failures.
    pub async fn undo(&mut self) -> Result<UndoReport, RunError> {
        self.check()?;
        self.record.phase = Phase::Undoing;
        self.save().await?;
        let report = undo(self.platform.as_ref(), &mut self.record, |_| true).await;
        self.save().await?;
        recover::note_undo(self.platform.as_ref(), &self.journal, &self.record, &report);
        Ok(report)
    }

    /// Undoes the change of one field, and leaves the others (the order of an abort).
    pub async fn undo_field(&mut self, field: &Field) -> Result<UndoReport, RunError> {
        self.check()?;
        let report = undo(self.platform.as_ref(), &mut self.record, |step| step.field == *field).await;
        self.save().await?;
        Ok(UndoReport {
            steps: report.steps.into_iter().filter(|step| step.field == *field).collect(),
        })
    }

    /// Ends the run. Whatever was neither undone nor kept makes the outcome [`Outcome::UndoIncomplete`].
    pub async fn close(mut self, outcome: Outcome, message: &str) -> Result<RunRecord, RunError> {
        self.save().await?;
        let record = recover::close(self.platform.as_ref(), self.record.clone(), outcome, message).await?;
        let ended = json!({ "outcome": record.outcome, "message": record.message });
        self.journal.append(self.platform.now(), "run_closed", ended)?;
        self.journal.sync()?;
        if let Some(notifier) = &self.notifier {
            notifier
                .tell(&record, Notifier::ending(&record), &self.journal, self.platform.now())
                .await;
        }
        Ok(record)
    }

    async fn plan(
        &mut self,
        field: &Field,
        before: Option<Value>,
        new: Option<Value>,
        grace: Duration,
    ) -> Result<(), RunError> {
        self.check()?;
        self.record.phase = Phase::Active;
        self.record
            .plan_change(field.clone(), before.clone(), new.clone(), grace.as_secs());
        self.save().await?;
        self.event("change", json!({ "field": field, "before": before, "after": new }))
    }

    fn settle(&self, field: &Field, cas: Cas) -> Result<(), RunError> {
        match cas {
            Cas::Applied => Ok(()),
            Cas::Conflict { actual } => {
                self.event("conflict", json!({ "field": field, "actual": actual }))?;
                Err(RunError::Conflict {
                    field: field.clone(),
                    actual,
                })
            }
        }
    }

    fn check(&self) -> Result<(), RunError> {
        if self.control() == Control::Fenced {
            return Err(RunError::Fenced {
                run: self.record.id.clone(),
            });
        }
        Ok(())
    }

    /// Writes the record; takes over what others may write into it (a cancel request, the watchdog).
    async fn save(&mut self) -> Result<(), RunError> {
        loop {
            match self.platform.update_record(&self.record).await {
                Ok(revision) => {
                    self.record.revision = revision;
                    return Ok(());
                }
                Err(PlatformError::RecordConflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let stored = self.platform.record(&self.record.id).await?;
            match stored.filter(|stored| stored.admits(&self.record.fence())) {
                None => {
                    return Err(RunError::Fenced {
                        run: self.record.id.clone(),
                    });
                }
                Some(stored) => {
                    self.record.revision = stored.revision;
                    self.record.cancel = stored.cancel;
                    self.record.watchdog = stored.watchdog;
                }
            }
        }
    }

    /// The process that works on it, as leases name it.
    pub fn holder(&self) -> &LeaseHolder {
        &self.holder
    }

    /// How long its leases live without renewal.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

/// Asks a run's worker to stop: it undoes, reports and closes. A request that stands already stays.
/// `None`: the run is over.
pub async fn request_cancel(platform: &dyn Platform, id: &str, cancel: Cancel) -> Result<Option<RunRecord>, RunError> {
    loop {
        let mut record = platform
            .record(id)
            .await?
            .ok_or_else(|| PlatformError::RecordMissing { run: id.to_owned() })?;
        if record.phase == Phase::Closed {
            return Ok(None);
        }
        if record.cancel.is_some() {
            return Ok(Some(record));
        }
        record.cancel = Some(cancel.clone());
        match platform.update_record(&record).await {
            Ok(revision) => return Ok(Some(RunRecord { revision, ..record })),
            Err(PlatformError::RecordConflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
