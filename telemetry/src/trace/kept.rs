//! What is kept of a span in the registry, and how its ids are found. Kept are the first span of each trace in this
//! process and every recorded span; the others of an unsampled trace keep nothing, and their ids are computed when
//! somebody asks.

use std::sync::Arc;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tracing::Dispatch;
use tracing::span::Id;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{Extensions, LookupSpan, SpanRef};

use crate::propagation::{Baggage, CorrelationId};
use crate::trace::ids::derived;
use crate::trace::recording::Recording;

/// A span's ids, and whether its trace is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanIds {
    /// Its trace; `Display` is lower hex, 32 characters.
    pub trace_id: TraceId,
    /// The span; `Display` is lower hex, 16 characters.
    pub span_id: SpanId,
    /// Whether it is recorded, here or by the caller's decision.
    pub sampled: bool,
}

/// What goes with a trace beside its ids.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried {
    pub(crate) correlation_id: Option<CorrelationId>,
    /// The `tracestate` header, checked.
    pub(crate) trace_state: Option<String>,
    pub(crate) baggage: Option<Baggage>,
}

/// The entry in a span's extensions.
pub(crate) struct Kept {
    pub(crate) ids: SpanIds,
    /// Invalid for a root.
    pub(crate) parent: SpanId,
    /// Whether the parent is in another process.
    pub(crate) remote: bool,
    pub(crate) carried: Option<Arc<Carried>>,
    /// `None` when nobody wants it.
    pub(crate) recording: Option<Box<Recording>>,
}

impl Kept {
    /// Whether it will be exported at its end.
    pub(crate) fn is_recorded(&self) -> bool {
        self.ids.sampled && self.recording.is_some()
    }

    /// The ids of the span `own`, which is the span `at` of this entry, or below it and keeps nothing.
    fn ids_of(&self, own: &Id, at: &Id) -> SpanIds {
        let mut ids = self.ids;
        // Below a recorded span only those are missing that were never shown to the layer: they are as good as absent.
        if at != own && !self.is_recorded() {
            ids.span_id = derived(ids.span_id, own);
        }
        ids
    }
}

/// What a span says to others: logs, exemplars, outgoing requests.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) ids: SpanIds,
    pub(crate) carried: Option<Arc<Carried>>,
}

impl Told {
    pub(crate) fn correlation_id(&self) -> Option<&CorrelationId> {
        self.carried.as_ref()?.correlation_id.as_ref()
    }
}

pub(crate) fn span_context(ids: SpanIds, trace_state: Option<&str>, is_remote: bool) -> SpanContext {
    let flags = TraceFlags::new(u8::from(ids.sampled));
    let state = trace_state.and_then(|text| text.parse::<TraceState>().ok());
    SpanContext::new(ids.trace_id, ids.span_id, flags, is_remote, state.unwrap_or_default())
}

/// Calls `with` with what is known of a span; `None` when the span layer never saw it or any of its ancestors.
pub(crate) fn told<'a, R, T>(span: &SpanRef<'a, R>, with: impl FnOnce(SpanIds, Option<&Arc<Carried>>) -> T) -> Option<T>
where
    R: LookupSpan<'a>,
{
    let own = span.id();
    for at in span.scope() {
        let extensions = at.extensions();
        let Some(kept) = extensions.get::<Kept>() else { continue };
        return Some(with(kept.ids_of(&own, &at.id()), kept.carried.as_ref()));
    }
    None
}

/// What the span `at` knows for its descendant (or itself) `own`: its ids, and the id of the request. Nothing: its parent
/// may.
pub(crate) fn known<'a>(
    own: &Id,
    at: &Id,
    extensions: &'a Extensions<'_>,
) -> Option<(SpanIds, Option<&'a CorrelationId>)> {
    let kept = extensions.get::<Kept>()?;
    let carried = kept.carried.as_ref();
    let correlation = carried.and_then(|carried| carried.correlation_id.as_ref());
    Some((kept.ids_of(own, at), correlation))
}

/// Looks a span up in the registry of a dispatcher. Needs no layer of a certain type, so that it works below `reload`
/// and beside any other layers; under a subscriber that is not built on [`Registry`] there is nothing to find.
pub(crate) fn look<T>(
    dispatch: &Dispatch,
    id: &Id,
    with: impl FnOnce(SpanRef<'_, Registry>) -> Option<T>,
) -> Option<T> {
    with(dispatch.downcast_ref::<Registry>()?.span(id)?)
}

/// What the current span tells, if there is one.
pub(crate) fn current() -> Option<Told> {
    tracing::dispatcher::get_default(|dispatch| {
        let current = dispatch.current_span();
        look(dispatch, current.id()?, |span| tell(&span))
    })
}

/// What a span tells.
pub(crate) fn of(span: &tracing::Span) -> Option<Told> {
    span.with_subscriber(|(id, dispatch)| look(dispatch, id, |span| tell(&span)))?
}

fn tell(span: &SpanRef<'_, Registry>) -> Option<Told> {
    told(span, |ids, carried| Told {
        ids,
        carried: carried.cloned(),
    })
}

/// Ids of the current span, if there is one.
pub fn current_ids() -> Option<SpanIds> {
    tracing::dispatcher::get_default(|dispatch| {
        let current = dispatch.current_span();
        look(dispatch, current.id()?, |span| told(&span, |ids, _| ids))
    })
}
