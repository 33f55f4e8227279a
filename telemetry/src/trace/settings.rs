//! `telemetry.traces`: what can be set of traces, in a file and by variables. Pure.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::InitError;
use crate::builder::env::Env;
use crate::builder::units;
use crate::propagation::Propagators;
use crate::sink::queue::{BatchLimits, OnFull, QueueLimits};
use crate::trace::limits::Limits;
use crate::trace::sampling::Sampler;

/// Settings of traces.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesSettings {
    /// Share of the traces that begin here, 0 to 1. Default by the environment: `production` 0.1, others 1; both lowered
    /// to 1-5 % above 10,000 new traces per second. A share that is set is not lowered.
    pub ratio: Option<f64>,
    /// Whether callers may decide that a trace is sampled. A public edge says `false`. Default `true`.
    pub trust_remote: bool,
    /// Bytes of spans that may wait, for each exporter. Default 16 MiB.
    #[serde(with = "units::bytes")]
    pub queue_bytes: usize,
    /// Spans that may wait, for each exporter. Default: as many as the bytes hold.
    pub queue_spans: Option<NonZeroUsize>,
    /// How long the first span of a batch waits for others. Default 1 s.
    #[serde(with = "units::duration")]
    pub linger: Duration,
    /// Most spans in one request. Default 512.
    pub batch: usize,
    /// Spans as lines of a file.
    pub file: FileSettings,
    /// Whether spans go to the collector. `OTEL_TRACES_EXPORTER=none` says no.
    pub export: bool,
    #[serde(skip)]
    pub(crate) limits: Limits,
    #[serde(skip)]
    pub(crate) propagators: Propagators,
    /// What `OTEL_TRACES_SAMPLER` said.
    #[serde(skip)]
    sampler: Option<Sampler>,
}

/// `telemetry.traces.file`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileSettings {
    /// The file; it is made with mode 0600 and appended to. Default none.
    pub path: Option<PathBuf>,
    /// At most so many bytes; what was before is kept once, as `….1`. Default without bound: whoever reads it rotates it.
    #[serde(deserialize_with = "optional_bytes")]
    pub max_bytes: Option<usize>,
}

impl Default for TracesSettings {
    fn default() -> Self {
        Self {
            ratio: None,
            trust_remote: true,
            queue_bytes: 16 * 1024 * 1024,
            queue_spans: None,
            linger: Duration::from_secs(1),
            batch: 512,
            file: FileSettings::default(),
            export: true,
            limits: Limits::default(),
            propagators: Propagators::default(),
            sampler: None,
        }
    }
}

impl TracesSettings {
    /// Reads `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG`, `OTEL_TRACES_EXPORTER`, `OTEL_BSP_SCHEDULE_DELAY`,
    /// `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, `OTEL_BSP_MAX_QUEUE_SIZE`, `OTEL_SPAN_…_LIMIT`, `OTEL_PROPAGATORS`,
    /// `TRACES_FILE`, `TRACES_FILE_MAX_BYTES`, `TRACES_TRUST_REMOTE`, `TRACES_QUEUE_BYTES`.
    pub(crate) fn read_env(&mut self, env: &Env<'_>) -> Result<(), InitError> {
        let mut sampler = Sampler::default();
        let unset = sampler.clone();
        sampler.read_env(env)?;
        if sampler != unset {
            self.sampler = Some(sampler);
        }
        let exporter = |text: &str| match text {
            "otlp" => Some(true),
            "none" => Some(false),
            _ => None,
        };
        if let Some(export) = env.read("OTEL_TRACES_EXPORTER", "otlp or none", exporter)? {
            self.export = export;
        }
        if let Some(linger) = env.duration_ms("OTEL_BSP_SCHEDULE_DELAY")? {
            self.linger = linger;
        }
        let count = "a whole number above zero";
        if let Some(batch) = env.parse::<NonZeroUsize>("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", count)? {
            self.batch = batch.get();
        }
        if let Some(spans) = env.parse("OTEL_BSP_MAX_QUEUE_SIZE", count)? {
            self.queue_spans = Some(spans);
        }
        if let Some(path) = env.get("TRACES_FILE")? {
            self.file.path = Some(path.into());
        }
        if let Some(bytes) = env.bytes("TRACES_FILE_MAX_BYTES")? {
            self.file.max_bytes = Some(bytes);
        }
        if let Some(trust) = env.flag("TRACES_TRUST_REMOTE")? {
            self.trust_remote = trust;
        }
        if let Some(bytes) = env.bytes("TRACES_QUEUE_BYTES")? {
            self.queue_bytes = bytes;
        }
        if let Some(propagators) = Propagators::read_env(env)? {
            self.propagators = propagators;
        }
        self.limits.read_env(env)
    }

    /// The sampler for an environment of that name.
    pub(crate) fn sampler(&self, environment: &str) -> Sampler {
        let sampler = match (&self.sampler, self.ratio) {
            (Some(sampler), _) => sampler.clone(),
            (None, Some(ratio)) => Sampler::default().with_ratio(ratio),
            (None, None) => Sampler::of_environment(environment),
        };
        Sampler {
            trusts_callers: self.trust_remote,
            ..sampler
        }
    }

    pub(crate) fn queue(&self) -> QueueLimits {
        QueueLimits {
            bytes: self.queue_bytes,
            items: self.queue_spans.map_or(usize::MAX, NonZeroUsize::get),
            on_full: OnFull::DropLowest,
            block: Duration::ZERO,
        }
    }

    pub(crate) fn batches(&self) -> BatchLimits {
        BatchLimits {
            bytes: 1024 * 1024,
            items: self.batch,
            linger: self.linger,
        }
    }
}

fn optional_bytes<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    units::bytes::deserialize(deserializer).map(Some)
}
