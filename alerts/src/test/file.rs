//! promtool's unit test files, read with the lines that things stand on, and our keys in them. Runs nothing.
//!
//! Our keys are `match` and `state` of an `alert_rule_test`, and `coverage` of the file. What is not known is refused,
//! as promtool refuses it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::TestError;
use crate::{bounded, duration};

/// Larger files are refused before they are read.
pub(super) const LARGEST: u64 = 16 << 20;
/// What Prometheus takes where a file does not say `evaluation_interval`.
const USUAL_INTERVAL: u64 = 60_000;

/// Labels or annotations.
pub type Labels = BTreeMap<String, String>;

/// A unit test file.
#[derive(Debug, Clone)]
pub struct TestFile {
    /// Where it is.
    pub path: PathBuf,
    /// Patterns, relative to the file's folder, with their lines.
    pub rule_files: Vec<(usize, String)>,
    /// Milliseconds between two evaluations.
    pub interval: u64,
    /// Names of groups in the order in which they are evaluated.
    pub group_eval_order: Vec<String>,
    /// Numbers that differ in their last bit are equal.
    pub fuzzy_compare: bool,
    /// What share of the rules the file must cover.
    pub coverage: Demand,
    /// Its tests.
    pub tests: Vec<Test>,
}

/// How many of the alerts, in per cent, must be shown to fire and to stay silent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// Shown to fire.
    #[serde(default)]
    pub min: f64,
    /// Shown to stay silent.
    #[serde(default)]
    pub min_silent: f64,
}

/// One entry of `tests`: series, and what is asked of them.
#[derive(Debug, Clone)]
pub struct Test {
    /// Where it begins.
    pub line: usize,
    /// Its `name`, empty without.
    pub name: String,
    /// The time between two samples, as written.
    pub interval: Option<String>,
    /// Series and their values.
    pub series: Vec<(String, String)>,
    /// Labels that every alert gets when it is sent.
    pub external_labels: Labels,
    /// What `{{ externalURL }}` is.
    pub external_url: Option<String>,
    /// When it begins, as written.
    pub start_timestamp: Option<String>,
    /// What is asked.
    pub cases: Vec<Case>,
}

/// One question.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it stands.
    pub line: usize,
    /// Milliseconds since the start.
    pub at: u64,
    /// What is asked.
    pub question: Question,
}

/// What a case asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Which alerts there are.
    Alerts {
        /// Of which name.
        name: String,
        /// What they must be like.
        expected: Vec<Expected>,
        /// Whether labels that are not named may be there.
        partial: bool,
        /// In which state.
        state: State,
    },
    /// What an expression gives.
    Samples {
        /// The expression.
        expr: String,
        /// Labels, value and histogram, as written.
        expected: Vec<Sample>,
    },
}

/// An alert that should be there. In an exact match what is not named must be absent, in a partial one it is not asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    /// Its labels, without its name.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
}

/// The state of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It holds for long enough.
    #[default]
    Firing,
    /// It holds, but not for long enough.
    Pending,
    /// Neither: no such alert may be there.
    Inactive,
}

/// A sample that should be there, as written.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sample {
    /// In PromQL's notation.
    #[serde(deserialize_with = "or_default")]
    pub labels: String,
    /// A number.
    #[serde(deserialize_with = "or_default")]
    pub value: String,
    /// A native histogram instead of a number.
    #[serde(deserialize_with = "or_default")]
    pub histogram: String,
}

/// What is empty in YAML is null to a parser, and nothing to Prometheus.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(input)?.unwrap_or_default())
}

/// A map whose values may be empty.
fn labels<'de, D: Deserializer<'de>>(input: D) -> Result<Labels, D::Error> {
    let map: BTreeMap<String, Option<String>> = or_default(input)?;
    Ok(map
        .into_iter()
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect())
}

