//! Which pages changed, as SQLite's write-ahead log tells it. Only a hint about where to look, never the content: the
//! pages themselves are read through SQLite. The log is proved by its salts and its running checksum, and where that
//! proof has a hole the answer is that nobody knows.
//!
//! The format is <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>. No lock of SQLite's lies on this file, so
//! opening and closing it takes none away (which closing the database or its `-shm` would).

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::table::is_page_size;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;

/// A boundary between two transactions in one life of the log (from one restart to the next).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    header: Header,
    /// Frames before it.
    frames: u64,
    /// The running checksum there.
    checksum: [u32; 2],
}

#[cfg(any(test, feature = "fuzzing"))]
impl Position {
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    bytes: [u8; HEADER],
    big_endian: bool,
    page_size: u32,
    salts: [u32; 2],
    checksum: [u32; 2],
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    /// The pages that the log changed since the position that the scan began at; `None` if it does not tell.
    pub(super) pages: Option<BTreeSet<u32>>,
    /// Whoever reads the database after this scan sees everything up to here, at least.
    pub(super) settled: Position,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// SQLite's checksum: two sums that feed each other, over words in the order of the machine that made the log.
pub(super) fn add(checksum: [u32; 2], bytes: &[u8], big_endian: bool) -> [u32; 2] {
    let [mut a, mut b] = checksum;
    for pair in bytes.chunks_exact(8) {
        let (x, y) = pair.split_at(4);
        let word = |bytes: &[u8]| {
            let bytes = bytes.try_into().unwrap_or_default();
            if big_endian {
                u32::from_be_bytes(bytes)
            } else {
                u32::from_le_bytes(bytes)
            }
        };
        a = a.wrapping_add(word(x)).wrapping_add(b);
        b = b.wrapping_add(word(y)).wrapping_add(a);
    }
    [a, b]
}

impl Header {
    fn parse(bytes: [u8; HEADER]) -> Option<Self> {
        let big_endian = match word(&bytes, 0) {
            MAGIC_LITTLE => false,
            MAGIC_BIG => true,
            _ => return None,
        };
        let header = Self {
            bytes,
            big_endian,
            page_size: word(&bytes, 8),
            salts: [word(&bytes, 16), word(&bytes, 20)],
            checksum: [word(&bytes, 24), word(&bytes, 28)],
        };
        let sound = is_page_size(header.page_size) && add([0; 2], &bytes[..24], big_endian) == header.checksum;
        sound.then_some(header)
    }

    fn frame_length(&self) -> usize {
        FRAME_HEADER + self.page_size as usize
    }

    fn offset(&self, frame: u64) -> u64 {
        HEADER as u64 + frame * self.frame_length() as u64
    }

    fn start(&self) -> Position {
        Position {
            header: self.clone(),
            frames: 0,
            checksum: self.checksum,
        }
    }
}

/// Fills the buffer, or says that the file ends before.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<bool> {
    match file.read_exact_at(buffer, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn header_of(file: &File) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    Ok(if read_at(file, &mut bytes, 0)? {
        Header::parse(bytes)
    } else {
        None
    })
}

/// Reads the log from a position on, or from its beginning if it does not continue there. `None`: there is no log.
pub(super) fn scan(log: &Path, from: Option<&Position>) -> io::Result<Option<Scan>> {
    let file = match File::open(log) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let Some(header) = header_of(&file)? else {
        return Ok(None);
    };
    let start = header.start();
    let (begin, mut pages) = match from {
        Some(from) if from.header == header && continues(&file, from)? => (from.clone(), Some(BTreeSet::new())),
        Some(from) => (start, former(&file, from, &header)?),
        None => (start, None),
    };
    let mut found = BTreeSet::new();
    let settled = walk(&file, &begin, &mut found)?;
    // A restart writes the header first, so frames of another life were not read if it is still the same.
    if header_of(&file)?.as_ref() != Some(&header) {
        pages = None;
    }
    if let Some(pages) = &mut pages {
        pages.extend(found);
    }
    Ok(Some(Scan { pages, settled }))
}

/// Walks over valid frames, notes their pages, and returns the last boundary that is settled.
///
/// A transaction is settled when another one follows: who writes begins behind what was published. The last one may be in
/// the file and not published yet, so that a reader does not see it. (A commit that repeats the page before it may be
/// SQLite filling a sector of the disk, and proves nothing.)
fn walk(file: &File, begin: &Position, pages: &mut BTreeSet<u32>) -> io::Result<Position> {
    let header = &begin.header;
    let mut frame = vec![0; header.frame_length()];
    let (mut checksum, mut at) = (begin.checksum, begin.frames);
    let (mut settled, mut committed) = (begin.clone(), None::<(Position, u32)>);
    while read_at(file, &mut frame, header.offset(at))? {
        if [word(&frame, 8), word(&frame, 12)] != header.salts {
            break;
        }
        checksum = add(checksum, &frame[..8], header.big_endian);
        checksum = add(checksum, &frame[FRAME_HEADER..], header.big_endian);
        if [word(&frame, 16), word(&frame, 20)] != checksum {
            break;
        }
        let (page, commits) = (word(&frame, 0), word(&frame, 4) != 0);
        if let Some((position, last)) = committed.take()
            && (!commits || last != page)
        {
            settled = position;
        }
        at += 1;
        pages.insert(page);
        if commits {
            let position = Position {
                header: header.clone(),
                frames: at,
                checksum,
            };
            committed = Some((position, page));
        }
    }
    Ok(settled)
}

/// Whether the frame before the position is still the one that was read.
fn continues(file: &File, from: &Position) -> io::Result<bool> {
    let Some(last) = from.frames.checked_sub(1) else {
        return Ok(true);
    };
    let mut frame = [0; FRAME_HEADER];
    Ok(read_at(file, &mut frame, from.header.offset(last))?
        && [word(&frame, 8), word(&frame, 12)] == from.header.salts
        && [word(&frame, 16), word(&frame, 20)] == from.checksum)
}

/// The pages that the former life of the log changed behind the position, where the log was restarted just once since
/// (which adds one to the first salt) and the frames around the position still lie there.
fn former(file: &File, from: &Position, header: &Header) -> io::Result<Option<BTreeSet<u32>>> {
    let once = header.salts[0] == from.header.salts[0].wrapping_add(1);
    let alike = header.page_size == from.header.page_size && header.big_endian == from.header.big_endian;
    // At the very front nothing of the former life is left.
    if !once || !alike || from.frames == 0 || !continues(file, from)? {
        return Ok(None);
    }
    // A file that ends right here may have been cut here.
    let length = file.metadata()?.len();
    if length < header.offset(from.frames + 1) {
        return Ok(None);
    }
    let mut pages = BTreeSet::new();
    walk(file, from, &mut pages)?;
    // The new life overwrites from the front: what lies behind this frame was the former one's if this still is.
    Ok(continues(file, from)?.then_some(pages))
}

#[cfg(test)]
mod tests;
