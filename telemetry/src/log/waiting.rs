//! Lines that wait in a queue, as bytes, and a batch of them. A line costs no allocation, and the consumer gets lines by
//! the piece.

use std::collections::VecDeque;

use super::line::Line;
use crate::sink::lane::{Lane, Room, Size};
use crate::sink::queue::Severity;

/// Lines that wait: one behind the other in large pieces of memory, which are used again.
#[derive(Debug, Default)]
pub(crate) struct LineLane {
    pieces: Pieces,
    spare: Spare,
}

/// None of them is empty. Two that stand together are more than half full, so that lines take up to twice the memory
/// that they count for.
#[derive(Debug, Default)]
struct Pieces(VecDeque<Piece>);

impl Pieces {
    fn push(&mut self, header: Header, text: &[u8], spare: &mut Spare) {
        let bytes = Header::BYTES + text.len();
        if !self.0.back().is_some_and(|last| last.has_room(bytes)) {
            self.0.push_back(spare.piece(bytes));
        }
        let last = self.0.len() - 1;
        self.0[last].push(header, text);
    }

    fn first(&self) -> Option<(Header, &[u8])> {
        self.0.front()?.first()
    }

    fn drop_first(&mut self, spare: &mut Spare) {
        let Some(piece) = self.0.front_mut() else { return };
        piece.drop_first();
        if piece.items == 0
            && let Some(empty) = self.0.pop_front()
        {
            spare.keep(empty.bytes);
        }
    }
}

/// Lines, each behind its header.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the first line's header begins; what is before it went already.
    start: usize,
    /// Lines from there on.
    items: usize,
    /// The number of the last line.
    last: u64,
}

/// Bytes of a piece; a longer line has one of its own.
const PIECE: usize = 64 * 1024;

impl Piece {
    fn has_room(&self, bytes: usize) -> bool {
        self.bytes.capacity() - self.bytes.len() >= bytes
    }

    fn push(&mut self, header: Header, text: &[u8]) {
        self.bytes.extend_from_slice(&header.bytes());
        self.bytes.extend_from_slice(text);
        self.items += 1;
        self.last = header.number;
    }

    fn first(&self) -> Option<(Header, &[u8])> {
        let (header, rest) = self.bytes.get(self.start..)?.split_first_chunk()?;
        let header = Header::of(header);
        Some((header, rest.get(..header.length)?))
    }

    fn drop_first(&mut self) {
        if let Some((header, _)) = self.first() {
            self.start += Header::BYTES + header.length;
            self.items -= 1;
        }
    }

    fn size(&self) -> Size {
        Size {
            items: self.items,
            bytes: self.bytes.len() - self.start,
        }
    }
}

/// Memory of pieces that went, for those that come.
#[derive(Debug, Default)]
struct Spare(Vec<Vec<u8>>);

/// Pieces whose memory is kept for later: those of one batch for stdout.
const SPARE: usize = 4;

impl Spare {
    fn piece(&mut self, bytes: usize) -> Piece {
        let mut memory = self.0.pop().unwrap_or_default();
        memory.reserve_exact(bytes.max(PIECE));
        Piece {
            bytes: memory,
            ..Piece::default()
        }
    }

    fn keep(&mut self, mut memory: Vec<u8>) {
        if self.0.len() < SPARE && memory.capacity() == PIECE {
            memory.clear();
            self.0.push(memory);
        }
    }
}

/// What stands before a line in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) nanos: u64,
    pub(super) length: usize,
    pub(super) severity: Severity,
}

impl Header {
    pub(super) const BYTES: usize = 24;

    fn bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.number.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.nanos.to_ne_bytes());
        // The least byte is the severity.
        let last = (self.length as u64) << 8 | self.severity as u64;
        bytes[16..].copy_from_slice(&last.to_ne_bytes());
        bytes
    }

    fn of(bytes: &[u8; Self::BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let [number, nanos, last] = [0, 1, 2].map(|at| u64::from_ne_bytes(words[at]));
        Self {
            number,
            nanos,
            length: (last >> 8) as usize,
            severity: Severity::ALL[(last & 0xff) as usize],
        }
    }
}

