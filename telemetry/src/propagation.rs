//! What goes with a request from one process to the next: W3C `traceparent`, `tracestate` and `baggage`, and
//! `X-Correlation-ID`, read strictly and written in every protocol that has headers. Spans are made by `server`,
//! `client` and [`messages`], not here; which traces are sampled is the sampler's matter.
//!
//! Sources: <https://www.w3.org/TR/trace-context/>, <https://www.w3.org/TR/baggage/>.

mod baggage;
mod correlation;
pub mod headers;
pub mod messages;
mod settings;
mod trace_context;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::HeaderName;
use opentelemetry::trace::TraceContextExt as _;

pub use baggage::Baggage;
pub(crate) use baggage::decode as percent_decoded;
pub use correlation::CorrelationId;
pub use headers::{ReadHeaders, WriteHeaders};
pub use settings::Propagators;
pub(crate) use trace_context::write_traceparent;

use crate::trace::kept::{Carried, Told};
use crate::trace::{Parent, SpanIds, entry, kept};

/// `traceparent`.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// `tracestate`.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// `baggage`.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
/// `x-correlation-id`.
pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// What is in use, for the whole process: bit 0 for trace context, bit 1 for baggage.
static IN_USE: AtomicU8 = AtomicU8::new(3);

/// Reads and writes these forms alone from now on.
pub(crate) fn use_only(forms: Propagators) {
    let bits = u8::from(forms.trace_context) | u8::from(forms.baggage) << 1;
    IN_USE.store(bits, Ordering::Relaxed);
}

fn in_use() -> Propagators {
    let bits = IN_USE.load(Ordering::Relaxed);
    Propagators {
        trace_context: bits & 1 != 0,
        baggage: bits & 2 != 0,
    }
}

/// What was read from the headers of a request or a message.
#[derive(Debug, Clone)]
#[must_use]
pub struct Extracted {
    /// The caller's span, if its header is there and valid.
    pub parent: Option<Parent>,
    /// The correlation id, the caller's or a new one.
    pub correlation_id: CorrelationId,
    /// Headers that were there and refused: `traceparent`, `tracestate`, `baggage`, `correlation_id`. For
    /// `telemetry_propagation_invalid_total{reason}`.
    pub refused: Vec<&'static str>,
    pub(crate) carried: Arc<Carried>,
}

impl Extracted {
    /// Runs `inside`; a span that is made there, and has no parent in this process, continues the caller's trace and
    /// carries its correlation id and baggage:
    ///
    /// ```
    /// # let headers = http::HeaderMap::new();
    /// let caller = telemetry::propagation::extract(&headers);
    /// let span = caller.scope(|| tracing::info_span!(target: telemetry::SPAN_TARGET, "import", otel.kind = "server"));
    /// ```
    ///
    /// The sampler is asked while the span is made, and an unsampled one costs nothing more.
    pub fn scope<T>(&self, inside: impl FnOnce() -> T) -> T {
        let incoming = entry::Entry {
            parent: self.parent,
            carried: Some(Arc::clone(&self.carried)),
        };
        entry::with(incoming, inside)
    }

    /// The caller's context for those who use the API of `opentelemetry`.
    pub fn context(&self) -> opentelemetry::Context {
        let ids = self.parent.map(|parent| SpanIds {
            trace_id: parent.trace_id,
            span_id: parent.span_id,
            sampled: parent.sampled,
        });
        api_context(ids, &self.carried, true)
    }
}

/// A context of the API of `opentelemetry`.
pub(crate) fn api_context(ids: Option<SpanIds>, carried: &Carried, is_remote: bool) -> opentelemetry::Context {
    let mut context = opentelemetry::Context::new();
    if let Some(ids) = ids {
        let state = carried.trace_state.as_deref();
        context = context.with_remote_span_context(kept::span_context(ids, state, is_remote));
    }
    if let Some(baggage) = &carried.baggage {
        context = baggage.in_context(&context);
    }
    match &carried.correlation_id {
        Some(id) => context.with_value(id.clone()),
        None => context,
    }
}

