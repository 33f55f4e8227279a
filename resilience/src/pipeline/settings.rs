//! A policy as plain data, as it stands in TOML below `[policy.NAME]`, and what is refused in it.

use std::time::Duration;

use super::stage::Part;
use crate::adaptive::AdaptiveSettings;
use crate::breaker::BreakerSettings;
use crate::bulkhead::BulkheadSettings;
use crate::error::BuildError;
use crate::hedge::HedgeSettings;
use crate::rate::RateLimitSettings;
use crate::retry::RetrySettings;
use crate::throttle::ThrottleSettings;

/// The longest that a time limit may be: what is longer was meant in another unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Settings of a policy. What is absent is not part of it.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct PipelineSettings {
    /// Time limits.
    pub timeout: TimeoutSettings,
    /// Whether the breaker is looked at before anything else is done for a call.
    pub gate: bool,
    /// So many calls at one time.
    pub bulkhead: Option<BulkheadSettings>,
    /// Other attempts after failures that may pass.
    pub retry: Option<RetrySettings>,
    /// Another attempt beside a slow one.
    pub hedge: Option<HedgeSettings>,
    /// Asks a dependency less that refuses much.
    pub throttle: Option<ThrottleSettings>,
    /// Stops asking what fails.
    pub breaker: Option<BreakerSettings>,
    /// So many calls in a time.
    pub rate_limit: Option<RateLimitSettings>,
    /// A limit of calls at one time that finds itself.
    pub concurrency_limit: Option<AdaptiveSettings>,
    /// Another order than [`Part::STANDARD`]: every part that the policy has, the outermost first.
    pub order: Option<Vec<Part>>,
}

/// Time limits of a policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "config", derive(serde::Deserialize), serde(deny_unknown_fields, default))]
pub struct TimeoutSettings {
    /// For the call with all its attempts and waits.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::optional_length"))]
    pub total: Option<Duration>,
    /// For one attempt.
    #[cfg_attr(feature = "config", serde(deserialize_with = "crate::config::optional_length"))]
    pub attempt: Option<Duration>,
}

impl TimeoutSettings {
    /// Whether a limit is so short that 4 ms, the grain of the coarse clock, matter: more than 1 % of it.
    pub(super) fn need_exact_clock(&self) -> bool {
        let short = |limit: Option<Duration>| limit.is_some_and(|limit| limit < Duration::from_millis(400));
        short(self.total) || short(self.attempt)
    }
}

impl PipelineSettings {
    /// Those of [`Pipeline::standard`](crate::Pipeline::standard).
    pub fn standard() -> Self {
        Self {
            timeout: TimeoutSettings {
                total: Some(Duration::from_secs(30)),
                attempt: Some(Duration::from_secs(10)),
            },
            bulkhead: Some(BulkheadSettings::default()),
            retry: Some(RetrySettings::default()),
            breaker: Some(BreakerSettings::default()),
            ..Self::default()
        }
    }

    /// Whether they make sense, each alone and all together, for the policy `name`.
    ///
    /// # Errors
    /// Names the key that does not: an attempt longer than the total, a breaker's window shorter than two attempts, a
    /// hedge that starts after the end, an order that names a part twice or leaves one out.
    pub fn check(&self, name: &str) -> Result<(), BuildError> {
        let refuse = |key: &str, problem: &str| Err(BuildError::new(name, key, problem));
        let TimeoutSettings { total, attempt } = self.timeout;
        for (key, limit) in [("timeout.total", total), ("timeout.attempt", attempt)] {
            if limit.is_some_and(|limit| limit.is_zero() || limit > LONGEST) {
                return refuse(key, "must be above zero and at most a day");
            }
        }
        if let (Some(attempt), Some(total)) = (attempt, total) {
            if attempt > total {
                return refuse("timeout.attempt", "must not be longer than timeout.total");
            }
        }
        if let Some(bulkhead) = &self.bulkhead {
            bulkhead.check(name)?;
            if let (Some(wait), Some(total)) = (bulkhead.max_wait, total) {
                if wait > total {
                    return refuse("bulkhead.max_wait", "must not be longer than timeout.total");
                }
            }
        }
        if let Some(retry) = &self.retry {
            retry.check(name)?;
        }
        if let Some(hedge) = &self.hedge {
            hedge.check(name)?;
            if total.is_some_and(|total| hedge.delay >= total) {
                return refuse("hedge.delay", "must be shorter than timeout.total");
            }
        }
        if let Some(throttle) = &self.throttle {
            throttle.check(name)?;
        }
        if let Some(breaker) = &self.breaker {
            breaker.check(name)?;
            if let (Some(attempt), None) = (attempt, breaker.last_calls) {
                if breaker.window < attempt.saturating_mul(2) {
                    return refuse("breaker.window", "must be at least twice timeout.attempt");
                }
            }
        } else if self.gate {
            return refuse("gate", "needs a breaker");
        }
        if let Some(rate_limit) = &self.rate_limit {
            rate_limit.check(name)?;
            if total.is_some_and(|total| rate_limit.max_wait > total) {
                return refuse("rate_limit.max_wait", "must not be longer than timeout.total");
            }
        }
        if let Some(limit) = &self.concurrency_limit {
            limit.check(name)?;
        }
        self.parts(name).map(drop)
    }

