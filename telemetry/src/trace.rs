//! Traces: spans get their ids and are recorded (`layer`) if the sampler says so (`sampling`), and go to a collector
//! (`export`) and to a file (`file`). What passes between processes is `propagation`'s, and lines are the log's.

pub(crate) mod entry;
mod export;
mod ext;
mod file;
mod finished;
pub(crate) mod ids;
pub(crate) mod kept;
pub(crate) mod layer;
mod limits;
mod recorded;
mod recording;
pub(crate) mod sampling;
mod settings;

use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;

pub use entry::Parent;
pub use ext::{Link, SpanExt, UnknownSpan};
pub use kept::{SpanIds, current_ids};
pub use layer::SpanLayer;
pub use sampling::{RatioError, Sampler, Sampling, SamplingStatus};
pub use settings::{FileSettings, TracesSettings};

use crate::InitError;
use crate::otlp::{OtlpSettings, Signal};
use crate::redact::Redact;
use crate::sink::{Alarm, Sink};
use finished::Finished;

/// Target of the spans of requests, calls, statements and messages. The filter lets it through always: a service that
/// logs only warnings still passes traces and correlation ids on.
pub const SPAN_TARGET: &str = "telemetry::span";

/// What is running for traces.
pub(crate) struct Traces {
    pub(crate) layer: SpanLayer,
    pub(crate) sampling: Sampling,
    /// Empty when nothing is exported; then nothing is recorded.
    pub(crate) sinks: Vec<Arc<dyn Sink>>,
}

impl Traces {
    /// Before anything is started: spans that only have ids.
    pub(crate) fn none() -> Self {
        let settings = TracesSettings::default();
        assemble(&settings, Sampler::default(), Redact::default(), None, Vec::new())
    }
}

/// Starts the exporters that the settings ask for. `resource` says who the service is, `environment` where it runs;
/// `alarm` tells a person of a collector that takes nothing.
pub(crate) fn start(
    settings: &TracesSettings,
    otlp: &OtlpSettings,
    environment: &str,
    resource: &[(&str, &str)],
    redact: Redact,
    alarm: Alarm,
) -> Result<Traces, InitError> {
    let resource = Resource {
        attributes: resource
            .iter()
            .map(|(key, value)| recording::text(*key, *value))
            .collect(),
        ..Resource::default()
    };
    let target = if settings.export {
        otlp.target(Signal::Traces)?
    } else {
        None
    };
    let exporter = match target {
        None => None,
        Some(target) => Some(export::start(
            target,
            resource.clone(),
            settings.queue(),
            settings.batches(),
            alarm,
        )?),
    };
    let file = file::start(&settings.file, resource, settings.queue())?;
    let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
    sinks.extend(exporter.clone().map(|sink| sink as Arc<dyn Sink>));
    sinks.extend(file.clone().map(|sink| sink as Arc<dyn Sink>));
    let take: Option<layer::Take> = if sinks.is_empty() {
        None
    } else {
        Some(Box::new(move |span| {
            let span = Finished::new(&span);
            if let Some(file) = &file {
                file.push(span.clone());
            }
            if let Some(exporter) = &exporter {
                exporter.push(span);
            }
        }))
    };
    Ok(assemble(settings, settings.sampler(environment), redact, take, sinks))
}

/// Traces that a test takes: all of them, nothing is sent.
pub(crate) fn captured(take: impl Fn(Span) + Send + Sync + 'static) -> Traces {
    let settings = TracesSettings::default();
    let sampler = Sampler::default().with_ratio(1.0);
    assemble(&settings, sampler, Redact::default(), Some(Box::new(take)), Vec::new())
}

/// The span layer by itself, whose spans go nowhere: for benchmarks, which measure it without anything around it.
#[doc(hidden)]
pub fn layer_alone(ratio: f64) -> SpanLayer {
    let sampler = Sampler::default().with_ratio(ratio);
    let take: layer::Take = Box::new(|span| {
        std::hint::black_box(Finished::new(&span));
    });
    assemble(
        &TracesSettings::default(),
        sampler,
        Redact::default(),
        Some(take),
        Vec::new(),
    )
    .layer
}

fn assemble(
    settings: &TracesSettings,
    sampler: Sampler,
    redact: Redact,
    take: Option<layer::Take>,
    sinks: Vec<Arc<dyn Sink>>,
) -> Traces {
    crate::propagation::use_only(settings.propagators);
    let sampling = Sampling::new(sampler);
    let limits = limits::Limits {
        redact,
        ..settings.limits.clone()
    };
    Traces {
        layer: SpanLayer::new(sampling.clone(), limits, take),
        sampling,
        sinks,
    }
}
