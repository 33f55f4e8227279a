//! The filter of log lines and spans, changeable while the process runs and back by itself after a time.

use std::time::Duration;

use tracing_subscriber::EnvFilter;

use crate::filter::{Handle, InForce};
use crate::timed::Timed;

/// What always exists, whatever the filter says, unless it names the target itself: what was changed by whom, and the
/// spans of requests, without which callers' traces would break off here.
const ALWAYS: [(&str, &str); 2] = [("audit", "audit=warn"), ("telemetry::span", "telemetry::span=info")];
/// Longest filter in bytes.
const LONGEST: usize = 4096;

/// Handle of the running filter. Clones share.
#[derive(Debug, Clone)]
pub struct LogLevel {
    filter: Timed<String>,
}

/// What the filter is now.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LevelStatus {
    /// `opsctl.loglevel/v1`.
    pub schema: &'static str,
    /// The filter in force.
    pub filter: String,
    /// The filter that it returns to.
    pub base: String,
    /// Seconds until it returns, when it was changed.
    pub ttl_seconds: Option<f64>,
}

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the filter {filter} cannot be put in force: {reason}")]
pub struct FilterError {
    /// What was given.
    pub filter: String,
    /// Why not.
    pub reason: String,
}

/// Reads a filter and adds what always exists.
pub(crate) fn parse(filter: &str) -> Result<InForce, FilterError> {
    let refuse = |reason: String| FilterError {
        filter: crate::redact::limited(filter, 200).to_owned(),
        reason,
    };
    if filter.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    if filter.len() > LONGEST {
        return Err(refuse(format!("it is longer than {LONGEST} bytes")));
    }
    let mut all = filter.trim().trim_end_matches(',').to_owned();
    for (target, directive) in ALWAYS {
        if !filter.split(',').any(|given| given.trim().starts_with(target)) {
            all.push(',');
            all.push_str(directive);
        }
    }
    match EnvFilter::builder().parse(&all) {
        Ok(filter) => Ok(InForce {
            filter,
            by_span: all.contains('['),
        }),
        Err(error) => Err(refuse(error.to_string())),
    }
}

impl LogLevel {
    pub(crate) fn new(running: Handle, base: String) -> Self {
        let apply = move |filter: &String| running.change(parse(filter).map_err(|error| error.reason)?);
        Self {
            filter: Timed::new("log level", base, apply),
        }
    }

    /// What is in force.
    pub fn status(&self) -> LevelStatus {
        let status = self.filter.status();
        LevelStatus {
            schema: "opsctl.loglevel/v1",
            filter: status.value,
            base: status.base,
            ttl_seconds: status.left.map(|left| left.as_secs_f64()),
        }
    }

    /// Puts `filter` (`info,orders=debug`) in force for `ttl`, at most 24 hours.
    ///
    /// # Errors
    /// A filter that does not parse, or a time that is too long; nothing is changed then.
    pub fn set(&self, filter: &str, ttl: Duration) -> Result<(), FilterError> {
        self.filter.set(filter.to_owned(), ttl).map_err(|reason| FilterError {
            filter: crate::redact::limited(filter, 200).to_owned(),
            reason,
        })
    }
}
