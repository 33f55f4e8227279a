//! [`InitError`]: why telemetry could not be set up, and what to do about it.

use crate::level::FilterError;

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The process has a subscriber already.
    #[error("telemetry or another subscriber is set up already")]
    AlreadyInitialised,
    /// A setting has a value that it cannot have.
    #[error("{key} is `{value}`, it must be {expected}")]
    Setting {
        /// The variable or the key: `LOKI_URL`, `telemetry.loki.url`.
        key: String,
        /// What it is, without secrets.
        value: String,
        /// The accepted form.
        expected: &'static str,
    },
    /// The filter does not parse.
    #[error("the log filter cannot be used")]
    Filter {
        /// Why.
        #[source]
        source: FilterError,
    },
    /// The OTLP exporter cannot be made.
    #[error("the OTLP exporter cannot be made")]
    Otlp {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Loki sink cannot be made.
    #[error("the Loki sink cannot be made")]
    Loki {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The listener for `/metrics` cannot be opened.
    #[error("metrics cannot be served on {addr}")]
    Listen {
        /// Where.
        addr: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A thread or its runtime cannot be made.
    #[error("a telemetry thread cannot be started")]
    Thread {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl InitError {
    /// A setting that cannot be used. User-info of URLs and values of secret keys are not repeated.
    pub(crate) fn setting(key: impl Into<String>, value: &str, expected: &'static str) -> Self {
        let key = key.into();
        let redact = crate::redact::Redact::default();
        let value = if redact.is_secret(&key) || key.to_ascii_lowercase().ends_with("headers") {
            "[redacted]".to_owned()
        } else {
            crate::redact::limited(&redact.clean(value), 200).to_owned()
        };
        Self::Setting { key, value, expected }
    }
}
