//! Finished lines: one, which is made once and handed to every sink; those that wait in a queue; and a batch of them.

use std::collections::VecDeque;

use crate::sink::lane::{Lane, Room, Size};
use crate::sink::queue::{Item, Severity};

/// One line, in somebody's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    text: &'a str,
    nanos: u64,
    severity: Severity,
}

impl<'a> Line<'a> {
    /// A line of `text`, which ends with a line feed and has no other. `nanos`: its time stamp since the Unix epoch.
    pub(crate) fn new(text: &'a str, nanos: u64, severity: Severity) -> Self {
        debug_assert!(text.ends_with('\n'), "a line ends");
        Self { text, nanos, severity }
    }

    /// The same line in another form.
    pub(crate) fn as_text<'b>(&self, text: &'b str) -> Line<'b> {
        Line::new(text, self.nanos, self.severity)
    }

    /// The JSON object alone.
    pub(crate) fn text(&self) -> &'a str {
        self.text.trim_end_matches('\n')
    }

    /// With the line feed behind it.
    pub(crate) fn with_line_feed(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn head(&self, number: u64) -> Head {
        Head {
            number,
            nanos: self.nanos,
            length: self.text.len(),
            severity: self.severity,
        }
    }
}

impl Item for Line<'_> {
    fn bytes(&self) -> usize {
        Head::BYTES + self.text.len()
    }

    fn severity(&self) -> Severity {
        self.severity
    }
}

/// Lines that wait: one behind the other in large pieces of memory that are used again, so that a line costs no
/// allocation, and the consumer gets them by the piece.
#[derive(Debug, Default)]
pub(crate) struct LineLane {
    /// None is empty.
    pieces: VecDeque<Piece>,
    spare: Spare,
}

/// Lines, each behind its head.
#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    /// Where the first line's head begins; what is before it went already.
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

    fn push(&mut self, head: Head, text: &[u8]) {
        self.bytes.extend_from_slice(&head.bytes());
        self.bytes.extend_from_slice(text);
        self.items += 1;
        self.last = head.number;
    }

    /// The first line's head.
    fn first(&self) -> Option<Head> {
        Some(Head::of(self.bytes.get(self.start..)?.first_chunk()?))
    }

    /// The first line, which is taken away.
    fn take_first(&mut self) -> Option<(Head, &[u8])> {
        let head = self.first()?;
        let text = self.start + Head::BYTES;
        self.start = text + head.length;
        self.items -= 1;
        Some((head, &self.bytes[text..self.start]))
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

/// Pieces whose memory is kept for later.
const SPARE: usize = 16;

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

/// What stands before a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    number: u64,
    nanos: u64,
    length: usize,
    severity: Severity,
}

impl Head {
    const BYTES: usize = 24;

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
        let bytes = line.bytes();
        if !self.pieces.back().is_some_and(|last| last.has_room(bytes)) {
            self.pieces.push_back(self.spare.piece(bytes));
        }
        let last = self.pieces.len() - 1;
        self.pieces[last].push(line.head(number), line.text.as_bytes());
    }

    fn first(&self) -> Option<(u64, usize)> {
        let head = self.pieces.front()?.first()?;
        Some((head.number, Head::BYTES + head.length))
    }

    fn drop_first(&mut self) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.take_first();
        if piece.items == 0
            && let Some(empty) = self.pieces.pop_front()
        {
            self.spare.keep(empty.bytes);
        }
    }

    fn take(&mut self, before: u64, room: &mut Room, batch: &mut Lines) {
        batch.spare.0.drain(..).for_each(|memory| self.spare.keep(memory));
        while let Some(piece) = self.pieces.front_mut() {
            // Usually all of it goes at once.
            if piece.last < before && room.take(piece.size()) {
                batch.pieces.extend(self.pieces.pop_front());
                continue;
            }
            let Some(head) = piece.first() else { return };
            let size = Size {
                items: 1,
                bytes: Head::BYTES + head.length,
            };
            if head.number >= before || !room.take(size) {
                return;
            }
            if let Some((head, text)) = piece.take_first() {
                batch.add(head, text);
            }
        }
    }
}

/// Lines that were taken from a queue.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pieces: Vec<Piece>,
    /// Goes back to the queue with the next batch.
    spare: Spare,
}

impl Lines {
    /// Puts a line behind the others.
    pub(crate) fn push(&mut self, line: Line<'_>) {
        self.add(line.head(0), line.text.as_bytes());
    }

    fn add(&mut self, head: Head, text: &[u8]) {
        let bytes = Head::BYTES + text.len();
        if !self.pieces.last().is_some_and(|last| last.has_room(bytes)) {
            self.pieces.push(self.spare.piece(bytes));
        }
        let last = self.pieces.len() - 1;
        self.pieces[last].push(head, text);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.items).sum()
    }

    /// Takes them out: hands each to `each`, with its line feed, its time stamp and its level.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8], u64, Severity)) {
        for mut piece in self.pieces.drain(..) {
            while let Some((head, text)) = piece.take_first() {
                each(text, head.nanos, head.severity);
            }
            self.spare.keep(piece.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against a list of lines.

    use proptest::prelude::*;

    use super::*;
    use crate::sink::queue::BatchLimits;

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
            pieces.insert(lane.pieces.back().map(|piece| piece.bytes.as_ptr()));
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