impl Lane for LineLane {
    type Item<'a> = Line<'a>;
    type Batch = Lines;

    fn push(&mut self, number: u64, line: Line<'_>) {
        self.pieces
            .push(line.header(number), line.with_line_feed(), &mut self.spare);
    }

    fn first(&self) -> Option<(u64, usize)> {
        let (header, text) = self.pieces.first()?;
        Some((header.number, Header::BYTES + text.len()))
    }

    fn drop_first(&mut self) {
        self.pieces.drop_first(&mut self.spare);
    }

    fn take(&mut self, before: u64, room: &mut Room, batch: &mut Lines) {
        batch.spare.0.drain(..).for_each(|memory| self.spare.keep(memory));
        // Usually whole pieces go.
        while let Some(piece) = self.pieces.0.front()
            && piece.last < before
            && room.take(piece.size())
        {
            batch.pieces.0.extend(self.pieces.0.pop_front());
        }
        while let Some((header, text)) = self.pieces.first()
            && header.number < before
            && room.take(Size {
                items: 1,
                bytes: Header::BYTES + text.len(),
            })
        {
            batch.pieces.push(header, text, &mut self.spare);
            self.pieces.drop_first(&mut self.spare);
        }
    }
}

/// Lines that were taken from a queue.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pieces: Pieces,
    /// Goes back to the queue with the next batch.
    spare: Spare,
}

impl Lines {
    /// Puts a line behind the others.
    pub(crate) fn push(&mut self, line: Line<'_>) {
        self.pieces.push(line.header(0), line.with_line_feed(), &mut self.spare);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.0.iter().map(|piece| piece.items).sum()
    }

