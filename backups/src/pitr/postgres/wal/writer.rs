//! Writes logs as a server would: for tests, and as what is fuzzed. It knows the format by itself, so that reader and
//! writer do not share a mistake; that both are right, real servers show.

use jiff::Timestamp;
use replication::{History, Lsn, Segment, SegmentSize, SystemId, Timeline};

use super::{Expected, Extent};

/// The cluster of all that is written here.
pub(crate) const SYSTEM: SystemId = SystemId(7_400_000_000_000_000_001);
const EPOCH: i64 = 946_684_800_000_000;

/// A log in the making, in segments of 1 MiB.
#[derive(Clone)]
pub(crate) struct Writer {
    /// All of it, from its start on.
    pub(crate) bytes: Vec<u8>,
    /// Where each page's bytes that no server reads are, and those that fill records; counted from the start.
    pub(crate) unread: Vec<usize>,
    pub(crate) timeline: Timeline,
    start: Lsn,
    magic: u16,
    previous: Lsn,
    overwrites: bool,
}

pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).expect("the smallest size")
}

/// What it is to be read as.
pub(crate) fn expected(timeline: u32, history: Option<History>) -> Expected {
    Expected {
        system: Some(SYSTEM),
        segment_size: size(),
        timeline: Timeline(timeline),
        history,
    }
}

impl Writer {
    /// On timeline 1, from the start of the segment with this number on.
    pub(crate) fn new(number: u64) -> Self {
        let timeline = Timeline::FIRST;
        Self {
            bytes: Vec::new(),
            unread: Vec::new(),
            timeline,
            start: Segment { timeline, number }.start(size()),
            magic: 0xD110,
            previous: Lsn(0x28),
            overwrites: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn with_magic(mut self, magic: u16) -> Self {
        self.magic = magic;
        self
    }

    pub(crate) fn start(&self) -> Lsn {
        self.start
    }

    pub(crate) fn at(&self) -> Lsn {
        self.start.plus(self.bytes.len() as u64)
    }

    fn header(&mut self, remaining: usize) {
        let at = self.at();
        let long = at.0.is_multiple_of(size().bytes());
        let from = self.bytes.len();
        let flags = u16::from(remaining > 0) | u16::from(long) << 1 | u16::from(self.overwrites) << 3;
        self.overwrites = false;
        self.bytes.extend(self.magic.to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(self.timeline.0.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend((remaining as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        self.unread.extend(from + 20..from + 24);
        if long {
            self.bytes.extend(SYSTEM.0.to_le_bytes());
            self.bytes.extend((size().bytes() as u32).to_le_bytes());
            self.bytes.extend(8192_u32.to_le_bytes());
        }
    }

    fn put(&mut self, record: &[u8]) -> Lsn {
        let mut left = record;
        let mut start = None;
        while !left.is_empty() {
            if self.bytes.len().is_multiple_of(8192) {
                self.header(if start.is_some() { left.len() } else { 0 });
            }
            start.get_or_insert(self.at());
            let room = 8192 - self.bytes.len() % 8192;
            let (piece, rest) = left.split_at(left.len().min(room));
            self.bytes.extend(piece);
            left = rest;
        }
        start.unwrap_or(self.at())
    }

    /// A record with this body, whatever it says.
    pub(crate) fn raw(&mut self, manager: u8, info: u8, body: &[u8]) -> Extent {
        let mut record = ((24 + body.len()) as u32).to_le_bytes().to_vec();
        record.extend(7_u32.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let sum = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(sum.to_le_bytes());
        record.extend(body);
        let start = self.put(&record);
        self.previous = start;
        while !self.bytes.len().is_multiple_of(8) {
            self.unread.push(self.bytes.len());
            self.bytes.push(0);
        }
        Extent { start, end: self.at() }
    }

    /// A record about no page, with this data.
    pub(crate) fn record(&mut self, manager: u8, info: u8, data: &[u8]) -> Extent {
        let mut body = match u8::try_from(data.len()) {
            Ok(0) => Vec::new(),
            Ok(length) => vec![255, length],
            Err(_) => [&[254], &(data.len() as u32).to_le_bytes()[..]].concat(),
        };
        body.extend(data);
        self.raw(manager, info, &body)
    }

    /// Something that tells nothing.
    pub(crate) fn filler(&mut self, length: usize) -> Extent {
        let data: Vec<u8> = (0..length).map(|at| (at * 31) as u8).collect();
        self.record(10, 0, &data)
    }

    pub(crate) fn commit(&mut self, time: Timestamp) -> Extent {
        self.record(1, 0, &clock(time))
    }

    pub(crate) fn abort(&mut self, time: Timestamp) -> Extent {
        self.record(1, 0x20, &clock(time))
    }

    pub(crate) fn restore_point(&mut self, name: &str, time: Timestamp) -> Extent {
        let mut data = clock(time).to_vec();
        data.extend(name.as_bytes());
        data.resize(72, 0);
        self.record(0, 0x70, &data)
    }

    /// A switch: the rest of the segment is zero, headers included.
    pub(crate) fn switch(&mut self) -> Extent {
        let Extent { start, .. } = self.record(0, 0x40, &[]);
        let length = self.bytes.len().next_multiple_of(size().bytes() as usize);
        self.unread.extend(self.bytes.len()..length);
        self.bytes.resize(length, 0);
        Extent { start, end: self.at() }
    }

    /// A record of which a crash leaves what lies before the end of the page, and the one that is written in its place.
    pub(crate) fn lose(&mut self, length: usize) -> Extent {
        let (previous, from) = (self.previous, self.bytes.len());
        let Extent { start, .. } = self.filler(length);
        self.bytes.truncate((from + 24).next_multiple_of(8192));
        let end = self.bytes.len();
        self.unread.retain(|at| *at < end);
        self.previous = previous;
        self.overwrites = true;
        let mut data = start.0.to_le_bytes().to_vec();
        data.extend(clock(Timestamp::UNIX_EPOCH));
        self.record(0, 0xD0, &data)
    }

    /// Goes on at this place on another timeline.
    #[cfg(test)]
    pub(crate) fn promote(&mut self, timeline: u32) -> Lsn {
        self.timeline = Timeline(timeline);
        self.at()
    }
}

pub(crate) fn clock(time: Timestamp) -> [u8; 8] {
    (time.as_microsecond() - EPOCH).to_le_bytes()
}
