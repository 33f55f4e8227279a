//! Where the figures of a picture are from: somebody who answers PromQL. One that is live ([`Prometheus`]), one that was
//! recorded ([`Fixture`]), and one that records ([`Recorder`]). Nothing here makes figures up.

mod fixture;
mod prometheus;

use std::collections::BTreeMap;

use async_trait::async_trait;
use endpoint::{EndpointError, plain};

pub use endpoint::Access;
pub use fixture::{Fixture, FixtureError, Recorder};
pub use prometheus::Prometheus;

/// A stretch of time in which is asked, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Its begin.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// How far samples are apart.
    pub step: f64,
}

/// The labels of a series.
pub type Labels = BTreeMap<String, String>;

/// What came back for one set of labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Its labels; `__name__` among them where there is one.
    pub labels: Labels,
    /// Seconds since 1970 and value, with rising time.
    pub points: Vec<(f64, f64)>,
}

/// A single event that was kept beside a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// What it carries: the number of a trace, mostly.
    pub labels: Labels,
    /// When, in seconds since 1970.
    pub at: f64,
    /// Its value.
    pub value: f64,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Nobody is there.
    #[error("nobody answered: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("there was no answer in time")]
    TimeOut,
    /// The question was refused.
    #[error("the question was refused: {0}")]
    Refused(String),
    /// The answer is larger than a picture needs.
    #[error("the answer is larger than {0} MB")]
    TooLarge(usize),
    /// The answer cannot be read.
    #[error("the answer is not one of Prometheus: {0}")]
    Garbled(String),
    /// Nobody has recorded an answer.
    #[error("no answer was recorded")]
    NotRecorded,
}

impl From<EndpointError> for DataError {
    /// In words that are short enough for a panel, and without the address, which is nothing for a picture.
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::TimedOut { .. } => Self::TimeOut,
            EndpointError::TooLarge { limit, .. } => Self::TooLarge(limit >> 20),
            EndpointError::Forbidden { status, .. }
            | EndpointError::Redirected { status, .. }
            | EndpointError::Refused { status, .. } => Self::Refused(status.to_string()),
            EndpointError::Foreign { source, .. } => Self::Garbled(source.to_string()),
            EndpointError::Address(_) | EndpointError::Client { .. } | EndpointError::Unreachable { .. } => {
                let mut cause: &dyn std::error::Error = &error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                Self::Unreachable(plain(&cause.to_string()))
            }
        }
    }
}

/// Somebody who answers.
#[async_trait]
pub trait Data: Send + Sync {
    /// An expression over time.
    async fn range(&self, expr: &str, span: Span) -> Result<Vec<Series>, DataError>;

    /// An expression at one moment: each series has one point.
    async fn instant(&self, expr: &str, at: f64) -> Result<Vec<Series>, DataError>;

    /// The values of a label: of all series, or of those that a selector chooses.
    async fn values(&self, label: &str, selector: Option<&str>, span: Span) -> Result<Vec<String>, DataError>;

    /// What was kept beside the series of an expression.
    async fn exemplars(&self, expr: &str, span: Span) -> Result<Vec<Exemplar>, DataError>;
}
