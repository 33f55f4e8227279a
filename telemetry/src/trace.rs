//! Traces: spans get their ids and are recorded ([`layer`]) if the sampler says so ([`sampling`]), and go to a collector
//! and to a file. What passes between processes is `propagation`'s, and lines are the log's.

pub(crate) mod entry;
mod ext;
pub(crate) mod ids;
pub(crate) mod kept;
pub(crate) mod layer;
mod limits;
mod recorded;
mod recording;
pub(crate) mod sampling;

pub use entry::Parent;
pub use ext::{Link, SpanExt, UnknownSpan};
pub use kept::{SpanIds, current_ids};
pub use layer::SpanLayer;
pub use sampling::{RatioError, Sampler, Sampling, SamplingStatus};

/// Target of the spans of requests, calls, statements and messages. The filter lets it through always: a service that
/// logs only warnings still passes traces and correlation ids on.
pub const SPAN_TARGET: &str = "telemetry::span";
