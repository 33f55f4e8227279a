//! Where a receiver goes on: by cases, and on any listing without ever skipping log that is not held.

use proptest::prelude::*;
use replication::SystemId;

use super::*;
use crate::pitr::postgres::contents::Standing;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const MIB: u64 = 1 << 20;

fn at(segment: u64, mib: u64) -> Lsn {
    Lsn(segment * SIZE.bytes() + mib * MIB)
}

fn segment(timeline: u32, number: u64) -> Segment {
    Segment {
        timeline: Timeline(timeline),
        number,
    }
}

fn held(segments: &[(u32, u64)], partials: &[(u32, u64, u64)]) -> Held {
    Held {
        segments: segments
            .iter()
            .map(|(timeline, number)| segment(*timeline, *number))
            .collect(),
        partials: partials
            .iter()
            .map(|(timeline, number, mib)| (segment(*timeline, *number), at(*number, *mib)))
            .collect(),
        ..Held::default()
    }
}

fn server(timeline: u32, flushed: Lsn) -> Identity {
    Identity {
        system: SystemId(7),
        timeline: Timeline(timeline),
        flushed,
    }
}

/// Timeline 1 was left in the middle of segment 5.
fn promoted() -> History {
    History::parse(b"1\t0/5800000\tpromoted\n").unwrap()
}

fn begin(held: Option<&Held>, gaps: &[Lost], history: &History, server: &Identity, restart: Option<Lsn>) -> Start {
    start(held, gaps, history, server, restart, SIZE).unwrap()
}

fn place(start: &Start) -> (u32, Lsn, Lsn) {
    (start.timeline.0, start.at, start.durable)
}

#[test]
fn an_empty_archive_begins_with_the_slot() {
    let none = History::default();
    let start = begin(None, &[], &none, &server(1, at(9, 1)), Some(at(3, 4)));
    assert_eq!(place(&start), (1, at(3, 0), at(3, 0)));
    let start = begin(None, &[], &none, &server(1, at(9, 1)), None);
    assert_eq!(place(&start), (1, at(9, 0), at(9, 0)));
    // A slot from before the promotion.
    let start = begin(None, &[], &promoted(), &server(2, at(9, 1)), Some(at(3, 4)));
    assert_eq!(place(&start), (1, at(3, 0), at(3, 0)));
}

#[test]
fn it_goes_on_after_the_last_whole_segment() {
    let held = held(&[(1, 3), (1, 4)], &[(1, 5, 7), (1, 4, 3)]);
    let start = begin(
        Some(&held),
        &[],
        &History::default(),
        &server(1, at(6, 0)),
        Some(at(5, 2)),
    );
    assert_eq!(place(&start), (1, at(5, 0), at(5, 7)));
    assert_eq!(start.before, Some(segment(1, 4)));
    // Where the slot keeps less, the server is asked all the same: perhaps it has it.
    let start = begin(
        Some(&held),
        &[],
        &History::default(),
        &server(1, at(9, 0)),
        Some(at(8, 2)),
    );
    assert_eq!(place(&start), (1, at(5, 0), at(5, 7)));
}

/// Who recovered over several timelines has no files of those between.
#[test]
fn of_several_timelines_in_one_segment_the_last_one_has_all() {
    let history = History::parse(b"1\t0/5200000\ta\n2\t0/5400000\tb\n3\t0/5800000\tc\n").unwrap();
    let held = held(&[(1, 3), (1, 4)], &[(1, 5, 2), (2, 5, 4), (3, 5, 8)]);
    let start = begin(Some(&held), &[], &history, &server(4, at(5, 9)), Some(at(5, 8)));
    assert_eq!(place(&start), (4, at(5, 0), at(5, 0)));
    assert_eq!(start.before, None);
    // Whoever comes from one of them on a stream goes there as well, if it is not the next one anyhow.
    for (from, expected) in [(1, Some(4)), (2, Some(4)), (3, None), (4, None), (9, None)] {
        let (lsn, timeline) = (at(5, 2), Timeline(from));
        let last = file_of_all(&history, Timeline(4), Position { lsn, timeline }, SIZE);
        assert_eq!(last, expected.map(Timeline), "from {from}");
    }
}

