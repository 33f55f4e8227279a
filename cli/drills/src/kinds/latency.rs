//! `latency`: slows the answers of a service, or of one that it depends on, and watches who fails because of it. Callers may
//! become slower; they must not fail, fall, or send everything again.
//!
//! The delay is a fault with a time to live ([`Field::fault`]): the worker keeps it up, and it ends where it acts when
//! nobody does.

use std::time::Duration;

use async_trait::async_trait;
use opsctl_platform::{Fault as Played, FaultKind, Field, Platform, ServiceState};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::keep::Keep;
use crate::Kind;
use crate::course::{
    self, Course, Effect, Fault, Mutation, PlanError, Seen, Terms, WorkError, also_lock, beside, dependants, survey,
};
use crate::figures::{self, Check};
use crate::report::Stretch;

/// Slow answers that must be seen before the delay counts as real.
const PROOF: u64 = 3;

/// What this kind is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// The dependency whose answers are slowed; none: those of the service itself.
    pub to: Option<String>,
    /// Milliseconds that every part of an answer comes later.
    pub delay_ms: u64,
    /// Largest deviation from it, either way.
    pub jitter_ms: u64,
    /// Share of the requests that it hits, above 0 and up to 100.
    pub percent: f64,
    /// How old a connection of a caller may be: one that was made before the delay may not meet it.
    pub pool_age_seconds: f64,
    /// Whether callers must keep their latency objective, too.
    pub unharmed: bool,
}

impl Latency {
    /// Where the delay is.
    fn at<'a>(&'a self, terms: &'a Terms) -> &'a str {
        self.to.as_deref().unwrap_or(&terms.service)
    }

    /// The delay as it is played for `run`.
    fn played(&self, run: &str) -> Played {
        Played {
            holder: run.to_owned(),
            kind: FaultKind::Latency {
                ms: self.delay_ms,
                jitter_ms: self.jitter_ms,
            },
            percent: self.percent,
            sessions_of: None,
        }
    }

    /// What an answer that was delayed takes at the least, and others hardly.
    fn mark(&self) -> Duration {
        Duration::from_millis(self.delay_ms.saturating_sub(self.jitter_ms).max(self.delay_ms / 2))
    }
}

/// What would be done.
pub type Plan = course::Plan<Latency>;

/// Finds who is watched and checks the guards.
pub async fn plan(platform: &dyn Platform, mut terms: Terms, latency: Latency) -> Result<Plan, PlanError> {
    let mut ground = survey(platform, &mut terms).await?;
    ground.whole()?;
    if latency.delay_ms == 0 || latency.jitter_ms > latency.delay_ms || latency.delay_ms > 600_000 {
        return Err(PlanError::Unfit {
            why: "the delay has to be between 1 ms and ten minutes, and the jitter not larger".to_owned(),
        });
    }
    if !(latency.percent > 0.0 && latency.percent <= 100.0) {
        return Err(PlanError::Unfit {
            why: format!("{} % of the requests cannot be hit", latency.percent),
        });
    }
    let at = latency.at(&terms).to_owned();
    if at != terms.service && !ground.state.depends_on.contains(&at) {
        return Err(PlanError::NoDependency {
            service: terms.service,
            dependency: at,
        });
    }
    if at != terms.service {
        also_lock(platform, &at, &mut terms).await?;
    }
    super::keep::free(platform, &Field::fault(&format!("service/{at}"))).await?;
    terms.others = dependants(platform, &at, &terms).await?;
    if at != terms.service {
        terms.others.insert(0, beside(platform, &at, &terms).await?);
        if terms.others.len() > 1 {
            let callers: Vec<&str> = terms.others[1..].iter().map(|other| other.service.as_str()).collect();
            let told = format!("`{at}` is slow for all its callers, also for {}", callers.join(", "));
            ground.notes.push(told);
        }
    }
    let probed = terms.watched().any(|(service, probe)| service == at && probe.is_some());
    if !probed {
        return Err(PlanError::Unseen {
            service: at,
            why: "the delay is proved by its probe, and none is sent".to_owned(),
        });
    }
    if latency.pool_age_seconds > 0.0 {
        ground.notes.push(format!(
            "connections made before go past the delay: waits up to {} until they are replaced",
            figures::duration(latency.pool_age_seconds)
        ));
    }
    let ready = ground.ready;
    let field = Field::fault(&format!("service/{at}"));
    let fault = Mutation::set(field, latency.played("this run").value(), None);
    Ok(Plan::new(Kind::Latency, terms, latency, ground, ready).with([fault]))
}

/// The delay, kept up.
pub(super) struct Delay {
    latency: Latency,
    at: String,
    field: Field,
    keep: Keep,
    /// Marked answers and all answers of the probe, when the delay began.
    before: (u64, u64),
}

