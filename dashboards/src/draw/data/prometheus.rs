//! A live Prometheus, or what speaks its HTTP API. It is not trusted: answers are bounded in size and time, redirects are
//! not followed, what comes back is sorted and checked, and what it is sent to know us by is shown to nobody.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Data, DataError, Exemplar, Labels, Series, Span};

/// No answer is larger.
const LARGEST: usize = 32 << 20;
/// No question has more answers than these; the rest is left away.
const MOST: usize = 10_000;
/// So much of an error is told.
const TOLD: usize = 300;

/// A live Prometheus.
#[derive(Clone)]
pub struct Prometheus {
    client: Client,
    address: Url,
    authorization: Option<String>,
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus")
            .field("address", &without_user(self.address.as_str()))
            .field("authorization", &self.authorization.is_some())
            .finish_non_exhaustive()
    }
}

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
    pub fn new(address: &str, patience: Duration, authority: Option<&[u8]>) -> Result<Self, DataError> {
        let wrong = || DataError::Address(told(without_user(address)));
        let mut url = Url::parse(address).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong());
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        url.set_query(None);
        // An error says that one is installed already: as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(patience.min(Duration::from_secs(5)))
            .timeout(patience);
        let unfit = |error: reqwest::Error| DataError::Client(told(&error.to_string()));
        for certificate in authority
            .map(reqwest::Certificate::from_pem_bundle)
            .transpose()
            .map_err(unfit)?
            .into_iter()
            .flatten()
        {
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().map_err(unfit)?;
        Ok(Self {
            client,
            address: url,
            authorization: None,
        })
    }

    /// The same, with a header `Authorization` on every question.
    #[must_use]
    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }

    /// Asks with `POST`, since expressions grow longer than addresses may, or with `GET` where nothing else is taken.
    async fn ask<T: DeserializeOwned>(&self, path: &str, fields: &[(&str, &str)], post: bool) -> Result<T, DataError> {
        let mut url = self
            .address
            .join(path)
            .map_err(|_| DataError::Address(told(without_user(self.address.as_str()))))?;
        url.query_pairs_mut().extend_pairs(fields);
        let mut request = if post {
            let body = url.query().unwrap_or_default().to_owned();
            url.set_query(None);
            self.client
                .post(url)
                .header("content-type", "application/x-www-form-urlencoded")
                .body(body)
        } else {
            self.client.get(url)
        };
        if let Some(value) = &self.authorization {
            request = request.header("authorization", value);
        }
        let failed = |error: reqwest::Error| {
            if error.is_timeout() {
                DataError::TimeOut
            } else {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                DataError::Unreachable(told(&cause.to_string()))
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(DataError::TooLarge(LARGEST >> 20));
            }
            body.extend_from_slice(&chunk);
        }
        let answer: Answer<T> = match serde_json::from_slice(&body) {
            Ok(answer) => answer,
            Err(_) if !status.is_success() => return Err(DataError::Refused(status.to_string())),
            Err(error) => return Err(DataError::Garbled(self.told(&error.to_string()))),
        };
        match answer.data {
            Some(data) if answer.status == "success" => Ok(data),
            _ if answer.error.is_empty() => Err(DataError::Refused(status.to_string())),
            _ => Err(DataError::Refused(self.told(&answer.error))),
        }
    }

    /// The begin of what the server says, without what it was sent to know us by.
    fn told(&self, text: &str) -> String {
        let words = self.authorization.as_deref().map(str::split_whitespace);
        let secrets = [words.and_then(Iterator::last), self.address.password()];
        let hidden = secrets.into_iter().flatten().filter(|secret| !secret.is_empty());
        told(&hidden.fold(text.to_owned(), |text, secret| text.replace(secret, "…")))
    }
}

/// The begin of what somebody else says; nothing in it moves a cursor.
fn told(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(TOLD).collect()
}

/// An address without the user and the password that may stand in it.
fn without_user(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, rest)| rest)
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
        Ok(series(self.ask("api/v1/query_range", &fields, true).await?))
    }

    async fn instant(&self, expr: &str, at: f64) -> Result<Vec<Series>, DataError> {
        let at = at.to_string();
        Ok(series(
            self.ask("api/v1/query", &[("query", expr), ("time", &at)], true)
                .await?,
        ))
    }

    async fn values(&self, label: &str, selector: Option<&str>, span: Span) -> Result<Vec<String>, DataError> {
        let named = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !named {
            return Err(DataError::Refused(format!("`{}` is no label", told(label))));
        }
        let (from, to) = (span.from.to_string(), span.to.to_string());
        let mut fields = vec![("start", from.as_str()), ("end", &to)];
        fields.extend(selector.map(|selector| ("match[]", selector)));
        let path = format!("api/v1/label/{label}/values");
        let mut values: Vec<String> = self.ask(&path, &fields, false).await?;
        values.truncate(MOST);
        values.sort();
        Ok(values)
    }

    async fn exemplars(&self, expr: &str, span: Span) -> Result<Vec<Exemplar>, DataError> {
        let (from, to) = (span.from.to_string(), span.to.to_string());
        let fields = [("query", expr), ("start", &from), ("end", &to)];
        let kept: Vec<Kept> = self.ask("api/v1/query_exemplars", &fields, true).await?;
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
