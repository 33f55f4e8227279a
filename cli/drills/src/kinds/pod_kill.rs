//! `pod-kill`: kills instances of a service without warning and watches what its clients notice and how long it takes
//! until it is whole again. It never takes the last ready instance.

mod plan;

pub use plan::{Plan, PlanError, Spec, Victim, plan, record};

use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::run::{Control, JournalError, Outcome, Run, RunError};
use opsctl_platform::{Instance, Objectives, PlatformError, ServiceState};
use serde_json::json;

use crate::figures::{self, Check, Figures, Verdict};
use crate::observe::{Observer, recovered_at, steady};
use crate::probe::{Probe, ProbeReport};
use crate::report::{Killed, Moment, Recovery, Report, Status};

/// Samples in a row that must be in steady state before the service counts as whole.
const HOLD: usize = 4;
/// How much more often it is looked while the loss and the return are waited for.
const CLOSER: u32 = 10;
/// How long a kill may take to show.
const EFFECT_LIMIT: Duration = Duration::from_secs(5);

/// Why a drill stopped without a report.
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

/// Carries the drill through and closes its run. A run whose worker was lost is not gone on with but only closed: what it
/// measured is gone, and there is nothing to undo.
pub async fn work(mut run: Run, await_watchdog: Option<Duration>) -> Result<Report, WorkError> {
    let spec: Spec = serde_json::from_value(run.record().spec.clone()).map_err(|source| WorkError::Spec {
        run: run.id().to_owned(),
        source,
    })?;
    if let Some(limit) = await_watchdog {
        run.await_watchdog(limit).await?;
    }
    run.announce().await;
    let platform = std::sync::Arc::clone(run.platform());
    let objectives = platform.service(&spec.service).await?.objectives;
    let slow = objectives
        .latency_seconds
        .and_then(|s| Duration::try_from_secs_f64(s).ok());
    let mut notes = Vec::new();
    let probe = match &spec.probe {
        Some(probe) => match Probe::start(probe, run.id(), slow) {
            Ok(probe) => Some(probe),
            Err(error) => {
                notes.push(format!("the probe could not be started: {error}"));
                None
            }
        },
        None => None,
    };
    let mut drill = Drill {
        observer: Observer::new(platform.as_ref(), &spec.service),
        run: &mut run,
        spec: &spec,
        objectives: &objectives,
        probe: probe.as_ref(),
        timeline: Vec::new(),
        notes,
    };
    let story = drill.carry_through().await;
    let (samples, timeline, mut notes) = (drill.observer.samples, drill.timeline, drill.notes);
    let probed = match probe {
        Some(probe) => probe.stop().await,
        None => None,
    };
    let story = match story {
        Ok(story) => story,
        // Whoever fenced us off closes the run.
        Err(error @ WorkError::Run(RunError::Fenced { .. })) => return Err(error),
        Err(error) => {
            let why = error.to_string();
            run.close(Outcome::Error, &why).await?;
            return Err(error);
        }
    };
    if let Some(probe) = &probed {
        notes.extend(probe.generator_bound.iter().cloned());
    }
    let report = assemble(&run, &spec, &objectives, story, samples, timeline, notes, probed);
    let outcome = match (report.status, report.verdict) {
        (Status::Aborted, _) => Outcome::Aborted,
        (_, Verdict::Pass) => Outcome::Passed,
        (_, Verdict::Fail) => Outcome::Failed,
        (_, Verdict::Inconclusive) => Outcome::Inconclusive,
    };
    let message = report
        .reasons
        .first()
        .cloned()
        .unwrap_or_else(|| "every expectation was met".to_owned());
    let record = run.close(outcome, &message).await?;
    Ok(Report {
        ended_at: record.ended_at,
        ..report
    })
}

/// What happened, as far as it went.
#[derive(Default)]
struct Story {
    status: Option<Status>,
    /// Seconds at which the steady state ended and the injection began.
    injected: Option<f64>,
    killed: Vec<Killed>,
    recovery: Recovery,
    /// Ready instances that the service had at the start.
    wanted: u32,
    /// What is wrong before anything was done.
    refused: Option<String>,
}

