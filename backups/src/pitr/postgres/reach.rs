//! How far an archive of write-ahead log leads from a base backup: over which timelines, through which files, and what
//! is missing where. Pure: it is given a listing ([`super::contents`]), and never looks into a file.
//!
//! A segment's number exists on several timelines. After a promotion the first segment of the new timeline begins with a
//! copy of what the old one had in it, so that either file may serve for what lies before the switch, and only the new
//! one for what lies after it. Which positions belong to which timeline, only the history says, never what happens to
//! be held: a server that was cut off may have written on past the switch, and nothing of that is on the way.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use replication::{History, Lsn, Segment, SegmentSize, Span, Timeline};

use super::contents::Held;

/// Where the log must begin, and how much of it a base backup needs before anything consistent comes out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Where recovery begins to read: the checkpoint's redo position.
    pub start: Lsn,
    /// The timeline of `start`.
    pub timeline: Timeline,
    /// Where the backup ended. Nothing before it can be restored.
    pub end: Lsn,
    /// The timeline of `end`; another one if the server, a standby, followed a promotion meanwhile.
    pub end_timeline: Timeline,
}

/// Which timeline is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// The newest one that the archive knows of.
    Newest,
    /// This one.
    Exactly(Timeline),
}

/// One file on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which segment, and on which timeline the file lies.
    pub segment: Segment,
    /// If it is not whole: up to where it was received, which is part of its name.
    pub partial: Option<Lsn>,
    /// Where it begins.
    pub start: Lsn,
    /// The end of what is on the way: of the file, or where its timeline was left. What may lie behind is another
    /// timeline's past.
    pub until: Lsn,
}

/// Log that is missing although there is more behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The first missing file.
    pub first: Segment,
    /// The last missing file.
    pub last: Segment,
    /// What is missing, in bytes of the log.
    pub from: Lsn,
    /// Where there is log again.
    pub until: Lsn,
    /// The file that is there again.
    pub follows: Segment,
    /// For names.
    pub size: SegmentSize,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |segment: Segment| segment.file_name(self.size);
        if self.first == self.last {
            write!(f, "{}", name(self.first))?;
        } else {
            write!(f, "{} to {}", name(self.first), name(self.last))?;
        }
        let (from, until) = (self.from, self.until);
        write!(f, " ({from} to {until}), before {}", name(self.follows))
    }
}

/// Why a base backup does not lead to a timeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoWay {
    /// Nothing of it was ever archived.
    #[error("nothing of timeline {timeline} is in the archive")]
    Unknown {
        /// The timeline that is wanted.
        timeline: Timeline,
    },
    /// The timeline has a past, and the file that tells it is missing.
    #[error("the history of timeline {timeline} is not in the archive")]
    NoHistory {
        /// The timeline.
        timeline: Timeline,
    },
    /// It goes another way.
    #[error("timeline {timeline} does not come from timeline {of}, on which the base backup was taken")]
    Unrelated {
        /// The timeline that is wanted.
        timeline: Timeline,
        /// The timeline of the backup.
        of: Timeline,
    },
    /// It turned off before the backup was complete.
    #[error("the way to timeline {timeline} left timeline {of} at {at}, and the base backup reaches to {end}")]
    LeftBefore {
        /// The timeline that is wanted.
        timeline: Timeline,
        /// The timeline of the backup.
        of: Timeline,
        /// Where it was left.
        at: Lsn,
        /// The position of the backup that lies behind.
        end: Lsn,
    },
}

/// The log does not reach far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Short {
    /// More was never received, or is not held any more.
    #[error("the log is held up to {reached}, and {wanted} is wanted")]
    Ends {
        /// The position that must be held.
        wanted: Lsn,
        /// The position up to which it is.
        reached: Lsn,
    },
    /// Something is missing on the way.
    #[error("the log is held up to {reached}, and {wanted} is wanted: missing is {gap}")]
    Gap {
        /// The position that must be held.
        wanted: Lsn,
        /// The position up to which it is.
        reached: Lsn,
        /// What is missing first.
        gap: Gap,
    },
}

