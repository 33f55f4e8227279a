//! Where a sparse file has holes. Long ones are not read: they are stored as the zeros that they are, once.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::repo::ZEROS;

/// Shorter holes are read like data: reading zeros from memory costs little, and content is cut where it always was.
const LONG: u64 = 2 * ZEROS;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What lies from here to there is read; the last part has no end.
    Data { from: u64, to: u64 },
    /// So many times [`ZEROS`] zeros.
    Zeros(usize),
}

/// The parts of a file. One that is not sparse, or whose file system does not tell, is one part.
pub(super) fn parts(file: &File) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut from = 0;
    // What cannot be found out is read.
    let _ = find_holes(file, |hole, data| {
        let times = (data - hole) / ZEROS;
        if data - hole >= LONG {
            if from < hole {
                parts.push(Part::Data { from, to: hole });
            }
            parts.push(Part::Zeros(times as usize));
            from = hole + times * ZEROS;
        }
    });
    parts.push(Part::Data { from, to: u64::MAX });
    parts
}

/// Tells where each hole begins and where the data after it does.
fn find_holes(file: &File, mut tell: impl FnMut(u64, u64)) -> io::Result<()> {
    let metadata = file.metadata()?;
    let length = metadata.len();
    if metadata.blocks() * 512 >= length {
        return Ok(());
    }
    let mut at = 0;
    while at < length {
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at))?;
        let data = match rustix::fs::seek(file, SeekFrom::Data(hole)) {
            // Nothing but a hole up to the end.
            Err(Errno::NXIO) => length,
            data => data?,
        };
        if hole >= length || data <= hole {
            break;
        }
        tell(hole, data.min(length));
        at = data;
    }
    Ok(())
}

/// Reads a part of a file, without moving anybody's place in it.
pub(super) struct PartReader {
    pub(super) file: Arc<File>,
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Read for PartReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.to - self.from).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..wanted], self.from)?;
        self.from += count as u64;
        Ok(count)
    }
}
