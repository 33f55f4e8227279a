//! The filter as a layer that can be changed while it runs. `tracing_subscriber::reload` takes a lock that all threads
//! share for everything that happens to a span or an event; here nobody waits for anybody.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber, callsite};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::{EnvFilter, Layer};

/// The layer.
#[derive(Debug)]
pub(crate) struct Filter(Arc<ArcSwap<InForce>>);

/// Changes a filter as long as somebody uses it.
#[derive(Debug)]
pub(crate) struct Handle(Weak<ArcSwap<InForce>>);

/// A filter that was read.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) filter: EnvFilter,
    /// Whether it has directives about spans (`[span{field=value}]=debug`): only then it must know of each.
    pub(crate) by_span: bool,
}

impl Filter {
    pub(crate) fn new(filter: InForce) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(filter)))
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle(Arc::downgrade(&self.0))
    }

    fn of_spans(&self, tell: impl FnOnce(&EnvFilter)) {
        let now = self.0.load();
        if now.by_span {
            tell(&now.filter);
        }
    }
}

impl Handle {
    /// Puts another filter in force.
    ///
    /// # Errors
    /// When nobody asks it any more.
    pub(crate) fn change(&self, filter: InForce) -> Result<(), String> {
        let running = self.0.upgrade().ok_or("the subscriber is gone")?;
        running.store(Arc::new(filter));
        callsite::rebuild_interest_cache();
        // The crate `log` asks its own limit first.
        tracing_log::log::set_max_level(tracing_log::AsLog::as_log(&LevelFilter::current()));
        Ok(())
    }
}

impl<S: Subscriber> Layer<S> for Filter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&self.0.load().filter, metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, context: Context<'_, S>) -> bool {
        self.0.load().filter.enabled(metadata, context)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.0.load().filter.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.of_spans(|filter| filter.on_new_span(attributes, id, context));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.of_spans(|filter| filter.on_record(id, values, context));
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.of_spans(|filter| filter.on_enter(id, context));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.of_spans(|filter| filter.on_exit(id, context));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.of_spans(|filter| filter.on_close(id, context));
    }
}
