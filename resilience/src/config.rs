//! Policies from TOML: tables `[policy.NAME]`, unknown keys refused, durations as `250ms` or `1m 30s`. Reading files is
//! the caller's matter.
//!
//! ```toml
//! [policy.payments]
//! timeout = { total = "5s", attempt = "1s" }
//! retry = { max = 2, base = "50ms", cap = "1s", jitter = "full", budget = { ratio = 0.2, min_per_sec = 3 } }
//! breaker = { failure_ratio = 0.5, window = "30s", min_calls = 20, open = "5s" }
//! bulkhead = { limit = 100, queue = 100 }
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::breaker::Breaker;
use crate::budget::Budget;
use crate::error::BuildError;
use crate::pipeline::{Pipeline, PipelineBuilder};
use crate::retry::{Jitter, Retry};

/// Why a policy could not be made from text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text does not have the right form; the source says where.
    #[error("the policies cannot be read")]
    Text {
        /// Line, column and reason.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// There is no such policy in it.
    #[error("there is no [policy.{name}]")]
    Missing {
        /// The name.
        name: String,
    },
    /// Its settings make no sense.
    #[error(transparent)]
    Build(#[from] BuildError),
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    policy: BTreeMap<String, Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    timeout: Option<TimeoutTable>,
    retry: Option<RetryTable>,
    breaker: Option<BreakerTable>,
    bulkhead: Option<BulkheadTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimeoutTable {
    total: Option<Length>,
    attempt: Option<Length>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryTable {
    max: Option<u32>,
    base: Option<Length>,
    cap: Option<Length>,
    hint_cap: Option<Length>,
    jitter: Option<JitterName>,
    budget: Option<BudgetTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum JitterName {
    Full,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BudgetTable {
    ratio: f64,
    #[serde(default)]
    min_per_sec: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerTable {
    failure_ratio: Option<f64>,
    window: Option<Length>,
    min_calls: Option<u64>,
    consecutive: Option<u32>,
    slow: Option<SlowTable>,
    open: Option<Length>,
    open_max: Option<Length>,
    half_open: Option<HalfOpenTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SlowTable {
    limit: Length,
    ratio: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HalfOpenTable {
    probes: Option<u32>,
    lease: Option<Length>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BulkheadTable {
    limit: usize,
    #[serde(default)]
    queue: usize,
}

#[derive(Clone, Copy)]
struct Length(Duration);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// A duration as `250ms` or `1m 30s`, for fields of settings.
pub(crate) fn length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Length::deserialize(deserializer).map(|length| length.0)
}

/// [`length`] for a field that may be absent.
pub(crate) fn optional_length<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    length(deserializer).map(Some)
}

impl Pipeline {
    /// The policy `[policy.NAME]` of a TOML text. What it does not say is not there, except that settings inside a
    /// table have the defaults of [`Pipeline::standard`].
    ///
    /// # Errors
    /// Text of the wrong form or with unknown keys, no such policy, settings that make no sense.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        let mut document: Document = toml::from_str(text).map_err(|source| ConfigError::Text {
            source: Box::new(source),
        })?;
        let policy = document
            .policy
            .remove(name)
            .ok_or_else(|| ConfigError::Missing { name: name.to_owned() })?;
        Ok(builder(name, policy)?.build()?)
    }
}

fn builder(name: &str, policy: Policy) -> Result<PipelineBuilder, BuildError> {
    let mut builder = Pipeline::builder(name);
    if let Some(timeout) = policy.timeout {
        if let Some(total) = timeout.total {
            builder = builder.total_timeout(total.0);
        }
        if let Some(attempt) = timeout.attempt {
            builder = builder.attempt_timeout(attempt.0);
        }
    }
    if let Some(table) = policy.retry {
        let mut retry = Retry::default();
        retry.max = table.max.unwrap_or(retry.max);
        retry.base = table.base.map_or(retry.base, |length| length.0);
        retry.cap = table.cap.map_or(retry.cap, |length| length.0);
        retry.hint_cap = table.hint_cap.map_or(retry.hint_cap, |length| length.0);
        retry.jitter = match table.jitter {
            Some(JitterName::None) => Jitter::None,
            Some(JitterName::Full) | None => Jitter::Full,
        };
        if let Some(budget) = table.budget {
            if !(0.0..=1.0).contains(&budget.ratio) || budget.min_per_sec < 0.0 {
                return Err(BuildError::new(
                    name,
                    "retry.budget",
                    "must have a ratio from 0 to 1 and a min_per_sec of at least 0",
                ));
            }
            retry = retry.budget(Budget::new(budget.ratio, budget.min_per_sec));
        }
        builder = builder.retry(retry);
    }
    if let Some(table) = policy.breaker {
        let mut breaker = Breaker::builder(name);
        if let Some(ratio) = table.failure_ratio {
            breaker = breaker.failure_ratio(ratio);
        }
        if let Some(window) = table.window {
            breaker = breaker.window(window.0);
        }
        if let Some(calls) = table.min_calls {
            breaker = breaker.min_calls(calls);
        }
        if let Some(failures) = table.consecutive {
            breaker = breaker.consecutive(failures);
        }
        if let Some(slow) = table.slow {
            breaker = breaker.slow_calls(slow.limit.0, slow.ratio);
        }
        if table.open.is_some() || table.open_max.is_some() {
            let first = table.open.map_or(Duration::from_secs(5), |length| length.0);
            let longest = table
                .open_max
                .map_or(first.max(Duration::from_secs(60)), |length| length.0);
            breaker = breaker.open(first, longest);
        }
        if let Some(half_open) = table.half_open {
            let lease = half_open.lease.map_or(Duration::from_secs(30), |length| length.0);
            breaker = breaker.half_open(half_open.probes.unwrap_or(3), lease);
        }
        builder = builder.breaker(breaker);
    }
    if let Some(table) = policy.bulkhead {
        builder = builder.bulkhead(table.limit, table.queue);
    }
    Ok(builder)
}
