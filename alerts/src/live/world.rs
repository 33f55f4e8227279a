//! What is seen of an environment at one time: the answers of its Prometheus and its Alertmanager, or that there were
//! none. Asks; judges nothing.

use std::collections::BTreeMap;

use endpoint::EndpointError;
use jiff::Timestamp;
use lint::{Finding, SourceFile};

use super::alertmanager::{AlertGroup, Alertmanager, ReceivedAlert, Silence};
use super::delivery::Delivery;
use super::prometheus::{ActiveAlert, LoadedGroup, Prometheus, Target};
use super::series::{self, Presence};
use crate::check::routes;
use crate::rules::{self, RuleFile};

/// What should be there.
#[derive(Debug, Default)]
pub struct Expected {
    /// Rule files as they were rendered.
    pub rules: Vec<(SourceFile, RuleFile)>,
    /// Receivers that the rendered routes name.
    pub receivers: Vec<String>,
}

impl Expected {
    /// Of files as they were written, rules and an Alertmanager's configuration; and what is wrong with them.
    pub fn read(files: Vec<SourceFile>) -> (Self, Vec<Finding>) {
        let (mut expected, mut wrong) = (Self::default(), Vec::new());
        for file in files {
            if let Some(receivers) = routes::receivers(&file) {
                expected.receivers.extend(receivers);
            } else {
                let (rules, found) = rules::read(&file);
                wrong.extend(found);
                expected.rules.push((file, rules));
            }
        }
        (expected, wrong)
    }
}

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen<T> {
    /// The answer.
    Told(T),
    /// Nobody was asked.
    NotAsked,
    /// There is none.
    Silent {
        /// Why, with all causes.
        why: String,
        /// Whether the server was not there, as opposed to wrong.
        unreachable: bool,
    },
}

/// Both servers at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// When.
    pub now: Timestamp,
    /// Prometheus' address.
    pub prometheus: String,
    /// Alertmanager's, where there is one.
    pub alertmanager: Option<String>,
    /// Everything that was asked.
    pub told: Told,
}

/// The answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Rules that Prometheus has loaded.
    pub rules: Seen<Vec<LoadedGroup>>,
    /// What it scrapes.
    pub targets: Seen<Vec<Target>>,
    /// What is pending and fires.
    pub active: Seen<Vec<ActiveAlert>>,
    /// The Alertmanagers that it sends to.
    pub alertmanagers: Seen<Vec<String>>,
    /// Which of the series are there that the rules ask for.
    pub series: Seen<Presence>,
    /// Names of Alertmanager's receivers.
    pub receivers: Seen<Vec<String>>,
    /// Whether its messages come through.
    pub deliveries: Seen<Vec<Delivery>>,
    /// What Alertmanager has.
    pub alerts: Seen<Vec<ReceivedAlert>>,
    /// Its silences.
    pub silences: Seen<Vec<Silence>>,
}

impl Default for Told {
    /// Nobody was asked anything.
    fn default() -> Self {
        Self {
            rules: Seen::NotAsked,
            targets: Seen::NotAsked,
            active: Seen::NotAsked,
            alertmanagers: Seen::NotAsked,
            series: Seen::NotAsked,
            receivers: Seen::NotAsked,
            deliveries: Seen::NotAsked,
            alerts: Seen::NotAsked,
            silences: Seen::NotAsked,
        }
    }
}

impl<T> Seen<T> {
    /// The answer, where there is one.
    pub fn told(&self) -> Option<&T> {
        match self {
            Self::Told(answer) => Some(answer),
            _ => None,
        }
    }

    /// Why there is no answer to what was asked, and whether nobody was there.
    pub fn silence(&self) -> Option<(&str, bool)> {
        match self {
            Self::Silent { why, unreachable } => Some((why, *unreachable)),
            _ => None,
        }
    }
}

impl<T> From<Result<T, EndpointError>> for Seen<T> {
    fn from(result: Result<T, EndpointError>) -> Self {
        result.map_or_else(
            |error| {
                let mut why = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(source) = cause {
                    why = format!("{why}: {source}");
                    cause = source.source();
                }
                Self::Silent {
                    why,
                    unreachable: error.is_unreachable(),
                }
            },
            Self::Told,
        )
    }
}

impl World {
    /// Asks both at once, each question bounded by its client's limits; the series that `expected` needs are asked for
    /// a few at a time.
    pub async fn look(
        prometheus: &Prometheus,
        alertmanager: Option<&Alertmanager>,
        expected: &Expected,
        now: Timestamp,
    ) -> Self {
        let theirs = async {
            let Some(alertmanager) = alertmanager else {
                return (Seen::NotAsked, Seen::NotAsked, Seen::NotAsked, Seen::NotAsked);
            };
            let (receivers, deliveries, alerts, groups, silences) = tokio::join!(
                alertmanager.receivers(),
                alertmanager.deliveries(),
                alertmanager.alerts(),
                alertmanager.groups(),
                alertmanager.silences()
            );
            let alerts = alerts.and_then(|alerts| Ok(with_mutes(alerts, &groups?)));
            let deliveries = deliveries.transpose().map_or(Seen::NotAsked, Seen::from);
            (receivers.into(), deliveries, alerts.into(), silences.into())
        };
        let (rules, targets, active, alertmanagers, series, (receivers, deliveries, alerts, silences)) = tokio::join!(
            prometheus.rules(),
            prometheus.targets(),
            prometheus.alerts(),
            prometheus.alertmanagers(),
            series::look(prometheus, expected),
            theirs,
        );
        Self {
            now,
            prometheus: prometheus.address().to_owned(),
            alertmanager: alertmanager.map(|one| one.address().to_owned()),
            told: Told {
                rules: rules.into(),
                targets: targets.into(),
                active: active.into(),
                alertmanagers: alertmanagers.into(),
                series: series.into(),
                receivers,
                deliveries,
                alerts,
                silences,
            },
        }
    }
}

/// What a time interval mutes is only told of groups; an alert that any receiver is told of is not muted.
fn with_mutes(mut alerts: Vec<ReceivedAlert>, groups: &[AlertGroup]) -> Vec<ReceivedAlert> {
    let mut muted: BTreeMap<&str, Vec<&[String]>> = BTreeMap::new();
    for alert in groups.iter().flat_map(|group| &group.alerts) {
        muted
            .entry(&alert.fingerprint)
            .or_default()
            .push(&alert.status.muted_by);
    }
    for alert in &mut alerts {
        if let Some(by) = muted.get(alert.fingerprint.as_str())
            && by.iter().all(|intervals| !intervals.is_empty())
        {
            alert.status.muted_by = by.concat();
        }
    }
    alerts
}
