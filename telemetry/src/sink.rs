//! What every sink has: a name, an exact account and an end. Sinks (stdout, Loki, the OTLP exporter) take items from a
//! [`queue::Queue`] on a thread of their own; how they deliver them is their own matter.

pub(crate) mod account;
pub(crate) mod queue;
pub(crate) mod retry;
pub(crate) mod thread;

use std::time::Duration;

use crate::report::SinkCounts;

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
