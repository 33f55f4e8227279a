//! Panics: counted, and written as one ERROR line beside what the former hook does.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::log::Queue;
use crate::metrics::Metrics;

/// Longest part of a panic's message in a line, in bytes.
const PAYLOAD_LIMIT: usize = 4 * 1024;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Chains our hook before the one that is installed.
pub(crate) fn install(metrics: &Metrics, queue: &Arc<Queue>) {
    let panics = metrics.counter(catalogue::PANICS_TOTAL, []);
    let queue = Arc::clone(queue);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        panics.inc();
        // A panic while this one is being written must not come back here.
        if !INSIDE.replace(true) {
            let payload = info.payload();
            let payload = payload
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("(no text)");
            let mut end = payload.len().min(PAYLOAD_LIMIT);
            while !payload.is_char_boundary(end) {
                end -= 1;
            }
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let thread = std::thread::current();
            tracing::error!(
                target: "panic",
                payload = &payload[..end],
                location,
                thread = thread.name().unwrap_or("unnamed"),
                "panicked"
            );
            if cfg!(panic = "abort") {
                queue.flush(Duration::from_millis(200));
            }
            INSIDE.set(false);
        }
        before(info);
    }));
}
