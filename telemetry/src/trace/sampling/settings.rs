//! What the sampler is told: by the environment's name, by code, or by the variables of OpenTelemetry, which win. Pure.
//! Source: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration>.

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

/// A variable that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value} cannot be used: {wanted}")]
pub struct SamplerError {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub value: String,
    /// What it may say.
    pub wanted: &'static str,
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
        let ratio = if matches!(name, "production" | "prod") { 0.1 } else { 1.0 };
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
    ///
    /// # Errors
    /// A sampler that does not exist here, or an argument that is no share.
    pub fn read(&mut self, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(), SamplerError> {
        const KIND: &str = "OTEL_TRACES_SAMPLER";
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let value = |name| lookup(name).filter(|value: &String| !value.is_empty());
        let argument = match value(ARGUMENT) {
            None => None,
            Some(text) => match text.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Some(ratio),
                _ => {
                    return Err(SamplerError {
                        name: ARGUMENT,
                        value: text,
                        wanted: "a number between 0 and 1",
                    });
                }
            },
        };
        let kind = value(KIND);
        let (ratio, follows_parent) = match kind.as_deref() {
            None => match argument {
                None => return Ok(()),
                Some(ratio) => (ratio, self.follows_parent),
            },
            // The specification's default of the argument is 1.
            Some("traceidratio") => (argument.unwrap_or(1.0), false),
            Some("parentbased_traceidratio") => (argument.unwrap_or(1.0), true),
            Some("always_on") => (1.0, false),
            Some("always_off") => (0.0, false),
            Some("parentbased_always_on") => (1.0, true),
            Some("parentbased_always_off") => (0.0, true),
            Some(other) => {
                return Err(SamplerError {
                    name: KIND,
                    value: other.to_owned(),
                    wanted: "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or \
                             parentbased_traceidratio",
                });
            }
        };
        *self = Self {
            follows_parent,
            ..self.clone().with_ratio(ratio)
        };
        Ok(())
    }
}
