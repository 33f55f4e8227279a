//! What a Prometheus answers, as plain data: finite numbers or nothing. It asks nothing and judges nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::PrometheusError;

/// The result of a query. A scalar is one series without labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Its series; a vector's have one sample each.
    pub series: Vec<Series>,
    /// What is wrong with the data, in Prometheus' words: parts of it may be missing.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The series, if nothing is missing.
    ///
    /// # Errors
    /// [`PrometheusError::Partial`] with the warnings.
    pub fn complete(self) -> Result<Vec<Series>, PrometheusError> {
        if self.warnings.is_empty() {
            Ok(self.series)
        } else {
            Err(PrometheusError::Partial {
                warnings: self.warnings,
            })
        }
    }

    /// The one number that the answer is; absent when it has none, more than one, or is not finite.
    pub fn number(&self) -> Option<f64> {
        match self.series.as_slice() {
            [series] => series.samples.last().and_then(|sample| sample.value),
            _ => None,
        }
    }
}

/// One series, oldest sample first.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Series {
    /// Labels, `__name__` among them.
    pub labels: BTreeMap<String, String>,
    /// Samples.
    pub samples: Vec<Sample>,
}

impl Series {
    /// A label's value; empty when there is none, which is the same to Prometheus.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// One number and its time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Unix time in milliseconds.
    pub at_ms: i64,
    /// Absent when it is not finite (`0 / 0`).
    pub value: Option<f64>,
}

/// Which Prometheus it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct BuildInfo {
    /// Such as `3.7.2`.
    pub version: String,
}

/// One thing that is scraped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The labels that its series get.
    pub labels: BTreeMap<String, String>,
    /// Whether the last scrape went well.
    pub up: bool,
    /// What was wrong with it.
    pub error: Option<String>,
    /// When it was; absent before the first.
    pub scraped_at: Option<Timestamp>,
    /// The time between two of them.
    pub interval: Option<Duration>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Pair),
    String(serde::de::IgnoredAny),
    Vector(Vec<OneValue>),
    Matrix(Vec<Values>),
}

/// Unix seconds, and a number as text.
#[derive(Deserialize)]
struct Pair(f64, String);

#[derive(Deserialize)]
struct OneValue {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    // Absent for native histograms.
    value: Option<Pair>,
}

#[derive(Deserialize)]
struct Values {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<Pair>,
}

impl From<Pair> for Sample {
    fn from(Pair(seconds, text): Pair) -> Self {
        Self {
            at_ms: (seconds * 1000.0).round() as i64,
            value: text.parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

/// The answer of `/api/v1/query`.
pub(super) fn query(body: &[u8]) -> serde_json::Result<Answer> {
    let Envelope { data, warnings } = serde_json::from_slice::<Envelope<Data>>(body)?;
    let series = |labels, samples: Vec<Pair>| Series {
        labels,
        samples: samples.into_iter().map(Sample::from).collect(),
    };
    let series = match data {
        Data::Scalar(pair) => vec![series(BTreeMap::new(), vec![pair])],
        Data::String(_) => Vec::new(),
        Data::Vector(all) => all
            .into_iter()
            .map(|one| series(one.metric, one.value.into_iter().collect()))
            .collect(),
        Data::Matrix(all) => all.into_iter().map(|one| series(one.metric, one.values)).collect(),
    };
    Ok(Answer { series, warnings })
}

/// The answer of `/api/v1/status/buildinfo`.
pub(super) fn build_info(body: &[u8]) -> serde_json::Result<BuildInfo> {
    data(body)
}

/// The answer of `/api/v1/targets`.
pub(super) fn targets(body: &[u8]) -> serde_json::Result<Vec<Target>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Targets {
        #[serde(default)]
        active_targets: Vec<Active>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Active {
        labels: BTreeMap<String, String>,
        health: String,
        last_error: String,
        last_scrape: Option<Timestamp>,
        scrape_interval: String,
    }
    let Targets { active_targets } = data(body)?;
    Ok(active_targets
        .into_iter()
        .map(|active| Target {
            labels: active.labels,
            up: active.health == "up",
            error: Some(active.last_error).filter(|error| !error.is_empty()),
            // Go's zero time stands for "never".
            scraped_at: active.last_scrape.filter(|at| at.as_second() > 0),
            interval: duration(&active.scrape_interval).filter(|interval| !interval.is_zero()),
        })
        .collect())
}

/// The error's type and words of an answer that is none; empty when it has none, as a proxy's.
pub(super) fn refusal(body: &[u8]) -> (String, String) {
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Refusal {
        error_type: String,
        error: String,
    }
    let Refusal { error_type, error } = serde_json::from_slice(body).unwrap_or_default();
    (error_type, error)
}

pub(super) fn data<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    Ok(serde_json::from_slice::<Envelope<T>>(body)?.data)
}

/// A duration as Prometheus and Alertmanager write it: `1m30s`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let letters = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let milliseconds: u64 = match &unit[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            "y" => 31_536_000_000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &unit[letters..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_absent() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"up","pod":"a"},"values":[[1700000000.5,"1"],[1700000001.5,"NaN"],[1700000002.5,"+Inf"]]}]}}"#;
        let answer = query(body).unwrap();
        let samples: Vec<_> = answer.series[0].samples.iter().map(|s| (s.at_ms, s.value)).collect();
        assert_eq!(
            samples,
            [
                (1_700_000_000_500, Some(1.0)),
                (1_700_000_001_500, None),
                (1_700_000_002_500, None)
            ]
        );
        assert_eq!(answer.number(), None);
        assert!(!serde_json::to_string(&answer).unwrap().contains("NaN"));
    }

    #[test]
    fn warnings_are_missing_data() {
        let body = br#"{"status":"success","warnings":["store s3 did not answer"],
            "data":{"resultType":"scalar","result":[1700000000,"2"]}}"#;
        let answer = query(body).unwrap();
        assert_eq!(answer.number(), Some(2.0));
        let error = answer.complete().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the answer of Prometheus is not complete: store s3 did not answer"
        );
    }

    #[test]
    fn durations_as_prometheus_writes_them() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        assert_eq!(duration("15"), None);
        assert_eq!(duration(""), None);
        assert_eq!(duration("5x"), None);
    }
}
