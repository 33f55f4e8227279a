//! Reads content in blocks of a few megabytes and cuts them into chunks. Blocking code: runs on threads made for it.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::error::Error;
use crate::repo::chunker::{Chunker, MAX_SIZE, MIN_SIZE};

/// Why content was not stored to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailure {
    /// The reader failed: the item is not saved, others may be.
    #[error("the content could not be read")]
    Reader(#[source] io::Error),
    /// The engine failed: nothing more can be saved.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// A block holds the largest chunk, so that every block has a cut.
const BLOCK_SIZE: usize = MAX_SIZE;

/// Bytes and where they are cut.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    pub(super) chunks: Vec<Range<usize>>,
}

impl Block {
    /// All bytes as one chunk.
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        let all = 0..bytes.len();
        Self {
            bytes,
            chunks: vec![all],
        }
    }

    /// How many bytes its chunks have.
    pub(super) fn size(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.end as u64)
    }
}

/// Small contents, one behind the other, which are not cut and are stored together.
#[derive(Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    contents: Vec<Range<usize>>,
}

impl Gathered {
    /// No content is larger; what is smaller than the smallest chunk would not be cut anyway.
    pub const LARGEST: u64 = 64 << 10;

    /// Takes what a reader yields, to its end. False if that is too much, which is left out then.
    pub fn read(&mut self, reader: impl Read) -> io::Result<bool> {
        let start = self.bytes.len();
        let read = reader.take(Self::LARGEST + 1).read_to_end(&mut self.bytes);
        let fits = read.as_ref().is_ok_and(|&count| count as u64 <= Self::LARGEST);
        if fits {
            self.contents.push(start..self.bytes.len());
        } else {
            self.bytes.truncate(start);
        }
        read.map(|_| fits)
    }

    /// A block with a chunk for each that is not empty, and the sizes of all.
    pub(super) fn block(self) -> (Block, Vec<u64>) {
        let sizes = self.contents.iter().map(|content| content.len() as u64).collect();
        let chunks = self.contents.into_iter().filter(|content| !content.is_empty());
        let chunks = chunks.collect();
        (
            Block {
                bytes: self.bytes,
                chunks,
            },
            sizes,
        )
    }
}

const _: () = assert!(Gathered::LARGEST <= MIN_SIZE as u64);

/// Content that its source cuts itself, because it knows what lies in it: pages that are changed in their places.
pub struct Cut {
    bytes: Vec<u8>,
    filled: usize,
    chunks: Vec<Range<usize>>,
}

impl Cut {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            filled: 0,
            chunks: Vec::new(),
        }
    }

    /// How many bytes it still has room for. A new one has room for the largest chunk there is.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.filled
    }

    /// Nothing was added.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Adds to the open chunk as much as there is room for, and returns how much that is.
    pub fn extend(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.bytes[self.filled..][..count].copy_from_slice(&bytes[..count]);
        self.filled += count;
        count
    }

    /// Ends the open chunk; the next one begins. False if there was nothing in it.
    pub fn end_chunk(&mut self) -> bool {
        let from = self.chunks.last().map_or(0, |chunk| chunk.end);
        let any = from < self.filled;
        if any {
            self.chunks.push(from..self.filled);
        }
        any
    }

    /// A block of the chunks that were ended, in their order.
    pub(super) fn block(mut self) -> Block {
        self.end_chunk();
        Block {
            bytes: self.bytes,
            chunks: self.chunks,
        }
    }
}

/// A reader and what of it was read but not yet cut.
pub(super) struct BlockReader<R> {
    reader: R,
    rest: Vec<u8>,
    at_end: bool,
}

impl<R: Read> BlockReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            rest: Vec::new(),
            at_end: false,
        }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// The next block; `None` if the content is empty or over.
    pub(super) fn next(&mut self, chunker: &Chunker, spares: &Spares) -> io::Result<Option<Block>> {
        let mut bytes = spares.take();
        let mut filled = self.rest.len();
        bytes[..filled].copy_from_slice(&self.rest);
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (mut chunks, mut start) = (Vec::new(), 0);
        while let Some(length) = chunker.cut(&bytes[start..filled], self.at_end) {
            chunks.push(start..start + length);
            start += length;
        }
        self.rest.clear();
        self.rest.extend_from_slice(&bytes[start..filled]);
        Ok(if chunks.is_empty() {
            None
        } else {
            Some(Block { bytes, chunks })
        })
    }
}

/// Block buffers that were used and can be used again.
#[derive(Default)]
pub(super) struct Spares(Mutex<Vec<Vec<u8>>>);

impl Spares {
    pub(super) fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| vec![0; BLOCK_SIZE])
    }

    pub(super) fn put_back(&self, buffer: Vec<u8>) {
        // Trees come in buffers of their own size.
        if buffer.len() == BLOCK_SIZE {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Yields as few bytes at a time as it is told to.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10))]
        #[test]
        fn blocks_are_the_content(seed: u64, length in 0..30_usize << 20, step in 100_000..3_000_000_usize) {
            use rand::{RngCore, SeedableRng};
            let mut data = vec![0; length];
            rand::rngs::StdRng::seed_from_u64(seed).fill_bytes(&mut data);
            let (chunker, spares) = (Chunker::new(b"secret"), Spares::default());
            let mut expected = Vec::new();
            let mut start = 0;
            while let Some(length) = chunker.cut(&data[start..], true) {
                expected.push(length);
                start += length;
            }
            let mut reader = BlockReader::new(Trickle(&data, step));
            let (mut read, mut lengths) = (Vec::new(), Vec::new());
            while let Some(block) = reader.next(&chunker, &spares).unwrap() {
                lengths.extend(block.chunks.iter().map(Range::len));
                read.extend_from_slice(&block.bytes[..block.size() as usize]);
                spares.put_back(block.bytes);
            }
            prop_assert!(read == data);
            prop_assert_eq!(lengths, expected, "how content is read does not change where it is cut");
        }
    }
}