/// What to say to a recovery that asks for a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Give it this file; a partial one filled up with zeros to the size of a segment.
    Give(Piece),
    /// Not on this timeline: it asks for the same number on the timeline before, which has more of it (or all that
    /// there is).
    Older,
    /// The log ends before.
    Beyond,
    /// It is missing, and there is more behind it, or it should be there for the backup to be restored at all. A
    /// recovery that took this for the end of the log would succeed with less than there was.
    Missing,
}

/// The way from a base backup along a timeline, as far as it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub timeline: Timeline,
    /// From where.
    pub base: Base,
    /// The past of that timeline.
    pub history: History,
    /// Which positions belong to which timeline, as the history says.
    pub spans: Vec<Span>,
    /// How long segments are.
    pub size: SegmentSize,
    /// The files without a gap, in the order in which recovery reads them: one for each number.
    pub pieces: Vec<Piece>,
    /// Up to where the log is held without a gap; the base's start if nothing is.
    pub reached: Lsn,
    /// What is missing behind that and before something that is held. Empty if there is nothing more.
    pub gaps: Vec<Gap>,
    /// A moment of the server's clock up to which everything is known to be here (see [`super::contents::Standing`]).
    /// `None`: only the commits in the log tell.
    pub moment: Option<Timestamp>,
}

/// The way from `base` to a timeline, as far as `held` leads.
///
/// # Errors
/// [`NoWay`], if no log in the world would lead there, or that cannot be known. How far it is held is no error here: see
/// [`Way::reaches`].
pub fn way(held: &Held, base: &Base, branch: Branch) -> Result<Way, NoWay> {
    let timeline = match branch {
        Branch::Exactly(timeline) => timeline,
        // Never an older one because something of the newest is missing: that would restore less, and say nothing.
        Branch::Newest => held
            .newest_timeline()
            .unwrap_or(base.end_timeline)
            .max(base.end_timeline),
    };
    let history = match held.histories.get(&timeline) {
        Some(history) => history.clone(),
        None if timeline == Timeline::FIRST => History::default(),
        None if held.has(timeline) => return Err(NoWay::NoHistory { timeline }),
        None => return Err(NoWay::Unknown { timeline }),
    };
    let spans = history.way(timeline);
    for (lsn, of) in [(base.start, base.timeline), (base.end, base.end_timeline)] {
        let span = spans.iter().find(|span| span.timeline == of);
        let span = span.ok_or(NoWay::Unrelated { timeline, of })?;
        let end = lsn;
        match span.until {
            Some(at) if at < lsn => return Err(NoWay::LeftBefore { timeline, of, at, end }),
            _ => {}
        }
    }
    let mut way = Way {
        timeline,
        base: *base,
        history,
        spans,
        size: held.segment_size,
        pieces: Vec::new(),
        reached: base.start,
        gaps: Vec::new(),
        moment: None,
    };
    way.walk(held);
    way.moment = way.moment_of(held);
    Ok(way)
}

impl Way {
    /// Puts the files together: for each number the one that covers most.
    fn walk(&mut self, held: &Held) {
        let first = Segment::containing(self.base.timeline, self.base.start, self.size).number;
        let mut best = BTreeMap::<u64, Piece>::new();
        for (segment, partial) in held.files() {
            if segment.number < first {
                continue;
            }
            let Some(piece) = self.piece(segment, partial) else {
                continue;
            };
            let rank = |piece: &Piece| (piece.until, piece.segment.timeline, piece.partial.is_none());
            let known = best.entry(segment.number).or_insert(piece);
            if rank(&piece) > rank(known) {
                *known = piece;
            }
        }
        let mut at = self.base.start;
        for piece in best.into_values() {
            if piece.start > at {
                self.gaps.push(self.gap(at, &piece));
            }
            if self.gaps.is_empty() {
                self.pieces.push(piece);
                self.reached = self.reached.max(piece.until);
            }
            at = at.max(piece.until);
        }
    }

    /// What a file contributes, if it does.
    fn piece(&self, segment: Segment, partial: Option<Lsn>) -> Option<Piece> {
        let span = self.spans.iter().find(|span| span.timeline == segment.timeline)?;
        // The file in which a timeline begins has the past of this segment in it; earlier ones do not exist.
        if segment.number < Segment::containing(span.timeline, span.from, self.size).number {
            return None;
        }
        let (start, end) = (segment.start(self.size), segment.end(self.size));
        let held = partial.map_or(end, |upto| upto.min(end));
        let until = span.until.map_or(held, |left| left.min(held));
        (until > start).then_some(Piece {
            segment,
            partial,
            start,
            until,
        })
    }

