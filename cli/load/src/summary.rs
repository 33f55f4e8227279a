//! The figures of a run, as a versioned document and as rows of text. Not a verdict on the target.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::request::FailureKind;

/// The `schema` of [`Summary`].
pub const SCHEMA: &str = "opsctl.load/v1";

/// What a run of load came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// [`SCHEMA`].
    pub schema: String,
    /// The URL.
    pub target: String,
    /// The rate as text, such as `200/s`.
    pub rate: String,
    /// The rate asked for, arrivals a second.
    pub rate_per_second: f64,
    /// For how long arrivals were to come.
    pub planned_seconds: f64,
    /// From the first arrival to the end of the last request.
    pub elapsed_seconds: f64,
    /// Whether the run was cancelled.
    pub cancelled: bool,
    /// Arrivals that came due: `completed + failed + dropped`.
    pub scheduled: u64,
    /// Whole responses of any status.
    pub completed: u64,
    /// Those of them that the source calls a success.
    pub succeeded: u64,
    /// Requests without a whole response.
    pub failed: u64,
    /// Arrivals never sent.
    pub dropped: u64,
    /// `failed` by kind.
    pub failures: BTreeMap<FailureKind, u64>,
    /// `completed` by status code.
    pub statuses: BTreeMap<u16, u64>,
    /// From due to done, of completed requests. The headline.
    pub response: Latency,
    /// From sent to done, of completed requests.
    pub service: Latency,
    /// How late the generator noticed that an arrival was due, of all arrivals.
    pub lateness: Latency,
    /// One entry a second, by the time at which requests were due. The identity holds in each.
    pub seconds: Vec<Second>,
    /// Different failures and unsuccessful statuses in the order in which they first came, at most 50.
    pub errors: Vec<ErrorEntry>,
    /// Bytes of bodies received.
    pub body_bytes: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Whether the figures are the target's or the generator's.
    pub generator: Generator,
}

/// The distribution of a duration; all zero when `count` is zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// Smallest.
    pub min_seconds: f64,
    /// Arithmetic mean.
    pub mean_seconds: f64,
    /// Median.
    pub p50_seconds: f64,
    /// 90th percentile.
    pub p90_seconds: f64,
    /// 95th percentile.
    pub p95_seconds: f64,
    /// 99th percentile.
    pub p99_seconds: f64,
    /// 99.9th percentile.
    pub p99_9_seconds: f64,
    /// Largest.
    pub max_seconds: f64,
}

/// The requests that were due in one second of the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Which, from 0.
    pub second: u64,
    /// Arrivals due: `completed + failed + dropped`.
    pub scheduled: u64,
    /// Whole responses.
    pub completed: u64,
    /// Successes.
    pub succeeded: u64,
    /// Failures.
    pub failed: u64,
    /// Never sent.
    pub dropped: u64,
    /// Median response time.
    pub p50_seconds: f64,
    /// 99th percentile of the response time.
    pub p99_seconds: f64,
    /// Largest response time.
    pub max_seconds: f64,
}

/// One way to go wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorEntry {
    /// The kind of failure; none when a whole response had an unsuccessful status.
    pub kind: Option<FailureKind>,
    /// One line.
    pub message: String,
    /// How often.
    pub count: u64,
    /// When it first ended a request, seconds from the start.
    pub first_seconds: f64,
    /// When it last did.
    pub last_seconds: f64,
}

/// How the generator itself did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Whether the generator and not the target limited the run: its figures must not be used.
    pub bound: bool,
    /// Why, one line each; empty when not bound.
    pub reasons: Vec<String>,
    /// CPU time of the generator's thread over elapsed time, 0 to 1.
    pub cpu_ratio: f64,
}

impl Summary {
    /// Whether `scheduled = completed + failed + dropped` in total and in every second.
    pub fn identity_holds(&self) -> bool {
        self.scheduled == self.completed + self.failed + self.dropped
            && self.scheduled == self.seconds.iter().map(|second| second.scheduled).sum::<u64>()
            && self
                .seconds
                .iter()
                .all(|second| second.scheduled == second.completed + second.failed + second.dropped)
    }

    /// Share of the arrivals that were no success: failed, dropped, or of a status that is none. 0 without arrivals.
    pub fn error_ratio(&self) -> f64 {
        if self.scheduled == 0 {
            return 0.0;
        }
        (self.scheduled - self.succeeded) as f64 / self.scheduled as f64
    }

    /// Completed requests a second of elapsed time.
    pub fn completed_per_second(&self) -> f64 {
        if self.elapsed_seconds > 0.0 {
            self.completed as f64 / self.elapsed_seconds
        } else {
            0.0
        }
    }

    /// The figures as label and value, for a terminal. In the order in which they are to be read.
    pub fn rows(&self) -> Vec<(String, String)> {
        let mut rows = vec![
            row("target", &self.target),
            row("rate", format!("{} for {}", self.rate, seconds(self.planned_seconds))),
            row("scheduled", self.scheduled),
            row(
                "completed",
                format!("{} ({:.1}/s)", self.completed, self.completed_per_second()),
            ),
            row("failed", self.failed),
            row("dropped", self.dropped),
            row("error ratio", format!("{:.3} %", self.error_ratio() * 100.0)),
        ];
        for (name, latency) in [("response time", &self.response), ("service time", &self.service)] {
            if latency.count > 0 {
                rows.push(row(
                    name,
                    format!(
                        "p50 {}  p95 {}  p99 {}  p99.9 {}  max {}",
                        seconds(latency.p50_seconds),
                        seconds(latency.p95_seconds),
                        seconds(latency.p99_seconds),
                        seconds(latency.p99_9_seconds),
                        seconds(latency.max_seconds),
                    ),
                ));
            }
        }
        for (status, count) in &self.statuses {
            rows.push((format!("status {status}"), count.to_string()));
        }
        for error in &self.errors {
            rows.push((format!("error x{}", error.count), error.message.clone()));
        }
        for reason in &self.generator.reasons {
            rows.push(row("generator-bound", reason));
        }
        rows
    }
}

fn row(label: &str, value: impl ToString) -> (String, String) {
    (label.to_owned(), value.to_string())
}

/// A duration in the unit that a person would choose.
fn seconds(value: f64) -> String {
    if value >= 1.0 {
        format!("{value:.2} s")
    } else if value >= 0.001 {
        format!("{:.2} ms", value * 1e3)
    } else {
        format!("{:.0} µs", value * 1e6)
    }
}
