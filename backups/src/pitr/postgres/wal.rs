//! Reads PostgreSQL's write-ahead log, versions 14 to 18: pages, records over their borders, checksums. It is given bytes
//! in the order of the log, in pieces of any length, and keeps none but a few hundred. What does not belong there is a
//! [`Fault`] with its position: another cluster's log, another timeline's, a recycled file's former content, damage.
//!
//! Not what a record does: only whether it is sound, and which ones are [`mark`]s in time. The formats are those of
//! PostgreSQL's `access/xlog_internal.h` and `access/xlogrecord.h`, the rules those of its `xlogreader.c`.
//!
//! A [`Reader`] goes on and on over many segments, and every record is checked. What is read alone, such as one file
//! ([`check_segment`]), may begin inside of a record, which is skipped, and end inside of one, of which only the
//! beginning is looked at: neither's checksum can be known there.
//!
//! Nobody checks these bytes, since a server does not read them either: what fills records and headers of pages up to
//! eight bytes, what lies behind a switch of segments, and the flag that says which full pages may be left out.

mod fault;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod mark;
mod page;
mod reader;
mod record;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod writer;

use jiff::Timestamp;
use mark::Mark;
use replication::{History, Lsn, Segment, SegmentSize, SystemId, Timeline};

pub use fault::Fault;
pub use reader::Reader;
pub use record::Record;

/// What the log must be of.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The cluster; `None` takes the first one that comes, and then no other.
    pub system: Option<SystemId>,
    /// How long its segments are.
    pub segment_size: SegmentSize,
    /// The timeline whose files are read.
    pub timeline: Timeline,
    /// Its history. With it, a page must be of just the timeline that its position belongs to; without it, of this or any
    /// older timeline, as long as none is older than the one before.
    pub history: Option<History>,
}

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The position of the record.
    pub start: Lsn,
    /// The position after it, which the next one begins at (or, at the end of a page, behind the next page's header).
    pub end: Lsn,
}

/// What a file that was read alone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// PostgreSQL's major version.
    pub major: u32,
    /// The cluster.
    pub system: SystemId,
    /// How many records lie wholly in it.
    pub records: u64,
    /// The first record that begins in it; `None` if an earlier one fills it.
    pub first: Option<Lsn>,
    /// The last record that lies wholly in it.
    pub last: Option<Extent>,
    /// The beginning of the record that goes on in the next file.
    pub unfinished: Option<Lsn>,
    /// The newest moment that a record of it tells, and the end of that record: the server reads its clock before it writes
    /// the record, and what it had acknowledged by then it had written.
    pub newest: Option<(Timestamp, Lsn)>,
}

/// Reads a whole segment alone: the content of its file, all of it.
///
/// # Errors
/// [`Fault`]. A file whose log ends before its end is one, too: a whole segment is full, or ends with a switch.
pub fn check_segment(content: &[u8], segment: Segment, expected: &Expected) -> Result<Checked, Fault> {
    check_until(content, segment, segment.end(expected.segment_size), expected)
}

/// Reads the beginning of a segment alone: `content` is that of its file, of which what lies before `until` is log. What
/// lies behind is not looked at.
///
/// # Errors
/// [`Fault`].
pub fn check_until(content: &[u8], segment: Segment, until: Lsn, expected: &Expected) -> Result<Checked, Fault> {
    let size = expected.segment_size;
    let (start, end) = (segment.start(size), segment.end(size));
    let held = start.plus(content.len() as u64);
    if held > end {
        return Err(Fault::TooLong { at: end, until: held });
    }
    let until = until.min(end);
    let expected = Expected {
        timeline: segment.timeline,
        ..expected.clone()
    };
    let mut reader = Reader::new(start, expected);
    let length = content.len().min(until.since(start) as usize);
    let mut newest = None;
    let read = reader.push(&content[..length], |record| {
        let mark = Mark::of(record);
        newest = newest.max(mark.and_then(|mark| Some((mark.time?, mark.extent.end))));
    });
    match read {
        // Zeros where a record or a page should be: a log that was cut off, and its file filled up.
        Err(Fault::Length { at, found: 0 } | Fault::Magic { at, found: 0 }) => {
            return Err(Fault::Truncated { at, until });
        }
        read => read?,
    }
    match (reader.major(), reader.system()) {
        (Some(major), Some(system)) if reader.at() >= until => Ok(Checked {
            major,
            system,
            records: reader.records(),
            first: reader.first(),
            last: reader.last(),
            unfinished: reader.unfinished(),
            newest,
        }),
        _ => {
            let at = reader.at();
            Err(Fault::Truncated { at, until })
        }
    }
}

#[cfg(test)]
mod tests;
