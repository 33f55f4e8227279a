//! Going back to a version that is not running any more: start it, wait until it has its capacity, switch, take the other
//! away. While the other still runs (a canary or its bake) an abort of that run is quicker. It judges nothing.

use std::time::Duration;

use opsctl_platform::run::{Control, Notifier, Outcome, Run, RunError, RunRecord, lock};
use opsctl_platform::{Field, InstanceState, Platform, PlatformError, VersionSpec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::schedule::seconds;
use crate::worker::WorkError;
use crate::worker::finish::{Switch, finish};

/// The `kind` of the records of roll-backs.
pub const KIND: &str = "rollback";
/// The `schema` of their reports.
pub const SCHEMA: &str = "opsctl.rollback/v1";
/// Between two looks.
const POLL: Duration = Duration::from_millis(100);

/// The specification, as stored in the record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The service.
    pub service: String,
    /// The version that is stable now.
    pub from: String,
    /// The version to go back to.
    pub to: VersionSpec,
    /// How long it may take to become ready.
    #[serde(rename = "ready_timeout_seconds", with = "seconds")]
    pub ready_timeout: Duration,
    /// How long requests under way may take to end.
    #[serde(rename = "drain_timeout_seconds", with = "seconds")]
    pub drain_timeout: Duration,
}

/// What became of it, schema [`SCHEMA`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run's id.
    pub run: String,
    /// The service.
    pub service: String,
    /// The version left.
    pub from: String,
    /// The version gone back to.
    pub to: String,
    /// How the run ended: `passed` when the switch was made.
    pub outcome: Option<Outcome>,
    /// Why, in words.
    pub message: Option<String>,
    /// How long it took.
    pub elapsed_seconds: f64,
}

impl Spec {
    /// A specification with the defaults: a minute to become ready, half a minute to drain.
    pub fn new(service: &str, from: &str, to: VersionSpec) -> Self {
        Self {
            service: service.to_owned(),
            from: from.to_owned(),
            to,
            ready_timeout: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// A record for a roll-back, not stored yet; the caller adds actor, reason and environment.
pub fn record(id: &str, spec: &Spec, now: jiff::Timestamp) -> RunRecord {
    let value = serde_json::to_value(spec).expect("a struct of strings and finite numbers is JSON");
    let mut record = RunRecord::new(id, KIND, format!("service/{}", spec.service), value, now);
    record.locks = vec![lock::name_for_service(&spec.service)];
    record
}

/// Carries it through, from the start or from where another worker was lost; closes the run.
pub async fn work(run: Run, await_watchdog: Option<Duration>, notifier: Option<Notifier>) -> Result<Report, WorkError> {
    let mut run = run.with_notifier(notifier.clone());
    let spec: Spec = serde_json::from_value(run.record().spec.clone()).map_err(|source| WorkError::Spec {
        run: run.id().to_owned(),
        source,
    })?;
    if let Some(limit) = await_watchdog {
        run.await_watchdog(limit).await?;
    }
    run.announce().await;
    let record = match switch(&mut run, &spec).await? {
        None => {
            let switch = Switch {
                service: &spec.service,
                new: &spec.to.version,
                old: &spec.from,
            };
            finish(run, &switch, notifier.as_ref()).await?
        }
        Some((outcome, message)) => {
            run.undo().await?;
            run.close(outcome, message).await?
        }
    };
    let end = record.ended_at.unwrap_or(record.updated_at);
    Ok(Report {
        schema: SCHEMA.to_owned(),
        run: record.id.clone(),
        service: spec.service,
        from: spec.from,
        to: spec.to.version,
        outcome: record.outcome,
        message: record.message,
        elapsed_seconds: end.duration_since(record.started_at).as_secs_f64(),
    })
}

/// Capacity first, then the traffic. `None`: switched; else why not.
async fn switch(run: &mut Run, spec: &Spec) -> Result<Option<(Outcome, &'static str)>, WorkError> {
    let version = Field::version(&spec.service, &spec.to.version);
    let stable = Field::stable_version(&spec.service);
    run.step("start").await?;
    run.change(&version, Some(spec.to.value())).await?;
    run.event(
        "started",
        json!({ "version": spec.to.version, "replicas": spec.to.replicas }),
    )?;
    if let Some(end) = ready(run, spec).await? {
        return Ok(Some(end));
    }
    run.step("switch").await?;
    let now = run.platform().get(&stable).await?;
    if now
        .as_ref()
        .is_some_and(|now| *now != *spec.from && *now != *spec.to.version)
    {
        return Ok(Some((Outcome::Error, "somebody else changed the stable version")));
    }
    run.change(&stable, Some(spec.to.version.clone().into())).await?;
    run.event("switched", json!({ "version": spec.to.version }))?;
    run.step("drain").await?;
    drained(run.platform().as_ref(), &spec.service, &spec.from, spec.drain_timeout).await;
    Ok(None)
}

async fn ready(run: &Run, spec: &Spec) -> Result<Option<(Outcome, &'static str)>, WorkError> {
    let limit = tokio::time::Instant::now() + spec.ready_timeout;
    loop {
        match run.control() {
            Control::Run => {}
            Control::Cancelled(_) => return Ok(Some((Outcome::Aborted, "it was asked for"))),
            Control::Fenced => {
                return Err(WorkError::Run(RunError::Fenced {
                    run: run.id().to_owned(),
                }));
            }
        }
        // A platform that does not answer now may answer at the next look.
        if let Ok(state) = run.platform().service(&spec.service).await {
            if state.ready_of(&spec.to.version) >= spec.to.replicas as usize {
                return Ok(None);
            }
            let mut instances = state.instances.iter();
            if instances.any(|i| i.version == spec.to.version && i.state == InstanceState::CrashLoop) {
                return Ok(Some((Outcome::Failed, "its instances end again and again")));
            }
        }
        if tokio::time::Instant::now() >= limit {
            return Ok(Some((Outcome::Failed, "it did not become ready in time")));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until `version` has no requests under way and gets no new ones; not longer than `limit`. What is left under way,
/// if anything is; absent when the counters could not be read.
pub(crate) async fn drained(platform: &dyn Platform, service: &str, version: &str, limit: Duration) -> Option<u64> {
    let until = tokio::time::Instant::now() + limit;
    let mut last = None;
    loop {
        let counts: Result<_, PlatformError> = platform.traffic(service).await.map(|t| t.version(version));
        let left = counts.as_ref().ok().map(|counts| counts.in_flight);
        if let Ok(counts) = counts {
            let ended = counts.requests + counts.probe_requests;
            if counts.in_flight == 0 && last == Some(ended) {
                return Some(0);
            }
            last = Some(ended);
        }
        if tokio::time::Instant::now() >= until {
            return left;
        }
        tokio::time::sleep(POLL).await;
    }
}
