//! The course that every drill takes, whatever it breaks: steady state, undo noted, injected, seen to have an effect,
//! observed, undone, recovered, reported. What is broken, and what is expected of that, is the kind's: see [`Fault`].

mod alerts;
mod assemble;
mod plan;

pub use assemble::Seen;
pub(crate) use plan::seconds;
pub use plan::{Ground, Mutation, Other, Plan, PlanError, Spec, Terms, also_lock, beside, dependants, survey};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use opsctl_platform::run::{Control, JournalError, Outcome, Run, RunError};
use opsctl_platform::{PlatformError, ServiceState};
use serde_json::json;

use crate::Kind;
use crate::condition::{ConditionReport, Conditions};
use crate::expectation::{AlertReport, LONGEST, Servers, Unexpected, Watch, proved};
use crate::figures::{self, Check, Verdict};
use crate::observe::{Observer, recovered_at, steady};
use crate::probe::Probe;
use crate::report::{Moment, Recovery, Report, Status};

/// Samples in a row that must be in steady state before the service counts as whole.
const HOLD: usize = 4;
/// How much more often it is looked while the effect and the return are waited for.
const CLOSER: u32 = 10;
/// How long failing undo steps are tried again, and between two tries.
const UNDO_LIMIT: Duration = Duration::from_secs(30);
const UNDO_PAUSE: Duration = Duration::from_millis(250);

/// What a kind of drill does; the rest of its course is the same for all.
#[async_trait]
pub trait Fault: Send {
    /// The kind.
    fn kind(&self) -> Kind;

    /// What had no effect, when it has none: `the kill`.
    fn noun(&self) -> &'static str;

