//! Reads a log in order, byte by byte as it comes.

use replication::{Lsn, SystemId, Timeline};

use super::page::{Header, LONG, PAGE, SHORT};
use super::record::{self, HEADER, MEASURE, Pending, Record};
use super::{Expected, Extent, Fault, mark};

/// Reads a log in order, and holds no more of it than the beginning of one record.
#[derive(Debug)]
pub struct Reader {
    expected: Expected,
    /// The version of the first page.
    major: Option<u32>,
    /// The timeline of the last page.
    timeline: Option<Timeline>,
    /// Where it began to read.
    began: Lsn,
    /// The next byte.
    at: Lsn,
    /// The header of the page, as far as it has come.
    header: [u8; LONG],
    state: State,
    first: Option<Lsn>,
    last: Option<Extent>,
    records: u64,
    zeros_end: bool,
    fault: Option<Fault>,
}

/// What the next bytes of a page are, behind its header.
#[derive(Debug)]
enum State {
    /// The rest of a record whose beginning was not read: so many bytes of it.
    Rest(u32),
    /// A record, or what fills up to one.
    Between,
    /// More of this record.
    Record(Pending),
    /// Nothing, up to this end of a segment: a switch lies before.
    Idle(Lsn),
    /// Nothing: the log has ended.
    Ended,
}

impl Reader {
    /// A reader of the log from `start` on: the start of a segment, or at least of a page, which it is rounded down to.
    /// Which cluster it is of stands at starts of segments only.
    pub fn new(start: Lsn, expected: Expected) -> Self {
        let start = Lsn(start.0 - start.0 % PAGE as u64);
        Self {
            expected,
            major: None,
            timeline: None,
            began: start,
            at: start,
            header: [0; LONG],
            state: State::Between,
            first: None,
            last: None,
            records: 0,
            zeros_end: false,
            fault: None,
        }
    }

    /// Takes zeros where a record or a page should begin for the end of the log, as in a file that was filled up with
    /// them. Otherwise they are a fault: whoever knows how far a log goes need not believe in zeros.
    #[must_use]
    pub fn zeros_end(mut self) -> Self {
        self.zeros_end = true;
        self
    }

