//! What came of an expected alert, as documents tell it. It concludes nothing: see [`judge`](super::judge).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Predicted;
use crate::figures::{Check, duration};

/// What is proved of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// It fired in time, somebody was told, and it was resolved.
    Proved,
    /// It fired, but later than it was to.
    Late,
    /// It did not fire.
    NotFired,
    /// It fired, and Alertmanager was not told, or it was over before anybody was.
    NotReceived,
    /// It fired, and a silence, another alert or the time of day kept it from being told.
    Suppressed,
    /// It goes on firing when all is whole again.
    NotResolved,
    /// It was pending or firing before anything was done: whatever follows proves nothing.
    FiredBefore,
    /// Not enough was seen.
    Inconclusive,
}

impl Proof {
    /// The word that documents use, with blanks.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Proved => "proved",
            Self::Late => "late",
            Self::NotFired => "not fired",
            Self::NotReceived => "not received",
            Self::Suppressed => "suppressed",
            Self::NotResolved => "not resolved",
            Self::FiredBefore => "fired before",
            Self::Inconclusive => "inconclusive",
        }
    }

    /// Whether the expectation is met; absent when nothing follows.
    pub fn met(self) -> Option<bool> {
        match self {
            Self::Proved => Some(true),
            Self::FiredBefore | Self::Inconclusive => None,
            _ => Some(false),
        }
    }
}

/// How an expected alert did. Times are seconds since the first observed effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertReport {
    /// The rule's name.
    pub alert: String,
    /// Labels that it was to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is proved.
    pub proof: Proof,
    /// Why, in words.
    pub why: String,
    /// When its condition held first.
    pub pending_seconds: Option<f64>,
    /// When it fired: the time to detect.
    pub firing_seconds: Option<f64>,
    /// When Alertmanager was seen to know of it.
    pub received_seconds: Option<f64>,
    /// When Alertmanager had waited for its group: the time until somebody is told.
    pub notified_seconds: Option<f64>,
    /// When it was first seen to be kept from being told.
    pub suppressed_seconds: Option<f64>,
    /// When it did not fire any more: the time to resolve.
    pub resolved_seconds: Option<f64>,
    /// When Alertmanager did not keep it any more.
    pub cleared_seconds: Option<f64>,
    /// The silences, alerts and times that kept it from being told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<String>,
    /// Whom Alertmanager meant it for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receivers: Vec<String>,
    /// How late each of these moments may have been seen: a scrape, an evaluation, and the longest time between two looks.
    pub resolution_seconds: f64,
    /// How long it might take until somebody is told.
    pub within_seconds: f64,
    /// How long it might take until it was resolved, from the end of the fault.
    pub resolved_within_seconds: f64,
    /// How long it takes by the rule's own figures.
    pub predicted: Predicted,
}

/// An alert that fired and was not expected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unexpected {
    /// Its labels, `alertname` among them.
    pub labels: BTreeMap<String, String>,
    /// When it fired, seconds since the first observed effect; absent when there was none.
    pub firing_seconds: Option<f64>,
}

impl AlertReport {
    /// The expectation as a check of a drill.
    pub fn check(&self) -> Check {
        Check {
            name: format!("alert {}", self.name()),
            expected: format!(
                "told within {}, resolved within {}",
                duration(self.within_seconds),
                duration(self.resolved_within_seconds)
            ),
            observed: match self.proof {
                Proof::Proved => self.why.clone(),
                proof => format!("{}: {}", proof.as_str(), self.why),
            },
            met: self.proof.met(),
        }
    }

    /// The name with the labels that were asked for.
    pub fn name(&self) -> String {
        let labels = self.labels.iter().map(|(name, value)| format!(",{name}={value}"));
        std::iter::once(self.alert.clone()).chain(labels).collect()
    }
}