    /// What is allowed but doubtful, in sentences.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        let TimeoutSettings { total, attempt } = self.timeout;
        let place = |wanted| {
            let order = self.order.as_deref().unwrap_or(&Part::STANDARD);
            order.iter().position(|part| *part == wanted)
        };
        if self.breaker.is_some() {
            if attempt.is_none() {
                doubts.push("breaker without timeout.attempt: it never learns of calls that hang".to_owned());
            } else if place(Part::AttemptTimeout) < place(Part::Breaker) {
                doubts.push("attempt_timeout outside of breaker: it never learns of calls that hang".to_owned());
            }
        }
        if let Some(retry) = &self.retry {
            match (total, attempt) {
                (None, _) => doubts.push("retry without timeout.total: nothing bounds a call as a whole".to_owned()),
                (Some(total), Some(attempt)) => {
                    let latest = retry.latest(attempt);
                    if latest >= total {
                        doubts.push(format!(
                            "retry may come to its last attempt after {latest:?}, timeout.total is {total:?}: it is never made then"
                        ));
                    }
                }
                (Some(_), None) => {}
            }
        }
        doubts
    }

    /// Whether the policy has a part. The caller's deadline always counts, and so does a fault that is put in.
    fn has(&self, part: Part) -> bool {
        match part {
            Part::Deadline => true,
            Part::Gate => self.gate,
            Part::Bulkhead => self.bulkhead.is_some(),
            Part::Retry => self.retry.is_some(),
            Part::Hedge => self.hedge.is_some(),
            Part::Throttle => self.throttle.is_some(),
            Part::Breaker => self.breaker.is_some(),
            Part::RateLimit => self.rate_limit.is_some(),
            Part::ConcurrencyLimit => self.concurrency_limit.is_some(),
            Part::AttemptTimeout => self.timeout.attempt.is_some(),
            Part::Faults => cfg!(feature = "fault-injection"),
        }
    }

    /// The parts in their order, the outermost first.
    pub(super) fn parts(&self, name: &str) -> Result<Vec<Part>, BuildError> {
        let standard: Vec<Part> = Part::STANDARD.into_iter().filter(|part| self.has(*part)).collect();
        let Some(order) = &self.order else {
            return Ok(standard);
        };
        let refuse = |problem: String| Err(BuildError::new(name, "order", problem));
        for (at, part) in order.iter().enumerate() {
            if order[..at].contains(part) {
                return refuse(format!("names {} twice", part.as_str()));
            }
            if !self.has(*part) {
                return refuse(format!("names {}, which the policy does not have", part.as_str()));
            }
        }
        let mut order = order.clone();
        for missing in standard {
            match missing {
                _ if order.contains(&missing) => {}
                // Nobody names what is always there.
                Part::Deadline => order.insert(0, missing),
                Part::Faults => order.push(missing),
                _ => return refuse(format!("leaves out {}", missing.as_str())),
            }
        }
        let place = |wanted| order.iter().position(|part| *part == wanted);
        if self.gate && place(Part::Gate) > place(Part::Breaker) {
            return refuse("has gate behind breaker, where it sees nothing new".to_owned());
        }
        Ok(order)
    }
}
