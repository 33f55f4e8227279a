//! What holds for the reader of PostgreSQL's log: it is never confused by where its input is cut, and what a server
//! writes is read.

use replication::Lsn;

use super::mark::Mark;
use super::writer::{Writer, expected};
use super::{Extent, Fault, Reader};
use crate::fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "postgres_log",
        seeds: logs,
        property: log,
    },
    Target {
        name: "postgres_records",
        seeds: || {
            vec![
                vec![1, 0, 9, 0],
                vec![0, 0x70, 200, 40, 0, 0x40, 0, 0, 9, 9, 255, 255],
                vec![255; 60],
            ]
        },
        property: records,
    },
];

fn sample() -> Writer {
    let mut log = Writer::new(2);
    let time = jiff::Timestamp::UNIX_EPOCH;
    log.commit(time);
    log.filler(3000);
    log.restore_point("here", time);
    log.filler(9000);
    log.abort(time);
    log
}

fn logs() -> Vec<Vec<u8>> {
    let mut lost = sample();
    lost.lose(9000);
    let mut filled = sample().bytes;
    filled.resize(filled.len() + 8192, 0);
    vec![sample().bytes, lost.bytes, filled]
}

type Seen = (Vec<(Extent, u32, Option<Mark>)>, Result<(), Fault>, Lsn, Option<Extent>);

/// Reads a log that comes in pieces of this length.
fn read(bytes: &[u8], piece: usize, zeros_end: bool) -> Seen {
    let start = Writer::new(2).start();
    let mut reader = Reader::new(start, expected(1, None));
    if zeros_end {
        reader = reader.zeros_end();
    }
    let mut seen = Vec::new();
    let read = bytes.chunks(piece.max(1)).try_for_each(|piece| {
        reader.push(piece, |record| {
            assert!(record.length >= 24 && record.extent.start < record.extent.end);
            seen.push((record.extent, record.length, Mark::of(record)));
        })
    });
    assert_eq!(seen.len() as u64, reader.records());
    assert!(seen.windows(2).all(|two| two[0].0.end <= two[1].0.start), "in order");
    let at = if read.is_ok() { reader.at() } else { start };
    (seen, read, at, reader.last())
}

fn log(input: &[u8]) {
    let start = Writer::new(2).start();
    for zeros_end in [false, true] {
        let whole = read(input, input.len(), zeros_end);
        for piece in [1, 13, 8192] {
            assert_eq!(read(input, piece, zeros_end), whole, "wherever it is cut");
        }
        if whole.1.is_ok() {
            assert_eq!(whole.2, start.plus(input.len() as u64));
        }
    }
}

/// Takes the input for a list of records: manager, info, and the lengths of a body of what follows.
fn records(input: &[u8]) {
    let mut log = Writer::new(2);
    let mut written = Vec::new();
    for record in input.chunks_exact(4).take(50) {
        let [manager, info, small, large] = record else {
            continue;
        };
        let length = usize::from(*small) + usize::from(*large) * 97;
        let body: Vec<u8> = input.iter().copied().cycle().take(length).collect();
        if (*manager, info & 0xF0) == (0, 0x40) {
            written.push(log.switch());
        } else {
            written.push(log.raw(*manager, *info, &body));
        }
    }
    for piece in [1 << 20, 100] {
        let (seen, read, ..) = read(&log.bytes, piece, false);
        assert_eq!(read, Ok(()));
        let extents: Vec<Extent> = seen.into_iter().map(|(extent, ..)| extent).collect();
        assert_eq!(extents, written, "what is written is read");
    }
}