    /// The next bytes. Tells `each` of every record that they complete.
    ///
    /// # Errors
    /// [`Fault`]; the same one for whatever comes afterwards.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&Record<'_>)) -> Result<(), Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let read = self.read(bytes, &mut each);
        if let Err(fault) = &read {
            self.fault = Some(fault.clone());
        }
        read
    }

    /// The position of the next byte.
    pub fn at(&self) -> Lsn {
        self.at
    }

    /// The first record that began in what was read.
    pub fn first(&self) -> Option<Lsn> {
        self.first
    }

    /// The last record that was read whole. A recovery up to its start, inclusive, reaches the end of this log.
    pub fn last(&self) -> Option<Extent> {
        self.last
    }

    /// The start of the record that was begun and is not whole yet.
    pub fn unfinished(&self) -> Option<Lsn> {
        match &self.state {
            State::Record(pending) => Some(pending.start),
            _ => None,
        }
    }

    /// Whether zeros ended the log ([`Self::zeros_end`]); [`Self::last`] says where.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// How many records were read whole.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// PostgreSQL's major version, once a page began.
    pub fn major(&self) -> Option<u32> {
        self.major
    }

    /// The cluster, once a segment began; before that the one that is expected.
    pub fn system(&self) -> Option<SystemId> {
        self.expected.system
    }

    fn read(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&Record<'_>)) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let page = self.at.0 % PAGE as u64;
            let (first, inside) = (self.at.0 - page, page as usize);
            let taken = match self.state {
                State::Ended => bytes.len(),
                // No page has a header behind a switch.
                State::Idle(until) if self.at < until => bytes.len().min(until.since(self.at) as usize),
                _ => {
                    let starts = first.is_multiple_of(self.expected.segment_size.bytes());
                    let length = if starts { LONG } else { SHORT };
                    if inside < length {
                        let piece = &bytes[..bytes.len().min(length - inside)];
                        self.header[inside..inside + piece.len()].copy_from_slice(piece);
                        if inside + piece.len() == length {
                            self.begin_page(Lsn(first), length)?;
                        }
                        piece.len()
                    } else {
                        let piece = &bytes[..bytes.len().min(PAGE - inside)];
                        self.inside(piece, each)?;
                        bytes = &bytes[piece.len()..];
                        continue;
                    }
                }
            };
            self.at = self.at.plus(taken as u64);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The header of a page is complete: checks it, and what the page goes on with.
    fn begin_page(&mut self, at: Lsn, length: usize) -> Result<(), Fault> {
        let header = &self.header[..length];
        if self.zeros_end && header.iter().all(|byte| *byte == 0) {
            self.state = State::Ended;
            return Ok(());
        }
        let header = Header::parse(header);
        let major = header.check(at, &self.expected)?;
        let expected = *self.major.get_or_insert(major);
        if expected != major {
            let found = major;
            return Err(Fault::Version { at, found, expected });
        }
        self.expected.system = header.system().or(self.expected.system);
        // Older than the page before: a former content, even where no history says whose the position is.
        let (found, expected) = (header.timeline, *self.timeline.get_or_insert(header.timeline));
        if found < expected {
            return Err(Fault::Timeline { at, found, expected });
        }
        self.timeline = Some(found);
        let expected = match &self.state {
            State::Rest(left) => Some(*left),
            State::Record(pending) => Some(pending.left()),
            _ if at == self.began => None,
            _ => Some(0),
        };
        let found = header.continues();
        // A server that crashed inside of a record and lost its end goes on here with another one.
        let lost = header.overwrites() && found == Some(0);
        if found.is_none() || !lost && expected.is_some() && found != expected {
            let (found, expected) = (header.remaining(), expected.unwrap_or_default());
            return Err(Fault::Continuation { at, found, expected });
        }
        match (&self.state, found) {
            (_, None | Some(0)) => self.state = State::Between,
            (State::Between, Some(rest)) => self.state = State::Rest(rest),
            _ => {}
        }
        Ok(())
    }

    /// Bytes of one page, behind its header.
    fn inside(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&Record<'_>)) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Ended | State::Idle(_) => bytes.len(),
                State::Rest(left) => {
                    let taken = bytes.len().min(*left as usize);
                    *left -= taken as u32;
                    if *left == 0 {
                        self.state = State::Between;
                    }
                    taken
                }
                State::Between => {
                    let fills = record::aligned(self.at).since(self.at) as usize;
                    if fills == 0 {
                        self.begin_record(bytes, each)?
                    } else {
                        bytes.len().min(fills)
                    }
                }
                State::Record(pending) => {
                    let taken = pending.take(bytes);
                    let start = pending.start;
                    let header = pending.header();
                    let known = match header.len() {
                        MEASURE.. => record::length(header, start)?,
                        _ => Some(u32::MAX),
                    };
                    let (whole, previous) = (header.len() == HEADER, record::previous(header));
                    let ends = whole && pending.left() == 0;
                    if known.is_none() {
                        self.end(start)?;
                    } else if whole {
                        // Before the rest of what may be a gigabyte of nonsense.
                        self.check_link(start, previous)?;
                    }
                    if ends {
                        let end = record::aligned(self.at.plus(taken as u64));
                        self.complete(Extent { start, end }, each)?;
                    }
                    taken
                }
            };
            self.at = self.at.plus(taken as u64);
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// A record begins with these bytes. Says how many of them were taken: all of the record, or none where it does not
    /// end here.
    fn begin_record(&mut self, bytes: &[u8], each: &mut impl FnMut(&Record<'_>)) -> Result<usize, Fault> {
        let start = self.at;
        let whole = match bytes.len() {
            MEASURE.. => match record::length(bytes, start)? {
                None => {
                    self.end(start)?;
                    return Ok(0);
                }
                Some(length) => bytes.get(..length as usize),
            },
            _ => None,
        };
        let Some(whole) = whole else {
            self.first.get_or_insert(start);
            self.state = State::Record(Pending::new(start));
            return Ok(0);
        };
        let (header, body) = whole.split_at(HEADER);
        self.first.get_or_insert(start);
        self.check_link(start, record::previous(header))?;
        let end = record::aligned(start.plus(whole.len() as u64));
        let extent = self.settle(Extent { start, end }, header[17], header[16]);
        let record = Record::new(extent, header, crc32c::crc32c(body), body)?;
        self.records += 1;
        self.last = Some(extent);
        each(&record);
        Ok(whole.len())
    }

    /// The record that came in pieces is complete.
    fn complete(&mut self, extent: Extent, each: &mut impl FnMut(&Record<'_>)) -> Result<(), Fault> {
        let State::Record(pending) = std::mem::replace(&mut self.state, State::Between) else {
            return Ok(());
        };
        let header = pending.header();
        let extent = self.settle(extent, header[17], header[16]);
        let record = pending.checked(extent)?;
        self.records += 1;
        self.last = Some(extent);
        each(&record);
        Ok(())
    }

    /// A switch of segments takes all that is left of its own.
    fn settle(&mut self, extent: Extent, manager: u8, info: u8) -> Extent {
        if !mark::is_switch(manager, info) {
            return extent;
        }
        let size = self.expected.segment_size.bytes();
        let end = Lsn(extent.end.0.checked_next_multiple_of(size).unwrap_or(extent.end.0));
        self.state = State::Idle(end);
        Extent { end, ..extent }
    }

    /// There is no record where one should begin.
    fn end(&mut self, at: Lsn) -> Result<(), Fault> {
        if !self.zeros_end {
            return Err(Fault::Length { at, found: 0 });
        }
        self.state = State::Ended;
        Ok(())
    }

    /// Each record says which one it follows. What follows one that was not read must at least name an earlier one.
    fn check_link(&self, at: Lsn, found: Lsn) -> Result<(), Fault> {
        let (right, expected) = match self.last {
            Some(last) => (found == last.start, last.start),
            None => (found < at, at),
        };
        if right {
            Ok(())
        } else {
            Err(Fault::Link { at, found, expected })
        }
    }
}
