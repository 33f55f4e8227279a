//! Who would be killed, and whether that may be: checked, named, nothing done.

use std::collections::BTreeMap;

use opsctl_platform::{Instance, KillMode, Platform};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::Kind;
use crate::course::{self, Mutation, PlanError, Terms, survey};

/// An instance that will be killed: this very process and no successor of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Victim {
    /// Its name.
    pub instance: String,
    /// The process or pod.
    pub uid: String,
    /// The version that it runs.
    pub version: String,
}

/// What this kind is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kill {
    /// How many instances are killed at once; with `percent` chosen by [`plan`].
    pub count: u32,
    /// As many as this share of the ready instances, rounded down, and one at the least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
    /// Only instances that have these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub selector: BTreeMap<String, String>,
    /// How.
    pub mode: KillMode,
    /// Who; chosen by [`plan`].
    pub victims: Vec<Victim>,
}

impl Kill {
    /// So many, not chosen yet.
    pub fn new(count: u32) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }
}

/// What would be done.
pub type Plan = course::Plan<Kill>;

/// Chooses the victims, at random among the ready instances of the stable version, and checks the guards.
pub async fn plan(platform: &dyn Platform, mut terms: Terms, mut kill: Kill) -> Result<Plan, PlanError> {
    if kill.count == 0 && kill.percent.is_none_or(|percent| percent == 0) {
        return Err(PlanError::NoneToKill);
    }
    let ground = survey(platform, &mut terms).await?;
    if let Some(percent) = kill.percent {
        kill.count = (ground.ready * percent.min(100) / 100).max(1);
    }
    if ground.ready <= kill.count {
        return Err(PlanError::LastInstance {
            service: terms.service,
            ready: ground.ready,
            count: kill.count,
        });
    }
    ground.whole()?;
    let chosen = ground.clone();
    let mut candidates: Vec<&Instance> = chosen
        .candidates()
        .filter(|instance| instance.matches(&kill.selector))
        .collect();
    if (candidates.len() as u32) < kill.count {
        let labels = kill.selector.iter().map(|(key, value)| format!("{key}={value}"));
        return Err(PlanError::NoneMatch {
            service: terms.service,
            selector: labels.collect::<Vec<_>>().join(","),
        });
    }
    candidates.shuffle(&mut rand::rng());
    candidates.truncate(kill.count as usize);
    let mutations: Vec<Mutation> = candidates
        .iter()
        .map(|instance| Mutation::kill(instance, kill.mode))
        .collect();
    kill.victims = candidates
        .into_iter()
        .map(|instance| Victim {
            instance: instance.id.clone(),
            uid: instance.uid.clone(),
            version: instance.version.clone(),
        })
        .collect();
    let left = ground.ready - kill.count;
    Ok(Plan::new(Kind::PodKill, terms, kill, ground, left).with(mutations))
}
