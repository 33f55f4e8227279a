//! What the sampler is told: by the environment's name, by code, or by the variables of OpenTelemetry, which win. Pure.
//! Source: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration>.

use crate::InitError;
use crate::builder::env::Env;

/// Which traces are sampled when nothing is changed at run time.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// Share of the traces that begin here, 0 to 1.
    pub ratio: f64,
    /// Whether the share is lowered to between 5 and 1 % above 10,000 new traces per second.
    pub automatic: bool,
    /// Whether those who are in a trace already follow its beginner.
    pub follows_parent: bool,
    /// Whether callers in other processes may decide that a trace is sampled. A public edge says `false`: there the share
    /// decides.
    pub trusts_callers: bool,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            ratio: 1.0,
            automatic: true,
            follows_parent: true,
            trusts_callers: true,
        }
    }
}

impl Sampler {
    /// What an environment of that name samples: `production` and `prod` 10 %, every other everything.
    pub fn of_environment(name: &str) -> Self {
        let ratio = if matches!(name, "production" | "prod") {
            0.1
        } else {
            1.0
        };
        Self {
            ratio,
            ..Self::default()
        }
    }

    /// A fixed share.
    #[must_use]
    pub fn with_ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio.clamp(0.0, 1.0);
        self.automatic = false;
        self
    }

    /// Reads `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. An argument alone is a share.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        let share = |text: &str| text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        let argument = env.read("OTEL_TRACES_SAMPLER_ARG", "a number between 0 and 1", share)?;
        // The specification's default of the argument is 1.
        let of_ratio = argument.unwrap_or(1.0);
        let kind = |text: &str| match text {
            "traceidratio" => Some((of_ratio, false)),
            "parentbased_traceidratio" => Some((of_ratio, true)),
            "always_on" => Some((1.0, false)),
            "always_off" => Some((0.0, false)),
            "parentbased_always_on" => Some((1.0, true)),
            "parentbased_always_off" => Some((0.0, true)),
            _ => None,
        };
        let known = "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                     parentbased_traceidratio";
        let wanted = env.read("OTEL_TRACES_SAMPLER", known, kind)?;
        if let Some((ratio, follows_parent)) = wanted.or(argument.map(|ratio| (ratio, self.follows_parent))) {
            *self = Self {
                follows_parent,
                ..self.clone().with_ratio(ratio)
            };
        }
        Ok(())
    }
}
