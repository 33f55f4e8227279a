//! The driver of a judge: looks at the platform, asks the judge, does what it says, in an order that can be interrupted
//! anywhere. It decides nothing about a canary; [`crate::judge`] does.
//!
//! Whatever it changes is written into the run's record first ([`opsctl_platform::run::Run`]), and what the judge knows is
//! stored after every look: another worker goes on by calling [`work`] with the same run, taken over. While it lives it
//! renews the canary's share; when it does not, the share lapses.

pub(crate) mod finish;
mod roll_back;

use crate::analysis::counters::Scrape;
use crate::analysis::{Traffic as Counted, Verdict};
use crate::judge::{Action, Fleet, Judge, Observation, Request, Stage};
use crate::report::{Report, ReportError};
use crate::spec::Spec;
use futures::future::join_all;
use opsctl_platform::run::{Control, JournalError, Notifier, Run, RunError, RunRecord, lock};
use opsctl_platform::{
    Counts, Field, Instance, InstanceState, LeaseHolder, Platform, PlatformError, ServiceState, Traffic, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// The `kind` of the records of canaries.
pub const KIND: &str = "canary";

/// Why a worker stopped without a report. Unless it was fenced off, the watchdog or `recover` undoes what it did.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The run failed: lost its right, its record or its journal.
    #[error("the run cannot go on")]
    Run(#[from] RunError),
    /// The specification in the record cannot be read.
    #[error("the specification in the record of run `{run}` cannot be read")]
    Spec {
        /// The run.
        run: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The report cannot be made.
    #[error("the report cannot be made")]
    Report(#[from] ReportError),
}

impl From<PlatformError> for WorkError {
    fn from(error: PlatformError) -> Self {
        Self::Run(error.into())
    }
}

impl From<JournalError> for WorkError {
    fn from(error: JournalError) -> Self {
        Self::Run(error.into())
    }
}

/// What a record stores of the judge, so that another one can go on. Version 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `opsctl.canary-state/v1`.
    pub schema: String,
    /// What the judge knows.
    pub judge: Judge,
}

/// How a worker is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Wait so long for the watchdog before the first change; absent: do not wait (tests).
    pub await_watchdog: Option<Duration>,
    /// Told about start and end.
    pub notifier: Option<Notifier>,
}

/// A record for a canary, not stored yet; the caller adds actor, reason and environment.
pub fn record(id: &str, spec: &Spec, now: jiff::Timestamp) -> RunRecord {
    let spec_value = serde_json::to_value(spec).expect("a struct of strings and finite numbers is JSON");
    let mut record = RunRecord::new(id, KIND, format!("service/{}", spec.service), spec_value, now);
    record.locks = vec![lock::name_for_service(&spec.service)];
    record
}

/// Carries a canary through, from its start or from where another worker was lost, until it is promoted, rolled back or
/// aborted; closes the run and returns the report. Returns only then: a held canary keeps its worker.
///
/// # Errors
/// [`WorkError::Run`] with [`RunError::Fenced`] when somebody else took over: nothing may be changed any more.
pub async fn work(run: Run, options: Options) -> Result<Report, WorkError> {
    let run = run.with_notifier(options.notifier.clone());
    let spec: Spec = serde_json::from_value(run.record().spec.clone()).map_err(|source| WorkError::Spec {
        run: run.id().to_owned(),
        source,
    })?;
    let now = run.platform().now();
    let known = serde_json::from_value::<State>(run.record().stats.clone())
        .ok()
        .filter(|state| state.judge.analysis.is_sound());
    let resumed = known.is_some();
    let judge = known.map_or_else(|| Judge::new(&spec, now), |state| state.judge);
    let mut worker = Worker {
        run,
        spec,
        judge,
        options,
        trouble: None,
    };
    worker.prepare(resumed).await?;
    // On the heap: whoever awaits it need not hold all of it.
    Box::pin(worker.carry_through()).await
}

struct Worker {
    run: Run,
    spec: Spec,
    judge: Judge,
    options: Options,
    /// Which instance does not stay up, and why, as last seen.
    trouble: Option<String>,
}

/// How long what is told beside the counters is waited for: looks are not to be late for it.
const QUERY: Duration = Duration::from_secs(3);

/// Whether there is more to do.
enum Next {
    Look,
    End(roll_back::End),
}

impl Worker {
    fn platform(&self) -> &dyn Platform {
        self.run.platform().as_ref()
    }

    /// Watchdog first, then the canary's instances without traffic.
    async fn prepare(&mut self, resumed: bool) -> Result<(), WorkError> {
        if let Some(limit) = self.options.await_watchdog {
            self.run.await_watchdog(limit).await?;
        }
        if resumed {
            self.run
                .event("resumed", json!({ "stage": self.judge.stage.as_str() }))?;
            if self.was_undone().await? {
                let now = self.platform().now();
                self.judge.undone(now);
            }
        } else {
            self.run.announce().await;
            self.run.step("start").await?;
            self.save().await?;
            for version in self.leftovers().await? {
                self.run.event("leftover_removed", json!({ "version": version }))?;
                let fence = self.run.fence();
                let _ = self
                    .platform()
                    .stop_version(Some(&fence), &self.spec.service, &version)
                    .await?;
            }
        }
        // A worker that was lost while starting may have been lost before the start.
        if matches!(self.judge.stage, Stage::Starting { .. }) {
            let field = Field::version(&self.spec.service, &self.spec.version.version);
            let value = self.spec.version.value();
            self.run.change_slowly(&field, Some(value), self.spec.keep).await?;
            self.run.event(
                "started",
                json!({ "version": self.spec.version.version, "replicas": self.spec.version.replicas }),
            )?;
        }
        Ok(())
    }

    /// Whether whoever undid this run after its worker was lost died just before closing it: the instances that must be
    /// there by now are not, or the stable version is the old one again.
    async fn was_undone(&self) -> Result<bool, WorkError> {
        let switched = matches!(self.judge.stage, Stage::Baking { .. } | Stage::Finishing { .. });
        if !switched && !self.shared() && !matches!(self.judge.stage, Stage::Promoting { .. }) {
            return Ok(false);
        }
        let state = self.platform().service(&self.spec.service).await?;
        let back = switched && state.stable_version.as_deref() == Some(&*self.spec.stable);
        Ok(back || fleet(&state, &self.spec.version.version).desired == 0)
    }

    /// Versions that run beside the stable one. This run has the service's lock, so they belong to nobody.
    async fn leftovers(&self) -> Result<Vec<String>, WorkError> {
        let state = self.platform().service(&self.spec.service).await?;
        let keep = |version: &str| version == self.spec.stable || state.stable_version.as_deref() == Some(version);
        Ok(state
            .versions
            .iter()
            .map(|v| v.version.clone())
            .filter(|v| !keep(v))
            .collect())
    }

    async fn carry_through(mut self) -> Result<Report, WorkError> {
        loop {
            let seen = self.observe().await;
            let before = self.criteria_verdicts();
            let actions = self.judge.look(&self.spec, &seen);
            self.note(&seen)?;
            self.note_criteria(&before)?;
            match self.save().await {
                // Nothing depends on it but what another worker would know; the next look writes it anew.
                Err(WorkError::Run(RunError::Platform(error))) => {
                    self.run
                        .event("platform_failed", json!({ "error": error.to_string() }))?;
                }
                other => other?,
            }
            for action in actions {
                if let Next::End(end) = self.act(action).await? {
                    return self.end(end).await;
                }
            }
            if let Err(error) = self.keep_share().await
                && let Next::End(end) = self.recover_from(error).await?
            {
                return self.end(end).await;
            }
            self.wait().await?;
        }
    }

    /// Waits for the next look, renewing the share meanwhile; a request to stop ends the waiting.
    async fn wait(&mut self) -> Result<(), WorkError> {
        let pause = match self.judge.stage {
            Stage::Starting { .. } => self.spec.interval.min(Duration::from_secs(1)),
            _ => self.spec.interval,
        };
        let until = tokio::time::Instant::now() + pause;
        let stopped = self.run.stopped();
        tokio::pin!(stopped);
        loop {
            let nap = until.min(tokio::time::Instant::now() + self.spec.lease / 3);
            tokio::select! {
                control = &mut stopped => {
                    return match control {
                        Control::Fenced => Err(self.fenced()),
                        _ => Ok(()),
                    };
                }
                () = tokio::time::sleep_until(nap) => {}
            }
            if nap >= until {
                return Ok(());
            }
            if self.shared() {
                // A failure shows at the next look, which grants anew or gives up.
                let _ = self.run.renew_weight(&self.spec.service, self.spec.lease).await;
            }
        }
    }

    fn fenced(&self) -> WorkError {
        WorkError::Run(RunError::Fenced {
            run: self.run.id().to_owned(),
        })
    }

    fn shared(&self) -> bool {
        matches!(self.judge.stage, Stage::Step { .. } | Stage::Holding { .. })
    }

    /// Sees what there is to see. What cannot be read is absent; the judge knows what that means.
    async fn observe(&mut self) -> Observation {
        let (service, version) = (&self.spec.service, &self.spec.version.version);
        let patience = self.patience();
        let (traffic, state, criteria, usage) = tokio::join!(
            timeout(patience, self.platform().traffic(service)),
            timeout(patience, self.platform().service(service)),
            self.criteria(),
            self.usage(),
        );
        let scrape = traffic.ok().and_then(Result::ok).map(|traffic| Scrape {
            boot_id: traffic.boot_id.clone(),
            at_ms: traffic.at.as_millisecond(),
            canary: counted(&traffic, version),
            stable: counted(&traffic, &self.spec.stable),
        });
        let state = state.ok().and_then(Result::ok);
        let fleet = state.as_ref().map(|state| fleet(state, version));
        let trouble = state.as_ref().and_then(|state| trouble(state, version));
        let request = match self.run.control() {
            Control::Cancelled(_) => Some(Request::Abort),
            Control::Run | Control::Fenced => self.promotion_asked().await.then_some(Request::Promote),
        };
        let now = self.platform().now();
        self.trouble = trouble.or(self.trouble.take());
        Observation {
            now,
            scrape,
            fleet,
            criteria,
            usage,
            request,
        }
    }

    /// How long a look may wait for answers: one that hangs must not make it look as if the judge had been away, whose time
    /// would not count.
    fn patience(&self) -> Duration {
        (self.spec.interval * self.spec.settings.gap_limit).saturating_sub(self.spec.interval / 2)
    }

    /// The numbers of the service's criteria while the canary has traffic; one that nobody gives in time is absent.
    async fn criteria(&self) -> Vec<Option<f64>> {
        if !self.shared() && !matches!(self.judge.stage, Stage::Baking { .. }) {
            return Vec::new();
        }
        let asked = self.spec.criteria.iter().map(|criterion| async {
            let number = self.platform().number(&self.spec.service, &criterion.query);
            timeout(self.patience().min(QUERY), number).await.ok()?.ok()?
        });
        join_all(asked).await
    }

    /// What the instances use while both versions have traffic; nothing when nobody tells in time.
    async fn usage(&self) -> Vec<Usage> {
        if !self.shared() {
            return Vec::new();
        }
        let usage = self.platform().usage(&self.spec.service);
        let usage = timeout(self.patience().min(QUERY), usage).await;
        usage.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Whether somebody left the note of [`request_promote`]; takes it away.
    async fn promotion_asked(&self) -> bool {
        let name = promote_note(self.run.id());
        let Ok(Some(note)) = self.platform().lease(&name).await else {
            return false;
        };
        let _ = self.platform().release_lease(&name, &note.holder).await;
        let _ = self.run.event(
            "promotion_requested",
            json!({ "host": note.holder.host, "pid": note.holder.pid }),
        );
        true
    }

    /// Writes what was seen and what it proves into the journal: the source of the report's time line.
    fn note(&self, seen: &Observation) -> Result<(), WorkError> {
        let evidence = self.judge.analysis.evidence();
        let metrics: Vec<_> = evidence
            .metrics
            .iter()
            .map(|m| {
                json!({ "metric": m.metric, "worse_ln_e": m.worse_ln_e,
                    "pass_ln_e": m.not_twice_as_bad_ln_e.max(m.under_objective_ln_e) })
            })
            .collect();
        self.run.event(
            "look",
            json!({
                "stage": self.judge.stage.as_str(),
                "percent": self.judge.percent,
                "canary": seen.scrape.as_ref().map(|s| s.canary),
                "stable": seen.scrape.as_ref().map(|s| s.stable),
                "boot_id": seen.scrape.as_ref().map(|s| s.boot_id.clone()),
                "ready": seen.fleet.map(|f| f.ready),
                "verdict": self.judge.verdict(),
                "metrics": metrics,
                "criteria": seen.criteria,
            }),
        )?;
        Ok(())
    }

    fn criteria_verdicts(&self) -> Vec<Verdict> {
        let confirm = self.spec.settings.fail_intervals;
        let seen = self.judge.criteria.iter();
        seen.map(|seen| seen.verdict(confirm)).collect()
    }

    /// Tells of every criterion that is another verdict now than it was.
    fn note_criteria(&self, before: &[Verdict]) -> Result<(), WorkError> {
        let now = self.criteria_verdicts();
        let both = self.spec.criteria.iter().zip(&self.judge.criteria);
        for ((criterion, seen), (now, before)) in both.zip(now.iter().zip(before)) {
            if now != before {
                self.run.event(
                    "criterion",
                    json!({ "name": criterion.name, "value": seen.last, "good": criterion.bounds(), "verdict": now }),
                )?;
            }
        }
        Ok(())
    }

    async fn save(&mut self) -> Result<(), WorkError> {
        let state = State {
            schema: "opsctl.canary-state/v1".to_owned(),
            judge: self.judge.clone(),
        };
        let value = serde_json::to_value(state).expect("finite numbers and strings are JSON");
        Ok(self.run.set_stats(value).await?)
    }

    async fn act(&mut self, action: Action) -> Result<Next, WorkError> {
        match action {
            Action::Grant(percent) => {
                self.run.step(&format!("{percent} %")).await?;
                self.run.event("step_started", json!({ "percent": percent }))?;
            }
            Action::AnnounceHold(verdict) => {
                self.run.step(&format!("holding at {} %", self.judge.percent)).await?;
                let evidence = self.judge.analysis.evidence();
                self.run.event(
                    "held",
                    json!({ "verdict": verdict, "percent": self.judge.percent, "reasons": evidence.reasons,
                        "more_requests_needed": evidence.more_requests_needed }),
                )?;
            }
            Action::Promote => {
                if let Err(error) = self.promote().await {
                    return self.recover_from(error).await;
                }
            }
            Action::Finish => return Ok(Next::End(roll_back::End::Promoted)),
            Action::RollBack(cause) => return Ok(Next::End(self.roll_back(cause).await?)),
        }
        Ok(Next::Look)
    }

    /// All traffic, then the switch, then the share is not needed any more. Each part may have been done by a worker that
    /// was lost.
    async fn promote(&mut self) -> Result<(), WorkError> {
        self.run.step("promote").await?;
        let (service, version) = (self.spec.service.clone(), self.spec.version.version.clone());
        let state = self.platform().service(&service).await?;
        let stable = Field::stable_version(&service);
        match state.stable_version {
            Some(now) if now == version => {}
            Some(now) if now == self.spec.stable => {
                self.share(100).await?;
                self.run
                    .change_slowly(&stable, Some(version.clone().into()), self.spec.keep)
                    .await?;
            }
            now => {
                return Err(WorkError::Run(RunError::Conflict {
                    field: stable,
                    actual: now.map(Into::into),
                }));
            }
        }
        self.run.undo_field(&Field::canary(&service)).await?;
        let now = self.platform().now();
        self.judge.promoted(now);
        self.run.step("bake").await?;
        self.run.event(
            "promoted",
            json!({ "version": version, "bake_seconds": self.spec.bake.as_secs_f64() }),
        )?;
        self.save().await
    }

    /// Grants or renews what the judge says the canary should have.
    async fn keep_share(&mut self) -> Result<(), WorkError> {
        if self.shared() {
            self.share(self.judge.percent).await?;
        }
        Ok(())
    }

    async fn share(&mut self, percent: u8) -> Result<(), WorkError> {
        let (service, version) = (self.spec.service.clone(), self.spec.version.version.clone());
        let state = self.platform().service(&service).await?;
        let ours = state.canary.filter(|weight| weight.holder == self.run.id());
        let now = ours.map_or(0, |weight| weight.percent);
        if now == percent {
            match self.run.renew_weight(&service, self.spec.lease).await {
                Err(RunError::Platform(PlatformError::WeightLost { .. })) => {}
                other => return Ok(other?),
            }
        }
        let expect = if now == percent { 0 } else { now };
        self.run
            .grant_weight(&service, &version, expect, percent, self.spec.lease)
            .await?;
        if self.shared() {
            self.judge.share_granted();
        }
        self.run.event("share_granted", json!({ "percent": percent }))?;
        Ok(())
    }

    /// What an error means: somebody else's change ends the canary; a platform that does not answer is asked again.
    async fn recover_from(&mut self, error: WorkError) -> Result<Next, WorkError> {
        match error {
            WorkError::Run(RunError::Conflict { field, actual }) => {
                self.run
                    .event("interference", json!({ "field": field.to_string(), "actual": actual }))?;
                let now = self.platform().now();
                match self.judge.interfered(now) {
                    Action::RollBack(cause) => Ok(Next::End(self.roll_back(cause).await?)),
                    _ => Ok(Next::Look),
                }
            }
            WorkError::Run(RunError::Platform(error)) => {
                self.run
                    .event("platform_failed", json!({ "error": error.to_string() }))?;
                Ok(Next::Look)
            }
            other => Err(other),
        }
    }
}

fn counted(traffic: &Traffic, version: &str) -> Counted {
    let Counts {
        requests,
        errors,
        over_objective,
        ..
    } = traffic.version(version);
    Counted {
        requests,
        errors,
        slow: over_objective,
    }
}

fn fleet(state: &ServiceState, version: &str) -> Fleet {
    let instances = state.instances.iter().filter(|instance| instance.version == version);
    Fleet {
        desired: state
            .versions
            .iter()
            .find(|v| v.version == version)
            .map_or(0, |v| v.replicas),
        ready: state.ready_of(version) as u32,
        restarts: instances.clone().map(|instance| instance.restarts).max().unwrap_or(0),
        crash_loop: instances
            .clone()
            .any(|instance| instance.state == InstanceState::CrashLoop),
    }
}

/// The instance of a version that is given up on, and how it ended or why it cannot start.
fn trouble(state: &ServiceState, version: &str) -> Option<String> {
    let given_up = |instance: &&Instance| instance.version == version && instance.state == InstanceState::CrashLoop;
    let instance = state.instances.iter().find(given_up)?;
    Some(format!("{}: {}", instance.id, instance.last_exit.as_deref()?))
}

fn promote_note(run: &str) -> String {
    format!("promote-{run}")
}

/// How long a request to promote waits for its worker.
const NOTE_LIFE: Duration = Duration::from_hours(1);

/// Asks the worker of run `id` to promote at its next look, whatever the evidence. Asking twice is asking once.
///
/// The request is a lease: the smallest note that two processes can exchange on every platform.
pub async fn request_promote(platform: &dyn Platform, id: &str, by: &LeaseHolder) -> Result<(), PlatformError> {
    platform.acquire_lease(&promote_note(id), by, NOTE_LIFE).await?;
    Ok(())
}

/// The records of canaries, of one service or of all, newest first; the first that is not closed is the one that runs.
pub async fn history(platform: &dyn Platform, service: Option<&str>) -> Result<Vec<RunRecord>, PlatformError> {
    let mut records = platform.records().await?;
    records.retain(|record| record.kind == KIND && service.is_none_or(|service| record.service() == Some(service)));
    records.reverse();
    Ok(records)
}
