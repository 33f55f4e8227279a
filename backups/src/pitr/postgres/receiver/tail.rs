//! The segment that is being filled, and the reader that holds every byte against what a log must be.

use bytes::{Bytes, BytesMut};
use replication::{History, Lsn, Segment, SegmentSize, Timeline};

use super::super::archive::File;
use super::super::wal::Reader;
use super::ReceiverError;

/// What was received of the last segment.
pub(super) struct Tail {
    pub(super) timeline: Timeline,
    size: SegmentSize,
    /// Where the segment begins.
    start: Lsn,
    buffer: BytesMut,
    reader: Reader,
}

impl Tail {
    /// Nothing yet of the segment that begins at `start`; `reader` has read what lies before it, if anything.
    pub(super) fn new(timeline: Timeline, start: Lsn, size: SegmentSize, reader: Reader) -> Self {
        Self {
            timeline,
            size,
            start,
            buffer: BytesMut::new(),
            reader,
        }
    }

    /// Up to here the log was received.
    pub(super) fn received(&self) -> Lsn {
        self.start.plus(self.buffer.len() as u64)
    }

    /// Takes what comes next, and returns the segments that it fills up.
    pub(super) fn push(&mut self, start: Lsn, data: &[u8]) -> Result<Vec<(Segment, Bytes)>, ReceiverError> {
        let expected = self.received();
        if start != expected {
            let found = start;
            return Err(ReceiverError::OutOfOrder { expected, found });
        }
        self.reader.push(data, |_| ())?;
        let whole = self.size.bytes() as usize;
        let (mut rest, mut segments) = (data, Vec::new());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(whole - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            rest = later;
            if self.buffer.len() == whole {
                let segment = Segment::containing(self.timeline, self.start, self.size);
                segments.push((segment, std::mem::take(&mut self.buffer).freeze()));
                self.start = segment.end(self.size);
            }
        }
        Ok(segments)
    }

    /// The beginning of the last segment, if anything of it was received.
    pub(super) fn partial(&self) -> Option<(File, Bytes)> {
        let (segment, until) = (
            Segment::containing(self.timeline, self.start, self.size),
            self.received(),
        );
        let content = || Bytes::copy_from_slice(&self.buffer);
        (!self.buffer.is_empty()).then(|| (File::Partial { segment, until }, content()))
    }
}

/// The history of an ancestor: the part before it of that of its descendant.
pub(super) fn of_ancestor(history: &History, timeline: Timeline) -> Option<History> {
    let before = history.switches().iter().take_while(|switch| switch.parent < timeline);
    let lines: Vec<String> = before
        .map(|switch| format!("{}\t{}\n", switch.parent, switch.at))
        .collect();
    let lines = lines.concat();
    History::parse(lines.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ancestor_has_what_lies_before_it() {
        let history = History::parse(b"1\t0/3000148\tx\n2\t0/5000000\ty\n4\t0/6000000\tz\n").unwrap();
        let of = |timeline| of_ancestor(&history, Timeline(timeline)).unwrap();
        assert!(of(1).switches().is_empty());
        assert_eq!(of(4).left(Timeline(2)), Some(Lsn(0x500_0000)));
        assert_eq!(of(4).left(Timeline(4)), None);
    }
}