struct Drill<'a> {
    observer: Observer<'a>,
    run: &'a mut Run,
    spec: &'a Spec,
    objectives: &'a Objectives,
    probe: Option<&'a Probe>,
    timeline: Vec<Moment>,
    notes: Vec<String>,
}

impl Drill<'_> {
    async fn carry_through(&mut self) -> Result<Story, WorkError> {
        let mut story = Story::default();
        if !self.run.record().step.is_empty() {
            self.note("lost", "the worker before this one was lost".to_owned());
            story.status = Some(Status::Lost);
            return Ok(story);
        }
        self.step("steady state").await?;
        let Some(state) = self.watch_until_steady(&mut story).await? else {
            return Ok(story);
        };
        self.step("inject").await?;
        let victims = match self.victims(&state) {
            Ok(victims) => victims,
            Err(why) => {
                story.status = Some(Status::Refused);
                story.refused = Some(why);
                return Ok(story);
            }
        };
        if !self.kill(&mut story, &victims).await? {
            return Ok(story);
        }
        self.step("observe").await?;
        self.observe(&mut story).await?;
        Ok(story)
    }

    /// Watches the service before anything is done to it. `None`: there is no steady state to disturb, or the drill ends.
    async fn watch_until_steady(&mut self, story: &mut Story) -> Result<Option<ServiceState>, WorkError> {
        let mut state = self.observer.sample(self.probe).await;
        let until = tokio::time::Instant::now() + self.spec.steady_for;
        while tokio::time::Instant::now() < until {
            if self.pause(self.spec.sample_every).await? {
                story.status = Some(Status::Aborted);
                return Ok(None);
            }
            state = self.observer.sample(self.probe).await.or(state);
        }
        let Some(state) = state else {
            story.refused = Some("the service could not be read".to_owned());
            story.status = Some(Status::NotSteady);
            return Ok(None);
        };
        let wanted: u32 = state.versions.iter().map(|version| version.replicas).sum();
        story.wanted = wanted;
        let (clients, probe) = self.observer.figures_from(f64::MIN);
        let trouble = if clients.requests + probe.requests == 0 {
            Some("nobody sends requests, so nothing could be observed".to_owned())
        } else {
            let checks = [
                figures::check_objectives("clients", clients, self.objectives),
                figures::check_objectives("probe", probe, self.objectives),
            ]
            .concat();
            let missed = checks.into_iter().find(|check| check.met == Some(false));
            let last = self.observer.samples.last();
            match missed {
                Some(check) => Some(format!(
                    "{} was {} already, {} is wanted",
                    check.name, check.observed, check.expected
                )),
                None if last.is_none_or(|sample| !steady(sample, wanted, self.objectives)) => {
                    Some(format!("{} of {wanted} instances were ready", state.ready().count()))
                }
                None => None,
            }
        };
        if let Some(why) = trouble {
            self.note("not_steady", format!("no steady state: {why}"));
            story.status = Some(Status::NotSteady);
            story.refused = Some(why);
            return Ok(None);
        }
        self.note("steady", format!("steady state: {wanted} instances ready"));
        Ok(Some(state))
    }

    /// The planned victims as they are now, or why they may not be killed.
    fn victims(&self, state: &ServiceState) -> Result<Vec<Instance>, String> {
        let ready = state.ready().count();
        let mut victims = Vec::new();
        for victim in &self.spec.victims {
            let found = state.ready().find(|instance| instance.uid == victim.uid);
            let instance =
                found.ok_or_else(|| format!("{} is not the process any more that was planned for", victim.instance))?;
            victims.push(instance.clone());
        }
        if ready <= victims.len() {
            return Err(format!(
                "killing {} of {ready} ready instances would leave none",
                victims.len()
            ));
        }
        Ok(victims)
    }

    /// Kills, and looks whether it had an effect. `false`: the drill ends.
    async fn kill(&mut self, story: &mut Story, victims: &[Instance]) -> Result<bool, WorkError> {
        for victim in victims {
            match self.run.kill(victim).await {
                Ok(at) => {
                    let at_seconds = self.observer.seconds(at);
                    story.injected.get_or_insert(at_seconds);
                    story.killed.push(Killed {
                        instance: victim.id.clone(),
                        uid: victim.uid.clone(),
                        version: victim.version.clone(),
                        at_seconds,
                        gone_seconds: None,
                    });
                    self.moment(at_seconds, "killed", format!("{} killed", victim.id));
                }
                Err(RunError::Platform(PlatformError::Gone { instance, .. })) => {
                    self.note("already_gone", format!("{instance} was gone already"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let until = tokio::time::Instant::now() + EFFECT_LIMIT;
        while story.killed.iter().any(|killed| killed.gone_seconds.is_none()) && tokio::time::Instant::now() < until {
            let state = self.observer.sample(self.probe).await;
            let now = self.observer.samples.last().map_or(0.0, |sample| sample.at_seconds);
            if let Some(state) = state {
                for killed in story.killed.iter_mut().filter(|killed| killed.gone_seconds.is_none()) {
                    if state
                        .instances
                        .iter()
                        .all(|instance| instance.uid != killed.uid || !instance.ready)
                    {
                        killed.gone_seconds = Some(now);
                    }
                }
            }
            if story.killed.iter().any(|killed| killed.gone_seconds.is_none())
                && self.pause(self.spec.sample_every / CLOSER).await?
            {
                story.status = Some(Status::Aborted);
                return Ok(false);
            }
        }
        if story.killed.is_empty() || story.killed.iter().any(|killed| killed.gone_seconds.is_none()) {
            self.note("not_effective", "the kill had no effect that could be seen".to_owned());
            story.status = Some(Status::NotEffective);
            return Ok(false);
        }
        let effect = story
            .killed
            .iter()
            .filter_map(|killed| killed.gone_seconds)
            .fold(f64::MAX, f64::min);
        story.recovery.effect_seconds = Some(effect);
        self.moment(effect, "effective", "the instance is gone".to_owned());
        Ok(true)
    }

    /// Watches for the planned time, and then until the service is whole again or the recovery window is over.
    async fn observe(&mut self, story: &mut Story) -> Result<(), WorkError> {
        let begin = tokio::time::Instant::now();
        // Before the loss was seen, a sample can still show the service whole: it proves nothing.
        let seen = story
            .killed
            .iter()
            .filter_map(|killed| killed.gone_seconds)
            .fold(0.0, f64::max);
        loop {
            if story.recovery.ready_back_seconds.is_none() {
                let back = self.observer.samples.last().filter(|sample| {
                    sample.at_seconds >= seen && sample.ready.is_some_and(|ready| ready >= story.wanted)
                });
                if let Some(at) = back.map(|sample| sample.at_seconds) {
                    story.recovery.ready_back_seconds = Some(at);
                    self.moment(at, "ready_again", format!("{} instances ready again", story.wanted));
                }
            }
            let recovered = recovered_at(&self.observer.samples, seen, story.wanted, HOLD, self.objectives)
                .filter(|_| story.recovery.ready_back_seconds.is_some());
            let spent = begin.elapsed();
            let window = self.spec.duration.max(self.spec.recovery_within);
            if spent >= self.spec.duration && (recovered.is_some() || spent >= window) {
                story.recovery.recovered_seconds = recovered;
                break;
            }
            // The return is what the drill is about: it is looked at closely.
            let back = story.recovery.ready_back_seconds.is_some();
            let every = if back {
                self.spec.sample_every
            } else {
                self.spec.sample_every / CLOSER
            };
            if self.pause(every).await? {
                story.status = Some(Status::Aborted);
                break;
            }
            self.observer.sample(self.probe).await;
        }
        match story.recovery.recovered_seconds {
            Some(at) => self.moment(at, "recovered", "in steady state again".to_owned()),
            None => self.note("not_recovered", "not in steady state again".to_owned()),
        }
        Ok(())
    }

    /// Waits for the next sample; `true` when somebody asked the drill to end.
    async fn pause(&self, every: Duration) -> Result<bool, WorkError> {
        let stopped = self.run.stopped();
        tokio::select! {
            control = stopped => match control {
                Control::Fenced => Err(WorkError::Run(RunError::Fenced { run: self.run.id().to_owned() })),
                _ => Ok(true),
            },
            () = tokio::time::sleep(every) => Ok(false),
        }
    }

    async fn step(&mut self, step: &str) -> Result<(), WorkError> {
        Ok(self.run.step(step).await?)
    }

    fn moment(&mut self, at_seconds: f64, kind: &str, text: String) {
        // The journal is for whoever watches; the report has its own list.
        let _ = self.run.event(kind, json!({ "at_seconds": at_seconds, "text": text }));
        self.timeline.push(Moment {
            at_seconds,
            kind: kind.to_owned(),
            text,
        });
    }

    fn note(&mut self, kind: &str, text: String) {
        let at = self.observer.seconds(self.run.platform().now());
        self.moment(at, kind, text);
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one report, gathered once")]
fn assemble(
    run: &Run,
    spec: &Spec,
    objectives: &Objectives,
    story: Story,
    samples: Vec<crate::observe::Sample>,
    mut timeline: Vec<Moment>,
    notes: Vec<String>,
    probe: Option<ProbeReport>,
) -> Report {
    let record = run.record();
    let injected = story.injected;
    let split = |after: bool| -> (Figures, Figures) {
        let at = injected.unwrap_or(f64::MAX);
        samples
            .iter()
            .filter(|sample| (sample.at_seconds > at) == after)
            .fold(Default::default(), |(c, p): (Figures, Figures), sample| {
                (c.and(sample.clients), p.and(sample.probe))
            })
    };
    let (steady_clients, steady_probe) = split(false);
    let (clients, probed) = split(true);
    let status = story.status.unwrap_or(Status::Completed);
    let recovery = Recovery {
        resolution_seconds: samples
            .iter()
            .find(|sample| Some(sample.at_seconds) == story.recovery.recovered_seconds)
            .map_or(spec.sample_every.as_secs_f64(), |sample| sample.interval_seconds),
        time_to_recovery_seconds: match (story.recovery.recovered_seconds, injected) {
            (Some(recovered), Some(injected)) => Some((recovered - injected).max(0.0)),
            _ => None,
        },
        ..story.recovery
    };
    let mut checks = Vec::new();
    if status == Status::Completed {
        checks.extend(figures::check_objectives("clients", clients, objectives));
        checks.extend(figures::check_objectives("probe", probed, objectives));
        if clients.requests + probed.requests == 0 {
            checks.push(Check {
                name: "requests".to_owned(),
                expected: "some".to_owned(),
                observed: "none".to_owned(),
                met: None,
            });
        }
        let within = spec.duration.max(spec.recovery_within).as_secs_f64();
        checks.push(Check {
            name: "recovery".to_owned(),
            expected: format!("within {}", figures::duration(within)),
            observed: recovery
                .time_to_recovery_seconds
                .map_or_else(|| "not recovered".to_owned(), figures::duration),
            met: Some(
                recovery
                    .time_to_recovery_seconds
                    .is_some_and(|seconds| seconds <= within),
            ),
        });
    }
    let verdict = match status {
        Status::Completed => figures::verdict(&checks),
        _ => Verdict::Inconclusive,
    };
    let mut reasons: Vec<String> = match status {
        Status::Completed => checks
            .iter()
            .filter(|check| check.met != Some(true))
            .map(|check| format!("{}: {}, expected {}", check.name, check.observed, check.expected))
            .collect(),
        Status::Aborted => vec!["it was aborted".to_owned()],
        Status::NotEffective => vec!["the kill had no effect that could be seen".to_owned()],
        Status::Lost => vec!["its worker was lost, and with it what it had seen".to_owned()],
        Status::NotSteady | Status::Refused => story.refused.into_iter().collect(),
    };
    reasons.extend(notes);
    timeline.sort_by(|a, b| a.at_seconds.total_cmp(&b.at_seconds));
    let end = samples.last().map_or(0.0, |sample| sample.at_seconds);
    Report {
        schema: crate::report::SCHEMA.to_owned(),
        run: record.id.clone(),
        kind: crate::Kind::PodKill,
        service: spec.service.clone(),
        environment: record.environment.clone(),
        actor: record.actor.clone(),
        reason: record.reason.clone(),
        status,
        verdict,
        reasons,
        checks,
        killed: story.killed,
        ready_before: story.wanted,
        steady_clients,
        steady_probe,
        clients,
        probe_figures: probed,
        probe,
        injected_seconds: injected,
        recovery,
        timeline,
        samples,
        started_at: record.started_at,
        ended_at: None::<Timestamp>,
        elapsed_seconds: end,
    }
}
