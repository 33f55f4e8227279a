//! The times of a service's end, and whether they fit into the time that it is given. What happens in them is
//! `lifecycle`.

use std::time::Duration;

use serde::Deserialize;

use crate::settings::{SettingsError, duration, length};

/// Times of a drain. Their sum must be less than `grace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Drain {
    /// How long the service keeps accepting while it says that it is not ready, so that balancers notice. Default 5 s.
    #[serde(deserialize_with = "length")]
    pub delay: Duration,
    /// How long requests in flight may take after that. Default 18 s.
    #[serde(deserialize_with = "length")]
    pub timeout: Duration,
    /// How long telemetry may take to hand over what it has. Default 4 s.
    #[serde(deserialize_with = "length")]
    pub flush: Duration,
    /// When whoever sent SIGTERM will kill: `terminationGracePeriodSeconds` of the pod. Default 30 s.
    #[serde(deserialize_with = "length")]
    pub grace: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(18),
            flush: Duration::from_secs(4),
            grace: Duration::from_secs(30),
        }
    }
}

impl Drain {
    /// The defaults, changed by `DRAIN_DELAY`, `DRAIN_TIMEOUT`, `DRAIN_FLUSH` and `DRAIN_GRACE`: seconds (`0.2`) or with
    /// a unit (`200ms`, `5s`, `1m`).
    ///
    /// # Errors
    /// A value that is no duration.
    pub fn from_env() -> Result<Self, SettingsError> {
        let mut drain = Self::default();
        drain.with_variables(|name| std::env::var(name).ok())?;
        Ok(drain)
    }

    pub(crate) fn with_variables(&mut self, lookup: impl Fn(&str) -> Option<String>) -> Result<(), SettingsError> {
        for (name, field) in [
            ("DRAIN_DELAY", &mut self.delay),
            ("DRAIN_TIMEOUT", &mut self.timeout),
            ("DRAIN_FLUSH", &mut self.flush),
            ("DRAIN_GRACE", &mut self.grace),
        ] {
            if let Some(text) = lookup(name) {
                *field = duration(&text).map_err(|problem| SettingsError::Variable {
                    name: name.to_owned(),
                    text,
                    problem,
                })?;
            }
        }
        Ok(())
    }

    /// Time from the signal to the end, at most.
    pub fn total(&self) -> Duration {
        self.delay.saturating_add(self.timeout).saturating_add(self.flush)
    }
}
