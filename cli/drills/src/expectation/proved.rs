//! What runs have proved of alerts, found again in their records by the alert's name.

use jiff::Timestamp;
use opsctl_platform::run::{Phase, RunRecord};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{AlertReport, Proof};

/// The key of a record's `stats` under which they are kept.
const KEY: &str = "alerts";

/// What one run found out about one alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proved {
    /// The rule's name, with the labels that were asked for.
    pub alert: String,
    /// What it proved.
    pub proof: Proof,
    /// From the first effect until it fired.
    pub time_to_detect_seconds: Option<f64>,
    /// From the first effect until somebody was told.
    pub time_to_notify_seconds: Option<f64>,
    /// From the first effect until it was resolved.
    pub time_to_resolve_seconds: Option<f64>,
    /// How late each of these may have been seen.
    pub resolution_seconds: f64,
    /// How long it takes at the least until somebody is told, by the rule's own figures.
    pub floor_seconds: f64,
}

/// A proof, and the run that it is from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FromRun {
    /// The run's id.
    pub run: String,
    /// Its kind, such as `drill/latency`.
    pub kind: String,
    /// What was drilled, such as `service/orders`.
    pub target: String,
    /// Where.
    pub environment: String,
    /// When it ended.
    pub at: Timestamp,
    /// What it proved.
    #[serde(flatten)]
    pub proved: Proved,
}

/// The statistics of a run that has proved these.
pub fn stats(reports: &[AlertReport]) -> Value {
    let proved = reports.iter().map(|report| Proved {
        alert: report.name(),
        proof: report.proof,
        time_to_detect_seconds: report.firing_seconds,
        time_to_notify_seconds: report.notified_seconds,
        time_to_resolve_seconds: report.resolved_seconds,
        resolution_seconds: report.resolution_seconds,
        floor_seconds: report.predicted.floor_seconds,
    });
    json!({ KEY: proved.collect::<Vec<_>>() })
}

/// Everything that runs of an environment have proved or failed to prove, in the order of the records; runs that are not
/// over have proved nothing.
pub fn all<'a>(records: &'a [RunRecord], environment: &'a str) -> impl Iterator<Item = FromRun> + 'a {
    let over = records
        .iter()
        .filter(move |record| record.phase == Phase::Closed && record.environment == environment);
    over.flat_map(|record| {
        let kept = record.stats.get(KEY).cloned().unwrap_or_default();
        let kept: Vec<Proved> = serde_json::from_value(kept).unwrap_or_default();
        kept.into_iter().map(|proved| FromRun {
            run: record.id.clone(),
            kind: record.kind.clone(),
            target: record.target.clone(),
            environment: record.environment.clone(),
            at: record.ended_at.unwrap_or(record.updated_at),
            proved,
        })
    })
}

/// What is known of one alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The rule's name, with the labels that were asked for.
    pub alert: String,
    /// The last run that expected it.
    pub last: FromRun,
    /// The last run that proved it; absent when none did.
    pub last_proved: Option<FromRun>,
}

/// How each alert stands that a run of the environment has expected, by name. `records` are oldest first, as
/// [`Platform::records`](opsctl_platform::Platform::records) gives them.
pub fn standings(records: &[RunRecord], environment: &str) -> Vec<Standing> {
    let mut all: Vec<FromRun> = all(records, environment).collect();
    // Stable: of one alert the latest is the last.
    all.sort_by(|a, b| a.proved.alert.cmp(&b.proved.alert));
    all.chunk_by(|a, b| a.proved.alert == b.proved.alert)
        .filter_map(|of_one| {
            let last = of_one.last()?.clone();
            let proved = of_one.iter().rfind(|one| one.proved.proof == Proof::Proved);
            Some(Standing {
                alert: last.proved.alert.clone(),
                last_proved: proved.cloned(),
                last,
            })
        })
        .collect()
}

/// When a run last proved the alert of that name, whatever labels were asked for.
pub fn last_proved(records: &[RunRecord], environment: &str, alert: &str) -> Option<FromRun> {
    let named = |one: &FromRun| one.proved.alert.split(',').next() == Some(alert);
    all(records, environment)
        .filter(|one| one.proved.proof == Proof::Proved && named(one))
        .last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, environment: &str, proofs: &[(&str, Proof)]) -> RunRecord {
        let mut record = RunRecord::new(id, "drill/latency", "service/x", Value::Null, Timestamp::UNIX_EPOCH);
        record.phase = Phase::Closed;
        record.environment = environment.to_owned();
        let kept: Vec<Proved> = proofs
            .iter()
            .map(|(alert, proof)| Proved {
                alert: (*alert).to_owned(),
                proof: *proof,
                time_to_detect_seconds: Some(2.0),
                time_to_notify_seconds: None,
                time_to_resolve_seconds: None,
                resolution_seconds: 1.0,
                floor_seconds: 3.0,
            })
            .collect();
        record.stats = json!({ KEY: kept });
        record
    }

    #[test]
    fn an_alert_is_found_again_by_its_name() {
        let mut records = vec![
            record(
                "1",
                "prod",
                &[("Slow", Proof::Proved), ("Down,service=x", Proof::Proved)],
            ),
            record("2", "prod", &[("Slow", Proof::Late)]),
            record("3", "test", &[("Slow", Proof::Proved)]),
            RunRecord::new("4", "canary", "service/x", Value::Null, Timestamp::UNIX_EPOCH),
        ];
        records[3].stats = json!({ "alerts": "many" });
        records[3].environment = "prod".to_owned();
        let standings = standings(&records, "prod");
        let told: Vec<_> = standings
            .iter()
            .map(|one| {
                let proved = one.last_proved.as_ref().map(|proved| proved.run.as_str());
                (one.alert.as_str(), one.last.run.as_str(), proved)
            })
            .collect();
        assert_eq!(told, [("Down,service=x", "1", Some("1")), ("Slow", "2", Some("1"))]);
        let run = |alert| last_proved(&records, "prod", alert).map(|found| found.run);
        assert_eq!(
            (run("Slow"), run("Down"), run("Odd")),
            (Some("1".into()), Some("1".into()), None)
        );
    }

    #[test]
    fn what_has_not_ended_proves_nothing() {
        let mut running = record("1", "prod", &[("Slow", Proof::Proved)]);
        running.phase = Phase::Active;
        assert_eq!(standings(&[running], "prod"), []);
    }
}