    /// Prepares what it needs to see its effect, before the steady state.
    fn prepare(&mut self, _course: &mut Course<'_>) {}

    /// Looks once more, right before it is made, whether it may be. An error says in words why not.
    async fn admit(&mut self, course: &mut Course<'_>, state: &ServiceState) -> Result<(), String>;

    /// Makes it, by changes of the run that note their undo first. Gives when it was made, in seconds of the course; none
    /// when there was nothing left to do it to.
    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError>;

    /// Whether it can be seen by now; asked after each sample. `state` is the service as it is, if it could be read.
    async fn effect(&mut self, course: &mut Course<'_>, state: Option<&ServiceState>) -> Option<Effect>;

    /// In words, that it has no effect; or none `any_longer`, though it was not undone.
    fn no_effect(&self, any_longer: bool) -> String {
        no_effect(self.noun(), any_longer)
    }

    /// How long it may take to show.
    fn effect_within(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// Whether it stays until it is undone. A blow does not: there is nothing to undo, and the service is watched for as
    /// long as it takes.
    fn lasts(&self) -> bool {
        true
    }

    /// Keeps up what would end by itself; called with each sample while it is on. `false`: it has ended, or will never show.
    async fn renew(&mut self, _course: &mut Course<'_>) -> Result<bool, WorkError> {
        Ok(true)
    }

    /// What is expected beyond the return to steady state.
    fn checks(&self, seen: &Seen<'_>) -> Vec<Check>;

    /// Adds what only this kind knows.
    fn tell(&self, _report: &mut Report) {}
}

pub(crate) fn no_effect(noun: &str, any_longer: bool) -> String {
    if any_longer {
        format!("{noun} ended before its time")
    } else {
        format!("{noun} had no effect that could be seen")
    }
}

/// When a fault was seen, in seconds of the course.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Effect {
    /// When it first showed.
    pub first: f64,
    /// When all of it showed: before that, a sample that looks whole proves nothing.
    pub whole: f64,
}

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
    /// A condition of the steady state cannot be asked.
    #[error("a condition of the steady state cannot be asked: {why}")]
    Condition {
        /// Why.
        why: String,
    },
    /// Alerts are expected, and nobody can be asked about them.
    #[error("the alerts that are expected cannot be watched: {why}")]
    Alerts {
        /// Why.
        why: String,
    },
    /// The run is no drill that is known here.
    #[error("run `{run}` is a `{kind}`, which is no drill")]
    NoDrill {
        /// The run.
        run: String,
        /// What it is.
        kind: String,
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

/// A drill under way.
pub struct Course<'a> {
    /// Its run, through which everything is changed.
    pub run: &'a mut Run,
    /// What was asked for.
    pub terms: &'a Terms,
    /// The service that is drilled.
    pub subject: Observer,
    /// Services that are watched beside it.
    pub others: Vec<Observer>,
    conditions: Conditions,
    /// Watches the alerts that are expected, if any are.
    alerts: Option<Watch>,
    story: Story,
}

/// What happened, as far as it went. Times are seconds of the course.
#[derive(Default)]
struct Story {
    status: Option<Status>,
    injected: Option<f64>,
    /// When the undo was done.
    undone: Option<f64>,
    recovery: Recovery,
    /// What is wrong before anything was done.
    refused: Option<String>,
    timeline: Vec<Moment>,
    notes: Vec<String>,
    /// How the conditions beyond the service's own requests did.
    conditions: Vec<ConditionReport>,
    /// When the fault was over, as far as alerts are concerned.
    alerts_over: Option<f64>,
    alerts: Vec<AlertReport>,
    unexpected_alerts: Vec<Unexpected>,
}

/// What a drill is carried through with, beside its run.
#[derive(Default)]
pub struct With {
    /// How long the watchdog may take to come up; it is not waited for without.
    pub await_watchdog: Option<Duration>,
    /// Who is asked about expected alerts, or why nobody can be.
    pub servers: Option<Result<Servers, String>>,
}

/// Carries a drill through and closes its run. A run whose worker was lost is not gone on with: what it measured is gone.
/// What it had changed is undone, and it is closed.
pub async fn work(mut run: Run, terms: Terms, mut fault: impl Fault, with: With) -> Result<Report, WorkError> {
    if let Some(limit) = with.await_watchdog {
        run.await_watchdog(limit).await?;
    }
    run.announce().await;
    let platform = Arc::clone(run.platform());
    let mut story = Story::default();
    let mut observers = Vec::new();
    for (service, probe) in terms.watched() {
        let objectives = platform.service(service).await?.objectives;
        let mut observer = Observer::new(Arc::clone(&platform), service, objectives);
        if let Some(spec) = probe {
            let slow = observer.objectives.latency_seconds;
            let slow = slow.and_then(|s| Duration::try_from_secs_f64(s).ok());
            match Probe::start(spec, run.id(), slow) {
                Ok(probe) => observer.probe = Some(probe),
                Err(error) => story
                    .notes
                    .push(format!("the probe of `{service}` could not be started: {error}")),
            }
        }
        observers.push(observer);
    }
    let subject = observers.remove(0);
    let conditions = Conditions::start(
        &platform,
        &terms.service,
        &terms.conditions,
        terms.prometheus.as_deref(),
    );
    let conditions = match conditions {
        Ok(conditions) => conditions,
        Err(why) => {
            run.close(Outcome::Error, &format!("a condition cannot be asked: {why}"))
                .await?;
            return Err(WorkError::Condition { why });
        }
    };
    let alerts = match (terms.expected.is_empty(), with.servers) {
        (true, _) => None,
        (false, Some(Ok(servers))) => Some(Watch::start(servers, &platform, &terms.expected)),
        (false, servers) => {
            let unknown = || "no Prometheus is known".to_owned();
            let why = servers.and_then(Result::err).unwrap_or_else(unknown);
            run.close(Outcome::Error, &format!("expected alerts cannot be watched: {why}"))
                .await?;
            return Err(WorkError::Alerts { why });
        }
    };
    let mut course = Course {
        run: &mut run,
        terms: &terms,
        subject,
        others: observers,
        conditions,
        alerts,
        story,
    };
    let mut carried = course.carry_through(&mut fault).await;
    if !matches!(&carried, Err(WorkError::Run(RunError::Fenced { .. }))) {
        let undone = course.undo_rest().await;
        carried = carried.and(undone);
    }
    course.conclude_alerts();
    let Course {
        mut subject,
        mut others,
        conditions,
        mut story,
        ..
    } = course;
    story.conditions = conditions.reports();
    let mut reports = Vec::new();
    for observer in std::iter::once(&mut subject).chain(&mut others) {
        reports.push(match observer.probe.take() {
            Some(probe) => probe.stop().await,
            None => None,
        });
    }
    match carried {
        Ok(()) => {}
        // Whoever fenced us off closes the run.
        Err(error @ WorkError::Run(RunError::Fenced { .. })) => return Err(error),
        Err(error) => {
            // What could not be undone is left to the watchdog, which tries for longer than a worker may.
            if run.record().undo.iter().all(opsctl_platform::run::UndoStep::settled) {
                run.close(Outcome::Error, &error.to_string()).await?;
            }
            return Err(error);
        }
    }
    let mut report = assemble::report(&run, &terms, &fault, story, subject, others, reports);
    fault.tell(&mut report);
    if !report.alerts.is_empty() {
        run.set_stats(proved::stats(&report.alerts)).await?;
    }
    let outcome = match (report.status, report.verdict) {
        (Status::Aborted, _) => Outcome::Aborted,
        (Status::Refused, _) => Outcome::Refused,
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

impl Course<'_> {
    async fn carry_through(&mut self, fault: &mut impl Fault) -> Result<(), WorkError> {
        if !self.run.record().step.is_empty() {
            self.note("lost", "the worker before this one was lost".to_owned());
            self.story.status = Some(Status::Lost);
            return Ok(());
        }
        fault.prepare(self);
        self.step("steady state").await?;
        let Some(state) = self.watch_until_steady().await? else {
            return Ok(());
        };
        self.step("inject").await?;
        if let Err(why) = fault.admit(self, &state).await {
            self.story.status = Some(Status::Refused);
            self.story.refused = Some(why);
            return Ok(());
        }
        if let Some(alerts) = &self.alerts {
            alerts.judge().arm();
        }
        self.story.injected = fault.inject(self).await?;
        if self.story.status.is_some() {
            return Ok(());
        }
        let Some(effect) = self.confirm(fault).await? else {
            return Ok(());
        };
        self.step("observe").await?;
        if !fault.lasts() {
            let window = self.terms.duration.max(self.terms.recovery_within);
            self.recover(self.terms.duration, window, effect.whole).await?;
            return self.alerts_end(effect).await;
        }
        if !self.keep_up(fault, effect).await? {
            return Ok(());
        }
        self.step("undo").await?;
        self.undo_rest().await?;
        self.step("recovery").await?;
        let from = self.story.undone.unwrap_or(effect.whole);
        self.recover(Duration::ZERO, self.terms.recovery_within, from).await?;
        self.alerts_end(effect).await
    }

    /// Watches before anything is done. `None`: there is no steady state to disturb, or the drill ends.
    async fn watch_until_steady(&mut self) -> Result<Option<ServiceState>, WorkError> {
        let mut state = self.sample().await;
        let until = tokio::time::Instant::now() + self.terms.steady_for;
        while tokio::time::Instant::now() < until {
            if self.pause(self.terms.sample_every).await? {
                return Ok(None);
            }
            state = self.sample().await.or(state);
        }
        let Some(state) = state else {
            self.refuse_unsteady("the service could not be read".to_owned());
            return Ok(None);
        };
        self.subject.wanted = state.versions.iter().map(|version| version.replicas).sum();
        self.subject.restarts_before = self.subject.restarts;
        for other in &mut self.others {
            other.take_as_whole();
        }
        let early = match &self.alerts {
            Some(alerts) => alerts.trouble().await,
            None => None,
        };
        let (clients, probe) = self.subject.figures_from(f64::MIN);
        let wanted = self.subject.wanted;
        let objectives = &self.subject.objectives;
        let trouble = if clients.requests + probe.requests == 0 {
            Some("nobody sends requests, so nothing could be observed".to_owned())
        } else if let Some(why) = self.conditions.trouble().or(early) {
            Some(why)
        } else {
            let checks = [
                figures::check_objectives("clients", clients, objectives),
                figures::check_objectives("probe", probe, objectives),
            ]
            .concat();
            let missed = checks.into_iter().find(|check| check.met == Some(false));
            let last = self.subject.samples.last();
            match missed {
                Some(check) => Some(format!(
                    "{} was {} already, {} is wanted",
                    check.name, check.observed, check.expected
                )),
                None if last.is_none_or(|sample| !steady(sample, wanted, objectives)) => {
                    Some(format!("{} of {wanted} instances were ready", state.ready().count()))
                }
                None => None,
            }
        };
        if let Some(why) = trouble {
            self.refuse_unsteady(why);
            return Ok(None);
        }
        self.note("steady", format!("steady state: {wanted} instances ready"));
        Ok(Some(state))
    }

    fn refuse_unsteady(&mut self, why: String) {
        self.note("not_steady", format!("no steady state: {why}"));
        self.story.status = Some(Status::NotSteady);
        self.story.refused = Some(why);
    }

    /// Waits until the fault shows. `None`: it does not, or the drill ends.
    async fn confirm(&mut self, fault: &mut impl Fault) -> Result<Option<Effect>, WorkError> {
        let until = tokio::time::Instant::now() + fault.effect_within();
        let mut effect = None;
        while effect.is_none() && self.story.injected.is_some() && tokio::time::Instant::now() < until {
            let state = self.subject.sample().await;
            for other in &mut self.others {
                other.sample().await;
            }
            effect = fault.effect(self, state.as_ref()).await;
            if effect.is_none() && self.pause(self.terms.sample_every / CLOSER).await? {
                return Ok(None);
            }
            if effect.is_none() && !fault.renew(self).await? {
                break;
            }
        }
        match effect {
            Some(effect) => self.story.recovery.effect_seconds = Some(effect.first),
            None => self.not_effective(fault.no_effect(false)),
        }
        Ok(effect)
    }

    fn not_effective(&mut self, why: String) {
        self.note("not_effective", why.clone());
        self.story.status = Some(Status::NotEffective);
        self.story.refused = Some(why);
    }

    /// Watches for the planned time while the fault is on, and for as long as alerts that are expected need it. `false`: the
    /// drill ends.
    async fn keep_up(&mut self, fault: &mut impl Fault, effect: Effect) -> Result<bool, WorkError> {
        let since = tokio::time::Instant::now();
        let longest = self.terms.duration.max(LONGEST);
        while since.elapsed() < self.terms.duration || (since.elapsed() < longest && self.alerts_wait(effect)) {
            if !fault.renew(self).await? {
                self.not_effective(fault.no_effect(true));
                return Ok(false);
            }
            if self.pause(self.terms.sample_every).await? {
                return Ok(false);
            }
            self.sample().await;
        }
        Ok(true)
    }

    /// Undoes what is not undone, and tries again what failed, for a while. What is left then is an error, unless it is a
    /// conflict, which no try resolves.
    async fn undo_rest(&mut self) -> Result<(), WorkError> {
        let rest = |run: &Run| run.record().undo.iter().any(|step| !step.settled());
        if !rest(self.run) {
            return Ok(());
        }
        let until = tokio::time::Instant::now() + UNDO_LIMIT;
        loop {
            let report = self.run.undo().await?;
            let failed = report.failures().next().map(|step| step.field.clone());
            match failed {
                None => {
                    for step in report.conflicts() {
                        self.story.notes.push(format!(
                            "{} was changed by somebody else; it was left alone",
                            step.field
                        ));
                    }
                    break;
                }
                Some(field) if tokio::time::Instant::now() >= until => {
                    let what = format!("undoing `{field}`");
                    return Err(PlatformError::TimedOut {
                        what,
                        limit: UNDO_LIMIT,
                    }
                    .into());
                }
                Some(_) => tokio::time::sleep(UNDO_PAUSE).await,
            }
        }
        let at = self.subject.seconds(self.run.platform().now());
        self.story.undone = Some(at);
        self.moment(at, "undo", "undone".to_owned());
        Ok(())
    }

    /// Watches for at least `least`, and then until the service is whole again, for `window` at most. Samples before `from`
    /// prove nothing.
    async fn recover(&mut self, least: Duration, window: Duration, from: f64) -> Result<(), WorkError> {
        let begin = tokio::time::Instant::now();
        let since = self.run.platform().now();
        let wanted = self.subject.wanted;
        loop {
            if self.story.recovery.ready_back_seconds.is_none() {
                let last = self.subject.samples.last();
                let back = last
                    .filter(|sample| sample.at_seconds >= from && sample.ready.is_some_and(|ready| ready >= wanted));
                if let Some(at) = back.map(|sample| sample.at_seconds) {
                    self.story.recovery.ready_back_seconds = Some(at);
                    self.moment(at, "ready_again", format!("{wanted} instances ready again"));
                }
            }
            let back = self.story.recovery.ready_back_seconds.is_some();
            let recovered = recovered_at(&self.subject.samples, from, wanted, HOLD, &self.subject.objectives)
                .filter(|_| self.conditions.hold_since(since))
                .filter(|_| back && self.others.iter().all(|other| other.recovered_at(from, HOLD).is_some()));
            let spent = begin.elapsed();
            if spent >= least && (recovered.is_some() || spent >= window) {
                self.story.recovery.recovered_seconds = recovered;
                break;
            }
            // The return is what the drill is about: it is looked at closely.
            let every = if back {
                self.terms.sample_every
            } else {
                self.terms.sample_every / CLOSER
            };
            if self.pause(every).await? {
                break;
            }
            if back {
                self.sample().await;
            } else {
                self.subject.sample().await;
            }
        }
        match self.story.recovery.recovered_seconds {
            Some(at) => self.moment(at, "recovered", "in steady state again".to_owned()),
            None => self.note("not_recovered", "not in steady state again".to_owned()),
        }
        Ok(())
    }

    /// Waits while everything is watched; `true` when the drill ends.
    pub async fn wait(&mut self, time: Duration) -> Result<bool, WorkError> {
        let until = tokio::time::Instant::now() + time;
        while tokio::time::Instant::now() < until {
            if self.pause(self.terms.sample_every.min(time)).await? {
                return Ok(true);
            }
            self.sample().await;
        }
        Ok(false)
    }

    /// The observer of a service that is watched.
    pub fn observer(&self, service: &str) -> &Observer {
        let mut others = self.others.iter();
        others.find(|other| other.service == service).unwrap_or(&self.subject)
    }

    /// Samples every service that is watched; gives the drilled one as it is.
    async fn sample(&mut self) -> Option<ServiceState> {
        let state = self.subject.sample().await;
        for other in &mut self.others {
            other.sample().await;
        }
        self.tell_alerts();
        state
    }

    /// Waits for the next sample; `true` when somebody asked the drill to end, which is then its status.
    async fn pause(&mut self, every: Duration) -> Result<bool, WorkError> {
        let stopped = self.run.stopped();
        tokio::select! {
            control = stopped => {
                if control == Control::Fenced {
                    return Err(WorkError::Run(RunError::Fenced { run: self.run.id().to_owned() }));
                }
                self.story.status = Some(Status::Aborted);
                Ok(true)
            }
            () = tokio::time::sleep(every) => Ok(false),
        }
    }

    async fn step(&mut self, step: &str) -> Result<(), WorkError> {
        Ok(self.run.step(step).await?)
    }

    /// Notes something that happened, for whoever watches and for the report.
    pub fn moment(&mut self, at_seconds: f64, kind: &str, text: String) {
        // The journal is for whoever watches; the report has its own list.
        let _ = self.run.event(kind, json!({ "at_seconds": at_seconds, "text": text }));
        self.story.timeline.push(Moment {
            at_seconds,
            kind: kind.to_owned(),
            text,
        });
    }

    /// The platform does not allow it: the drill ends as refused, after undoing what was done.
    pub fn refuse(&mut self, why: String) {
        self.note("refused", why.clone());
        self.story.status = Some(Status::Refused);
        self.story.refused = Some(why);
    }

    /// Notes something that happens now.
    pub fn note(&mut self, kind: &str, text: String) {
        let at = self.now();
        self.moment(at, kind, text);
    }

    /// Seconds of the course.
    pub fn now(&self) -> f64 {
        self.subject.seconds(self.run.platform().now())
    }
}
