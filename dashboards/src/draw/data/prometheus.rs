//! A live Prometheus, or what speaks its HTTP API. What comes back is not trusted: it is sorted and checked.

use std::time::Duration;

use async_trait::async_trait;
use endpoint::{Access, Endpoint, EndpointError, Method, Question, plain};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Data, DataError, Exemplar, Labels, Series, Span};

/// No question has more answers than these; the rest is left away.
const MOST: usize = 10_000;

/// A live Prometheus.
#[derive(Debug, Clone)]
pub struct Prometheus(Endpoint);

#[derive(Deserialize)]
struct Answer<T> {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<T>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "snake_case")]
enum Found {
    Matrix(Vec<Row>),
    Vector(Vec<Row>),
    Scalar(Sample),
    String(Sample),
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    metric: Labels,
    #[serde(default)]
    values: Vec<Sample>,
    value: Option<Sample>,
}

/// Time and value, the value as text.
#[derive(Deserialize)]
struct Sample(f64, String);

impl Sample {
    fn point(&self) -> Option<(f64, f64)> {
        Some((self.0, number(&self.1)?))
    }
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        _ => text.parse().ok(),
    }
}

#[derive(Deserialize)]
struct Kept {
    #[serde(default)]
    exemplars: Vec<KeptOne>,
}

#[derive(Deserialize)]
struct KeptOne {
    #[serde(default)]
    labels: Labels,
    value: String,
    timestamp: f64,
}

impl Prometheus {
    /// A Prometheus at an address (`http://prometheus:9090`, with a path where it has one). No question takes longer than
    /// `patience`; `authority` is a PEM certificate that is trusted beside those of the system.
    ///
    /// # Errors
    /// [`EndpointError::Address`], [`EndpointError::Client`].
    pub fn new(
        address: &str,
        access: Access,
        patience: Duration,
        authority: Option<&[u8]>,
    ) -> Result<Self, EndpointError> {
        Ok(Self(
            Endpoint::new("Prometheus", address, access, authority)?.limit(patience),
        ))
    }

    /// Asks with `POST`, since expressions grow longer than addresses may.
    async fn post<T: DeserializeOwned>(&self, path: &str, fields: &[(&str, &str)]) -> Result<T, DataError> {
        self.read(self.0.ask(Method::POST, self.0.url(path)).form(fields)).await
    }

    async fn read<T: DeserializeOwned>(&self, question: Question<'_>) -> Result<T, DataError> {
        let reply = question.answer().await?;
        let status = reply.status;
        let answer: Answer<T> = match serde_json::from_slice(&reply.body) {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => return Err(DataError::Refused(status.to_string())),
            Err(error) => return Err(self.0.foreign(error).into()),
        };
        match answer.data {
            Some(data) if answer.status == "success" => Ok(data),
            _ if answer.error.is_empty() => Err(DataError::Refused(status.to_string())),
            _ => Err(DataError::Refused(self.0.visible(&answer.error))),
        }
    }
}

fn series(result: Found) -> Vec<Series> {
    let rows = match result {
        Found::Matrix(rows) | Found::Vector(rows) => rows,
        Found::Scalar(sample) | Found::String(sample) => vec![Row {
            metric: Labels::new(),
            values: Vec::new(),
            value: Some(sample),
        }],
    };
    let mut all: Vec<Series> = rows
        .into_iter()
        .take(MOST)
        .map(|row| {
            let samples = row.values.iter().chain(&row.value);
            let mut points: Vec<(f64, f64)> = samples.filter_map(Sample::point).collect();
            points.retain(|point| point.0.is_finite());
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Series {
                labels: row.metric,
                points,
            }
        })
        .collect();
    // The order of an answer is nobody's promise; that of a picture is ours.
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}

#[async_trait]
impl Data for Prometheus {
    async fn range(&self, expr: &str, span: Span) -> Result<Vec<Series>, DataError> {
        let (from, to, step) = (span.from.to_string(), span.to.to_string(), span.step.to_string());
        let fields = [("query", expr), ("start", &from), ("end", &to), ("step", &step)];
        Ok(series(self.post("api/v1/query_range", &fields).await?))
    }

    async fn instant(&self, expr: &str, at: f64) -> Result<Vec<Series>, DataError> {
        let at = at.to_string();
        let fields = [("query", expr), ("time", &at)];
        Ok(series(self.post("api/v1/query", &fields).await?))
    }

    async fn values(&self, label: &str, selector: Option<&str>, span: Span) -> Result<Vec<String>, DataError> {
        let named = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named {
            return Err(DataError::Refused(format!("`{}` is no label", plain(label))));
        }
        let (from, to) = (span.from.to_string(), span.to.to_string());
        let mut fields = vec![("start", from.as_str()), ("end", &to)];
        fields.extend(selector.map(|selector| ("match[]", selector)));
        // Nothing but `GET` is taken here.
        let mut url = self.0.url(&format!("api/v1/label/{label}/values"));
        url.query_pairs_mut().extend_pairs(fields);
        let mut values: Vec<String> = self.read(self.0.ask(Method::GET, url)).await?;
        values.truncate(MOST);
        values.sort();
        Ok(values)
    }

    async fn exemplars(&self, expr: &str, span: Span) -> Result<Vec<Exemplar>, DataError> {
        let (from, to) = (span.from.to_string(), span.to.to_string());
        let fields = [("query", expr), ("start", &from), ("end", &to)];
        let kept: Vec<Kept> = self.post("api/v1/query_exemplars", &fields).await?;
        let mut all: Vec<Exemplar> = kept
            .into_iter()
            .flat_map(|kept| kept.exemplars)
            .filter_map(|one| {
                Some(Exemplar {
                    value: number(&one.value)?,
                    at: one.timestamp,
                    labels: one.labels,
                })
            })
            .take(MOST)
            .collect();
        all.sort_by(|a, b| a.at.total_cmp(&b.at).then_with(|| a.labels.cmp(&b.labels)));
        Ok(all)
    }
}
