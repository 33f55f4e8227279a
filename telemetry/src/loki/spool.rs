//! Lines on disk until Loki has them: they outlive the process, also one that is killed. Each line is written when it
//! comes and taken away when it is settled, so that after a restart the same lines are sent again, oldest first. Lines
//! from WARN up have files of their own: when the spool is full, the others go first.
//!
//! A line is safe from the end of the process once it is written, and from a loss of power once it is synced. What is
//! sent again after a restart may be there already; Loki keeps one of two equal lines.

mod folder;
mod lane;
mod segment;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use super::entry::Entry;
use crate::sink::queue::Severity;
use folder::Folder;
pub use folder::SpoolError;
pub(crate) use lane::Found;
use lane::{Lane, Place};

/// What the file with the places that were reached begins with.
const CURSOR: &[u8; 8] = b"OPSCURS1";

/// The spool of one process.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: Folder,
    /// From WARN up, and the others.
    lanes: [Lane; 2],
    cursor: File,
    most: u64,
    segment: u64,
}

/// What became of lines that were to be stored.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Lines that are on disk.
    pub(crate) kept: u64,
    /// There was no room, or they are longer than a spool takes.
    pub(crate) refused: u64,
    /// Lines that were stored before and had to go.
    pub(crate) given_up: u64,
    /// The disk did not take the lines that are left.
    pub(crate) error: Option<io::Error>,
}

/// Lines to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    /// Lines that cannot be read any more.
    pub(crate) damaged: u64,
    /// When all of them are settled, this is reached.
    pub(crate) mark: Mark,
}

/// The places behind a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark([Option<Place>; 2]);

impl Spool {
    /// Takes a folder for this process. `most`: bytes of all files.
    pub(crate) fn open(path: &Path, most: usize) -> Result<Self, SpoolError> {
        let folder = Folder::open(path)?;
        let cursor = folder.make_file("cursor")?;
        let most = most as u64;
        Ok(Self {
            folder,
            lanes: [Lane::new('w'), Lane::new('i')],
            cursor,
            most,
            // When the oldest file is given up, not much more than needed goes.
            segment: (most / 32).clamp(4096, 8 << 20),
        })
    }

    /// Finds what an earlier process left.
    pub(crate) fn recover(&mut self) -> Result<Found, SpoolError> {
        let names = self.folder.names()?;
        let reached = read_cursor(&self.cursor);
        let mut all = Found::default();
        for (lane, from) in self.lanes.iter_mut().zip(reached) {
            let found = lane.recover(&self.folder, &names, from)?;
            all.lines += found.lines;
            all.torn += found.torn;
        }
        Ok(all)
    }

    /// Stores lines, as many as there is room for. Those that the disk did not take stay in `entries`.
    pub(crate) fn store(&mut self, entries: &mut Vec<Entry>) -> Stored {
        let mut done = Stored::default();
        let before = entries.len();
        entries.retain(|entry| entry.line.len() <= segment::LONGEST_LINE);
        done.refused = (before - entries.len()) as u64;
        let (ordinary, important): (Vec<Entry>, Vec<Entry>) =
            entries.drain(..).partition(|entry| entry.level < Severity::Warn);
        for (index, mut lines) in [important, ordinary].into_iter().enumerate() {
            let wanted: u64 = lines.iter().map(|entry| segment::size(entry) as u64).sum();
            let mut room = self.make_room(wanted, &mut done);
            let fits = lines.iter().take_while(|entry| {
                let size = segment::size(entry) as u64;
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            });
            let fits = fits.count();
            done.refused += lines.drain(fits..).count() as u64;
            if lines.is_empty() {
                continue;
            }
            match self.lanes[index].append(&self.folder, &lines, self.segment) {
                Ok(()) => done.kept += lines.len() as u64,
                Err(error) => {
                    done.error = Some(error);
                    entries.append(&mut lines);
                }
            }
        }
        done
    }

    /// Gives up old files until there is room for `wanted` bytes or nothing can go. The room.
    fn make_room(&mut self, wanted: u64, done: &mut Stored) -> u64 {
        loop {
            let room = self.most.saturating_sub(self.lanes.iter().map(Lane::bytes).sum());
            if room >= wanted {
                return room;
            }
            let [important, ordinary] = &mut self.lanes;
            let gone = ordinary.give_up_oldest(&self.folder);
            match gone.or_else(|| important.give_up_oldest(&self.folder)) {
                Some(lines) => done.given_up += lines,
                None => return room,
            }
        }
    }

    /// The oldest lines that were not taken, up to so many bytes but at least one.
    pub(crate) fn take(&mut self, bytes: usize) -> Batch {
        let mut batch = Batch {
            entries: Vec::new(),
            damaged: 0,
            mark: Mark([None; 2]),
        };
        let mut taken = 0;
        loop {
            let mut oldest: Option<(i64, usize)> = None;
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                let (at, lost) = lane.peek(&self.folder);
                batch.damaged += lost;
                if let Some(at) = at {
                    oldest = Some(oldest.map_or((at, index), |other| other.min((at, index))));
                }
            }
            let Some((_, index)) = oldest else { break };
            let lane = &mut self.lanes[index];
            taken += lane.head_bytes();
            if taken > bytes && !batch.entries.is_empty() {
                break;
            }
            if let Some((entry, place)) = lane.take() {
                batch.entries.push(entry);
                batch.mark.0[index] = Some(place);
            }
        }
        batch
    }

    /// Every line before this mark is settled.
    pub(crate) fn settled(&mut self, mark: Mark) {
        let mut places = read_cursor(&self.cursor);
        for (index, place) in mark.0.into_iter().enumerate() {
            if let Some(place) = place {
                places[index] = place;
                self.lanes[index].settled(&self.folder, place);
            }
        }
        // When it is lost, lines are sent again: there is nothing to be done about it here.
        let _ = self.cursor.write_all_at(&cursor(places), 0);
    }

    /// Lines on their way cannot be given up: no more of them are taken at one time, so that others can.
    pub(crate) const fn most_at_once(&self) -> usize {
        (self.most / 8) as usize
    }

    /// Takes all files away; for when every line is settled.
    pub(crate) fn clear(&mut self) {
        for lane in &mut self.lanes {
            lane.clear(&self.folder);
        }
    }

    /// Files that are to be synced.
    pub(crate) fn unsynced(&mut self) -> Vec<Arc<File>> {
        self.lanes.iter_mut().flat_map(Lane::take_unsynced).collect()
    }
}

/// `OPSCURS1`, for each lane the number of a file and a place in it (`u64`), and the CRC-32 of these.
fn cursor(places: [Place; 2]) -> Vec<u8> {
    let mut bytes = CURSOR.to_vec();
    for place in places {
        bytes.extend_from_slice(&place.segment.to_le_bytes());
        bytes.extend_from_slice(&place.offset.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// The places that were reached; the beginning when that cannot be read.
fn read_cursor(file: &File) -> [Place; 2] {
    let mut bytes = [0; 44];
    if file.read_exact_at(&mut bytes, 0).is_err() {
        return [Place::default(); 2];
    }
    let number = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    let places = [8, 24].map(|at| Place {
        segment: number(at),
        offset: number(at + 8),
    });
    let known = cursor(places)[..] == bytes && places.iter().all(|place| place.segment < lane::HIGHEST);
    if known { places } else { [Place::default(); 2] }
}

#[cfg(test)]
mod tests;
