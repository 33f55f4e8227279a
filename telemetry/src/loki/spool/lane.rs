//! One lane of the spool: lines of like importance in files, written at one end and read at the other. A lane never reads
//! what it has not written whole, and keeps a file until all of it is settled.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

use super::folder::{Folder, SpoolError};
use super::segment::{self, MAGIC, Next, Reader};
use crate::loki::entry::Entry;

const START: u64 = MAGIC.len() as u64;
/// A file of this size is taken away when all in it is settled. A smaller one is gone on with.
const LARGE: u64 = 1 << 20;
/// Files have lower numbers, so that there is always one more.
pub(super) const HIGHEST: u64 = 1 << 62;

/// A place in a lane: everything before it is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// What an earlier process left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Lines that can be read.
    pub(crate) lines: u64,
    /// Files of which a part cannot be read: torn, or damaged.
    pub(crate) torn: u64,
}

/// A file.
#[derive(Debug)]
struct Segment {
    number: u64,
    /// Where reading begins.
    start: u64,
    /// Where writing ended.
    end: u64,
    /// Lines between them, and how many of these were read.
    lines: u64,
    read: u64,
}

/// Lines in files.
#[derive(Debug)]
pub(super) struct Lane {
    /// In the names of its files.
    letter: char,
    /// Oldest first. Only the last may be written to.
    segments: VecDeque<Segment>,
    /// No new file has a lower number: what is before the place that was reached is taken for settled.
    lowest: u64,
    writer: Option<Arc<File>>,
    /// The disk did not take the last lines.
    failed: bool,
    /// Files that were written to since they were last synced.
    unsynced: Vec<Arc<File>>,
    /// The number of the segment that is read.
    reading: Option<(u64, Reader)>,
    /// Read, and not taken.
    head: Option<(Entry, Place)>,
    buffer: Vec<u8>,
}

impl Lane {
    pub(super) const fn new(letter: char) -> Self {
        Self {
            letter,
            segments: VecDeque::new(),
            lowest: 1,
            writer: None,
            failed: false,
            unsynced: Vec::new(),
            reading: None,
            head: None,
            buffer: Vec::new(),
        }
    }

    fn name(&self, number: u64) -> String {
        format!("{number:016x}-{}.spool", self.letter)
    }

    /// The number in the name of a file of this lane.
    fn number(&self, name: &str) -> Option<u64> {
        let digits = name
            .strip_suffix(".spool")?
            .strip_suffix(self.letter)?
            .strip_suffix('-')?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        (self.name(number) == name && number < HIGHEST).then_some(number)
    }

