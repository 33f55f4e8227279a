//! Records that tell a time or a name: ends of transactions, restore points, checkpoints, ends of recoveries and of
//! backups, switches of segments. The formats are those of PostgreSQL's `access/xact.h`, `access/xlog_internal.h` and
//! `catalog/pg_control.h`, which versions 14 to 18 share as far as they are read here.

use jiff::Timestamp;
use replication::{Lsn, Timeline};

use super::page::bytes;
use super::{Extent, Record};

/// A record that tells something about when or where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where it lies.
    pub extent: Extent,
    /// By the server's clock: of an end of a transaction and of a restore point to the microsecond, of a checkpoint the
    /// second in which it began. `None` if it tells none.
    pub time: Option<Timestamp>,
    /// What it is.
    pub kind: Kind,
}

/// What a mark is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A transaction was committed, at once or after it was prepared.
    Commit,
    /// A transaction was given up.
    Abort,
    /// `pg_create_restore_point`.
    RestorePoint {
        /// Its name; what is no UTF-8 in it is replaced.
        name: String,
    },
    /// A checkpoint.
    Checkpoint {
        /// Of a server that was shut down, so that nothing happened beside it.
        shutdown: bool,
        /// Where a recovery from it begins to read.
        redo: Lsn,
        /// Its timeline.
        timeline: Timeline,
        /// The timeline before; the same one, unless this is the first record of a timeline.
        previous: Timeline,
    },
    /// A server was promoted: the first record of a timeline.
    EndOfRecovery {
        /// The new timeline.
        timeline: Timeline,
        /// The one before.
        previous: Timeline,
    },
    /// A base backup ended.
    BackupEnd {
        /// Where it began: its checkpoint's redo position.
        start: Lsn,
    },
    /// The rest of the segment is not used.
    Switch,
    /// A server crashed inside of a record, and this is written in its place.
    Overwrite {
        /// The record that ends nowhere.
        lost: Lsn,
    },
}

impl Kind {
    /// Whether a recovery to a time may stop before it.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Abort)
    }
}

/// Resource managers.
const XLOG: u8 = 0;
const XACT: u8 = 1;

/// Which of `info`'s bits the resource manager has, and which of those say what a transaction did.
const OPERATION: u8 = 0xF0;
const XACT_OPERATION: u8 = 0x70;

const SWITCH: u8 = 0x40;

/// 2000-01-01, which PostgreSQL counts microseconds from, in those since 1970.
const EPOCH: i64 = 946_684_800_000_000;

/// Whether the rest of its segment is not used.
pub(super) fn is_switch(manager: u8, info: u8) -> bool {
    manager == XLOG && info & OPERATION == SWITCH
}

impl Mark {
    /// What a record tells, if it does.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        let (time, kind) = match record.manager {
            XACT => Self::of_transaction(record)?,
            XLOG => Self::of_log(record)?,
            _ => return None,
        };
        let extent = record.extent;
        Some(Self { extent, time, kind })
    }

    fn of_transaction(record: &Record<'_>) -> Option<(Option<Timestamp>, Kind)> {
        let kind = match record.info & XACT_OPERATION {
            // As it is, and of one that was prepared.
            0x00 | 0x30 => Kind::Commit,
            0x20 | 0x40 => Kind::Abort,
            _ => return None,
        };
        // `xl_xact_commit` and `xl_xact_abort` begin with it.
        Some((time(data(record.body)?, 0), kind))
    }

    fn of_log(record: &Record<'_>) -> Option<(Option<Timestamp>, Kind)> {
        if is_switch(record.manager, record.info) {
            return Some((None, Kind::Switch));
        }
        let data = data(record.body)?;
        let position = |at| Lsn(u64::from_le_bytes(bytes(data, at)));
        let timeline = |at| Timeline(u32::from_le_bytes(bytes(data, at)));
        let told = match record.info & OPERATION {
            operation @ (0x00 | 0x10) => {
                let seconds = i64::from_le_bytes(bytes(data, 64));
                let kind = Kind::Checkpoint {
                    shutdown: operation == 0x00,
                    redo: position(0),
                    timeline: timeline(8),
                    previous: timeline(12),
                };
                (Timestamp::from_second(seconds).ok(), kind)
            }
            0x50 => (None, Kind::BackupEnd { start: position(0) }),
            0x70 => {
                let name = data.get(8..).unwrap_or_default();
                // A field of 64 bytes, of which the last is zero.
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = String::from_utf8_lossy(&name[..name.len().min(63)]).into_owned();
                (time(data, 0), Kind::RestorePoint { name })
            }
            0x90 => {
                let kind = Kind::EndOfRecovery {
                    timeline: timeline(8),
                    previous: timeline(12),
                };
                (time(data, 0), kind)
            }
            0xD0 => (time(data, 8), Kind::Overwrite { lost: position(0) }),
            _ => return None,
        };
        Some(told)
    }
}

/// Microseconds since 2000; `None` for a time that nobody's clock shows.
fn time(data: &[u8], at: usize) -> Option<Timestamp> {
    let microseconds = i64::from_le_bytes(bytes(data, at));
    Timestamp::from_microsecond(microseconds.checked_add(EPOCH)?).ok()
}

/// The data of a record that is about no page: what follows the short headers in front of it. `None` of one that is.
fn data(body: &[u8]) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (id, after) = rest.split_first()?;
        // Where the change comes from, the transaction around this one, and the data: of at most 255 bytes, or longer.
        let (length, is_data) = match id {
            253 => (2, false),
            252 => (4, false),
            255 => (1, true),
            254 => (4, true),
            _ => return None,
        };
        rest = after.get(length..)?;
        if is_data {
            return Some(rest);
        }
    }
}
