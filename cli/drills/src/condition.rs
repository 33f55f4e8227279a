//! Conditions of a steady state beyond a service's own requests: a page that answers, a gRPC service that serves, a query
//! of Prometheus within a bound. Asked again and again; what they mean for a drill is decided elsewhere.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::prometheus::{Access, Prometheus};
use opsctl_platform::{Platform, PlatformError};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Between two questions.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What must hold. Written `http://HOST/PATH` (status 200 to 399), `grpc://HOST:PORT[/SERVICE]` (SERVING), or
/// `prom:QUERY <= NUMBER` (one number; `<`, `<=`, `>`, `>=`, `==`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Condition {
    text: String,
    question: Question,
}

#[derive(Debug, Clone, PartialEq)]
enum Question {
    Http { url: String },
    Grpc { address: String, service: String },
    Prom { query: String, bound: Bound },
}

/// What a number is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound {
    operator: &'static str,
    number: f64,
}

/// Longer ones first: `<=` is no `<`.
const OPERATORS: [&str; 5] = ["<=", ">=", "==", "<", ">"];

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self.operator {
            "<=" => value <= self.number,
            ">=" => value >= self.number,
            "<" => value < self.number,
            ">" => value > self.number,
            // Both were written down as decimals.
            _ => (value - self.number).abs() <= f64::EPSILON * value.abs().max(self.number.abs()),
        }
    }
}

/// A condition that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConditionError(String);

impl FromStr for Condition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let text = text.trim();
        let question = if text.starts_with("http://") || text.starts_with("https://") {
            Question::Http { url: text.to_owned() }
        } else if let Some(rest) = text.strip_prefix("grpc://") {
            let (address, service) = rest.split_once('/').unwrap_or((rest, ""));
            if !address.contains(':') {
                return Err(ConditionError(format!("`{text}` has no port")));
            }
            Question::Grpc {
                address: address.to_owned(),
                service: service.to_owned(),
            }
        } else if let Some(rest) = text.strip_prefix("prom:") {
            let (query, bound) = bounded(rest)
                .ok_or_else(|| ConditionError(format!("`{text}` has no bound, such as `prom:sum(up) >= 3`")))?;
            Question::Prom { query, bound }
        } else {
            return Err(ConditionError(format!(
                "`{text}` is neither `http://…`, `grpc://…` nor `prom:QUERY <= NUMBER`"
            )));
        };
        Ok(Self {
            text: text.to_owned(),
            question,
        })
    }
}

/// The query and the bound behind it. A query may compare, too: the last comparison with a number is the bound.
fn bounded(text: &str) -> Option<(String, Bound)> {
    let (at, operator) = OPERATORS
        .iter()
        .filter_map(|operator| text.rfind(operator).map(|at| (at, *operator)))
        .max_by_key(|(at, operator)| (at + operator.len(), operator.len()))?;
    let number = text[at + operator.len()..].trim().parse::<f64>().ok()?;
    let query = text[..at].trim();
    (!query.is_empty() && number.is_finite()).then(|| (query.to_owned(), Bound { operator, number }))
}

impl TryFrom<String> for Condition {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        text.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.text
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Whether a Prometheus has to be asked.
    pub fn needs_prometheus(&self) -> bool {
        matches!(self.question, Question::Prom { .. })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    at: Timestamp,
    /// Absent when nothing is known.
    holds: Option<bool>,
    said: String,
}

/// How a condition did over a drill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConditionReport {
    /// As written.
    pub condition: Condition,
    /// How often it was asked.
    pub asked: u64,
    /// How often it held.
    pub held: u64,
    /// The last answer.
    pub last: String,
    /// Whether that one held; absent when nothing was known.
    pub holds: Option<bool>,
}

