//! Alerts that a drill must make fire: what is expected, how long that takes at the least, what was seen of each, and what
//! that proves.
//!
//! [`predict()`] is worked out before anything is done, from the rule's own figures; [`judge`] takes in what Prometheus and
//! Alertmanager say again and again, and concludes; both are pure. [`watch`] asks the servers. Nobody is told anything here,
//! and no silence is made.

pub mod judge;
pub mod predict;
pub mod proof;
pub mod proved;
mod query;
pub mod route;
pub mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::course::seconds;
pub use judge::{Judge, Look};
pub use predict::{Predicted, predict};
pub use proof::{AlertReport, Proof, Unexpected};
pub use watch::{Servers, Watch};

/// No fault is kept up longer than this for an alert.
pub const LONGEST: Duration = Duration::from_hours(1);

/// An alert as it is asked for: `NAME[,LABEL=VALUE…][,within=TIME][,resolved=TIME]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The rule's name.
    pub alert: String,
    /// Labels that the alert must have: others of that name are not meant.
    pub labels: BTreeMap<String, String>,
    /// From the first effect until somebody is told.
    pub within: Option<Duration>,
    /// From the end of the fault until it is resolved.
    pub resolved: Option<Duration>,
}

/// An expectation that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ExpectationError(String);

impl FromStr for Expectation {
    type Err = ExpectationError;

    fn from_str(text: &str) -> Result<Self, ExpectationError> {
        let mut parts = text.split(',').map(str::trim);
        let alert = parts.next().unwrap_or_default();
        if alert.is_empty() || alert.contains('=') {
            return Err(ExpectationError("the name of the alert comes first".to_owned()));
        }
        let mut read = Self {
            alert: alert.to_owned(),
            labels: BTreeMap::new(),
            within: None,
            resolved: None,
        };
        for part in parts {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| ExpectationError(format!("`{part}` is not written KEY=VALUE")))?;
            match key {
                "within" => read.within = Some(time(key, value)?),
                "resolved" => read.resolved = Some(time(key, value)?),
                "" => return Err(ExpectationError(format!("`{part}` names no label"))),
                label => {
                    read.labels.insert(label.to_owned(), value.to_owned());
                }
            }
        }
        Ok(read)
    }
}

fn time(key: &str, text: &str) -> Result<Duration, ExpectationError> {
    let time = opsctl_platform::prometheus::duration(text)
        .ok_or_else(|| ExpectationError(format!("`{key}={text}` is no time, such as `{key}=2m`")))?;
    if time.is_zero() || time > LONGEST {
        return Err(ExpectationError(format!(
            "`{key}={text}` is not between a second and an hour"
        )));
    }
    Ok(time)
}

/// An alert that a drill must make fire, with everything that was found out about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// The rule's name.
    pub alert: String,
    /// Labels that it must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How long it may take from the first effect until somebody is told.
    #[serde(rename = "within_seconds", with = "seconds")]
    pub within: Duration,
    /// How long it may take from the end of the fault until it is resolved.
    #[serde(rename = "resolved_within_seconds", with = "seconds")]
    pub resolved_within: Duration,
    /// How long it takes by the rule's own figures.
    pub predicted: Predicted,
}

impl Expected {
    /// With times for those that were not asked for: what is predicted, and some more.
    pub fn new(asked: Expectation, predicted: Predicted) -> Self {
        const MORE: Duration = Duration::from_secs(30);
        let usual = |seconds: f64| (Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST) + MORE).min(LONGEST);
        Self {
            within: asked.within.unwrap_or_else(|| usual(predicted.most_seconds())),
            resolved_within: asked.resolved.unwrap_or_else(|| usual(predicted.resolution_seconds())),
            alert: asked.alert,
            labels: asked.labels,
            predicted,
        }
    }

    /// Whether an alert with these labels is meant.
    pub fn means(&self, labels: &BTreeMap<String, String>) -> bool {
        labels.get("alertname") == Some(&self.alert)
            && self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.alert)?;
        for (name, value) in &self.labels {
            write!(f, ",{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_is_a_name_and_what_belongs_to_it() {
        let read: Expectation = "HighErrorRate, service=orders ,within=1m30s,resolved=5m"
            .parse()
            .unwrap();
        assert_eq!(read.alert, "HighErrorRate");
        assert_eq!(
            read.labels,
            BTreeMap::from([("service".to_owned(), "orders".to_owned())])
        );
        assert_eq!(
            (read.within, read.resolved),
            (Some(Duration::from_secs(90)), Some(Duration::from_mins(5)))
        );
        let bare: Expectation = "Down".parse().unwrap();
        assert!(bare.labels.is_empty() && bare.within.is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "comes first"),
            ("within=2m", "comes first"),
            ("Down,2m", "KEY=VALUE"),
            ("Down,within=2", "no time"),
            ("Down,within=0s", "between"),
            ("Down,within=2h", "between"),
            ("Down,=x", "no label"),
        ] {
            let error = text.parse::<Expectation>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