impl Delay {
    pub(super) fn new(latency: Latency, terms: &Terms) -> Self {
        let at = latency.at(terms).to_owned();
        Self {
            field: Field::fault(&format!("service/{at}")),
            keep: Keep::default(),
            at,
            latency,
            before: (0, 0),
        }
    }

    /// Marked answers and all answers of the probe by now.
    fn marked(&self, course: &Course<'_>) -> (u64, u64) {
        let probe = course.observer(&self.at).probe.as_ref();
        probe.map_or((0, 0), |probe| (probe.marked(), probe.figures().requests))
    }

    fn others_than_slowed<'s>(&self, seen: &'s Seen<'_>) -> impl Iterator<Item = &'s crate::report::Bystander> {
        let at = self.at.clone();
        seen.others.iter().filter(move |other| other.service != at)
    }
}

#[async_trait]
impl Fault for Delay {
    fn kind(&self) -> Kind {
        Kind::Latency
    }

    fn noun(&self) -> &'static str {
        "the delay"
    }

    fn prepare(&mut self, course: &mut Course<'_>) {
        if let Some(probe) = &course.observer(&self.at).probe {
            probe.mark(self.latency.mark());
        }
    }

    async fn admit(&mut self, course: &mut Course<'_>, _state: &ServiceState) -> Result<(), String> {
        let fault = self.latency.played(course.run.id());
        super::keep::still_free(course, &self.field, &fault.value()).await?;
        self.before = self.marked(course);
        let (slow, all) = self.before;
        if slow * 2 > all {
            return Err(format!(
                "{slow} of {all} answers of `{}` took as long as the delay before it: it could not be told apart",
                self.at
            ));
        }
        Ok(())
    }

    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError> {
        let fault = self.latency.played(course.run.id());
        let at = course.now();
        course.run.change(&self.field, Some(fault.value())).await?;
        self.keep = Keep::since(Instant::now());
        let slow = figures::duration(self.latency.delay_ms as f64 / 1000.0);
        course.moment(at, "injected", format!("answers of `{}` come {slow} later", self.at));
        Ok(Some(at))
    }

    /// A few probes have to meet it, and connections to be replaced.
    fn effect_within(&self) -> Duration {
        let probes = if self.latency.percent < 50.0 { 60 } else { 10 };
        Duration::from_secs(probes)
            + Duration::from_millis(self.latency.delay_ms + self.latency.jitter_ms)
            + Duration::try_from_secs_f64(self.latency.pool_age_seconds).unwrap_or_default()
    }

    async fn effect(&mut self, course: &mut Course<'_>, _state: Option<&ServiceState>) -> Option<Effect> {
        let (slow_before, all_before) = self.before;
        let (slow, all) = self.marked(course);
        let (slow, all) = (slow - slow_before, all - all_before);
        // More than twice as often as without it.
        let ratio = slow_before as f64 / all_before.max(1) as f64;
        if slow < PROOF || (slow as f64) <= 2.0 * ratio * all as f64 {
            return None;
        }
        let now = course.now();
        course.moment(
            now,
            "effective",
            format!("{slow} of {all} answers to the probe are slow"),
        );
        Some(Effect { first: now, whole: now })
    }

    async fn renew(&mut self, course: &mut Course<'_>) -> Result<bool, WorkError> {
        self.keep.up(course.run, &self.field).await
    }

    fn checks(&self, seen: &Seen<'_>) -> Vec<Check> {
        let slowed_itself = self.latency.to.is_none();
        let mut checks = Vec::new();
        let during = seen.during;
        let objectives = seen.objectives;
        for (who, figures) in [("clients", during.clients), ("probe", during.probe)] {
            if slowed_itself || !self.latency.unharmed {
                checks.extend(figures::check_availability(who, figures, objectives));
            } else {
                checks.extend(figures::check_objectives(who, figures, objectives));
            }
        }
        for other in self.others_than_slowed(seen) {
            for (who, figures) in [("clients", other.during.clients), ("probe", other.during.probe)] {
                let who = format!("{who} of {}", other.service);
                checks.extend(figures::check_availability(&who, figures, &other.objectives));
            }
        }
        let slowed: Option<(Stretch, Stretch)> = if slowed_itself {
            Some((seen.before, seen.during))
        } else {
            let mut others = seen.others.iter();
            let other = others.find(|other| other.service == self.at);
            other.map(|other| (other.before, other.during))
        };
        checks.extend(slowed.and_then(|(before, during)| seen.no_storm(&self.at, before, during)));
        checks.extend(seen.others_stand(false));
        checks
    }
}
