//! [`LogSettings`]: what can be said of lines, in a file (`telemetry.log`) and by variables.

use std::time::Duration;

use crate::InitError;
use crate::builder::env::Env;
use crate::builder::units;
use crate::sink::queue::{OnFull, QueueLimits};

/// Which lines there are and how they look.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LogSettings {
    /// Which lines and spans exist, as `info,orders=debug`. `RUST_LOG`. Default `info`.
    pub filter: String,
    /// `LOG_FORMAT`. Default `auto`.
    pub format: LogFormat,
    /// Values of fields whose name contains one of these are not written, without regard to case; besides
    /// `authorization`, `password`, `passwd`, `secret`, `token`, `cookie`, `api_key` and `apikey`.
    pub redact_keys: Vec<String>,
    /// Lines that one place in the code may write in a second; the others are counted, and a line tells how many.
    /// `LOG_LINES_PER_SECOND`. Default: no limit.
    pub lines_per_second: Option<u32>,
    /// The way to stdout.
    pub stdout: StdoutSettings,
}

/// The queue before stdout.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StdoutSettings {
    /// What happens when it is full. `LOG_ON_FULL`. Default `drop_lowest`.
    pub on_full: OnFull,
    /// Bytes that may wait. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub queue_bytes: usize,
    /// Longest wait of a caller under `on_full = "block"`. Default 100 ms.
    #[serde(with = "units::duration")]
    pub block_timeout: Duration,
}

/// How lines look on stdout. Other sinks always get JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// `pretty` on a terminal in the environments `dev` and `development`, else `json`.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::default(),
            redact_keys: Vec::new(),
            lines_per_second: None,
            stdout: StdoutSettings::default(),
        }
    }
}

impl Default for StdoutSettings {
    fn default() -> Self {
        Self {
            on_full: OnFull::default(),
            queue_bytes: 16 * 1024 * 1024,
            block_timeout: Duration::from_millis(100),
        }
    }
}

impl LogSettings {
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        if let Some(filter) = env.get("RUST_LOG")? {
            self.filter = filter;
        }
        let format = |text: &str| match text {
            "auto" => Some(LogFormat::Auto),
            "json" => Some(LogFormat::Json),
            "pretty" => Some(LogFormat::Pretty),
            _ => None,
        };
        if let Some(format) = env.read("LOG_FORMAT", "auto, json or pretty", format)? {
            self.format = format;
        }
        if let Some(limit) = env.parse("LOG_LINES_PER_SECOND", "a whole number, or 0 for no limit")? {
            self.lines_per_second = Some(limit).filter(|limit| *limit > 0);
        }
        let on_full = |text: &str| match text {
            "drop_lowest" => Some(OnFull::DropLowest),
            "block" => Some(OnFull::Block),
            "drop_newest" => Some(OnFull::DropNewest),
            _ => None,
        };
        if let Some(on_full) = env.read("LOG_ON_FULL", "drop_lowest, block or drop_newest", on_full)? {
            self.stdout.on_full = on_full;
        }
        Ok(())
    }

    /// What a file may say and cannot be used.
    pub(crate) fn check(&self) -> Result<(), InitError> {
        let bytes = self.stdout.queue_bytes;
        if bytes < MIN_QUEUE {
            let key = "telemetry.log.stdout.queue_bytes";
            return Err(InitError::setting(
                key,
                &bytes.to_string(),
                "at least 256KiB, which is one line and more",
            ));
        }
        Ok(())
    }
}

/// One line of the greatest length fits.
const MIN_QUEUE: usize = 256 * 1024;

impl StdoutSettings {
    pub(crate) fn limits(&self) -> QueueLimits {
        QueueLimits {
            bytes: self.queue_bytes,
            items: usize::MAX,
            on_full: self.on_full,
            block: self.block_timeout,
        }
    }
}
