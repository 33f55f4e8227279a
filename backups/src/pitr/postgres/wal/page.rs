//! Headers of pages: `XLogPageHeaderData`, and at the start of each segment `XLogLongPageHeaderData`. Numbers lie in the
//! order of the machine that wrote them; every one that PostgreSQL is shipped for today is little-endian.

use replication::{Lsn, SystemId, Timeline};

use super::{Expected, Fault};

/// What a page holds: `XLOG_BLCKSZ`, which is chosen when a server is built, and which nobody changes.
pub(super) const PAGE: usize = 8192;
/// A header, filled up to eight bytes.
pub(super) const SHORT: usize = 24;
/// That of the first page of a segment.
pub(super) const LONG: usize = 40;

/// The page goes on with a record of the one before.
const CONTINUES: u16 = 0x1;
/// The header is a long one.
const IS_LONG: u16 = 0x2;
/// The page takes the place of the rest of a record that was lost in a crash.
const OVERWRITES: u16 = 0x8;
/// All flags. The missing one, 0x4, says that full pages from here on may be left out of a compressed archive.
const ALL: u16 = 0xF;

/// `XLOG_PAGE_MAGIC` of each major version.
const VERSIONS: [(u16, u32); 5] = [(0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)];

/// A header as it stands there.
#[derive(Debug)]
pub(super) struct Header {
    magic: u16,
    flags: u16,
    pub(super) timeline: Timeline,
    address: Lsn,
    /// How much of the record before is still to come.
    remaining: u32,
    /// Of a long one: cluster, size of a segment, size of a page.
    long: Option<(SystemId, u32, u32)>,
}

/// The bytes of a number.
pub(super) fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let bytes = from.get(at..at + N);
    bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

impl Header {
    /// Reads a short or a long one, by its length.
    pub(super) fn parse(header: &[u8]) -> Self {
        let word = |at| u32::from_le_bytes(bytes(header, at));
        let long = || (SystemId(u64::from_le_bytes(bytes(header, 24))), word(32), word(36));
        Self {
            magic: u16::from_le_bytes(bytes(header, 0)),
            flags: u16::from_le_bytes(bytes(header, 2)),
            timeline: Timeline(word(4)),
            address: Lsn(u64::from_le_bytes(bytes(header, 8))),
            remaining: word(16),
            long: (header.len() >= LONG).then(long),
        }
    }

    /// Whether it may stand at `at`, and of which major version it is. Not what it goes on with.
    pub(super) fn check(&self, at: Lsn, expected: &Expected) -> Result<u32, Fault> {
        let version = VERSIONS.iter().find(|(magic, _)| *magic == self.magic);
        let Some((_, major)) = version else {
            let found = self.magic;
            return Err(Fault::Magic { at, found });
        };
        if self.flags & !ALL != 0 || (self.flags & IS_LONG != 0) != self.long.is_some() {
            let found = self.flags;
            return Err(Fault::Flags { at, found });
        }
        if let Some((system, segment, page)) = self.long {
            match expected.system {
                Some(expected) if system != expected => {
                    let found = system;
                    return Err(Fault::System { at, found, expected });
                }
                _ => {}
            }
            if u64::from(segment) != expected.segment_size.bytes() {
                let (found, expected) = (segment, expected.segment_size.bytes());
                return Err(Fault::SegmentSize { at, found, expected });
            }
            if page as usize != PAGE {
                let found = page;
                return Err(Fault::PageSize { at, found });
            }
        }
        if self.address != at {
            let found = self.address;
            return Err(Fault::Address { at, found });
        }
        self.check_timeline(at, expected)?;
        Ok(*major)
    }

    fn check_timeline(&self, at: Lsn, of: &Expected) -> Result<(), Fault> {
        let found = self.timeline;
        let (right, expected) = match &of.history {
            Some(history) => {
                let owner = history.timeline_at(of.timeline, at);
                (found == owner, owner)
            }
            None => (found <= of.timeline && found >= Timeline::FIRST, of.timeline),
        };
        let fault = Fault::Timeline { at, found, expected };
        if right { Ok(()) } else { Err(fault) }
    }

    /// How many bytes of a record it says to go on with; `None` if it contradicts itself.
    pub(super) fn continues(&self) -> Option<u32> {
        let continues = self.flags & CONTINUES != 0;
        (continues == (self.remaining > 0)).then_some(self.remaining)
    }

    /// What it says where [`Self::continues`] does not.
    pub(super) fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Whether a record that began before ends nowhere.
    pub(super) fn overwrites(&self) -> bool {
        self.flags & OVERWRITES != 0
    }

    /// The cluster, of a long one.
    pub(super) fn system(&self) -> Option<SystemId> {
        self.long.map(|(system, ..)| system)
    }
}
