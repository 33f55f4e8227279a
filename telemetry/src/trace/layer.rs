//! The span layer: gives spans their ids, asks the sampler once at the first span of a trace, and records those that
//! are sampled. An unsampled span costs next to nothing: its first span keeps its ids, the others keep nothing. It
//! writes no log lines and sends nothing.

use std::cell::RefCell;
use std::sync::Arc;

use opentelemetry::trace::{SpanId, TraceContextExt as _};
use opentelemetry::{Context as OtelContext, ContextGuard};
use opentelemetry_proto::tonic::trace::v1::Span as Finished;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::trace::entry::{self, Entry};
use crate::trace::ids;
use crate::trace::kept::{Carried, Kept, SpanIds, span_context, told};
use crate::trace::limits::Limits;
use crate::trace::recorded::Recorded;
use crate::trace::recording::Recording;
use crate::trace::sampling::Sampling;

/// Takes the spans that ended.
pub(crate) type Take = Box<dyn Fn(Finished) + Send + Sync>;

/// The layer; made by [`Telemetry`](crate::Telemetry).
///
/// It must see every span: give it no filter of its own (`with_filter`), but the subscriber one for all.
pub struct SpanLayer {
    pub(crate) shared: Arc<Shared>,
}

/// What the layer shares with [`SpanExt`](crate::SpanExt).
pub(crate) struct Shared {
    pub(crate) sampling: Sampling,
    pub(crate) limits: Limits,
    pub(crate) recorded: Recorded,
    /// `None` when nobody takes spans: then none is recorded.
    pub(crate) take: Option<Take>,
}

impl std::fmt::Debug for SpanLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpanLayer")
            .field("sampling", &self.shared.sampling)
            .finish_non_exhaustive()
    }
}

impl SpanLayer {
    pub(crate) fn new(sampling: Sampling, limits: Limits, take: Option<Take>) -> Self {
        Self {
            shared: Arc::new(Shared {
                sampling,
                limits,
                recorded: Recorded::default(),
                take,
            }),
        }
    }
}

impl Shared {
    /// The first span of a trace in this process, below a caller's span or none.
    ///
    /// `may_move` says that it may still be told its parent: then it is recorded in any case, and what was recorded is
    /// forgotten at its end if it stays unsampled.
    fn first(&self, entry: Entry, may_move: bool, recording: impl FnOnce() -> Box<Recording>) -> Kept {
        let Entry { parent, carried } = entry;
        let (trace_id, parent_span_id, sampled) = if let Some(parent) = parent {
            (parent.trace_id, parent.span_id, self.sampling.below(parent))
        } else {
            let trace_id = ids::trace_id();
            // Without anybody to take them, nobody wants new traces.
            let sampled = self.take.is_some() && self.sampling.root(trace_id);
            (trace_id, SpanId::INVALID, sampled)
        };
        let ids = SpanIds {
            trace_id,
            span_id: ids::span_id(),
            sampled,
        };
        let wanted = self.take.is_some() && (sampled || may_move);
        Kept {
            ids,
            parent: parent_span_id,
            remote: parent.is_some_and(|parent| parent.remote),
            carried,
            recording: wanted.then(recording),
        }
    }

    fn child(parent: SpanIds, carried: Option<Arc<Carried>>, recording: Box<Recording>) -> Kept {
        Kept {
            ids: SpanIds {
                span_id: ids::span_id(),
                ..parent
            },
            parent: parent.span_id,
            remote: false,
            carried,
            recording: Some(recording),
        }
    }

    fn keep<'a, S>(&self, kept: Kept, id: &Id, context: &'a Context<'_, S>)
    where
        S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    {
        if let Some(span) = context.span(id) {
            if kept.recording.is_some() {
                self.recorded.add(id);
            }
            span.extensions_mut().insert(kept);
        }
    }

    /// Calls `with` for a span that is recorded, also if only for the case that it gets a sampled parent.
    fn with_recording<S, T>(
        &self,
        id: &Id,
        context: &Context<'_, S>,
        with: impl FnOnce(&mut Recording, &SpanIds, Option<&Carried>) -> T,
    ) -> Option<T>
    where
        S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    {
        if !self.recorded.may_hold(id) {
            return None;
        }
        let span = context.span(id)?;
        let mut extensions = span.extensions_mut();
        let kept = extensions.get_mut::<Kept>()?;
        let recording = kept.recording.as_deref_mut()?;
        Some(with(recording, &kept.ids, kept.carried.as_deref()))
    }
}