    /// Their bytes, with some for each line.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.0.iter().map(|piece| piece.size().bytes).sum()
    }

    /// Takes them out: hands each to `each`, with its line feed, its time stamp and its level.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8], u64, Severity)) {
        while let Some((header, text)) = self.pieces.first() {
            each(text, header.nanos, header.severity);
            self.pieces.drop_first(&mut self.spare);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against a list of lines.

    use proptest::prelude::*;

    use super::*;
    use crate::sink::Sink as _;
    use crate::sink::account::Fate;
    use crate::sink::queue::{BatchLimits, Item as _, OnFull, Queue, QueueLimits};

    const NO_LINGER: std::time::Duration = std::time::Duration::ZERO;

    #[derive(Debug, Clone)]
    enum Step {
        Push {
            length: usize,
            severity: usize,
        },
        Drop,
        /// Up to the item that many numbers later.
        Take {
            before: u64,
            items: usize,
            bytes: usize,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        let length = prop_oneof![8 => 0..300_usize, 1 => 30_000..140_000_usize];
        prop_oneof![
            20 => (length, 0..5_usize).prop_map(|(length, severity)| Step::Push { length, severity }),
            2 => Just(Step::Drop),
            3 => (0..90_u64, 0..60_usize, 0..200_000_usize).prop_map(|(before, items, bytes)| Step::Take { before, items, bytes }),
        ]
    }

    proptest! {
        #[test]
        fn lines_come_out_as_they_went_in(steps in proptest::collection::vec(step(), 0..300)) {
            let mut lane = LineLane::default();
            let mut model: VecDeque<(u64, String, Severity)> = VecDeque::new();
            let mut batch = Lines::default();
            for (number, step) in steps.into_iter().enumerate() {
                let number = number as u64;
                let bytes = |line: &str| Line::new(line, 0, Severity::Info).bytes();
                prop_assert_eq!(lane.first(), model.front().map(|(number, line, _)| (*number, bytes(line))));
                match step {
                    Step::Push { length, severity } => {
                        let text = format!("{}{number}\n", "x".repeat(length));
                        let severity = Severity::ALL[severity];
                        lane.push(number, Line::new(&text, number * 7, severity));
                        model.push_back((number, text, severity));
                    }
                    Step::Drop => {
                        lane.drop_first();
                        model.pop_front();
                    }
                    Step::Take { before, items, bytes: most } => {
                        let before = model.front().map_or(0, |first| first.0 + before);
                        let mut room = Room::new(BatchLimits { items, bytes: most, linger: NO_LINGER });
                        lane.take(before, &mut room, &mut batch);
                        // One line always goes, others as long as they fit.
                        let mut expected = Vec::new();
                        let mut sum = 0;
                        while let Some((its, text, _)) = model.front()
                            && *its < before
                            && (expected.is_empty() || (expected.len() < items && sum + bytes(text) <= most))
                        {
                            sum += bytes(text);
                            expected.extend(model.pop_front());
                        }
                        prop_assert_eq!(room.taken, Size { items: expected.len(), bytes: sum });
                        prop_assert_eq!(batch.len(), expected.len());
                        let mut taken = Vec::new();
                        batch.drain(|text, nanos, severity| {
                            taken.push((nanos / 7, String::from_utf8(text.to_vec()).unwrap(), severity));
                        });
                        prop_assert_eq!(taken, expected);
                        prop_assert_eq!(batch.len(), 0);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn lines_of_all_levels_leave_a_queue_in_order(
            lines in proptest::collection::vec((0..5_usize, 0..3000_usize, 0..6_usize), 0..200),
            (items, bytes) in (1..60_usize, 1..300_000_usize),
        ) {
            let limits = QueueLimits { bytes: 1 << 20, items: usize::MAX, on_full: OnFull::DropLowest, block: NO_LINGER };
            let queue = Queue::<LineLane>::new("test", limits, None);
            let mut batch = Lines::default();
            let mut found = Vec::new();
            let mut take = |items, bytes| {
                queue.take_blocking(BatchLimits { items, bytes, linger: NO_LINGER }, &mut batch);
                assert!(batch.len() <= items && (batch.bytes() <= bytes || batch.len() == 1));
                queue.settle(batch.len() as u64, Fate::Delivered);
                batch.drain(|text, nanos, severity| {
                    assert!(text.starts_with(format!("{severity:?} {nanos} ").as_bytes()));
                    found.push(nanos);
                });
            };
            for (number, (severity, length, then)) in lines.iter().enumerate() {
                let severity = Severity::ALL[*severity];
                let text = format!("{severity:?} {number} {}\n", "x".repeat(*length));
                queue.push(Line::new(&text, number as u64, severity));
                if *then == 0 {
                    take(items, bytes);
                }
            }
            while queue.queued_bytes() > 0 {
                take(items, bytes);
            }
            prop_assert_eq!(found, (0..lines.len() as u64).collect::<Vec<_>>());
            prop_assert!(queue.counts().is_lossless());
        }
    }

    #[test]
    fn memory_of_lines_that_went_is_used_again() {
        let mut lane = LineLane::default();
        let mut batch = Lines::default();
        let text = format!("{}\n", "x".repeat(1000));
        let mut pieces = std::collections::HashSet::new();
        let all = BatchLimits {
            items: usize::MAX,
            bytes: usize::MAX,
            linger: NO_LINGER,
        };
        for number in 0..10_000 {
            lane.push(number, Line::new(&text, number, Severity::Info));
            pieces.insert(lane.pieces.0.back().map(|piece| piece.bytes.as_ptr()));
            match number % 1000 {
                0..100 => lane.drop_first(),
                999 => {
                    lane.take(u64::MAX, &mut Room::new(all), &mut batch);
                    batch.drain(|_, _, _| {});
                }
                _ => {}
            }
        }
        assert!(pieces.len() <= 40, "{} pieces for 160 in all", pieces.len());
        let long = "x".repeat(2 * PIECE) + "\n";
        lane.push(0, Line::new(&long, 0, Severity::Info));
        lane.drop_first();
        assert!(lane.first().is_none());
        assert!(
            lane.spare.0.iter().all(|memory| memory.capacity() == PIECE),
            "a long line's is not kept"
        );
    }
}
