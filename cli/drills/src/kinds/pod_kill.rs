//! `pod-kill`: kills instances of a service without warning and watches what its clients notice and how long it takes
//! until it is whole again. It never takes the last ready instance.

mod plan;

pub use plan::{Kill, Plan, Victim, plan};

use async_trait::async_trait;
use opsctl_platform::run::RunError;
use opsctl_platform::{Instance, KillMode, PlatformError, ServiceState};

use crate::Kind;
use crate::course::{Course, Effect, Fault, Seen, WorkError};
use crate::figures::Check;
use crate::report::{Killed, Report};

/// The kill of what was planned.
pub(super) struct PodKill {
    kill: Kill,
    victims: Vec<Instance>,
    killed: Vec<Killed>,
}

impl PodKill {
    pub(super) fn new(kill: Kill) -> Self {
        Self {
            kill,
            victims: Vec::new(),
            killed: Vec::new(),
        }
    }
}

#[async_trait]
impl Fault for PodKill {
    fn kind(&self) -> Kind {
        Kind::PodKill
    }

    fn noun(&self) -> &'static str {
        "the kill"
    }

    fn lasts(&self) -> bool {
        false
    }

    /// Finds the planned victims as they are now.
    async fn admit(&mut self, _course: &mut Course<'_>, state: &ServiceState) -> Result<(), String> {
        for victim in &self.kill.victims {
            let found = state.ready().find(|instance| instance.uid == victim.uid);
            let instance =
                found.ok_or_else(|| format!("{} is not the process any more that was planned for", victim.instance))?;
            self.victims.push(instance.clone());
        }
        let ready = state.ready().count();
        if ready <= self.victims.len() {
            return Err(format!(
                "killing {} of {ready} ready instances would leave none",
                self.victims.len()
            ));
        }
        Ok(())
    }

    async fn inject(&mut self, course: &mut Course<'_>) -> Result<Option<f64>, WorkError> {
        for victim in &self.victims {
            match course.run.kill(victim, self.kill.mode).await {
                Ok(at) => {
                    let at_seconds = course.subject.seconds(at);
                    self.killed.push(Killed {
                        instance: victim.id.clone(),
                        uid: victim.uid.clone(),
                        version: victim.version.clone(),
                        at_seconds,
                        gone_seconds: None,
                    });
                    course.moment(at_seconds, "killed", format!("{} killed", victim.id));
                }
                Err(RunError::Platform(PlatformError::Gone { instance, .. })) => {
                    course.note("already_gone", format!("{instance} was gone already"));
                }
                Err(RunError::Platform(PlatformError::Refused { what, why })) => {
                    course.refuse(format!("{what} is refused: {why}"));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.killed.first().map(|killed| killed.at_seconds))
    }

    async fn effect(&mut self, course: &mut Course<'_>, state: Option<&ServiceState>) -> Option<Effect> {
        let now = course.subject.samples.last().map_or(0.0, |sample| sample.at_seconds);
        let container = self.kill.mode == KillMode::Container;
        let restarts: Vec<(&str, u32)> = self
            .victims
            .iter()
            .map(|victim| (victim.uid.as_str(), victim.restarts))
            .collect();
        let left = |killed: &Killed| {
            let instances = &state?.instances;
            // A pod whose container ended is the same pod.
            let again = container
                && instances.iter().any(|instance| {
                    instance.uid == killed.uid
                        && restarts
                            .iter()
                            .any(|(uid, before)| *uid == killed.uid && instance.restarts > *before)
                });
            if again {
                return Some(now);
            }
            let gone = instances
                .iter()
                .all(|instance| instance.uid != killed.uid || !instance.ready);
            gone.then_some(now)
        };
        for killed in &mut self.killed {
            killed.gone_seconds = killed.gone_seconds.or_else(|| left(killed));
        }
        let gone: Vec<f64> = self
            .killed
            .iter()
            .map(|killed| killed.gone_seconds)
            .collect::<Option<_>>()?;
        let effect = Effect {
            first: gone.iter().copied().reduce(f64::min)?,
            whole: gone.iter().copied().reduce(f64::max)?,
        };
        course.moment(effect.first, "effective", "the instance is gone".to_owned());
        Some(effect)
    }

    fn checks(&self, seen: &Seen<'_>) -> Vec<Check> {
        let since = seen.since();
        seen.objectives(since.clients, since.probe)
    }

    fn tell(&self, report: &mut Report) {
        report.killed.clone_from(&self.killed);
    }
}
