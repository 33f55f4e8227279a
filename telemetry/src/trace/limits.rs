//! How much one span may hold, and what of it may be shown: counts as the OpenTelemetry specification bounds them, long
//! values cut, secrets hidden by the same rule as in the log.

use std::borrow::Cow;

use crate::InitError;
use crate::builder::env::Env;
use crate::redact::{REDACTED, Redact, limited};

/// Limits of one span. Source of the counts and of their variables:
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#span-limits>.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`.
    pub(crate) attributes: usize,
    /// `OTEL_SPAN_EVENT_COUNT_LIMIT`.
    pub(crate) events: usize,
    /// `OTEL_SPAN_LINK_COUNT_LIMIT`.
    pub(crate) links: usize,
    /// Bytes of one value. `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`, or `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`.
    pub(crate) value: usize,
    /// Which values are hidden.
    pub(crate) redact: Redact,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            value: 8 * 1024,
            redact: Redact::default(),
        }
    }
}

impl Limits {
    /// What stands for a secret.
    pub(crate) const HIDDEN: &'static str = REDACTED;

    /// Reads the variables.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        let count = |name: &str, limit: &mut usize| -> Result<(), InitError> {
            if let Some(count) = env.parse(name, "a whole number")? {
                *limit = count;
            }
            Ok(())
        };
        count("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", &mut self.attributes)?;
        count("OTEL_SPAN_EVENT_COUNT_LIMIT", &mut self.events)?;
        count("OTEL_SPAN_LINK_COUNT_LIMIT", &mut self.links)?;
        count("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", &mut self.value)?;
        count("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", &mut self.value)
    }

    /// Whether a value of that name is hidden.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        self.redact.is_secret(name)
    }

    /// A value as it may be shown.
    pub(crate) fn clean<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if name != "message" && self.is_secret(name) {
            return REDACTED.into();
        }
        self.redact.clean(limited(value, self.value))
    }
}
