//! [`SpanExt`]: what can be done with a span of `tracing` beyond `tracing`. It stands for `OpenTelemetrySpanExt` of the
//! crate tracing-opentelemetry, which finds only its own layer and does nothing under ours.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanId;
use tracing::Span;

use crate::propagation::api_context;
use crate::trace::kept::{self, Carried, Kept, SpanIds, told};
use crate::trace::layer::{Shared, SpanLayer};
use crate::trace::recording::{Recording, attribute};
use crate::trace::{Parent, entry, ids};

/// A span that cannot be given a parent: it is disabled, over, or not of a subscriber with our layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the span is not known to telemetry")]
pub struct UnknownSpan;

/// For [`tracing::Span`].
pub trait SpanExt {
    /// Puts the span into the trace of `context`'s span, and asks the sampler again. Call it before the span is entered
    /// or has children: what they said of themselves before stays.
    ///
    /// Fields that a span got when it was made are kept for this if it has a field `otel.kind` or was sampled anyhow.
    /// [`Extracted::scope`](crate::propagation::Extracted::scope) has no such rule and costs less.
    ///
    /// # Errors
    /// When there is no such span.
    fn set_parent(&self, context: &opentelemetry::Context) -> Result<(), UnknownSpan>;

    /// Links the span to another one. Does nothing unless the span is recorded.
    fn add_link(&self, to: impl Into<Link>);

    /// Sets an attribute that need not be a field of the span. Does nothing unless the span is recorded.
    fn set_attribute(&self, key: impl Into<opentelemetry::Key>, value: impl Into<opentelemetry::Value>);

    /// Adds an event that is no line of the log. Does nothing unless the span is recorded.
    fn add_event(&self, name: &'static str, attributes: Vec<KeyValue>);

    /// The span's context for the API of `opentelemetry`: its propagators, or spans made by it. Inside of a sampled span
    /// `opentelemetry::Context::current()` is this one; inside of an unsampled it is not, since that would cost more
    /// than the span.
    fn context(&self) -> opentelemetry::Context;

    /// The span's ids, unless it is disabled.
    fn ids(&self) -> Option<SpanIds>;
}

/// Another span, and what is to be said of it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Its ids.
    pub to: SpanIds,
    /// Its `tracestate`.
    pub trace_state: Option<String>,
    /// Attributes of the link.
    pub attributes: Vec<KeyValue>,
}

impl From<SpanIds> for Link {
    fn from(to: SpanIds) -> Self {
        Self {
            to,
            trace_state: None,
            attributes: Vec::new(),
        }
    }
}

impl From<Parent> for Link {
    fn from(parent: Parent) -> Self {
        Self::from(SpanIds {
            trace_id: parent.trace_id,
            span_id: parent.span_id,
            sampled: parent.sampled,
        })
    }
}

impl From<&opentelemetry::trace::SpanContext> for Link {
    fn from(context: &opentelemetry::trace::SpanContext) -> Self {
        Self {
            to: SpanIds {
                trace_id: context.trace_id(),
                span_id: context.span_id(),
                sampled: context.is_sampled(),
            },
            trace_state: Some(context.trace_state().header()).filter(|text| !text.is_empty()),
            attributes: Vec::new(),
        }
    }
}

impl SpanExt for Span {
    fn set_parent(&self, context: &opentelemetry::Context) -> Result<(), UnknownSpan> {
        let entry = entry::of_context(context);
        let moved = self.with_subscriber(|(id, dispatch)| {
            let shared = &*dispatch.downcast_ref::<SpanLayer>()?.shared;
            kept::look(dispatch, id, |span| {
                let mut extensions = span.extensions_mut();
                if let Some(kept) = extensions.get_mut::<Kept>() {
                    move_below(kept, entry, shared, || {
                        shared.recorded.add(id);
                        Recording::begin_late(span.name())
                    });
                } else {
                    drop(extensions);
                    let carried = told(&span, |_, carried| carried.cloned()).flatten();
                    let mut kept = Kept {
                        ids: SpanIds {
                            trace_id: ids::trace_id(),
                            span_id: ids::span_id(),
                            sampled: false,
                        },
                        parent: SpanId::INVALID,
                        remote: false,
                        carried,
                        recording: None,
                    };
                    move_below(&mut kept, entry, shared, || {
                        shared.recorded.add(id);
                        Recording::begin_late(span.name())
                    });
                    span.extensions_mut().insert(kept);
                }
                Some(())
            })
        });
        moved.flatten().ok_or(UnknownSpan)
    }

    fn add_link(&self, to: impl Into<Link>) {
        let Link {
            to,
            trace_state,
            attributes,
        } = to.into();
        recorded(self, |recording, shared| {
            let attributes = attributes.into_iter().map(attribute).collect();
            recording.link(to, trace_state.as_deref(), attributes, &shared.limits);
        });
    }

    fn set_attribute(&self, key: impl Into<opentelemetry::Key>, value: impl Into<opentelemetry::Value>) {
        let pair = KeyValue::new(key, value);
        recorded(self, |recording, shared| {
            recording.attribute(attribute(pair), &shared.limits);
        });
    }

    fn add_event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        recorded(self, |recording, shared| {
            let attributes = attributes.into_iter().map(attribute).collect();
            recording.add_event(name.to_owned(), attributes, &shared.limits);
        });
    }

    fn context(&self) -> opentelemetry::Context {
        match kept::of(self) {
            None => opentelemetry::Context::new(),
            Some(told) => api_context(
                Some(told.ids),
                told.carried.as_deref().unwrap_or(&Carried::default()),
                false,
            ),
        }
    }

    fn ids(&self) -> Option<SpanIds> {
        kept::of(self).map(|told| told.ids)
    }
}

fn move_below(kept: &mut Kept, entry: entry::Entry, shared: &Shared, late: impl FnOnce() -> Box<Recording>) {
    if let Some(parent) = entry.parent {
        kept.ids.trace_id = parent.trace_id;
        kept.ids.sampled = shared.sampling.below(parent);
        kept.parent = parent.span_id;
        kept.remote = parent.remote;
    }
    if let Some(carried) = entry.carried {
        let before = kept.carried.as_deref().cloned().unwrap_or_default();
        kept.carried = Some(Arc::new(Carried {
            correlation_id: carried.correlation_id.clone().or(before.correlation_id),
            trace_state: carried.trace_state.clone(),
            baggage: carried.baggage.clone().or(before.baggage),
        }));
    }
    if kept.ids.sampled && kept.recording.is_none() && shared.take.is_some() {
        kept.recording = Some(late());
    }
}

/// Calls `with` if the span is recorded.
fn recorded(span: &Span, with: impl FnOnce(&mut Recording, &Shared)) {
    span.with_subscriber(|(id, dispatch)| {
        let shared = &*dispatch.downcast_ref::<SpanLayer>()?.shared;
        if !shared.recorded.may_hold(id) {
            return None;
        }
        kept::look(dispatch, id, |span| {
            let mut extensions = span.extensions_mut();
            let recording = extensions.get_mut::<Kept>()?.recording.as_deref_mut()?;
            with(recording, shared);
            Some(())
        })
    });
}
