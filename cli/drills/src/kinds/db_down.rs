//! `db-down`: takes the way to a database away from a service for a while, and watches whether it goes on without, and how
//! soon it is whole when the database is back.
//!
//! The connections end at a hop before the database ([`Field::fault`] of an `endpoint/…`): with a reset, as from a server
//! that has died, or in silence, as from a network that has. Sessions that were open before go past the hop; those of the
//! service's role are ended at the server, so that they come back through it. Or the service alone is kept away by a
//! NetworkPolicy ([`Field::cut`]), whose effect is proven by who comes back (`kinds/enforced.rs`).

use std::time::Duration;

use async_trait::async_trait;
use opsctl_platform::run::RunError;
use opsctl_platform::{Cut, Fault as Played, FaultKind, Field, Platform, PlatformError, ServiceState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use super::enforced::{Enforced, Said};
use super::keep::{self, Keep};
use crate::Kind;
use crate::course::{self, Course, Effect, Fault, Mutation, PlanError, Seen, Terms, WorkError, dependants, survey};
use crate::figures::Check;
use crate::observe::steady;

/// What this kind is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DbDown {
    /// What is before the database: `endpoint/<namespace>/<name>`.
    pub at: String,
    /// How it is away.
    pub how: How,
    /// End the open sessions of the service's role.
    pub end_sessions: bool,
    /// Whether the service and those that depend on it must keep their objectives meanwhile.
    pub unharmed: bool,
}

/// How a database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Connections are reset.
    Reset,
    /// Connections stay open, and nothing comes.
    Blackhole,
    /// A NetworkPolicy keeps the service from it, and nobody else.
    Policy,
}

impl DbDown {
    /// What is set, and to what.
    fn field(&self, service: &str) -> Field {
        match self.how {
            How::Policy => Field::cut(service),
            How::Reset | How::Blackhole => Field::fault(&self.at),
        }
    }

    fn value(&self, run: &str, service: &str) -> Value {
        let played = |kind| Played {
            holder: run.to_owned(),
            kind,
            percent: 100.0,
            sessions_of: self.end_sessions.then(|| service.to_owned()),
        };
        match self.how {
            How::Reset => played(FaultKind::Reset).value(),
            How::Blackhole => played(FaultKind::Blackhole).value(),
            How::Policy => {
                let from = self.at.strip_prefix("endpoint/").unwrap_or(&self.at).to_owned();
                let holder = run.to_owned();
                Cut { holder, from }.value()
            }
        }
    }
}

/// What would be done.
pub type Plan = course::Plan<DbDown>;

/// Finds who is watched and checks the guards.
pub async fn plan(platform: &dyn Platform, mut terms: Terms, down: DbDown) -> Result<Plan, PlanError> {
    let mut ground = survey(platform, &mut terms).await?;
    ground.whole()?;
    let field = down.field(&terms.service);
    let value = down.value("this run", &terms.service);
    keep::free(platform, &field).await?;
    terms.locks.push(down.at.replace('/', "-"));
    terms.others = dependants(platform, &terms.service, &terms).await?;
    if down.how == How::Policy {
        // Whether another policy is in the way.
        let _ = platform.rehearse(&field, None, Some(&value)).await?;
    } else {
        ground
            .notes
            .push(format!("whoever else uses `{}` is cut off, too", down.at));
    }
    let ready = ground.ready;
    let fault = Mutation::set(field, value, None);
    Ok(Plan::new(Kind::DbDown, terms, down, ground, ready).with([fault]))
}

/// The database, away.
pub(super) struct Away {
    down: DbDown,
    field: Field,
    seen: By,
}

/// How its effect is seen.
enum By {
    /// A hop counts the connections that the fault has met.
    Hop(Keep),
    /// Who comes back to the database past a policy.
    Sessions(Watch),
}

/// What is known of a policy.
struct Watch {
    enforced: Enforced,
    /// Why the sessions could not be asked for, the last time.
    trouble: Option<String>,
    /// Why it is not known to have an effect.
    not: Option<String>,
}

impl Away {
    pub(super) fn new(down: DbDown, terms: &Terms) -> Self {
        Self {
            field: down.field(&terms.service),
            seen: By::Hop(Keep::default()),
            down,
        }
    }
}

