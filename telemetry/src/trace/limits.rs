//! How much one span may hold, and what of it may be shown: counts as the OpenTelemetry specification bounds them, long
//! values cut, secrets hidden by the same rule as in the log.

use std::borrow::Cow;
use std::sync::Arc;

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
    /// Parts of names, in lower case, whose values are hidden.
    pub(crate) secrets: Arc<[String]>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attributes: 128,
            events: 128,
            links: 128,
            value: 8 * 1024,
            secrets: Arc::default(),
        }
    }
}

impl Limits {
    /// What stands for a secret.
    pub(crate) const HIDDEN: &'static str = "[redacted]";

    /// Whether a value of that name is hidden.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.secrets.iter().any(|secret| name.contains(secret.as_str()))
    }

    /// A value as it may be shown.
    pub(crate) fn clean<'a>(&self, name: &str, value: &'a str) -> Cow<'a, str> {
        if name != "message" && self.is_secret(name) {
            return Self::HIDDEN.into();
        }
        let mut end = value.len().min(self.value);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        crate::log::without_user_info(&value[..end])
    }
}