#[test]
fn what_was_left_out_before_the_last_segment_is_received() {
    let held = held(&[(1, 3), (1, 5), (1, 6)], &[(1, 4, 2)]);
    let (none, server) = (History::default(), server(1, at(8, 0)));
    let start = begin(Some(&held), &[], &none, &server, Some(at(4, 1)));
    assert_eq!(place(&start), (1, at(4, 0), at(4, 2)));
    assert_eq!(start.before, Some(segment(1, 3)));
    // What the slot does not keep is a gap, and no reason to begin before it.
    let start = begin(Some(&held), &[], &none, &server, Some(at(5, 1)));
    assert_eq!(place(&start), (1, at(7, 0), at(7, 0)));
}

#[test]
fn a_beginning_alone_is_received_again() {
    let held = held(&[], &[(1, 5, 7)]);
    let start = begin(
        Some(&held),
        &[],
        &History::default(),
        &server(1, at(6, 0)),
        Some(at(6, 0)),
    );
    assert_eq!(place(&start), (1, at(5, 0), at(5, 7)));
    assert_eq!(start.before, None);
}

#[test]
fn it_follows_a_promotion() {
    // The old timeline was not received to its end.
    let start = begin(
        Some(&held(&[(1, 4)], &[(1, 5, 4)])),
        &[],
        &promoted(),
        &server(2, at(7, 0)),
        None,
    );
    assert_eq!(place(&start), (1, at(5, 0), at(5, 4)));
    // Its last segment went on elsewhere, beyond where it was left.
    let ahead = held(&[(1, 4), (1, 5)], &[(1, 6, 3)]);
    let start = begin(Some(&ahead), &[], &promoted(), &server(2, at(7, 0)), None);
    assert_eq!(place(&start), (2, at(5, 0), at(5, 0)));
    assert_eq!(start.before, None);
    let (timeline, left, held_to) = (Timeline(1), at(5, 8), at(6, 3));
    assert_eq!(
        start.left_behind,
        [Warning::LeftBehind {
            timeline,
            left,
            held: held_to
        }]
    );
    // The new one was begun.
    let new = held(&[(1, 4), (2, 5), (2, 6)], &[(1, 5, 8)]);
    let start = begin(Some(&new), &[], &promoted(), &server(2, at(8, 0)), None);
    assert_eq!(place(&start), (2, at(7, 0), at(7, 0)));
    assert_eq!(start.before, Some(segment(2, 6)));
    assert_eq!(start.left_behind, []);
}

/// Left just where a segment ends: nothing of the next one is the old timeline's.
#[test]
fn a_timeline_may_be_left_between_two_segments() {
    let history = History::parse(b"1\t0/5000000\tx\n2\t0/5000000\ty\n").unwrap();
    let start = begin(
        Some(&held(&[(1, 3), (1, 4)], &[])),
        &[],
        &history,
        &server(3, at(6, 0)),
        None,
    );
    assert_eq!(place(&start), (3, at(5, 0), at(5, 0)));
}

#[test]
fn what_is_known_to_be_lost_is_not_asked_for_again() {
    let gap = Lost {
        timeline: Timeline(1),
        from: at(5, 3),
        until: at(8, 0),
    };
    let held = held(&[(1, 4)], &[(1, 5, 3)]);
    let start = begin(
        Some(&held),
        &[gap],
        &History::default(),
        &server(1, at(9, 0)),
        Some(at(8, 5)),
    );
    assert_eq!(place(&start), (1, at(8, 0), at(8, 0)));
    assert_eq!(start.before, None);
    let behind = super::tests::held(&[(1, 4), (1, 8)], &[]);
    let start = begin(
        Some(&behind),
        &[gap],
        &History::default(),
        &server(1, at(9, 3)),
        Some(at(8, 5)),
    );
    assert_eq!(place(&start), (1, at(9, 0), at(9, 0)));
}

