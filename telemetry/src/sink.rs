//! What every sink has: a name, an exact account and an end. Sinks (stdout, Loki, the OTLP exporter) take items from a
//! [`queue::Queue`] on a thread of their own; how they deliver them is their own matter.

pub(crate) mod account;
pub(crate) mod lane;
pub(crate) mod queue;
pub(crate) mod retry;
pub(crate) mod thread;

use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::time::Instant;

use crate::log::stdout;
use crate::report::{Report, SinkCounts};

/// Says something to a person, in one line on stdout: what a sink has to say must not come back to it.
pub(crate) type Alarm = std::sync::Arc<dyn Fn(queue::Severity, &str) + Send + Sync>;

/// Where items end up. All calls return within their limit, whatever the receiver does.
pub(crate) trait Sink: Send + Sync {
    /// As in the report and in the label `sink`: `stdout`, `loki`, `otlp_traces`.
    fn name(&self) -> &'static str;

    /// Counts so far.
    fn counts(&self) -> SinkCounts;

    /// Bytes that wait.
    fn queued_bytes(&self) -> usize;

    /// Waits at most `limit` until everything emitted so far is settled. The sink goes on.
    fn flush(&self, limit: Duration);

    /// Takes no more, waits at most `limit` for the rest, and says what became of everything. Blocks; later calls
    /// return the same but for items that came after it, which are dropped.
    fn close(&self, limit: Duration) -> SinkCounts;
}

/// Waits at most `limit` in all until every sink has settled what was emitted so far.
pub(crate) fn flush_all(sinks: &[Arc<dyn Sink>], limit: Duration) {
    let deadline = Instant::now() + limit;
    // All of them begin before the first is waited for.
    for sink in sinks {
        sink.flush(Duration::ZERO);
    }
    for sink in sinks {
        sink.flush(deadline.saturating_duration_since(Instant::now()));
    }
}

/// The most that the log keeps of a shutdown's time for itself: a fifth of it, up to this.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Closes all sinks within `limit`: those that send to others first, at the same time, and then the log, since it is
/// where they say what they could not deliver.
pub(crate) fn close_all(sinks: &[Arc<dyn Sink>], limit: Duration) -> Report {
    let deadline = Instant::now() + limit;
    let (logs, others): (Vec<_>, Vec<_>) = (0..sinks.len()).partition(|at| sinks[*at].name() == stdout::NAME);
    let mut found: Vec<Option<SinkCounts>> = vec![None; sinks.len()];
    close_together(sinks, &others, deadline - LAST_WORDS.min(limit / 5), &mut found);
    close_together(sinks, &logs, deadline, &mut found);
    let counts = sinks.iter().zip(found);
    Report {
        sinks: counts
            .map(|(sink, found)| (sink.name(), found.unwrap_or_else(|| sink.counts())))
            .collect(),
    }
}

/// Closes some of the sinks at the same time and returns when the last has closed, or a little after the deadline: for
/// one that does not keep it nothing is found.
fn close_together(sinks: &[Arc<dyn Sink>], which: &[usize], deadline: Instant, found: &mut [Option<SinkCounts>]) {
    let left = move || deadline.saturating_duration_since(Instant::now());
    let (sender, closed) = mpsc::channel();
    for &index in which {
        let (sink, sender) = (Arc::clone(&sinks[index]), sender.clone());
        let close = move || {
            let _ = sender.send((index, sink.close(left())));
        };
        let thread = std::thread::Builder::new().name("telemetry-close".to_owned());
        if thread.spawn(close).is_err() {
            found[index] = Some(sinks[index].close(left()));
        }
    }
    drop(sender);
    let patience = deadline + Duration::from_millis(200);
    while let Ok((index, counts)) = closed.recv_timeout(patience.saturating_duration_since(Instant::now())) {
        found[index] = Some(counts);
    }
}
