//! What became of everything that was emitted. Only numbers: `sink::account` counts, this holds.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeStruct as _, Serializer};

/// Why an item was lost here. The names are the label values of `telemetry_dropped_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The queue was full.
    QueueFull,
    /// It came after the sink was closed.
    Closed,
    /// It still waited when the time of the shutdown was over.
    Deadline,
    /// It was in a write or a request without an answer when the time of the shutdown was over. It may have arrived.
    Unanswered,
    /// It could not be written: nobody reads, or the disk is full.
    WriteFailed,
    /// The receiver could not be reached, or did not take it, for as long as was tried.
    Unreachable,
    /// It alone is larger than the sink may hold.
    TooLarge,
    /// The spool was full.
    SpoolFull,
    /// The spool could not be written, or what it held was damaged.
    SpoolFailed,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::QueueFull,
        Self::Closed,
        Self::Deadline,
        Self::Unanswered,
        Self::WriteFailed,
        Self::Unreachable,
        Self::TooLarge,
        Self::SpoolFull,
        Self::SpoolFailed,
    ];

    /// As in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Closed => "closed",
            Self::Deadline => "deadline",
            Self::Unanswered => "unanswered",
            Self::WriteFailed => "write_failed",
            Self::Unreachable => "unreachable",
            Self::TooLarge => "too_large",
            Self::SpoolFull => "spool_full",
            Self::SpoolFailed => "spool_failed",
        }
    }
}

/// Why a receiver refused an item for good. The names are the label values of `telemetry_rejected_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectReason {
    /// It is malformed, or against the receiver's rules.
    BadRequest,
    /// It is larger than the receiver takes.
    TooLarge,
    /// It is older than the receiver takes.
    TooOld,
    /// The receiver does not know or allow us.
    Unauthorized,
    /// The receiver took a part of the batch and not this.
    Partial,
    /// Any other answer that says no.
    Refused,
}

impl RejectReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::BadRequest,
        Self::TooLarge,
        Self::TooOld,
        Self::Unauthorized,
        Self::Partial,
        Self::Refused,
    ];

    /// As in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::TooOld => "too_old",
            Self::Unauthorized => "unauthorized",
            Self::Partial => "partial",
            Self::Refused => "refused",
        }
    }
}

/// Counts of one sink: `emitted = delivered + rejected + dropped + spooled` once it is shut down. While it works, the
/// difference is what waits or is on its way ([`SinkCounts::pending`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkCounts {
    /// Handed to the sink, and found in its spool at the start.
    pub emitted: u64,
    /// Written, or acknowledged by the receiver.
    pub delivered: u64,
    /// Refused by the receiver for good.
    pub rejected: u64,
    /// Lost here: queue full, receiver gone, time over.
    pub dropped: u64,
    /// Kept on disk for a later start.
    pub spooled: u64,
    /// Handed to something that does not tell what it did with it.
    pub unknown: u64,
    /// Ever kept on disk, also those that were delivered afterwards.
    pub spooled_ever: u64,
    /// How many of `emitted` were found in the spool that an earlier process left.
    pub recovered: u64,
    pub(crate) dropped_by: [u64; DropReason::ALL.len()],
    pub(crate) rejected_by: [u64; RejectReason::ALL.len()],
}

impl SinkCounts {
    /// Whether the fate of every item is known and the counts add up.
    pub const fn is_exact(&self) -> bool {
        self.unknown == 0 && self.emitted == self.delivered + self.rejected + self.dropped + self.spooled
    }

    /// Whether everything was delivered or is kept on disk, and this is known.
    pub const fn is_lossless(&self) -> bool {
        self.is_exact() && self.rejected == 0 && self.dropped == 0
    }

    /// Items that wait or are on their way.
    pub const fn pending(&self) -> u64 {
        let settled = self.delivered + self.rejected + self.dropped + self.spooled + self.unknown;
        self.emitted.saturating_sub(settled)
    }

    /// How many were dropped for this reason.
    pub const fn dropped_because(&self, reason: DropReason) -> u64 {
        self.dropped_by[reason as usize]
    }

    /// How many were rejected for this reason.
    pub const fn rejected_because(&self, reason: RejectReason) -> u64 {
        self.rejected_by[reason as usize]
    }
}

impl Serialize for SinkCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let dropped: BTreeMap<_, _> = DropReason::ALL
            .iter()
            .map(|reason| (reason.name(), self.dropped_because(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let rejected: BTreeMap<_, _> = RejectReason::ALL
            .iter()
            .map(|reason| (reason.name(), self.rejected_because(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut counts = serializer.serialize_struct("SinkCounts", 11)?;
        counts.serialize_field("emitted", &self.emitted)?;
        counts.serialize_field("delivered", &self.delivered)?;
        counts.serialize_field("rejected", &self.rejected)?;
        counts.serialize_field("dropped", &self.dropped)?;
        counts.serialize_field("spooled", &self.spooled)?;
        counts.serialize_field("spooled_ever", &self.spooled_ever)?;
        counts.serialize_field("unknown", &self.unknown)?;
        counts.serialize_field("pending", &self.pending())?;
        counts.serialize_field("recovered", &self.recovered)?;
        counts.serialize_field("dropped_by", &dropped)?;
        counts.serialize_field("rejected_by", &rejected)?;
        counts.end()
    }
}

/// What [`Telemetry::shutdown`](crate::Telemetry::shutdown) found.
///
/// As JSON: `{"schema":"opsctl.telemetry/v1","sinks":{"stdout":{"emitted":…}}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Report {
    /// Sinks by name (`stdout`, `loki`, `otlp_traces`).
    pub sinks: Vec<(&'static str, SinkCounts)>,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sinks: BTreeMap<_, _> = self.sinks.iter().copied().collect();
        let mut report = serializer.serialize_struct("Report", 2)?;
        report.serialize_field("schema", "opsctl.telemetry/v1")?;
        report.serialize_field("sinks", &sinks)?;
        report.end()
    }
}

impl Report {
    /// The counts of a sink, if it was in use.
    pub fn sink(&self, name: &str) -> Option<SinkCounts> {
        self.sinks
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, counts)| *counts)
    }

    /// Whether the fate of everything is known and adds up, in every sink.
    pub fn is_exact(&self) -> bool {
        self.sinks.iter().all(|(_, counts)| counts.is_exact())
    }

    /// Whether nothing was rejected or dropped in any sink, and this is known.
    pub fn is_lossless(&self) -> bool {
        self.sinks.iter().all(|(_, counts)| counts.is_lossless())
    }
}
