//! Records: `XLogRecord`, and what follows it up to its length.

use replication::Lsn;

use super::page::bytes;
use super::{Extent, Fault};

/// `XLogRecord`: length, transaction, the record before, two bytes of what it is, two that fill, checksum.
pub(super) const HEADER: usize = 24;
/// What the checksum covers of it, after the body.
const SUMMED: usize = 20;
/// Longer ones no server can read: 1 GiB, of which PostgreSQL 16 and later leave four MiB unused.
const LONGEST: u32 = 1 << 30;
/// How much of a body is kept where it does not come in one piece: more than any mark needs.
const KEPT: usize = 192;

/// A record that is sound.
#[derive(Debug)]
pub struct Record<'a> {
    /// Where it lies.
    pub extent: Extent,
    /// Its length in bytes, with its header and without those of pages.
    pub length: u32,
    /// The transaction that wrote it; 0 if none did.
    pub transaction: u32,
    /// The resource manager that it is for.
    pub manager: u8,
    /// What it is to it: the upper four bits are the manager's.
    pub info: u8,
    /// What follows the header: all of it, or at least the first 192 bytes.
    pub body: &'a [u8],
}

/// A record that comes in several pieces.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) start: Lsn,
    header: [u8; HEADER],
    /// How many bytes of it have come.
    have: u32,
    sum: u32,
    body: Vec<u8>,
}

/// How many bytes of a record there must be to know its length. They never lie on two pages.
pub(super) const MEASURE: usize = 4;

/// Its length, from its first bytes; `None`: there is no record, as behind the end of a log.
pub(super) fn length(record: &[u8], at: Lsn) -> Result<Option<u32>, Fault> {
    match u32::from_le_bytes(bytes(record, 0)) {
        0 => Ok(None),
        length if length < HEADER as u32 || length > LONGEST => Err(Fault::Length { at, found: length }),
        length => Ok(Some(length)),
    }
}

/// Where the next record begins, after what fills up to it.
pub(super) fn aligned(at: Lsn) -> Lsn {
    Lsn(at.0.checked_next_multiple_of(8).unwrap_or(at.0))
}

/// The position of the record before it, as a header says.
pub(super) fn previous(header: &[u8]) -> Lsn {
    Lsn(u64::from_le_bytes(bytes(header, 8)))
}

impl<'a> Record<'a> {
    /// Puts together what was read; `sum` is the checksum of the whole body.
    pub(super) fn new(extent: Extent, header: &[u8], sum: u32, body: &'a [u8]) -> Result<Self, Fault> {
        let sum = crc32c::crc32c_append(sum, header.get(..SUMMED).unwrap_or_default());
        if sum != u32::from_le_bytes(bytes(header, SUMMED)) {
            return Err(Fault::Checksum { at: extent.start });
        }
        let [info, manager] = bytes(header, 16);
        Ok(Self {
            extent,
            length: u32::from_le_bytes(bytes(header, 0)),
            transaction: u32::from_le_bytes(bytes(header, 4)),
            manager,
            info,
            body,
        })
    }
}

impl Pending {
    pub(super) fn new(start: Lsn) -> Self {
        Self {
            start,
            header: [0; HEADER],
            have: 0,
            sum: 0,
            body: Vec::new(),
        }
    }

    /// Takes as much as belongs to it and lies before the next thing to look at: its length, the end of its header, its
    /// own end. At least a byte, if there is one and it is not complete.
    pub(super) fn take(&mut self, from: &[u8]) -> usize {
        let have = self.have as usize;
        let until = match have {
            0..MEASURE => MEASURE,
            MEASURE..HEADER => HEADER,
            _ => self.length() as usize,
        };
        let (piece, _) = from.split_at(from.len().min(until.saturating_sub(have)));
        if let Some(header) = self.header.get_mut(have..have + piece.len()) {
            header.copy_from_slice(piece);
        } else {
            self.sum = crc32c::crc32c_append(self.sum, piece);
            let kept = piece.len().min(KEPT - self.body.len());
            self.body.extend_from_slice(&piece[..kept]);
        }
        self.have += piece.len() as u32;
        piece.len()
    }

    /// Once its first bytes have come.
    fn length(&self) -> u32 {
        u32::from_le_bytes(bytes(&self.header, 0))
    }

    /// What has come of its header.
    pub(super) fn header(&self) -> &[u8] {
        &self.header[..HEADER.min(self.have as usize)]
    }

    /// How many bytes are still to come, once its length is known; it always is at the end of a page.
    pub(super) fn left(&self) -> u32 {
        self.length().saturating_sub(self.have)
    }

    pub(super) fn checked(&self, extent: Extent) -> Result<Record<'_>, Fault> {
        Record::new(extent, &self.header, self.sum, &self.body)
    }
}
