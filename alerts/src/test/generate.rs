//! From test files to what promtool is given: a file for each test, with the rules that it needs and nothing else, and
//! for each question one entry that makes promtool say what we must know. Pure.
//!
//! An exact question about firing alerts, or about an expression, is asked as it stands, and promtool judges it. For the
//! others promtool is asked something that cannot be right, so that it says what there is:
//! - partial match: the alerts with all labels and annotations, in its complaint about an alert that does not exist;
//! - state: the series `ALERTS{alertname="…"}`, in its complaint about a sample that does not exist;
//! - annotations of pending alerts, which promtool never shows: the alerts of the same rule without `for`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::file::{Question, Sample, State, Test, TestFile};
use super::needs::{self, Needs};
use super::slice::{RuleSet, Slice};
use crate::duration;

/// One file for promtool.
#[derive(Debug)]
pub(super) struct Job {
    /// Which test file, and which of its tests.
    pub test: (usize, usize),
    /// The rules that it is run with.
    pub slice: Slice,
    /// What it asks.
    pub asks: Vec<Ask>,
    /// About how long it takes, in units of one rule evaluated once.
    pub weight: u64,
}

/// One entry of a generated file.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    /// The case that it is for.
    pub case: usize,
    pub kind: Kind,
    /// How promtool calls it in a complaint.
    pub key: Key,
}

/// What an entry is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// As the user wrote it.
    Judged,
    /// Tells which alerts fire.
    Alerts,
    /// Tells which alerts there are, in which state.
    States,
    /// Tells the annotations of those that do not fire yet.
    Undelayed,
}

/// An entry's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Alerts(String, u64),
    Samples(String, u64),
}

impl Key {
    fn at(&self) -> u64 {
        match self {
            Self::Alerts(_, at) | Self::Samples(_, at) => *at,
        }
    }
}

/// The files that a test is turned into: one, or more where a question needs other rules or stands there twice.
pub(super) fn jobs(
    id: (usize, usize),
    file: &TestFile,
    rules: &RuleSet,
    whole: bool,
    skip: &BTreeSet<usize>,
) -> Vec<Job> {
    let test = &file.tests[id.1];
    let mut layers: Vec<(bool, BTreeMap<Key, Ask>)> = Vec::new();
    for (case, asked) in test.cases.iter().enumerate() {
        if skip.contains(&case) {
            continue;
        }
        for (kind, key) in entries(&asked.question, asked.at, file.interval) {
            let undelayed = kind == Kind::Undelayed;
            let ask = Ask { case, kind, key };
            // Promtool names what it complains of by alert and time: each is asked once in a file.
            let free =
                |layer: &&mut (bool, BTreeMap<Key, Ask>)| layer.0 == undelayed && !layer.1.contains_key(&ask.key);
            match layers.iter_mut().find(free) {
                Some(layer) => _ = layer.1.insert(ask.key.clone(), ask),
                None => layers.push((undelayed, BTreeMap::from([(ask.key.clone(), ask)]))),
            }
        }
    }
    let layers = layers.into_iter().map(|(undelayed, asks)| {
        let asks: Vec<Ask> = asks.into_values().collect();
        let mut needs = Needs::default();
        let mut names = BTreeSet::new();
        for ask in &asks {
            match &test.cases[ask.case].question {
                Question::Alerts { name, .. } => _ = names.insert(name.clone()),
                Question::Samples { expr, .. } => needs.add(needs::of_expression(expr)),
            }
        }
        needs.alerts.extend(names.clone());
        let slice = if whole && !undelayed {
            Slice::Whole
        } else {
            rules.slice(&needs, if undelayed { names } else { BTreeSet::new() })
        };
        let last = asks.iter().map(|ask| ask.key.at()).max().unwrap_or(0);
        let weight = (last / file.interval + 1) * (slice.size() as u64 + 1) + test.series.len() as u64;
        Job {
            test: id,
            slice,
            asks,
            weight,
        }
    });
    layers.collect()
}

fn entries(question: &Question, at: u64, interval: u64) -> Vec<(Kind, Key)> {
    let (name, expected, partial, state) = match question {
        Question::Samples { expr, .. } => return vec![(Kind::Judged, Key::Samples(expr.clone(), at))],
        Question::Alerts {
            name,
            expected,
            partial,
            state,
        } => (name, expected, *partial, *state),
    };
    let alerts = Key::Alerts(name.clone(), at);
    // The state is that of the last evaluation, as promtool has it with alerts.
    let states = || Key::Samples(format!("ALERTS{{alertname={}}}", json(name)), at / interval * interval);
    match state {
        State::Firing if partial => vec![(Kind::Alerts, alerts)],
        State::Firing => vec![(Kind::Judged, alerts)],
        State::Inactive => vec![(Kind::States, states())],
        State::Pending => {
            let annotated = !partial || expected.iter().any(|one| !one.annotations.is_empty());
            let undelayed = annotated.then_some((Kind::Undelayed, alerts));
            std::iter::once((Kind::States, states())).chain(undelayed).collect()
        }
    }
}

