//! What became of everything that was emitted. Only numbers: sinks count, this holds.

/// Counts of one sink: `emitted = delivered + rejected + dropped + spooled` once it is shut down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SinkCounts {
    /// Handed to the sink.
    pub emitted: u64,
    /// Written, or acknowledged by the receiver.
    pub delivered: u64,
    /// Refused by the receiver for good.
    pub rejected: u64,
    /// Lost here: queue full, receiver gone, time over.
    pub dropped: u64,
    /// Kept on disk for a later start.
    pub spooled: u64,
}

impl SinkCounts {
    /// Whether the counts add up.
    pub const fn is_exact(&self) -> bool {
        self.emitted == self.delivered + self.rejected + self.dropped + self.spooled
    }
}

/// What [`Telemetry::shutdown`](crate::Telemetry::shutdown) found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[must_use]
pub struct Report {
    /// Sinks by name (`stdout`, `otlp_traces`).
    pub sinks: Vec<(&'static str, SinkCounts)>,
}

impl Report {
    /// The counts of a sink, if it was in use.
    pub fn sink(&self, name: &str) -> Option<SinkCounts> {
        self.sinks
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, counts)| *counts)
    }

    /// Whether nothing was rejected or dropped.
    pub fn is_lossless(&self) -> bool {
        self.sinks
            .iter()
            .all(|(_, counts)| counts.rejected == 0 && counts.dropped == 0)
    }
}