impl<S> Layer<S> for SpanLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let shared = &*self.shared;
        let current;
        let parent = if attributes.is_root() {
            None
        } else if let Some(parent) = attributes.parent() {
            Some(parent)
        } else {
            current = context.current_span();
            current.id()
        };
        let Some(parent) = parent else {
            let known = entry::current();
            // What says its kind is where a request comes in: its parent may be set after it was made.
            let may_move = known.is_none() && attributes.metadata().fields().field("otel.kind").is_some();
            let entry = known.unwrap_or_else(|| {
                // Somebody who uses the API of opentelemetry may have begun a trace here.
                if attributes.is_contextual() {
                    entry::of_api()
                } else {
                    Entry::default()
                }
            });
            let kept = shared.first(entry, may_move, || Recording::begin(attributes, &shared.limits));
            return shared.keep(kept, id, &context);
        };
        if !shared.recorded.may_hold(parent) {
            return;
        }
        let Some(span) = context.span(parent) else { return };
        let above = {
            let extensions = span.extensions();
            extensions
                .get::<Kept>()
                .filter(|kept| kept.is_recorded())
                .map(|kept| (kept.ids, kept.carried.clone()))
        };
        if let Some((ids, carried)) = above {
            let recording = Recording::begin(attributes, &shared.limits);
            shared.keep(Shared::child(ids, carried, recording), id, &context);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.shared.with_recording(id, &context, |recording, _, _| {
            recording.record(values, &self.shared.limits);
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        if !self.shared.recorded.may_hold(id) {
            return;
        }
        let Some(span) = context.span(follows) else { return };
        let Some(to) = told(&span, |ids, _| ids) else { return };
        self.shared.with_recording(id, &context, |recording, _, _| {
            recording.link(to, None, Vec::new(), &self.shared.limits);
        });
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.shared.take.is_none() {
            return;
        }
        let current;
        let parent = if let Some(parent) = event.parent() {
            parent
        } else if event.is_contextual() {
            current = context.current_span();
            match current.id() {
                Some(id) => id,
                None => return,
            }
        } else {
            return;
        };
        self.shared.with_recording(parent, &context, |recording, ids, _| {
            if ids.sampled {
                recording.event(event, &self.shared.limits);
            }
        });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let seen = self.shared.with_recording(id, &context, |recording, ids, carried| {
            if !ids.sampled {
                return None;
            }
            let context = recording.context.get_or_insert_with(|| {
                let state = carried.and_then(|carried| carried.trace_state.as_deref());
                OtelContext::current().with_remote_span_context(span_context(*ids, state, false))
            });
            Some(context.clone())
        });
        if let Some(seen) = seen.flatten() {
            let guard = seen.attach();
            let _ = ENTERED.try_with(|entered| entered.borrow_mut().push((id.clone(), guard)));
        }
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        if !self.shared.recorded.may_hold(id) {
            return;
        }
        // Usually the last; spans may be left in another order.
        let guard = ENTERED.try_with(|entered| {
            let mut entered = entered.borrow_mut();
            let at = entered.iter().rposition(|(known, _)| known == id)?;
            Some(entered.remove(at).1)
        });
        drop(guard);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if !self.shared.recorded.may_hold(&id) {
            return;
        }
        let Some(span) = context.span(&id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(kept) = extensions.get_mut::<Kept>() else {
            return;
        };
        let Some(recording) = kept.recording.take() else { return };
        self.shared.recorded.remove(&id);
        if let (Some(take), true) = (&self.shared.take, kept.ids.sampled) {
            let state = kept.carried.as_ref().and_then(|carried| carried.trace_state.as_deref());
            take(recording.end(kept.ids, kept.parent, kept.remote, state));
        }
    }
}

thread_local! {
    /// The recorded spans that are entered on this thread, as the API of `opentelemetry` sees them.
    static ENTERED: RefCell<Vec<(Id, ContextGuard)>> = const { RefCell::new(Vec::new()) };
}
