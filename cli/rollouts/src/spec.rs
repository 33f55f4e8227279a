//! What a canary run is asked to do, as stored in its record: enough for another worker to go on with it.
//! Where the values come from (flags, configuration, a picker) is not decided here.

use crate::analysis::Settings;
use crate::judge::Criterion;
use crate::schedule::{Schedule, seconds};
use opsctl_platform::{Objectives, VersionSpec};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What to do when the time is over and nothing is proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// Hold the present share until somebody decides.
    #[default]
    Hold,
    /// Take the canary away.
    Rollback,
    /// Promote it all the same.
    Promote,
}

/// The specification of one canary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// The service.
    pub service: String,
    /// The version that is stable at the start, which the canary is compared with.
    pub stable: String,
    /// The new version.
    pub version: VersionSpec,
    /// The steps.
    pub schedule: Schedule,
    /// How long all steps together may take before the answer is "inconclusive".
    #[serde(rename = "max_seconds", with = "seconds")]
    pub max: Duration,
    /// What happens then.
    pub on_inconclusive: OnInconclusive,
    /// How long the old version is kept at full capacity after the promotion.
    #[serde(rename = "bake_seconds", with = "seconds")]
    pub bake: Duration,
    /// How long a canary may be held without a decision.
    #[serde(rename = "max_hold_seconds", with = "seconds")]
    pub max_hold: Duration,
    /// Time between two looks.
    #[serde(rename = "interval_seconds", with = "seconds")]
    pub interval: Duration,
    /// Time after the first share in which nothing is counted.
    #[serde(rename = "warm_up_seconds", with = "seconds")]
    pub warm_up: Duration,
    /// How long the new version may take to become ready.
    #[serde(rename = "ready_timeout_seconds", with = "seconds")]
    pub ready_timeout: Duration,
    /// How long requests under way may take to end when the canary goes.
    #[serde(rename = "drain_timeout_seconds", with = "seconds")]
    pub drain_timeout: Duration,
    /// How long a share lives without renewal.
    #[serde(rename = "lease_seconds", with = "seconds")]
    pub lease: Duration,
    /// How long the canary's instances stay when the judge is lost.
    #[serde(rename = "keep_seconds", with = "seconds")]
    pub keep: Duration,
    /// Levels of the judgement.
    pub settings: Settings,
    /// Ratio of errors that the objective allows.
    pub errors_allowed_ratio: f64,
    /// Ratio of slow answers that the objective allows; absent without a latency objective.
    pub slow_allowed_ratio: Option<f64>,
    /// The service's own criteria.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub criteria: Vec<Criterion>,
}

/// Availability that is taken when a service declares none.
const DEFAULT_AVAILABILITY: f64 = 0.999;

impl Spec {
    /// A specification with the defaults: looks five times in the shortest step but every 1 to 10 s, bake 10 min, hold up to
    /// 24 h, max twice the steps.
    pub fn new(service: &str, stable: &str, version: VersionSpec, schedule: Schedule, objectives: &Objectives) -> Self {
        let shortest = schedule
            .steps
            .iter()
            .map(|step| step.duration)
            .min()
            .unwrap_or_default();
        let interval = (shortest / 5).clamp(Duration::from_secs(1), Duration::from_secs(10));
        Self {
            service: service.to_owned(),
            stable: stable.to_owned(),
            version,
            max: schedule.total() * 2,
            schedule,
            on_inconclusive: OnInconclusive::Hold,
            bake: Duration::from_mins(10),
            max_hold: Duration::from_hours(24),
            interval,
            warm_up: interval,
            ready_timeout: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            keep: Duration::from_mins(10),
            settings: Settings::default(),
            errors_allowed_ratio: (1.0_f64 - objectives.availability_ratio.unwrap_or(DEFAULT_AVAILABILITY))
                .clamp(0.0, 1.0),
            slow_allowed_ratio: match (objectives.latency_seconds, objectives.latency_ratio) {
                (Some(_), Some(ratio)) => Some((1.0_f64 - ratio).clamp(0.0, 1.0)),
                _ => None,
            },
            criteria: Vec::new(),
        }
    }

    /// Another time between looks; the warm-up becomes one of them.
    #[must_use]
    pub fn looking_every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self.warm_up = interval;
        self
    }
}
