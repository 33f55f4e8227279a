//! What a receiver tells of itself while it runs.

use std::time::Duration;

use jiff::Timestamp;
use replication::{Lsn, SystemId, Timeline};

/// What a receiver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// It connects, or finds out where to go on.
    #[default]
    Connecting,
    /// It receives.
    Streaming,
    /// Something failed; it tries again.
    Waiting,
    /// It has ended.
    Ended,
}

/// What is not wrong yet, and may become so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// `max_slot_wal_keep_size` is not limited: while nothing is received, the log fills the server's disk.
    SlotKeepsEverything,
    /// `synchronous_standby_names` has this value, by which commits may wait for this receiver, and so for the
    /// repository.
    CommitsMayWait(String),
    /// The slot is about to be lost: see [`SlotStanding::is_short`].
    SlotShort {
        /// How many bytes of log the server keeps for it.
        kept: u64,
        /// How many more it will keep; less than nothing where the next checkpoint takes them away.
        safe: i64,
    },
    /// No second connection could be made to ask how far the server is, so it is not known up to which moment all is
    /// held, only up to which position.
    MomentUnknown(String),
    /// The archive holds log of a timeline that was left earlier: a server that others did not follow wrote it, and no
    /// restore of a newer timeline has it.
    LeftBehind {
        /// The timeline.
        timeline: Timeline,
        /// Where it was left.
        left: Lsn,
        /// Up to where the archive holds it.
        held: Lsn,
    },
}

/// What is known of the slot on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotStanding {
    /// From where on the server keeps the log; `None` if it keeps none, since the slot is lost.
    pub restart: Option<Lsn>,
    /// Whether somebody reads from it now.
    pub active: bool,
    /// How many bytes of log the server keeps for it.
    pub lag: u64,
    /// `reserved`, `extended`, `unreserved` or `lost`, as `pg_replication_slots` has it.
    pub wal_status: Option<String>,
    /// How many bytes may be written before it is lost; `None` where it never is, or is already.
    pub safe_wal_size: Option<i64>,
}

impl SlotStanding {
    /// Whether it is lost: what it kept is gone, and nobody can receive by it any more.
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }

    /// Whether the server keeps the log for it whatever becomes of its disk: `max_slot_wal_keep_size` is not set.
    pub fn is_unlimited(&self) -> bool {
        self.safe_wal_size.is_none() && self.restart.is_some() && !self.is_lost()
    }

    /// Whether less than a quarter is left of what the server may keep for it, or nothing at all: whoever is away or slow
    /// so long that the rest is written, too, loses log for ever.
    pub fn is_short(&self) -> bool {
        self.safe_wal_size.is_some_and(|safe| {
            let safe = u128::try_from(safe).unwrap_or(0);
            4 * safe < u128::from(self.lag) + safe
        })
    }
}

/// How a receiver stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// What it does.
    pub phase: Phase,
    /// The server that it receives from, without user and password.
    pub server: Option<String>,
    /// The cluster.
    pub system: Option<SystemId>,
    /// The timeline that is received.
    pub timeline: Option<Timeline>,
    /// Up to here the log was received.
    pub received: Lsn,
    /// Up to here it is durable in the repository: what the server was told that it need not keep.
    pub durable: Lsn,
    /// Up to here the server has it, as it said last.
    pub end_of_log: Lsn,
    /// When it said so, by its clock.
    pub said_at: Option<Timestamp>,
    /// All that was acknowledged before this moment of the server's clock is durable in the repository.
    pub complete_until: Option<Timestamp>,
    /// Files that are on their way to the repository.
    pub uploads: usize,
    /// The slot; `None` before it was asked for, and where SQL is not allowed.
    pub slot: Option<SlotStanding>,
    /// What may become wrong.
    pub warnings: Vec<Warning>,
    /// What went wrong last, while it goes on; `None` once it succeeded.
    pub last_error: Option<String>,
    /// How often something failed in a row.
    pub failures: u32,
}

impl Status {
    /// What would be lost if the server were gone now, at this moment of its clock; `None` if that is not known.
    pub fn rpo(&self, now: Timestamp) -> Option<Duration> {
        let since = now.duration_since(self.complete_until?);
        Some(Duration::try_from(since).unwrap_or_default())
    }

    /// Bytes of log that the server has and the repository has not.
    pub fn behind(&self) -> u64 {
        self.end_of_log.since(self.durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(lag: u64, safe_wal_size: Option<i64>, wal_status: &str) -> SlotStanding {
        SlotStanding {
            restart: (wal_status != "lost").then_some(Lsn(1)),
            active: false,
            lag,
            wal_status: Some(wal_status.to_owned()),
            safe_wal_size,
        }
    }

    #[test]
    fn a_slot_is_short_when_less_than_a_quarter_is_left() {
        for (lag, safe, short) in [
            (0, 100, false),
            (75, 25, false),
            (76, 24, true),
            (100, 0, true),
            (100, -20, true),
            (0, 0, false),
            (u64::MAX, 1 << 60, true),
            (u64::MAX, i64::MAX, false),
        ] {
            let slot = slot(lag, Some(safe), "extended");
            assert_eq!(slot.is_short(), short, "{lag} kept, {safe} left");
            assert!(!slot.is_unlimited() && !slot.is_lost());
        }
        let unlimited = slot(1 << 40, None, "extended");
        assert!(unlimited.is_unlimited() && !unlimited.is_short() && !unlimited.is_lost());
        let lost = slot(0, None, "lost");
        assert!(lost.is_lost() && !lost.is_unlimited() && !lost.is_short());
    }
}
