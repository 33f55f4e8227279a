//! Where a trace comes into this process: what a caller said is put here for as long as the first span is made, so that
//! the sampler is asked once, with the caller's decision known. Reading it from headers is `propagation`'s.

use std::cell::RefCell;
use std::sync::Arc;

use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};

use crate::propagation::{Baggage, CorrelationId};
use crate::trace::kept::Carried;

/// A span of somebody else, below which the first span here belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span itself.
    pub span_id: SpanId,
    /// Whether it is sampled.
    pub sampled: bool,
    /// Whether it is in another process.
    pub remote: bool,
}

/// What comes in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    pub(crate) parent: Option<Parent>,
    pub(crate) carried: Option<Arc<Carried>>,
}

thread_local! {
    static ENTRY: RefCell<Option<Entry>> = const { RefCell::new(None) };
}

/// What comes in on this thread now.
pub(crate) fn current() -> Option<Entry> {
    ENTRY.try_with(|entry| entry.borrow().clone()).ok().flatten()
}

/// Runs `inside` with `entry` as what comes in.
pub(crate) fn with<T>(entry: Entry, inside: impl FnOnce() -> T) -> T {
    struct Restore(Option<Entry>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = ENTRY.try_with(|entry| *entry.borrow_mut() = self.0.take());
        }
    }
    let before = ENTRY.try_with(|known| known.borrow_mut().replace(entry));
    let _restore = Restore(before.ok().flatten());
    inside()
}

/// What the API of `opentelemetry` has as current, when that is a trace.
pub(crate) fn of_api() -> Entry {
    opentelemetry::Context::map_current(|context| {
        if context.has_active_span() {
            of_context(context)
        } else {
            Entry::default()
        }
    })
}

/// What a context of that API says.
pub(crate) fn of_context(context: &opentelemetry::Context) -> Entry {
    let span = context.span();
    let span = span.span_context();
    let parent = span.is_valid().then(|| Parent {
        trace_id: span.trace_id(),
        span_id: span.span_id(),
        sampled: span.is_sampled(),
        remote: span.is_remote(),
    });
    let trace_state = Some(span.trace_state().header()).filter(|text| !text.is_empty());
    let correlation_id = context.get::<CorrelationId>().cloned();
    let baggage = Baggage::of_context(context);
    let carries = trace_state.is_some() || correlation_id.is_some() || baggage.is_some();
    Entry {
        parent,
        carried: carries.then(|| {
            Arc::new(Carried {
                correlation_id,
                trace_state,
                baggage,
            })
        }),
    }
}
