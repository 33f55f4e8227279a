//! Names of the series that rules record about objectives: written by rules, read by alerts and boards. Each has the labels
//! `environment`, `service` and `slo`, and is one series per objective.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What is promised of requests: value of the label `slo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slo {
    /// That they succeed.
    Availability,
    /// That they are fast.
    Latency,
}

impl Slo {
    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Availability => "availability",
            Self::Latency => "latency",
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A recorded series; shown as its name. Windows are those of [`window`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// Requests per second that the objective counts, over five minutes.
    Requests,
    /// Those of them that break it.
    Errors,
    /// The share of errors in a window, requests weighing alike however busy their hour was.
    ErrorRatio(Duration),
    /// How many requests there were in a window.
    RequestCount(Duration),
    /// The objective itself, such as 0.999.
    Objective,
    /// How much of the budget of 30 days is left: 1 all of it, below 0 overdrawn.
    BudgetLeft,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requests => f.write_str("service:slo_requests:rate5m"),
            Self::Errors => f.write_str("service:slo_errors:rate5m"),
            Self::ErrorRatio(over) => write!(f, "service:slo_errors:ratio_rate{}", window(*over)),
            Self::RequestCount(over) => write!(f, "service:slo_requests:increase{}", window(*over)),
            Self::Objective => f.write_str("service:slo_objective:ratio"),
            Self::BudgetLeft => f.write_str("service:slo_error_budget_left:ratio"),
        }
    }
}

/// A duration as PromQL writes it, in the largest unit that divides it: `5m`, `6h`, `3d`.
pub fn window(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    units
        .into_iter()
        .find(|(unit, _)| milliseconds > 0 && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, word)| format!("{}{word}", milliseconds / unit),
        )
}
