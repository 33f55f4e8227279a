//! A breaker's settings as plain data, as they stand in TOML, and what is refused in them.

use std::time::Duration;

use crate::error::BuildError;

/// Longest time that any setting may have: what is longer was meant in another unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const SHORTEST_WINDOW: Duration = Duration::from_millis(10);
const MOST_CALLS: usize = 1_000_000;
const MOST_PROBES: u32 = 10_000;

/// Settings of a breaker; in TOML `[policy.NAME] breaker = { .. }`.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct BreakerSettings {
    /// Share of failures that opens it, above 0 and at most 1. Default 0.5.
    pub failure_ratio: f64,
    /// Calls in the window below which no ratio opens it. Default 20.
    pub min_calls: u64,
    /// Window of time that slides, exact to a tenth. Default 30 s. Unused where `last_calls` is set.
    #[serde(serialize_with = "text::write")]
    #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
    pub window: Duration,
    /// Window of exactly the last so many calls instead of time; every call then takes a short lock.
    pub last_calls: Option<usize>,
    /// Opens also after so many failures in a row.
    pub consecutive: Option<u32>,
    /// Opens also when too many answers are slow. Reads the exact clock twice a call.
    pub slow: Option<SlowCalls>,
    /// Length of the first break; it doubles while probes fail, plus up to a quarter of jitter. Default 5 s.
    #[serde(serialize_with = "text::write")]
    #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
    pub open: Duration,
    /// Length of the longest break without its jitter. Default 60 s.
    #[serde(serialize_with = "text::write")]
    #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
    pub open_max: Duration,
    /// Probes after a break.
    pub half_open: HalfOpen,
    /// What a dropped call says. Default: a failure when it lasted as long as `slow.limit` or, in a pipeline, the
    /// attempt's time limit; nothing otherwise.
    pub on_drop: Option<OnDrop>,
    /// Counts, and changes and tells its state, but refuses nothing: to try settings on live traffic.
    pub observe_only: bool,
}

/// When answers are slow, and how many may be.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub struct SlowCalls {
    /// An answer that took so long is slow.
    #[serde(serialize_with = "text::write")]
    #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
    pub limit: Duration,
    /// Share of slow calls that opens it, above 0 and at most 1.
    pub ratio: f64,
}

/// Probes after a break.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct HalfOpen {
    /// How many there are. Default 3.
    pub probes: u32,
    /// Share of failed probes that opens it again; by default [`BreakerSettings::failure_ratio`].
    pub ratio: Option<f64>,
    /// How long one may hold its place. Default 30 s.
    #[serde(serialize_with = "text::write")]
    #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
    pub lease: Duration,
}

/// What a call says that was dropped before an answer. It is counted as cancelled in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "config", derive(serde::Deserialize))]
#[serde(rename_all = "snake_case")]
pub enum OnDrop {
    /// Nothing.
    Ignore,
    /// That the dependency hangs, if it was dropped after so long, to a few milliseconds.
    FailureAfter(
        #[serde(serialize_with = "text::write")]
        #[cfg_attr(feature = "config", serde(deserialize_with = "text::read"))]
        Duration,
    ),
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_ratio: 0.5,
            min_calls: 20,
            window: Duration::from_secs(30),
            last_calls: None,
            consecutive: None,
            slow: None,
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(60),
            half_open: HalfOpen::default(),
            on_drop: None,
            observe_only: false,
        }
    }
}

impl Default for HalfOpen {
    fn default() -> Self {
        Self {
            probes: 3,
            ratio: None,
            lease: Duration::from_secs(30),
        }
    }
}

impl BreakerSettings {
    /// Whether these settings make sense, for the breaker `name`.
    ///
    /// # Errors
    /// Names the first key that does not: ratios outside (0, 1], times of zero or of more than a day, no probes, a
    /// minimum of calls that the window cannot hold, a break longer than the longest one.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let need = |holds: bool, key: &str, problem: &str| {
            if holds {
                Ok(())
            } else {
                Err(BuildError::new(name, &format!("breaker.{key}"), problem))
            }
        };
        // NaN compares false.
        let is_share = |ratio: f64| ratio > 0.0 && ratio <= 1.0;
        let is_time = |time: Duration| !time.is_zero() && time <= LONGEST;
        let (share, time) = ("must be above 0 and at most 1", "must be above zero and at most a day");

        need(is_share(self.failure_ratio), "failure_ratio", share)?;
        need(self.min_calls > 0, "min_calls", "must be at least 1")?;
        need(
            (SHORTEST_WINDOW..=LONGEST).contains(&self.window),
            "window",
            "must be from 10 ms to a day",
        )?;
        if let Some(calls) = self.last_calls {
            need(
                (1..=MOST_CALLS).contains(&calls),
                "last_calls",
                "must be from 1 to 1000000",
            )?;
            need(
                self.min_calls <= calls as u64,
                "min_calls",
                "must not be more than breaker.last_calls",
            )?;
        }
        need(self.consecutive != Some(0), "consecutive", "must be at least 1")?;
        if let Some(slow) = self.slow {
            need(is_time(slow.limit), "slow.limit", time)?;
            need(is_share(slow.ratio), "slow.ratio", share)?;
        }
        need(is_time(self.open_max), "open_max", time)?;
        need(
            !self.open.is_zero() && self.open <= self.open_max,
            "open",
            "must be above zero and at most breaker.open_max",
        )?;
        need(
            (1..=MOST_PROBES).contains(&self.half_open.probes),
            "half_open.probes",
            "must be from 1 to 10000",
        )?;
        need(self.half_open.ratio.is_none_or(is_share), "half_open.ratio", share)?;
        need(is_time(self.half_open.lease), "half_open.lease", time)?;
        if let Some(OnDrop::FailureAfter(limit)) = self.on_drop {
            need(is_time(limit), "on_drop.failure_after", time)?;
        }
        Ok(())
    }
}

/// Times as text: `30s`, `250ms`, in the form that TOML has.
mod text {
    use std::time::Duration;

    pub(super) fn write<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        if time.subsec_nanos() == 0 {
            serializer.collect_str(&format_args!("{}s", time.as_secs()))
        } else if time.subsec_nanos() % 1_000_000 == 0 {
            serializer.collect_str(&format_args!("{}ms", time.as_millis()))
        } else {
            serializer.collect_str(&format_args!("{}ns", time.as_nanos()))
        }
    }

    #[cfg(feature = "config")]
    pub(super) fn read<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(serde::de::Error::custom)
    }
}
