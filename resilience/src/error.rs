//! Errors of policies: refused here, out of time, or the dependency's own; and settings that make no sense.

use std::sync::Arc;
use std::time::Duration;

/// Result of a call under a policy, if it is not a value.
#[derive(Debug, thiserror::Error)]
pub enum Error<E> {
    /// A policy refused; the dependency was not asked.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// A time limit ended the call.
    #[error("no answer within the {scope} time limit of {limit:?}")]
    Timeout {
        /// Which limit.
        scope: Scope,
        /// The limit.
        limit: Duration,
    },
    /// The dependency's own error, of the last attempt.
    #[error("the call failed")]
    Inner(#[source] E),
}

impl<E> Error<E> {
    /// The dependency's own error, if it is one.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::Rejected(_) | Self::Timeout { .. } => None,
        }
    }

    /// Whether a policy refused without asking the dependency.
    pub const fn is_rejected(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether a time limit ended the call.
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}

/// Which time limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// That of one attempt.
    Attempt,
    /// That of the call with all its attempts, or the caller's deadline.
    Total,
}

impl Scope {
    /// `attempt` or `total`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Total => "total",
        }
    }
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A policy refused the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{by} of {name} refused the call")]
pub struct Rejected {
    /// Which policy.
    pub by: By,
    /// Name of the policy object.
    pub name: Arc<str>,
    /// When it is worth trying again, if known.
    pub retry_after: Option<Duration>,
}

/// Which policy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// The breaker is open, or its probes are all out.
    Breaker,
    /// The bulkhead and its queue are full.
    Bulkhead,
    /// The caller's deadline is over.
    Deadline,
    /// The rate limit is reached.
    RateLimit,
    /// The limit that adapts itself to the dependency's latency is reached.
    ConcurrencyLimit,
    /// This process has too much to do for a request of this priority.
    Shed,
    /// The dependency refuses so much that asking it is not worth it.
    Throttle,
    /// A fault was put in on purpose.
    Fault,
}

impl By {
    /// The name in JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Breaker => "breaker",
            Self::Bulkhead => "bulkhead",
            Self::Deadline => "deadline",
            Self::RateLimit => "rate_limit",
            Self::ConcurrencyLimit => "concurrency_limit",
            Self::Shed => "shed",
            Self::Throttle => "throttle",
            Self::Fault => "fault",
        }
    }
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Breaker => "the circuit breaker",
            Self::Bulkhead => "the bulkhead",
            Self::Deadline => "the deadline",
            Self::RateLimit => "the rate limit",
            Self::ConcurrencyLimit => "the concurrency limit",
            Self::Shed => "the load shedding",
            Self::Throttle => "the throttle",
            Self::Fault => "an injected fault",
        })
    }
}

/// Settings that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy {name}: {key} {problem}")]
pub struct BuildError {
    /// Name of the policy.
    pub name: String,
    /// The setting, as it is called in TOML below `[policy.NAME]`: `breaker.failure_ratio`.
    pub key: String,
    /// What is wrong with it, as the rest of a sentence that begins with the key.
    pub problem: String,
}

impl BuildError {
    pub(crate) fn new(name: &str, key: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            key: key.to_owned(),
            problem: problem.into(),
        }
    }
}
