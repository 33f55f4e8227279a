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

use crate::error::BuildError;
use crate::pipeline::{Pipeline, PipelineSettings};

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
    policy: BTreeMap<String, PipelineSettings>,
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

impl PipelineSettings {
    /// The table `[policy.NAME]` of a TOML text. A part that it does not name is not there; what it does not say of a
    /// part is as in [`Pipeline::standard`].
    ///
    /// # Errors
    /// Text of the wrong form or with unknown keys, no such policy.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        let mut document: Document = toml::from_str(text).map_err(|source| ConfigError::Text {
            source: Box::new(source),
        })?;
        let settings = document.policy.remove(name);
        settings.ok_or_else(|| ConfigError::Missing { name: name.to_owned() })
    }
}

impl Pipeline {
    /// The policy `[policy.NAME]` of a TOML text: see [`PipelineSettings::from_toml`].
    ///
    /// # Errors
    /// Those of that, and settings that make no sense.
    pub fn from_toml(text: &str, name: &str) -> Result<Self, ConfigError> {
        let settings = PipelineSettings::from_toml(text, name)?;
        Ok(Self::from_settings(name, settings).build()?)
    }

    /// Takes the settings of `[policy.NAME]` in a TOML text, and keeps the state: see [`Pipeline::reload`].
    ///
    /// # Errors
    /// Those of [`PipelineSettings::from_toml`] and [`Pipeline::reload`].
    pub fn reload_toml(&self, text: &str) -> Result<(), ConfigError> {
        let settings = PipelineSettings::from_toml(text, self.name())?;
        Ok(self.reload(settings)?)
    }
}