/// The file as promtool's documentation describes it.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawFile {
    #[serde(deserialize_with = "or_default")]
    rule_files: Vec<Spanned<String>>,
    evaluation_interval: Option<Spanned<String>>,
    #[serde(deserialize_with = "or_default")]
    group_eval_order: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    tests: Vec<Spanned<RawTest>>,
    #[serde(deserialize_with = "or_default")]
    fuzzy_compare: bool,
    #[serde(deserialize_with = "or_default")]
    coverage: Demand,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawTest {
    interval: Option<Spanned<String>>,
    #[serde(deserialize_with = "or_default")]
    input_series: Vec<RawSeries>,
    #[serde(deserialize_with = "or_default")]
    alert_rule_test: Vec<Spanned<RawAlerts>>,
    #[serde(deserialize_with = "or_default")]
    promql_expr_test: Vec<Spanned<RawSamples>>,
    #[serde(deserialize_with = "labels")]
    external_labels: Labels,
    external_url: Option<String>,
    #[serde(deserialize_with = "or_default")]
    name: String,
    start_timestamp: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSeries {
    #[serde(deserialize_with = "or_default")]
    series: String,
    #[serde(deserialize_with = "or_default")]
    values: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawAlerts {
    eval_time: Option<String>,
    #[serde(deserialize_with = "or_default")]
    alertname: String,
    #[serde(deserialize_with = "or_default")]
    exp_alerts: Vec<RawExpected>,
    r#match: Option<Match>,
    state: Option<State>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Match {
    Exact,
    Partial,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawExpected {
    #[serde(deserialize_with = "labels")]
    exp_labels: Labels,
    #[serde(deserialize_with = "labels")]
    exp_annotations: Labels,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct RawSamples {
    #[serde(deserialize_with = "or_default")]
    expr: String,
    eval_time: Option<String>,
    #[serde(deserialize_with = "or_default")]
    exp_samples: Vec<Sample>,
}

impl TestFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TestError`] with the line of what is wrong.
    pub fn read(path: &Path) -> Result<Self, TestError> {
        let unreadable = |source| TestError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let text = bounded::read(path, LARGEST).map_err(unreadable)?;
        let text = text.ok_or_else(|| TestError::TooLarge {
            path: path.to_owned(),
            limit: LARGEST,
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file at `path`, which is not opened.
    ///
    /// # Errors
    /// As [`TestFile::read`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, TestError> {
        let raw: RawFile = bounded::yaml(text).map_err(|error| TestError::yaml(path, error))?;
        let reader = Reader { path };
        let interval = match &raw.evaluation_interval {
            Some(interval) => reader.duration(line(interval), &interval.value)?,
            None => USUAL_INTERVAL,
        };
        let tests = raw
            .tests
            .into_iter()
            .map(|test| reader.test(test))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            path: path.to_owned(),
            rule_files: raw
                .rule_files
                .into_iter()
                .map(|file| (line(&file), file.value))
                .collect(),
            // Prometheus takes a zero for "not said".
            interval: if interval == 0 { USUAL_INTERVAL } else { interval },
            group_eval_order: raw.group_eval_order,
            fuzzy_compare: raw.fuzzy_compare,
            coverage: raw.coverage,
            tests,
        })
    }
}

fn line<T>(spanned: &Spanned<T>) -> usize {
    spanned.referenced.line() as usize
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn duration(&self, line: usize, text: &str) -> Result<u64, TestError> {
        duration::parse(text).ok_or_else(|| TestError::Wrong {
            path: self.path.to_owned(),
            line,
            what: format!("`{text}` is no duration such as `1m` or `1h30m`"),
        })
    }

    fn test(&self, raw: Spanned<RawTest>) -> Result<Test, TestError> {
        let start = line(&raw);
        let raw = raw.value;
        if let Some(interval) = &raw.interval {
            self.duration(line(interval), &interval.value)?;
        }
        let mut cases = Vec::new();
        for case in raw.alert_rule_test {
            cases.push(self.alerts(case)?);
        }
        for case in raw.promql_expr_test {
            let line = line(&case);
            cases.push(Case {
                line,
                at: self.at(line, case.value.eval_time.as_deref())?,
                question: Question::Samples {
                    expr: case.value.expr,
                    expected: case.value.exp_samples,
                },
            });
        }
        Ok(Test {
            line: start,
            name: raw.name,
            interval: raw.interval.map(|interval| interval.value),
            series: raw
                .input_series
                .into_iter()
                .map(|one| (one.series, one.values))
                .collect(),
            external_labels: raw.external_labels,
            external_url: raw.external_url,
            start_timestamp: raw.start_timestamp,
            cases,
        })
    }

    fn alerts(&self, case: Spanned<RawAlerts>) -> Result<Case, TestError> {
        let line = line(&case);
        let raw = case.value;
        if raw.alertname.is_empty() {
            return Err(TestError::Wrong {
                path: self.path.to_owned(),
                line,
                what: "this test does not say `alertname`".to_owned(),
            });
        }
        let mut expected: Vec<Expected> = raw
            .exp_alerts
            .into_iter()
            .map(|one| Expected {
                labels: one.exp_labels,
                annotations: one.exp_annotations,
            })
            .collect();
        if raw.state == Some(State::Inactive) && expected.iter().any(|one| !one.annotations.is_empty()) {
            return Err(TestError::Wrong {
                path: self.path.to_owned(),
                line,
                what: "an alert that is not there has no annotations".to_owned(),
            });
        }
        // Promtool sets it itself, whatever is written.
        for one in &mut expected {
            one.labels.remove("alertname");
        }
        Ok(Case {
            line,
            at: self.at(line, raw.eval_time.as_deref())?,
            question: Question::Alerts {
                name: raw.alertname,
                expected,
                partial: raw.r#match == Some(Match::Partial),
                state: raw.state.unwrap_or_default(),
            },
        })
    }

    fn at(&self, line: usize, text: Option<&str>) -> Result<u64, TestError> {
        text.map_or(Ok(0), |text| self.duration(line, text))
    }
}
