//! The id that goes with one request through all services. Never a label of a metric: its values have no end.

use std::sync::Arc;

use crate::trace::kept;

/// `[A-Za-z0-9._:-]{1,128}`. Clones share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// The id if it has the right form.
    pub fn parse(text: &str) -> Option<Self> {
        let good = (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'));
        good.then(|| Self(text.into()))
    }

    /// A new one (a UUID of version 7).
    pub fn generate() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text: &str = uuid::Uuid::now_v7().hyphenated().encode_lower(&mut text);
        Self(text.into())
    }

    /// The id of the request that is being handled here, if any.
    pub fn current() -> Option<Self> {
        match kept::current() {
            Some(told) => told.correlation_id().cloned(),
            None => opentelemetry::Context::map_current(|context| context.get::<Self>().cloned()),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
