//! [`Settings`]: everything that can be said of telemetry, as it stands in a file under `telemetry` and in variables.
//! Keys that are not known are refused. What each part means is said where the part is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::env::Env;
use super::units;
use crate::InitError;
use crate::log::settings::LogSettings;
use crate::loki::LokiSettings;
use crate::metrics::MetricsSettings;
use crate::otlp::OtlpSettings;
use crate::trace::TracesSettings;

/// All settings. Deserialises from a table such as `[telemetry]` of a TOML file; then come the variables
/// ([`TelemetryBuilder::from_env`](crate::TelemetryBuilder::from_env)), then what the code sets.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Who writes.
    pub service: ServiceSettings,
    /// `APP_ENV`, or `deployment.environment.name` in `OTEL_RESOURCE_ATTRIBUTES`. Default `dev`.
    pub environment: String,
    /// Nothing is sent by OTLP. Lines and `/metrics` stay. `OTEL_SDK_DISABLED`.
    pub disabled: bool,
    /// Lines.
    pub log: LogSettings,
    /// Lines to Loki.
    pub loki: LokiSettings,
    /// Where OTLP goes and how.
    pub otlp: OtlpSettings,
    /// Spans.
    pub traces: TracesSettings,
    /// Metrics.
    pub metrics: MetricsSettings,
    /// The end.
    pub shutdown: ShutdownSettings,
}

/// Who writes: in every line, in `build_info` and in the resource of spans and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServiceSettings {
    /// `OTEL_SERVICE_NAME`, or `service.name` in `OTEL_RESOURCE_ATTRIBUTES`. Default: what the builder was given.
    pub name: String,
    /// `SERVICE_VERSION`, or `service.version` in `OTEL_RESOURCE_ATTRIBUTES`.
    pub version: String,
    /// `INSTANCE_ID`, or `service.instance.id` in `OTEL_RESOURCE_ATTRIBUTES`.
    pub instance: String,
    /// More attributes of the resource: the other pairs of `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: BTreeMap<String, String>,
}

/// The end of telemetry.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ShutdownSettings {
    /// How long [`Telemetry::close`](crate::Telemetry::close) waits. Default 4 s.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            service: ServiceSettings::default(),
            environment: "dev".to_owned(),
            disabled: false,
            log: LogSettings::default(),
            loki: LokiSettings::default(),
            otlp: OtlpSettings::default(),
            traces: TracesSettings::default(),
            metrics: MetricsSettings::default(),
            shutdown: ShutdownSettings::default(),
        }
    }
}

impl Default for ShutdownSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(4),
        }
    }
}

impl ServiceSettings {
    /// The attributes of the resource.
    pub(crate) fn resource<'a>(&'a self, environment: &'a str) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("service.name", self.name.as_str()),
            ("deployment.environment.name", environment),
            ("service.version", &self.version),
            ("service.instance.id", &self.instance),
        ];
        let more = self
            .attributes
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        own.into_iter()
            .chain(more)
            .filter(|(_, value)| !value.is_empty())
            .collect()
    }
}

impl Settings {
    /// Takes over every variable that is set.
    ///
    /// # Errors
    /// The first variable that cannot be understood.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        if let Some(text) = env.get("OTEL_RESOURCE_ATTRIBUTES")? {
            let pairs = resource_attributes(&text).ok_or_else(|| {
                InitError::setting("OTEL_RESOURCE_ATTRIBUTES", &text, "key=value pairs between commas")
            })?;
            for (key, value) in pairs {
                match key.as_str() {
                    "service.name" => self.service.name = value,
                    "service.version" => self.service.version = value,
                    "service.instance.id" => self.service.instance = value,
                    "deployment.environment.name" | "deployment.environment" => self.environment = value,
                    _ => {
                        self.service.attributes.insert(key, value);
                    }
                }
            }
        }
        let texts = [
            ("OTEL_SERVICE_NAME", &mut self.service.name),
            ("SERVICE_VERSION", &mut self.service.version),
            ("INSTANCE_ID", &mut self.service.instance),
            ("APP_ENV", &mut self.environment),
        ];
        for (name, setting) in texts {
            if let Some(text) = env.get(name)? {
                *setting = text;
            }
        }
        if let Some(disabled) = env.flag("OTEL_SDK_DISABLED")? {
            self.disabled = disabled;
        }
        // Lines go to stdout and Loki, which OpenTelemetry does not know: both words change nothing.
        let exporters = |text: &str| {
            let known = |word: &str| matches!(word.trim(), "none" | "console");
            text.split(',').all(known).then_some(())
        };
        env.read(
            "OTEL_LOGS_EXPORTER",
            "none or console (lines go to stdout and to Loki)",
            exporters,
        )?;
        self.log.read_env(env)?;
        self.loki.read_env(env)?;
        self.otlp.read_env(env)?;
        self.traces.read_env(env)?;
        self.metrics.read_env(env)
    }

    /// What a file may say and cannot be used.
    pub(crate) fn check(&self) -> Result<(), InitError> {
        self.log.check()
    }
}

/// `key=value,key=value`, with values that are percent-encoded.
fn resource_attributes(text: &str) -> Option<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then_some((key.to_owned(), percent_decoded(value.trim())?))
    };
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs.map(pair).collect()
}

/// `None` when the text is malformed or no UTF-8.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = tail
                .get(..2)
                .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}
