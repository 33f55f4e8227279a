//! `service-down`: takes a whole service away for a while and watches those that depend on it: they may answer less well,
//! but they must stand, and all must be whole soon after it is back.
//!
//! The service is held ([`Field::hold`]): its instances are stopped and not started again, and requests are refused at
//! once. Taking the hold away brings back as many instances as there were; on Kubernetes an autoscaler rests while there
//! are none and goes on from there.

use async_trait::async_trait;
use opsctl_platform::{Field, Hold, Platform, ServiceState};
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::course::{self, Course, Effect, Fault, Mutation, PlanError, Seen, Terms, WorkError, dependants, survey};
use crate::figures::Check;

/// What `Retry-After` says to those who are refused.
const RETRY_AFTER_SECONDS: u32 = 5;

/// What this kind is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// Whether the services that depend on it must keep their objectives meanwhile; otherwise they must only stand.
    pub unharmed: bool,
}

/// What would be done.
pub type Plan = course::Plan<Down>;

/// Finds the services that depend on it and checks the guards.
pub async fn plan(platform: &dyn Platform, mut terms: Terms, down: Down) -> Result<Plan, PlanError> {
    let mut ground = survey(platform, &mut terms).await?;
    if ground.ready == 0 {
        return Err(PlanError::NotReady {
            service: terms.service,
            ready: 0,
            desired: ground.state.replicas,
        });
    }
    ground.whole()?;
    terms.others = dependants(platform, &terms.service, &terms).await?;
    if terms.others.is_empty() {
        ground.notes.push(format!(
            "no service depends on `{}`: only its return is judged",
            terms.service
        ));
    }
    let hold = Mutation::set(Field::hold(&terms.service), hold("this run").value(), None);
    Ok(Plan::new(Kind::ServiceDown, terms, down, ground, 0).with([hold]))
}

fn hold(run: &str) -> Hold {
    Hold {
        holder: run.to_owned(),
        reason: "taken down by a drill".to_owned(),
        retry_after_seconds: RETRY_AFTER_SECONDS,
    }
}

/// The service, held.
pub(super) struct ServiceDown {
    down: Down,
    field: Field,
    first: Option<f64>,
    /// Whether no instance was ready any more.
    away: bool,
}

impl ServiceDown {
    pub(super) fn new(down: Down, terms: &Terms) -> Self {
        Self {
            down,
            field: Field::hold(&terms.service),
            first: None,
            away: false,
        }
    }
}

#[async_trait]
impl Fault for ServiceDown {
    fn kind(&self) -> Kind {
        Kind::ServiceDown
    }

    fn noun(&self) -> &'static str {
        "the hold"
    }

    async fn admit(&mut self, _course: &mut Course<'_>, state: &ServiceState) -> Result<(), String> {
        match &state.hold {
            Some(hold) => Err(format!("it is held down already: {}", hold.reason)),
            None => Ok(()),
        }
    }

    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError> {
        let hold = hold(course.run.id());
        let at = course.now();
        course.run.change(&self.field, Some(hold.value())).await?;
        course.moment(at, "injected", format!("`{}` is held down", course.terms.service));
        Ok(Some(at))
    }

    /// An instance may take its whole time to drain.
    fn effect_within(&self) -> std::time::Duration {
        std::time::Duration::from_mins(1)
    }

    async fn effect(&mut self, course: &mut Course<'_>, state: Option<&ServiceState>) -> Option<Effect> {
        let ready = state?.ready().count() as u32;
        let now = course.subject.samples.last()?.at_seconds;
        if ready < course.subject.wanted {
            self.first.get_or_insert(now);
        }
        if ready > 0 {
            return None;
        }
        self.away = true;
        course.moment(now, "effective", "no instance is ready".to_owned());
        Some(Effect {
            first: self.first.unwrap_or(now),
            whole: now,
        })
    }

    /// Somebody else may start instances meanwhile; then the rest of the time shows nothing.
    async fn renew(&mut self, course: &mut Course<'_>) -> Result<bool, WorkError> {
        let last = course.subject.samples.last();
        let ready = last.and_then(|sample| sample.ready).unwrap_or(0);
        Ok(!self.away || ready == 0)
    }

    fn checks(&self, seen: &Seen<'_>) -> Vec<Check> {
        seen.others_stand(self.down.unharmed)
    }
}