#[test]
fn a_server_that_was_put_back_is_refused() {
    let refused =
        |held: &Held, history: &History, server: &Identity| match start(Some(held), &[], history, server, None, SIZE) {
            Err(ReceiverError::Ahead { archive, server }) => (archive.timeline.0, archive.lsn, server.lsn),
            other => panic!("{other:?}"),
        };
    let none = History::default();
    let (whole, begun) = (held(&[(1, 4)], &[]), held(&[], &[(1, 4, 5)]));
    assert_eq!(refused(&whole, &none, &server(1, at(4, 9))), (1, at(5, 0), at(4, 9)));
    assert_eq!(refused(&begun, &none, &server(1, at(4, 4))), (1, at(4, 5), at(4, 4)));
    // An old primary that came back.
    assert_eq!(
        refused(&held(&[(2, 5)], &[]), &none, &server(1, at(9, 0))),
        (2, at(6, 0), at(9, 0))
    );
    let told = Held {
        standing: Some(Standing {
            timeline: Timeline(1),
            lsn: at(4, 9),
            moment: jiff::Timestamp::UNIX_EPOCH,
        }),
        ..held(&[(1, 3)], &[])
    };
    assert_eq!(refused(&told, &none, &server(1, at(4, 8))), (1, at(4, 9), at(4, 8)));
    assert!(start(Some(&whole), &[], &none, &server(1, at(5, 0)), None, SIZE).is_ok());
    // What the promoted one never had is no reason: it was told.
    assert!(
        start(
            Some(&held(&[(1, 8)], &[])),
            &[],
            &promoted(),
            &server(2, at(6, 0)),
            None,
            SIZE
        )
        .is_ok()
    );
}

proptest! {
    /// Whatever is held, the way goes on at the start of a segment that is on it, and everything right before it is held
    /// whole (or nothing is), and so is whatever the slot keeps before it.
    #[test]
    fn nothing_is_skipped(
        whole in 0_u64..9, first in 0_u64..9, partial in proptest::option::of(1_u64..16), second in 0_u64..9, restart in 0_u64..9,
    ) {
        // Timeline 1 from `first`, `whole` segments; of timeline 2 `second` segments from the switch in segment 5 on.
        let mut segments: Vec<_> = (first..first + whole).map(|number| (1, number)).collect();
        segments.extend((5..5 + second).map(|number| (2, number)));
        let partials: Vec<_> = partial.map(|mib| (1, first + whole, mib)).into_iter().collect();
        let held = held(&segments, &partials);
        let server = server(2, at(30, 0));
        let start = begin(Some(&held), &[], &promoted(), &server, Some(at(restart, 0)));
        prop_assert_eq!(start.at.0 % SIZE.bytes(), 0);
        prop_assert!(start.durable >= start.at);
        let (left, number) = (at(5, 8), start.at.0 / SIZE.bytes());
        prop_assert!(start.timeline == Timeline(1) && start.at < left || start.timeline == Timeline(2) && number >= 5);
        if let Some(before) = start.before {
            prop_assert!(held.segments.contains(&before));
            prop_assert_eq!(before.next(), segment(start.timeline.0, number));
        }
        let last = if second > 0 {
            Some((2, 5 + second))
        } else if whole > 0 && first <= 5 {
            let next = first + whole;
            Some(if next > 5 { (2, 5) } else { (1, next) })
        } else {
            None
        };
        if let Some(last) = last {
            // What was left out before, the server has as far as its slot keeps it.
            let is_held = |number| match number {
                0..5 => segments.contains(&(1, number)),
                5 => segments.contains(&(1, 5)) || segments.contains(&(2, 5)),
                _ => segments.contains(&(2, number)),
            };
            let left_out = (restart..last.1).find(|number| !is_held(*number));
            let expected = left_out.map_or(last, |number| (if number <= 5 { 1 } else { 2 }, number));
            prop_assert_eq!((start.timeline.0, number), expected);
        }
    }
}