impl Watch {
    /// Ends the sessions that there are, when it is time; `true` when that shows that they are kept away.
    async fn look(&mut self, course: &mut Course<'_>, field: &Field) -> bool {
        let now = Instant::now();
        let subject = &course.subject;
        if let Some(sample) = subject.samples.last()
            && !steady(sample, subject.wanted, &subject.objectives)
        {
            self.enforced.suffers(now, sample.at_seconds);
        }
        if self.given_up() || !self.enforced.due(now) {
            return false;
        }
        self.trouble = None;
        let said = match course.run.end_sessions(field).await {
            Ok(sessions) => self.enforced.look(now, sessions),
            Err(RunError::Platform(error @ PlatformError::FaultLost { .. })) => Said::Not(error.to_string()),
            // It may answer again in time.
            Err(error) => {
                self.trouble = Some(match error {
                    RunError::Platform(error) => error.to_string(),
                    error => error.to_string(),
                });
                Said::Waiting
            }
        };
        match said {
            Said::Waiting => false,
            Said::Enforced => true,
            Said::Not(why) => {
                self.not = Some(why);
                false
            }
        }
    }

    fn given_up(&self) -> bool {
        self.not.is_some()
    }
}

#[async_trait]
impl Fault for Away {
    fn kind(&self) -> Kind {
        Kind::DbDown
    }

    fn noun(&self) -> &'static str {
        "the loss of the database"
    }

    async fn admit(&mut self, course: &mut Course<'_>, _state: &ServiceState) -> Result<(), String> {
        let value = self.down.value(course.run.id(), &course.terms.service);
        keep::still_free(course, &self.field, &value).await
    }

    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError> {
        let value = self.down.value(course.run.id(), &course.terms.service);
        let mut at = course.now();
        course.run.change(&self.field, Some(value)).await?;
        let now = Instant::now();
        self.seen = match self.down.how {
            How::Reset | How::Blackhole => By::Hop(Keep::since(now)),
            How::Policy => {
                // Before it, whoever looks had to come up.
                at = course.now();
                By::Sessions(Watch {
                    enforced: Enforced::since(now),
                    trouble: None,
                    not: None,
                })
            }
        };
        course.moment(at, "injected", format!("`{}` leads nowhere", self.down.at));
        Ok(Some(at))
    }

    fn no_effect(&self, any_longer: bool) -> String {
        match &self.seen {
            By::Sessions(Watch { not: Some(why), .. }) => why.clone(),
            By::Sessions(Watch {
                trouble: Some(why), ..
            }) => format!("it could not be seen who is at the database: {why}"),
            By::Sessions(_) if !any_longer => {
                "no session came back to the database, and nothing suffered: whether the NetworkPolicy is enforced cannot \
                 be told"
                    .to_owned()
            }
            _ => course::no_effect(self.noun(), any_longer),
        }
    }

    /// Until a connection was made anew.
    fn effect_within(&self) -> Duration {
        Duration::from_mins(2)
    }

    async fn effect(&mut self, course: &mut Course<'_>, _state: Option<&ServiceState>) -> Option<Effect> {
        let (first, text) = match &mut self.seen {
            By::Hop(_) => {
                let platform = std::sync::Arc::clone(course.run.platform());
                let hits = platform.fault_hits(&self.field).await.unwrap_or(0);
                (hits > 0).then(|| (None, format!("{hits} connections have met it")))?
            }
            By::Sessions(watch) => {
                let shown = watch.look(course, &self.field).await;
                let ended = watch.enforced.before();
                shown.then(|| (watch.enforced.noticed(), format!("its {ended} sessions stay away")))?
            }
        };
        let now = course.now();
        course.moment(now, "effective", text);
        Some(Effect {
            first: first.unwrap_or(now),
            whole: now,
        })
    }

    async fn renew(&mut self, course: &mut Course<'_>) -> Result<bool, WorkError> {
        match &mut self.seen {
            By::Hop(keep) => keep.up(course.run, &self.field).await,
            By::Sessions(watch) => {
                watch.look(course, &self.field).await;
                Ok(!watch.given_up())
            }
        }
    }

    fn checks(&self, seen: &Seen<'_>) -> Vec<Check> {
        let mut checks = vec![Check {
            name: "restarts".to_owned(),
            expected: "none: a service outlives its database".to_owned(),
            observed: seen.restarts.to_string(),
            met: Some(seen.restarts == 0),
        }];
        if self.down.unharmed {
            checks.extend(seen.objectives(seen.during.clients, seen.during.probe));
        }
        checks.extend(seen.others_stand(self.down.unharmed));
        checks
    }
}