#[derive(Serialize)]
struct Generated<'a> {
    rule_files: &'a [String],
    evaluation_interval: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    group_eval_order: &'a [&'a str],
    // Unknown to old versions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    fuzzy_compare: bool,
}

#[derive(Serialize)]
struct GeneratedTest<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: &'a Option<String>,
    input_series: Vec<Series<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    external_labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_url: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_timestamp: &'a Option<String>,
    alert_rule_test: Vec<AlertTest<'a>>,
}

#[derive(Serialize)]
struct Series<'a> {
    series: &'a str,
    values: &'a str,
}

#[derive(Serialize)]
struct AlertTest<'a> {
    eval_time: String,
    alertname: &'a str,
    exp_alerts: Vec<ExpectedAlert<'a>>,
}

#[derive(Serialize, Clone)]
struct ExpectedAlert<'a> {
    exp_labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exp_annotations: BTreeMap<&'a str, &'a str>,
}

/// A label that no alert and no series has.
const NOWHERE: &str = "opsctl_asks_what_there_is";

/// The text of a job's file. Its numbers stand as the user wrote them, since JSON has no NaN.
pub(super) fn text(job: &Job, file: &TestFile, test: &Test, rule_files: &[String], order: &[&str]) -> String {
    let mut alerts = Vec::new();
    let mut samples = Vec::new();
    for ask in &job.asks {
        let eval_time = duration::show(ask.key.at());
        match (&ask.key, &test.cases[ask.case].question) {
            (Key::Alerts(name, _), Question::Alerts { expected, .. }) => {
                let exp_alerts = if ask.kind == Kind::Judged {
                    expected
                        .iter()
                        .map(|one| ExpectedAlert {
                            exp_labels: borrowed(&one.labels),
                            exp_annotations: borrowed(&one.annotations),
                        })
                        .collect()
                } else {
                    vec![ExpectedAlert {
                        exp_labels: BTreeMap::from([(NOWHERE, "1")]),
                        exp_annotations: BTreeMap::new(),
                    }]
                };
                alerts.push(AlertTest {
                    eval_time,
                    alertname: name,
                    exp_alerts,
                });
            }
            (Key::Samples(expr, _), question) => {
                let expected = match question {
                    Question::Samples { expected, .. } => expected.iter().map(sample).collect::<Vec<_>>().join(","),
                    Question::Alerts { .. } => format!("{{\"labels\":\"{{{NOWHERE}=\\\"1\\\"}}\",\"value\":1}}"),
                };
                samples.push(format!(
                    "{{\"expr\":{},\"eval_time\":\"{eval_time}\",\"exp_samples\":[{expected}]}}",
                    json(expr)
                ));
            }
            // An alert's name never belongs to an expression.
            (Key::Alerts(..), Question::Samples { .. }) => {}
        }
    }
    let head = json(&Generated {
        rule_files,
        evaluation_interval: duration::show(file.interval),
        group_eval_order: order,
        fuzzy_compare: file.fuzzy_compare,
    });
    let body = json(&GeneratedTest {
        interval: &test.interval,
        input_series: test
            .series
            .iter()
            .map(|(series, values)| Series { series, values })
            .collect(),
        external_labels: &test.external_labels,
        external_url: &test.external_url,
        start_timestamp: &test.start_timestamp,
        alert_rule_test: alerts,
    });
    let open = |text: &str| text.strip_suffix('}').unwrap_or(text).to_owned();
    format!(
        "{},\"tests\":[{},\"promql_expr_test\":[{}]}}]}}\n",
        open(&head),
        open(&body),
        samples.join(",\n")
    )
}

fn borrowed(map: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

fn sample(sample: &Sample) -> String {
    let number = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    let value = match sample.value.as_str() {
        "" => "0".to_owned(),
        plain if plain.chars().all(number) => plain.to_owned(),
        other => json(other),
    };
    let histogram = if sample.histogram.is_empty() {
        String::new()
    } else {
        format!(",\"histogram\":{}", json(&sample.histogram))
    };
    format!("{{\"labels\":{},\"value\": {value}{histogram}}}", json(&sample.labels))
}

/// JSON that is YAML too: what YAML does not print is escaped.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    // Maps with text as keys, lists and text cannot fail.
    let text = serde_json::to_string(value).unwrap_or_default();
    let hidden = |c: char| {
        matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' | '\u{2028}' | '\u{2029}'
        )
    };
    if !text.contains(hidden) {
        return text;
    }
    let escape = |c: char| {
        if hidden(c) {
            format!("\\u{:04x}", u32::from(c))
        } else {
            c.to_string()
        }
    };
    text.chars().map(escape).collect()
}