    /// Looks through the files that an earlier process left, from the place on that it had reached, and cuts off what
    /// is torn.
    pub(super) fn recover(&mut self, folder: &Folder, names: &[String], from: Place) -> Result<Found, SpoolError> {
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| self.number(name)).collect();
        numbers.sort_unstable();
        let mut found = Found::default();
        self.lowest = from.segment + 1;
        for number in numbers {
            let name = self.name(number);
            let file = folder.open_file(&name, true)?;
            if number < from.segment {
                folder.remove(&name);
                continue;
            }
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            if length > 0 && !Reader::is_ours(&file).unwrap_or(false) {
                folder.rename(&name, &format!("{name}.unreadable"));
                found.torn += 1;
                continue;
            }
            // A place that is no border between records is none to go on from: then the whole file is sent again.
            let reached = (number == from.segment).then_some(from.offset);
            let (segment, torn) = scan(&file, number, length, reached);
            if torn {
                found.torn += 1;
                let _ = file.set_len(segment.end);
            }
            found.lines += segment.lines;
            self.segments.push_back(segment);
        }
        Ok(found)
    }

    /// Writes lines; all of them or none.
    pub(super) fn append(&mut self, folder: &Folder, entries: &[Entry], segment_bytes: u64) -> io::Result<()> {
        self.buffer.clear();
        for entry in entries {
            segment::encode(entry, &mut self.buffer);
        }
        if self.segments.back().is_none_or(|last| last.end >= segment_bytes) {
            self.writer = None;
        }
        let written = self.write(folder);
        self.failed = written.is_err();
        let writer = written?;
        if let Some(last) = self.segments.back_mut() {
            last.end += self.buffer.len() as u64;
            last.lines += entries.len() as u64;
        }
        if !self.unsynced.iter().any(|file| Arc::ptr_eq(file, &writer)) {
            self.unsynced.push(writer);
        }
        Ok(())
    }

    /// Writes what is in the buffer behind the last record.
    fn write(&mut self, folder: &Folder) -> io::Result<Arc<File>> {
        let writer = match &self.writer {
            Some(writer) => Arc::clone(writer),
            None => self.begin(folder)?,
        };
        let Err(error) = (&*writer).write_all(&self.buffer) else {
            return Ok(writer);
        };
        // What was written of it is no record. If that cannot be taken back, the file is not gone on with.
        let end = self.segments.back().map_or(START, |last| last.end);
        if writer
            .set_len(end)
            .and_then(|()| (&*writer).seek(SeekFrom::Start(end)))
            .is_err()
        {
            self.writer = None;
        }
        Err(error)
    }

    /// Begins a file.
    fn begin(&mut self, folder: &Folder) -> io::Result<Arc<File>> {
        let number = self
            .segments
            .back()
            .map_or(self.lowest, |last| self.lowest.max(last.number + 1));
        let name = self.name(number);
        let file = folder.make_file(&name).map_err(io::Error::other)?;
        if let Err(error) = (&file).write_all(MAGIC) {
            folder.remove(&name);
            return Err(error);
        }
        folder.sync();
        self.segments.push_back(Segment {
            number,
            start: START,
            end: START,
            lines: 0,
            read: 0,
        });
        let file = Arc::new(file);
        self.writer = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Files that are to be synced.
    pub(super) fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        std::mem::take(&mut self.unsynced)
    }

    /// The time of the next line that nobody has taken, and how many could not be read on the way to it.
    pub(super) fn peek(&mut self, folder: &Folder) -> (Option<i64>, u64) {
        let mut lost = 0;
        while self.head.is_none() {
            let reading = self.reading.as_ref().map(|(number, _)| *number);
            let next =
                |segment: &Segment| reading.map_or(segment.read < segment.lines, |number| segment.number == number);
            let Some(index) = self.segments.iter().position(next) else {
                break;
            };
            let is_last = index + 1 == self.segments.len();
            let name = self.name(self.segments[index].number);
            let segment = &mut self.segments[index];
            if self.reading.is_none() {
                let Ok(file) = folder.open_file(&name, false) else {
                    lost += segment.give_up();
                    continue;
                };
                self.reading = Some((segment.number, Reader::new(file, segment.start, segment.end)));
            }
            let Some((_, reader)) = &mut self.reading else { break };
            reader.extend(segment.end);
            match reader.next() {
                Ok(Next::Entry(entry)) => {
                    segment.read += 1;
                    let (segment, offset) = (segment.number, reader.offset());
                    self.head = Some((entry, Place { segment, offset }));
                }
                Ok(Next::End) if is_last => break,
                Ok(Next::End) => self.reading = None,
                Ok(Next::Damaged) | Err(_) => {
                    lost += segment.give_up();
                    self.reading = None;
                    if is_last {
                        self.writer = None;
                    }
                }
            }
        }
        (self.head.as_ref().map(|(entry, _)| entry.at), lost)
    }

    /// The line that was looked at, and the place behind it.
    pub(super) fn take(&mut self) -> Option<(Entry, Place)> {
        self.head.take()
    }

    /// Bytes of the next line.
    pub(super) fn head_bytes(&self) -> usize {
        self.head.as_ref().map_or(0, |(entry, _)| entry.bytes())
    }

    /// Everything before this place is settled: files that lie before it are taken away. The last one stays to be gone
    /// on with, unless it is large or the disk has no room.
    pub(super) fn settled(&mut self, folder: &Folder, place: Place) {
        while let Some(first) = self.segments.front() {
            let is_settled =
                first.number < place.segment || (first.number == place.segment && first.end == place.offset);
            let is_wanted = self.segments.len() == 1 && !self.failed && first.end < LARGE;
            if !is_settled || is_wanted {
                break;
            }
            self.remove(folder, 0);
        }
    }

    /// Takes a file away. The lines in it.
    fn remove(&mut self, folder: &Folder, index: usize) -> u64 {
        let is_last = index + 1 == self.segments.len();
        let Some(segment) = self.segments.remove(index) else {
            return 0;
        };
        folder.remove(&self.name(segment.number));
        self.lowest = self.lowest.max(segment.number + 1);
        if self
            .reading
            .as_ref()
            .is_some_and(|(number, _)| *number == segment.number)
        {
            self.reading = None;
        }
        if is_last {
            self.writer = None;
        }
        segment.lines
    }

    /// Gives up the oldest file of which nothing was read, but not the one that is written. The lines in it.
    pub(super) fn give_up_oldest(&mut self, folder: &Folder) -> Option<u64> {
        let candidates = self.segments.len().saturating_sub(1);
        let unread = |segment: &Segment| segment.read == 0 && segment.lines > 0;
        let index = self.segments.iter().take(candidates).position(unread)?;
        Some(self.remove(folder, index))
    }

    /// Takes all files away, when every line is settled.
    pub(super) fn clear(&mut self, folder: &Folder) {
        self.head = None;
        while !self.segments.is_empty() {
            self.remove(folder, 0);
        }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }
}

impl Segment {
    /// The rest of it cannot be read. How many lines that are.
    fn give_up(&mut self) -> u64 {
        let lost = self.lines - self.read;
        self.lines = self.read;
        lost
    }
}

/// Reads a whole file: where its records end, how many follow the place that was reached, and whether anything comes
/// behind them.
fn scan(file: &File, number: u64, length: u64, reached: Option<u64>) -> (Segment, bool) {
    let mut segment = Segment {
        number,
        start: START,
        end: START,
        lines: 0,
        read: 0,
    };
    let Ok(copy) = file.try_clone() else {
        return (segment, false);
    };
    let mut reader = Reader::new(copy, START, length);
    let mut torn = false;
    loop {
        if reached == Some(reader.offset()) {
            segment.start = reader.offset();
            segment.lines = 0;
        }
        match reader.next() {
            Ok(Next::Entry(_)) => segment.lines += 1,
            Ok(Next::End) => break,
            Ok(Next::Damaged) | Err(_) => {
                torn = true;
                break;
            }
        }
    }
    segment.end = reader.offset();
    (segment, torn)
}
