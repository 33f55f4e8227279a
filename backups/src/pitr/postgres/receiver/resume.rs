//! Where a receiver goes on. Pure: it is given what the archive holds, the server's history and its slot.

use replication::{History, Identity, Lsn, Position, Segment, SegmentSize, Timeline};

use super::super::archive::Lost;
use super::super::contents::Held;
use super::{ReceiverError, Warning};

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Start {
    /// The timeline to ask for.
    pub(super) timeline: Timeline,
    /// The position to ask for: the start of a segment.
    pub(super) at: Lsn,
    /// Up to here the log is in the archive already, as the beginning of that segment.
    pub(super) durable: Lsn,
    /// The whole segment before, if the archive holds it: what comes must follow on it.
    pub(super) before: Option<Segment>,
    /// What is held and leads nowhere.
    pub(super) left_behind: Vec<Warning>,
}

/// Where to go on with what `held` has, on the way to the server's timeline. `gaps` are known to be lost: what lies in
/// them is not asked for again. Without anything held it is where the slot begins.
///
/// # Errors
/// [`ReceiverError::Ahead`]: the archive has what the server has not.
pub(super) fn start(
    held: Option<&Held>,
    gaps: &[Lost],
    history: &History,
    server: &Identity,
    restart: Option<Lsn>,
    size: SegmentSize,
) -> Result<Start, ReceiverError> {
    let fresh = floor(restart.unwrap_or(server.flushed), size);
    let mut start = Start {
        timeline: history.timeline_at(server.timeline, fresh),
        at: fresh,
        durable: fresh,
        before: None,
        left_behind: Vec::new(),
    };
    let Some(held) = held else { return Ok(start) };
    not_ahead(held, server)?;
    let way = Way {
        held,
        history,
        server,
        size,
    };
    start.left_behind = way.left_behind();
    if let Some((position, before)) = way.last_whole().or_else(|| Some((way.first_partial()?, None))) {
        (start.timeline, start.at, start.before) = (position.timeline, position.lsn, before);
    } else if held.segments.is_empty() && held.partials.is_empty() {
        return Ok(start);
    }
    // Several segments are on their way at once, and whoever was killed then may have left out one before the last.
    if let Some((position, before)) = restart.and_then(|restart| way.first_hole(floor(restart, size), start.at)) {
        (start.timeline, start.at, start.before) = (position.timeline, position.lsn, before);
    }
    // A segment at the edge of a gap may be there again: then it is behind it anyhow.
    let beyond = gaps
        .iter()
        .filter(|gap| gap.until > start.at)
        .map(|gap| gap.until)
        .max();
    if let Some(until) = beyond {
        (start.timeline, start.at, start.before) =
            (history.timeline_at(server.timeline, until), floor(until, size), None);
    }
    let at = Position {
        lsn: start.at,
        timeline: start.timeline,
    };
    if let Some(timeline) = file_of_all(history, server.timeline, at, size) {
        (start.timeline, start.before) = (timeline, None);
    }
    let segment = Segment::containing(start.timeline, start.at, size);
    let left = history.left(start.timeline).unwrap_or(Lsn(u64::MAX));
    let partial = held.partials.get(&segment).map_or(start.at, |until| (*until).min(left));
    start.durable = partial.max(start.at);
    Ok(start)
}

/// The start of the segment that holds this position.
pub(super) fn floor(lsn: Lsn, size: SegmentSize) -> Lsn {
    Lsn(lsn.0 - lsn.0 % size.bytes())
}

/// Where several timelines were left in the segment of `at`: the last one in it, whose file begins with the past of all of
/// them. A server looks for the end of a timeline in the file of the next one, and who recovered over several of them has
/// only that of the last. `history` is that of `own`, the server's timeline.
pub(super) fn file_of_all(history: &History, own: Timeline, at: Position, size: SegmentSize) -> Option<Timeline> {
    let end = Lsn(floor(at.lsn, size).0.checked_add(size.bytes() - 1)?);
    let last = history.timeline_at(own, end);
    let spans = history.way(own);
    let place = |wanted| spans.iter().position(|span| span.timeline == wanted);
    (place(last)? > place(at.timeline)? + 1).then_some(last)
}

/// A server that has less than the archive was put back to an older state. What it writes from now on is another log
/// under the same names.
pub(super) fn not_ahead(held: &Held, server: &Identity) -> Result<(), ReceiverError> {
    let newest = held.newest_timeline().unwrap_or(server.timeline).max(server.timeline);
    let furthest = furthest(held, newest);
    let archive = Position {
        lsn: furthest,
        timeline: newest,
    };
    if newest > server.timeline || furthest > server.flushed {
        let server = Position {
            lsn: server.flushed,
            timeline: server.timeline,
        };
        return Err(ReceiverError::Ahead { archive, server });
    }
    Ok(())
}

