//! The form of spooled lines in a file, and reading them back from a file that may hold anything: each record is bounded
//! and has a checksum, and reading never needs more memory than a record and a block.
//!
//! Version 1: a file begins with `OPSPOOL1`. A record is the length of its content (`u32`), the CRC-32 of length and
//! content (`u32`), and the content: nanoseconds since 1970 (`i64`), level from 0 for TRACE to 4 for ERROR (`u8`), and
//! the line. Numbers are little-endian.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;

use crate::loki::entry::Entry;
use crate::loki::labels::LEVELS;

/// What a file begins with.
pub(super) const MAGIC: &[u8; 8] = b"OPSPOOL1";
/// Longest line that is spooled. The log layer's are far shorter.
pub(super) const LONGEST_LINE: usize = 1 << 20;
/// Length and checksum.
const HEAD: usize = 8;
/// Time and level.
const FIXED: usize = 9;
/// Bytes read at a time.
const BLOCK: usize = 256 * 1024;

/// Bytes of an entry in a file.
pub(super) fn size(entry: &Entry) -> usize {
    HEAD + FIXED + entry.line.len()
}

/// Appends an entry's record. The line must not be longer than [`LONGEST_LINE`].
pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let start = out.len();
    let length = (FIXED + entry.line.len()) as u32;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entry.at.to_le_bytes());
    out.push(entry.level as u8);
    out.extend_from_slice(&entry.line);
    let checksum = checksum(length, &out[start + HEAD..]);
    out[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(length: u32, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}

/// What begins at some place of a file.
#[derive(Debug, PartialEq, Eq)]
enum Record {
    /// An entry, and the bytes that it takes.
    Whole(Entry, usize),
    /// Its content goes on behind what is there: so many bytes are needed.
    Short(usize),
    /// No record.
    Damaged,
}

fn decode(bytes: &Bytes) -> Record {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let (Some(length), Some(expected)) = (number(0), number(4)) else {
        return Record::Short(HEAD);
    };
    let size = HEAD + length as usize;
    if !(HEAD + FIXED..=HEAD + FIXED + LONGEST_LINE).contains(&size) {
        return Record::Damaged;
    }
    let Some(content) = bytes.get(HEAD..size) else {
        return Record::Short(size);
    };
    let level = LEVELS.get(content[8] as usize);
    let (Some((level, _)), Ok(at)) = (level, content[..8].try_into()) else {
        return Record::Damaged;
    };
    if checksum(length, content) != expected {
        return Record::Damaged;
    }
    let entry = Entry {
        level: *level,
        at: i64::from_le_bytes(at),
        line: bytes.slice(HEAD + FIXED..size),
        late: false,
    };
    Record::Whole(entry, size)
}

/// Reads a file's records one after the other.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    /// Where the next record begins.
    offset: u64,
    /// Where the last one ends.
    end: u64,
    /// Bytes from `offset` on.
    ahead: Bytes,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An entry.
    Entry(Entry),
    /// The end of the file.
    End,
    /// The rest cannot be read.
    Damaged,
}

impl Reader {
    /// From `offset` on, up to `end`.
    pub(super) fn new(file: File, offset: u64, end: u64) -> Self {
        Self {
            file,
            offset,
            end,
            ahead: Bytes::new(),
        }
    }

    /// Whether the file begins as it must.
    pub(super) fn is_ours(file: &File) -> io::Result<bool> {
        let mut magic = [0; MAGIC.len()];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) => Ok(magic == *MAGIC),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where the next record begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// The file has grown.
    pub(super) const fn extend(&mut self, end: u64) {
        self.end = end;
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> io::Result<Next> {
        let mut wanted = HEAD;
        loop {
            if self.offset >= self.end {
                return Ok(Next::End);
            }
            if self.ahead.len() < wanted {
                let left = self.end - self.offset;
                if (wanted as u64) > left {
                    return Ok(Next::Damaged);
                }
                let mut block = vec![0; (wanted.max(BLOCK) as u64).min(left) as usize];
                self.file.read_exact_at(&mut block, self.offset)?;
                self.ahead = block.into();
            }
            match decode(&self.ahead) {
                Record::Whole(entry, size) => {
                    self.offset += size as u64;
                    self.ahead = self.ahead.slice(size..);
                    return Ok(Next::Entry(entry));
                }
                Record::Short(size) => wanted = size,
                Record::Damaged => return Ok(Next::Damaged),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Records survive the way to the disk and back; nothing else is taken for one.

    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry =
            (any::<i64>(), 0usize..5, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(at, level, line)| Entry {
                level: LEVELS[level].0,
                at,
                line: line.into(),
                late: false,
            });
        prop::collection::vec(entry, 0..40)
    }

    fn encoded(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in entries {
            encode(entry, &mut bytes);
        }
        bytes
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn read(bytes: &[u8]) -> (Vec<Entry>, Next) {
        let mut reader = Reader::new(file(bytes), 0, bytes.len() as u64);
        let mut found = Vec::new();
        loop {
            match reader.next().unwrap() {
                Next::Entry(entry) => found.push(entry),
                end => return (found, end),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(entries in entries()) {
            let bytes = encoded(&entries);
            prop_assert_eq!(bytes.len(), entries.iter().map(size).sum::<usize>());
            prop_assert_eq!(read(&bytes), (entries, Next::End));
        }

        #[test]
        fn a_torn_end_costs_only_what_was_torn(entries in entries(), cut in 1usize..400) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for entry in &entries {
                encode(entry, &mut bytes);
                ends.push(bytes.len());
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let whole = ends.iter().filter(|end| **end <= bytes.len()).count() - 1;
            let (found, end) = read(&bytes);
            prop_assert_eq!(&found[..], &entries[..whole]);
            prop_assert_eq!(end, if ends.contains(&bytes.len()) { Next::End } else { Next::Damaged });
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_a_line(entries in entries(), place in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = encoded(&entries);
            prop_assume!(!bytes.is_empty());
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
            let (found, end) = read(&bytes);
            prop_assert_eq!(end, Next::Damaged);
            prop_assert_eq!(&found[..], &entries[..found.len()]);
        }

        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            read(&bytes);
        }
    }

    #[test]
    fn lines_that_cross_blocks_are_read() {
        let line = |length: usize| Entry {
            level: LEVELS[2].0,
            at: length.cast_signed() as i64,
            line: vec![b'x'; length].into(),
            late: false,
        };
        let entries: Vec<_> = [BLOCK - 100, 200, LONGEST_LINE, 1, BLOCK, 0].map(line).into();
        let bytes = encoded(&entries);
        assert_eq!(read(&bytes), (entries, Next::End));
    }
}
