//! Panics: counted, and written as one ERROR line beside what the former hook does.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::redact::limited;
use crate::sink::{self, Sink};

/// Longest part of a panic's message in a line, in bytes.
const PAYLOAD_LIMIT: usize = 4 * 1024;
/// How long a process that is about to abort waits for its last lines.
const LAST_FLUSH: Duration = Duration::from_millis(200);

/// Chains our hook before the one that is installed.
pub(crate) fn install(metrics: &Metrics, sinks: Vec<Arc<dyn Sink>>) {
    let panics = metrics.counter(catalogue::PANICS_TOTAL, []);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        panics.inc();
        let payload = info.payload();
        let payload = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no text)");
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        // A panic in here would end the process at once, and not come back: std sees to it.
        tracing::error!(
            target: "panic",
            payload = limited(payload, PAYLOAD_LIMIT),
            location,
            thread = thread.name().unwrap_or("unnamed"),
            "panicked"
        );
        if cfg!(panic = "abort") {
            sink::flush_all(&sinks, LAST_FLUSH);
        }
        before(info);
    }));
}