/// Reads the caller's context. What is malformed is refused as a whole: without a valid `traceparent` a new trace begins.
pub fn extract(headers: &(impl ReadHeaders + ?Sized)) -> Extracted {
    let mut refused = Vec::new();
    let mut carried = Carried::default();
    let forms = in_use();
    let parent = match trace_context::read(headers) {
        _ if !forms.trace_context => None,
        trace_context::Read::Absent => None,
        trace_context::Read::Refused => {
            refused.push("traceparent");
            None
        }
        trace_context::Read::Found { parent, state } => {
            match state {
                Ok(state) => carried.trace_state = state,
                // A bad tracestate must not break the trace: it alone is left out (4.3 of the recommendation).
                Err(()) => refused.push("tracestate"),
            }
            Some(parent)
        }
    };
    match baggage::read(headers) {
        _ if !forms.baggage => {}
        Ok(baggage) => carried.baggage = baggage,
        Err(()) => refused.push("baggage"),
    }
    let mut ids = headers.header_values("x-correlation-id");
    let correlation_id = match (ids.next(), ids.next()) {
        (None, _) => CorrelationId::generate(),
        (Some(id), None) => std::str::from_utf8(id)
            .ok()
            .and_then(CorrelationId::parse)
            .unwrap_or_else(|| {
                refused.push("correlation_id");
                CorrelationId::generate()
            }),
        (Some(_), Some(_)) => {
            refused.push("correlation_id");
            CorrelationId::generate()
        }
    };
    carried.correlation_id = Some(correlation_id.clone());
    Extracted {
        parent,
        correlation_id,
        refused,
        carried: Arc::new(carried),
    }
}

/// Writes the current span's context, its correlation id and baggage into the headers of an outgoing request or
/// message. Without a span, what the API of `opentelemetry` has as current is written.
///
/// Works on `http::HeaderMap` (axum, reqwest, hyper), tonic's metadata, and the maps of [`headers`].
pub fn inject(headers: &mut (impl WriteHeaders + ?Sized)) {
    let told = kept::current().or_else(|| {
        let entry = entry::of_api();
        entry.parent.map(|parent| Told {
            ids: SpanIds {
                trace_id: parent.trace_id,
                span_id: parent.span_id,
                sampled: parent.sampled,
            },
            carried: entry.carried,
        })
    });
    if let Some(told) = told {
        write(&told, headers);
    }
}

/// [`inject`] for a span that need not be the current one.
pub fn inject_span(span: &tracing::Span, headers: &mut (impl WriteHeaders + ?Sized)) {
    if let Some(told) = kept::of(span) {
        write(&told, headers);
    }
}

fn write(told: &Told, headers: &mut (impl WriteHeaders + ?Sized)) {
    let forms = in_use();
    if forms.trace_context {
        write_traceparent(told.ids, |text| headers.set(TRACEPARENT.as_str(), text));
    }
    let Some(carried) = told.carried.as_deref() else { return };
    if let Some(state) = carried.trace_state.as_ref().filter(|_| forms.trace_context) {
        headers.set(TRACESTATE.as_str(), state);
    }
    if let Some(baggage) = carried.baggage.as_ref().filter(|_| forms.baggage) {
        headers.set(BAGGAGE.as_str(), baggage.header());
    }
    if let Some(id) = &carried.correlation_id {
        headers.set(CORRELATION_ID.as_str(), id.as_str());
    }
}

/// [`inject`] for tonic's metadata.
pub fn inject_metadata(metadata: &mut tonic::metadata::MetadataMap) {
    inject(metadata);
}

/// A tonic interceptor that does [`inject`]: `OrdersClient::with_interceptor(channel, telemetry::interceptor)`. It makes
/// no span; [`GrpcClientLayer`](crate::GrpcClientLayer) does both.
///
/// # Errors
/// Never; the type is tonic's.
pub fn interceptor<T>(mut request: tonic::Request<T>) -> Result<tonic::Request<T>, tonic::Status> {
    inject(request.metadata_mut());
    Ok(request)
}
