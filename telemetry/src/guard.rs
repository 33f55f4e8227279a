//! [`Guard`]: keeps an application's own filtered layers from losing data beside ours.
//!
//! A layer with a filter (`with_filter`) remembers in its thread what the filter said last. An event whose call site is
//! always of interest is not asked for again: it meets the answer that was meant for something else, such as
//! `log::log_enabled!(Debug)`, and the layer loses it (tokio-rs/tracing#2519, #3572). When no call site is "always" of
//! interest, everything is asked for, and nothing is lost.

use tracing::Metadata;
use tracing::Subscriber;
use tracing::subscriber::Interest;
use tracing_subscriber::Layer;

/// The layer; it does nothing else.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard;

impl<S: Subscriber> Layer<S> for Guard {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
}