/// Conditions that are asked in the background.
pub struct Conditions {
    watched: Vec<(Condition, Arc<Mutex<Vec<Answer>>>)>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Conditions {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Conditions {
    /// Begins to ask. `prometheus` is its base URL; an error is one that cannot be used.
    pub fn start(
        platform: &Arc<dyn Platform>,
        service: &str,
        conditions: &[Condition],
        prometheus: Option<&str>,
    ) -> Result<Self, String> {
        let prometheus = match prometheus {
            Some(url) => Some(Prometheus::new(url, Access::Open, None).map_err(|error| error.to_string())?),
            None => None,
        };
        let mut all = Self {
            watched: Vec::new(),
            tasks: Vec::new(),
        };
        for condition in conditions {
            let answers = Arc::new(Mutex::new(Vec::new()));
            let (question, told) = (condition.question.clone(), Arc::clone(&answers));
            let (platform, prometheus) = (Arc::clone(platform), prometheus.clone());
            let service = service.to_owned();
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|error| error.to_string())?;
            all.tasks.push(tokio::spawn(async move {
                loop {
                    let number = async |query: &str| match platform.number(&service, query).await {
                        Err(PlatformError::NoTraffic { .. }) => plain(prometheus.as_ref(), query).await,
                        answer => answer.map_err(|error| error.to_string()),
                    };
                    let asked = tokio::time::timeout(LIMIT, ask(&question, &client, number)).await;
                    let (holds, said) = asked.unwrap_or_else(|_| (None, "no answer in time".to_owned()));
                    let answer = Answer {
                        at: platform.now(),
                        holds,
                        said,
                    };
                    told.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
                    tokio::time::sleep(EVERY).await;
                }
            }));
            all.watched.push((condition.clone(), answers));
        }
        Ok(all)
    }

    /// The first that did not hold at any time up to now, or of which nothing is known.
    pub fn trouble(&self) -> Option<String> {
        self.watched.iter().find_map(|(condition, answers)| {
            let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            match answers.iter().find(|answer| answer.holds != Some(true)) {
                Some(answer) => Some(format!("{condition}: {}", answer.said)),
                None if answers.is_empty() => Some(format!("{condition}: no answer yet")),
                None => None,
            }
        })
    }

    /// Whether all have held when they were last asked, after `from`.
    pub fn hold_since(&self, from: Timestamp) -> bool {
        self.watched.iter().all(|(_, answers)| {
            let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            let last = answers.last();
            last.is_some_and(|answer| answer.at >= from && answer.holds == Some(true))
        })
    }

    /// How each did.
    pub fn reports(&self) -> Vec<ConditionReport> {
        let watched = self.watched.iter();
        watched
            .map(|(condition, answers)| {
                let answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                let last = answers.last();
                ConditionReport {
                    condition: condition.clone(),
                    asked: answers.len() as u64,
                    held: answers.iter().filter(|answer| answer.holds == Some(true)).count() as u64,
                    last: last.map_or_else(|| "never asked".to_owned(), |answer| answer.said.clone()),
                    holds: last.and_then(|answer| answer.holds),
                }
            })
            .collect()
    }
}

/// Whether it holds, and what was said. A question that nobody answers does not hold; a number that there is not is not known.
async fn ask(
    question: &Question,
    client: &reqwest::Client,
    number: impl AsyncFnOnce(&str) -> Result<Option<f64>, String>,
) -> (Option<bool>, String) {
    match question {
        Question::Http { url } => match client.get(url).send().await {
            Ok(answer) => {
                let status = answer.status();
                (Some(status.is_success() || status.is_redirection()), status.to_string())
            }
            Err(error) => (Some(false), error.to_string()),
        },
        Question::Grpc { address, service } => grpc(address, service).await,
        Question::Prom { query, bound } => match number(query).await {
            Ok(Some(number)) => (Some(bound.holds(number)), number.to_string()),
            Ok(None) => (None, "the query has no number, or several".to_owned()),
            Err(why) => (None, why),
        },
    }
}

/// Where the platform asks no Prometheus, the one that was named.
async fn plain(prometheus: Option<&Prometheus>, query: &str) -> Result<Option<f64>, String> {
    let prometheus = prometheus.ok_or("no Prometheus is known")?;
    let answer = prometheus.query(query).await.map_err(|error| error.to_string())?;
    Ok(answer.number())
}

async fn grpc(address: &str, service: &str) -> (Option<bool>, String) {
    let endpoint = match tonic::transport::Endpoint::from_shared(format!("http://{address}")) {
        Ok(endpoint) => endpoint,
        Err(error) => return (Some(false), error.to_string()),
    };
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return (Some(false), error.to_string()),
    };
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    match HealthClient::new(channel).check(request).await {
        Ok(answer) => {
            let status = answer.into_inner().status();
            (Some(status == ServingStatus::Serving), status.as_str_name().to_owned())
        }
        Err(status) => (Some(false), format!("{}: {}", status.code(), status.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_compare_and_the_last_number_is_the_bound() {
        for (text, query, operator, number) in [
            ("sum(up) >= 3", "sum(up)", ">=", 3.0),
            ("a / b<0.01", "a / b", "<", 0.01),
            ("count(x > 5) == 2", "count(x > 5)", "==", 2.0),
            (
                "rate(e{code=~\"5..\"}[1m]) <= 1e-3",
                "rate(e{code=~\"5..\"}[1m])",
                "<=",
                0.001,
            ),
        ] {
            let (read, bound) = bounded(text).expect(text);
            assert_eq!((read.as_str(), bound), (query, Bound { operator, number }), "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_said() {
        for text in [
            "prom:up",
            "prom:up <= x",
            "prom: <= 3",
            "ftp://x",
            "grpc://host",
            "prom:a <= NaN",
        ] {
            assert!(text.parse::<Condition>().is_err(), "{text}");
        }
        let condition: Condition = "grpc://127.0.0.1:80/orders.v1".parse().expect("a condition");
        assert_eq!(
            serde_json::to_string(&condition).expect("JSON"),
            "\"grpc://127.0.0.1:80/orders.v1\""
        );
        assert!(
            Bound {
                operator: "==",
                number: 0.1
            }
            .holds(0.1)
        );
    }
}