    /// The newest timeline on the way whose files have this number: what recovery asks for first.
    fn asked_first(&self, number: u64) -> Segment {
        let begun = |span: &&Span| Segment::containing(span.timeline, span.from, self.size).number <= number;
        let newest = self.spans.iter().rev().find(begun);
        let timeline = newest.map_or(self.timeline, |span| span.timeline);
        Segment { timeline, number }
    }

    fn gap(&self, from: Lsn, follows: &Piece) -> Gap {
        let number = |lsn| Segment::containing(self.timeline, lsn, self.size).number;
        Gap {
            first: self.asked_first(number(from)),
            last: self.asked_first(follows.segment.number.saturating_sub(1)),
            from,
            until: follows.start,
            follows: follows.segment,
            size: self.size,
        }
    }

    fn moment_of(&self, held: &Held) -> Option<Timestamp> {
        let standing = held.standing?;
        let span = self.spans.iter().find(|span| span.timeline == standing.timeline)?;
        // Where its timeline was left earlier, what the server had then is not all on this way.
        let on_the_way = span.until.is_none_or(|left| standing.lsn <= left);
        (on_the_way && self.reached >= standing.lsn).then_some(standing.moment)
    }

    /// Whether all that lies before `lsn` is held: of a record that recovery must read, its end.
    ///
    /// # Errors
    /// [`Short`], which names the first gap.
    pub fn reaches(&self, lsn: Lsn) -> Result<(), Short> {
        let (wanted, reached) = (lsn, self.reached);
        match self.gaps.first() {
            _ if lsn <= reached => Ok(()),
            Some(gap) => Err(Short::Gap {
                wanted,
                reached,
                gap: *gap,
            }),
            None => Err(Short::Ends { wanted, reached }),
        }
    }

    /// Whether the backup can be restored at all: the log up to its end is held.
    ///
    /// # Errors
    /// [`Short`].
    pub fn usable(&self) -> Result<(), Short> {
        self.reaches(self.base.end)
    }

    /// The timeline that the byte at `lsn` is read from.
    pub fn timeline_at(&self, lsn: Lsn) -> Timeline {
        let span = self
            .spans
            .iter()
            .find(|span| span.until.is_none_or(|until| lsn < until));
        span.map_or(self.timeline, |span| span.timeline)
    }

    /// The timelines whose histories recovery asks for: all but the first, oldest first.
    pub fn histories(&self) -> impl Iterator<Item = Timeline> {
        let timelines = self.spans.iter().map(|span| span.timeline);
        timelines.filter(|timeline| *timeline != Timeline::FIRST)
    }

    /// The files that hold any of these positions.
    pub fn pieces_of(&self, range: Range<Lsn>) -> &[Piece] {
        let from = self.pieces.partition_point(|piece| piece.until <= range.start);
        let until = self.pieces.partition_point(|piece| piece.start < range.end);
        self.pieces.get(from..until).unwrap_or_default()
    }

    /// What to say to a recovery along this way that asks for a segment. PostgreSQL asks for a number on the newest
    /// timeline first, and where it is told that it is not there, on the one before.
    pub fn answer(&self, asked: Segment) -> Answer {
        let first = Segment::containing(self.base.timeline, self.base.start, self.size).number;
        let index = asked.number.checked_sub(first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        match index.and_then(|index| self.pieces.get(index)) {
            Some(piece) if piece.segment.timeline == asked.timeline => Answer::Give(*piece),
            Some(piece) if piece.segment.timeline < asked.timeline => Answer::Older,
            // Nobody asks for an older one after it was given the newer one, nor for what lies before the backup.
            Some(_) => Answer::Missing,
            None if index.is_none() || !self.gaps.is_empty() => Answer::Missing,
            None if asked.start(self.size) < self.base.end => Answer::Missing,
            None => Answer::Beyond,
        }
    }
}

#[cfg(test)]
mod tests;
