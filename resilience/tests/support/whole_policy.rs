//! What the tests of settings and of reloads share: a policy with every part in it, and one read from a line of TOML.

use std::time::Duration;

use resilience::{
    AdaptiveSettings, ConfigError, HedgeSettings, Pipeline, PipelineSettings, RateLimitSettings, ThrottleSettings,
};

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Settings with every part in them.
pub fn all() -> PipelineSettings {
    PipelineSettings {
        gate: true,
        hedge: Some(HedgeSettings::default()),
        throttle: Some(ThrottleSettings::default()),
        rate_limit: Some(RateLimitSettings::default()),
        concurrency_limit: Some(AdaptiveSettings::default()),
        ..PipelineSettings::standard()
    }
}

/// The policy whose table has this `body`.
pub fn from_text(body: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::from_toml(&format!("[policy.x]\n{body}\n"), "x")
}
