//! One act of the tour and what was measured in it. It holds figures; the acts themselves are in [`super::acts`].

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::traffic::Tally;

/// A finished act.
#[derive(Debug, Serialize)]
pub(crate) struct Act {
    /// A word or two.
    pub(crate) name: &'static str,
    /// The command, as it would be typed; none for an act of the customers alone.
    pub(crate) command: Option<String>,
    /// From when to when, seconds since the traffic began.
    pub(crate) from_seconds: f64,
    /// See `from_seconds`.
    pub(crate) to_seconds: f64,
    /// What the customers sent meanwhile.
    pub(crate) requests: u64,
    /// Those without a good answer.
    pub(crate) errors: u64,
    /// The 95th percentile of the response times.
    pub(crate) p95_seconds: f64,
    /// What else was measured, in the order in which it is read.
    pub(crate) measured: Vec<Measure>,
    /// The command's own document, for the report's pictures.
    #[serde(skip)]
    pub(crate) document: Value,
    /// Why the act did not do what it should; none when it did.
    pub(crate) failed: Option<String>,
}

/// One figure with its name.
#[derive(Debug, Serialize)]
pub(crate) struct Measure {
    /// What it is.
    pub(crate) name: &'static str,
    /// The figure with its unit.
    pub(crate) value: String,
}

impl Act {
    /// An act that did what it should, so far.
    pub(crate) fn new(name: &'static str, command: Option<String>) -> Self {
        Self {
            name,
            command,
            from_seconds: 0.0,
            to_seconds: 0.0,
            requests: 0,
            errors: 0,
            p95_seconds: 0.0,
            measured: Vec::new(),
            document: Value::Null,
            failed: None,
        }
    }

    /// Adds a figure.
    pub(crate) fn measure(&mut self, name: &'static str, value: impl Into<String>) {
        self.measured.push(Measure {
            name,
            value: value.into(),
        });
    }

    /// The act should have done something else. The first reason is the one that is told.
    pub(crate) fn fail(&mut self, reason: impl Into<String>) {
        self.failed.get_or_insert(reason.into());
    }

    /// Says when the act was, and what the customers got meanwhile.
    pub(crate) fn during(&mut self, from: Duration, to: Duration, tally: Tally) {
        self.from_seconds = from.as_secs_f64();
        self.to_seconds = to.as_secs_f64();
        self.requests = tally.requests;
        self.errors = tally.errors;
        self.p95_seconds = tally.p95.as_secs_f64();
    }
}