/// Up to where anything is held of a timeline.
fn furthest(held: &Held, timeline: Timeline) -> Lsn {
    let files = held.files().filter(|(segment, _)| segment.timeline == timeline);
    let ends = files.map(|(segment, until)| until.unwrap_or(segment.end(held.segment_size)));
    let standing = held.standing.filter(|standing| standing.timeline == timeline);
    let standing = standing.map(|standing| standing.lsn);
    ends.chain(standing).max().unwrap_or(Lsn::ZERO)
}

/// The server's way through its timelines, and what is held of it.
struct Way<'a> {
    held: &'a Held,
    history: &'a History,
    server: &'a Identity,
    size: SegmentSize,
}

impl Way<'_> {
    /// What follows the last whole segment on the way, and that segment.
    fn last_whole(&self) -> Option<(Position, Option<Segment>)> {
        let spans = self.history.way(self.server.timeline);
        let (index, segment) = spans.iter().enumerate().rev().find_map(|(index, span)| {
            let first = Segment::containing(span.timeline, span.from, self.size);
            let last = match span.until {
                Some(left) => Segment::containing(span.timeline, left, self.size),
                None => Segment {
                    number: u64::MAX,
                    ..first
                },
            };
            Some((index, *self.held.segments.range(first..=last).next_back()?))
        })?;
        let end = segment.end(self.size);
        let mut position = Position {
            lsn: end,
            timeline: segment.timeline,
        };
        // The segment in which a timeline was left begins the next one as well.
        for (span, next) in spans.iter().zip(spans.iter().skip(1)).skip(index) {
            match span.until {
                Some(left) if left <= position.lsn => {
                    position = Position {
                        lsn: floor(left, self.size),
                        timeline: next.timeline,
                    };
                }
                _ => break,
            }
        }
        let follows = position.timeline == segment.timeline;
        Some((position, follows.then_some(segment)))
    }

    /// The first segment from `from` and before `until` that is not held as a whole, and the one before it if it is.
    fn first_hole(&self, from: Lsn, until: Lsn) -> Option<(Position, Option<Segment>)> {
        let on_the_way = |lsn: Lsn| {
            let timeline = self.history.timeline_at(self.server.timeline, lsn);
            Segment::containing(timeline, lsn, self.size)
        };
        let held = |start: Lsn| {
            // The segment in which a timeline was left begins the next one as well.
            let ends = [start, Lsn(start.0 + self.size.bytes() - 1)];
            ends.iter().any(|lsn| self.held.segments.contains(&on_the_way(*lsn)))
        };
        let starts = std::iter::successors(Some(from), |start| start.0.checked_add(self.size.bytes()).map(Lsn));
        let lsn = starts.take_while(|start| *start < until).find(|start| !held(*start))?;
        let timeline = on_the_way(lsn).timeline;
        let before = lsn
            .0
            .checked_sub(self.size.bytes())
            .map(|before| on_the_way(Lsn(before)));
        let before = before.filter(|before| before.timeline == timeline && self.held.segments.contains(before));
        Some((Position { lsn, timeline }, before))
    }

    /// Where the only segment that was begun begins.
    fn first_partial(&self) -> Option<Position> {
        let spans = self.history.way(self.server.timeline);
        spans.iter().rev().find_map(|span| {
            let mut partials = self.held.partials.keys();
            let segment = partials.rfind(|segment| segment.timeline == span.timeline)?;
            let (lsn, timeline) = (segment.start(self.size), span.timeline);
            span.until
                .is_none_or(|left| lsn < left)
                .then_some(Position { lsn, timeline })
        })
    }

    fn left_behind(&self) -> Vec<Warning> {
        let switches = self.history.switches().iter();
        let behind = switches.filter_map(|switch| {
            let (timeline, left) = (switch.parent, switch.at);
            // A segment is filled up to its end, and says nothing by that.
            let files = self.held.files().filter(|(segment, _)| segment.timeline == timeline);
            let reaches = files.map(|(segment, until)| until.unwrap_or(segment.start(self.size).plus(1)));
            let held = reaches.max()?;
            (held > left).then_some(Warning::LeftBehind { timeline, left, held })
        });
        behind.collect()
    }
}

#[cfg(test)]
mod tests;
