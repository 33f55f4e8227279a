//! The reader held against logs that are written here, whole and damaged in every way. Real servers' logs, and what
//! `pg_waldump` says of them: `tests/postgres/log.rs`.

use jiff::Timestamp;
use proptest::prelude::*;
use replication::{History, Lsn, Segment, SystemId, Timeline};

use super::mark::{Kind, Mark};
use super::writer::{SYSTEM, Writer, expected, size};
use super::{Expected, Extent, Fault, Reader, check_segment, check_until};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn first() -> Segment {
    Segment {
        timeline: Timeline::FIRST,
        number: 3,
    }
}

/// Everything of a log, from its start.
fn read(log: &[u8], expected: Expected) -> Result<Vec<(Extent, u32, Option<Mark>)>, Fault> {
    let mut seen = Vec::new();
    let mut reader = Reader::new(first().start(size()), expected);
    reader.push(log, |record| {
        seen.push((record.extent, record.length, Mark::of(record)));
    })?;
    Ok(seen)
}

/// A few pages with all that there is: records over one border and several, one that just fills a page, a lost one.
fn sample() -> Writer {
    let mut log = Writer::new(3);
    log.commit(at(1));
    log.filler(8000);
    log.restore_point("before the deploy", at(2));
    log.filler(20_000);
    log.abort(at(3));
    let left = 8192 - log.bytes.len() % 8192;
    log.filler(left - 24 - 5);
    assert!(
        log.bytes.len().is_multiple_of(8192),
        "the next page begins with a record"
    );
    log.filler(1);
    let left = 8192 - log.bytes.len() % 8192;
    log.filler(left - 24 - 5 - 16);
    log.commit(at(4));
    log.lose(9000);
    log.commit(at(5));
    log
}

#[test]
fn marks_tell_their_times_and_names() {
    let log = sample();
    let marks: Vec<Mark> = read(&log.bytes, expected(1, None))
        .unwrap()
        .into_iter()
        .filter_map(|seen| seen.2)
        .collect();
    let told: Vec<_> = marks.iter().map(|mark| (mark.time, mark.kind.clone())).collect();
    let name = "before the deploy".to_owned();
    let Kind::Overwrite { lost } = told[4].1 else {
        panic!("{told:?}")
    };
    assert!(lost < marks[4].extent.start && lost > marks[3].extent.start);
    let expected = [
        (Some(at(1)), Kind::Commit),
        (Some(at(2)), Kind::RestorePoint { name }),
        (Some(at(3)), Kind::Abort),
        (Some(at(4)), Kind::Commit),
        (Some(Timestamp::UNIX_EPOCH), Kind::Overwrite { lost }),
        (Some(at(5)), Kind::Commit),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_mark_may_have_origins_in_front_and_no_time_that_a_clock_shows() {
    let mut log = Writer::new(3);
    let mut body = vec![253, 7, 0, 252, 1, 2, 3, 4, 255, 8];
    body.extend(super::writer::clock(at(9)));
    log.raw(1, 0x30 | 0x80, &body);
    log.raw(1, 0x40, &[&[255, 8][..], &i64::MAX.to_le_bytes()].concat());
    // About a page, as no end of a transaction is; and cut off inside of its headers.
    log.raw(1, 0, &[0; 40]);
    log.raw(1, 0, &[253]);
    log.raw(1, 0x10, &body);
    let marks: Vec<_> = read(&log.bytes, expected(1, None))
        .unwrap()
        .into_iter()
        .filter_map(|seen| seen.2)
        .collect();
    let told: Vec<_> = marks.into_iter().map(|mark| (mark.time, mark.kind)).collect();
    assert_eq!(told, [(Some(at(9)), Kind::Commit), (None, Kind::Abort)]);
}

#[test]
fn every_changed_byte_is_found_or_read_by_nobody() {
    let log = sample();
    let sound = read(&log.bytes, expected(1, None)).unwrap();
    let lost: Vec<usize> = sound
        .windows(2)
        .filter_map(|two| match two[1].2.as_ref()?.kind {
            // What is left of the record that ends nowhere.
            Kind::Overwrite { lost } => Some(lost.since(log.start()) as usize),
            _ => None,
        })
        .collect();
    let last_page = (log.bytes.len() - 1) / 8192 * 8192;
    let mut bytes = log.bytes.clone();
    for place in 0..bytes.len() {
        for change in [0x01, 0x80, 0xFF, 0x5A] {
            bytes[place] ^= change;
            let seen = read(&bytes, expected(1, None));
            bytes[place] ^= change;
            let page = place % 8192;
            // The flags of pages that may be left out, and of a lost record where none was.
            let flag = page == 2 && change & !0x0C == 0;
            let in_lost = lost
                .iter()
                .any(|lost| (*lost..lost.next_multiple_of(8192)).contains(&place));
            if log.unread.binary_search(&place).is_ok() || flag || in_lost {
                continue;
            }
            match seen {
                // At the latest where the next page does not go on as its length would have it.
                Err(fault) => {
                    let latest = log.start().plus((place + 1).next_multiple_of(8192) as u64);
                    assert!(fault.at() <= latest, "{fault} at byte {place}");
                }
                // A record of the last page may be taken for one that has not come whole.
                Ok(seen) => assert!(
                    seen.len() < sound.len() && place >= last_page,
                    "byte {place} ^ {change:#x}"
                ),
            }
        }
    }
}

#[test]
fn a_log_that_is_cut_off_ends_before_the_cut() {
    let mut log = sample();
    log.switch();
    log.commit(at(6));
    let sound = read(&log.bytes, expected(1, None)).unwrap();
    let whole = &log.bytes[..size().bytes() as usize];
    let checked = check_segment(whole, first(), &expected(1, None)).unwrap();
    assert_eq!((checked.major, checked.system, checked.unfinished), (15, SYSTEM, None));
    assert_eq!(checked.records + 1, sound.len() as u64);
    assert_eq!(checked.last.map(|last| last.end), Some(first().end(size())));
    for cut in
        (0..whole.len())
            .step_by(8192)
            .chain([1, 39, 40, 41, 63, 64, 65, 8191, 8193, 8215, 8216, whole.len() - 1])
    {
        let fault = check_segment(&whole[..cut], first(), &expected(1, None)).unwrap_err();
        let (at, until) = (log.start().plus(cut as u64), first().end(size()));
        assert_eq!(fault, Fault::Truncated { at, until });
        // Filled up with zeros, as some that copy files do.
        let mut filled = whole[..cut].to_vec();
        filled.resize(whole.len(), 0);
        let filled = check_segment(&filled, first(), &expected(1, None));
        let switch = sound[sound.len() - 2].0.start.since(log.start()) as usize;
        if cut <= switch {
            assert!(filled.is_err(), "cut at {cut}");
        }
        // As a partial one, it is what it is.
        if cut >= 40 {
            let part = check_until(&whole[..cut], first(), log.start().plus(cut as u64), &expected(1, None)).unwrap();
            let records = sound
                .iter()
                .filter(|seen| seen.0.start.plus(u64::from(seen.1)).since(log.start()) <= cut as u64);
            assert!(part.records <= records.count() as u64);
        }
    }
    let longer = [whole, &[0]].concat();
    let fault = check_segment(&longer, first(), &expected(1, None)).unwrap_err();
    assert!(matches!(fault, Fault::TooLong { .. }), "{fault}");
}

#[test]
fn zeros_end_a_log_where_that_is_said() {
    for length in [100, 8192 - 40 - 24 - 5, 5000] {
        let mut log = Writer::new(3);
        log.filler(length);
        let last = log.commit(at(1));
        let mut bytes = log.bytes.clone();
        bytes.resize(100_000, 0);
        let mut reader = Reader::new(log.start(), expected(1, None)).zeros_end();
        reader.push(&bytes, |_| ()).unwrap();
        assert!(reader.has_ended());
        assert_eq!(reader.last(), Some(last));
        let fault = read(&bytes, expected(1, None)).unwrap_err();
        assert_eq!(fault.at(), last.end);
    }
}

#[test]
fn what_belongs_elsewhere_is_refused_by_name() {
    let log = sample().bytes;
    let fault = |expected: Expected| read(&log, expected).unwrap_err();
    let foreign = Expected {
        system: Some(SystemId(5)),
        ..expected(1, None)
    };
    assert!(matches!(fault(foreign), Fault::System { found: SYSTEM, .. }));
    let longer = Expected {
        segment_size: replication::SegmentSize::DEFAULT,
        ..expected(1, None)
    };
    // With segments of another size, this start is none of a segment: what it says of itself is not even asked.
    assert!(matches!(fault(longer), Fault::Flags { .. }));
    let mut other = log.clone();
    other[32..36].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    assert!(matches!(
        read(&other, expected(1, None)),
        Err(Fault::SegmentSize { .. })
    ));
    let mut other = log.clone();
    other[36..40].copy_from_slice(&16384_u32.to_le_bytes());
    assert!(matches!(
        read(&other, expected(1, None)),
        Err(Fault::PageSize { found: 16384, .. })
    ));
    let mut other = log.clone();
    other[..2].copy_from_slice(&0xD121_u16.to_le_bytes());
    assert!(matches!(
        read(&other, expected(1, None)),
        Err(Fault::Magic { found: 0xD121, .. })
    ));
    let mut other = log.clone();
    other[8192..8194].copy_from_slice(&0xD113_u16.to_le_bytes());
    let found = read(&other, expected(1, None)).unwrap_err();
    assert!(matches!(
        found,
        Fault::Version {
            found: 16,
            expected: 15,
            ..
        }
    ));
    // A file that was used before: its first page is new, the next one is not.
    let mut other = log.clone();
    other[8192 + 8..8192 + 16].copy_from_slice(&0x4000_u64.to_le_bytes());
    assert!(matches!(
        read(&other, expected(1, None)),
        Err(Fault::Address { found: Lsn(0x4000), .. })
    ));
    // All of it belongs elsewhere.
    let elsewhere = check_segment(&log, first().next(), &expected(1, None)).unwrap_err();
    assert!(matches!(elsewhere, Fault::Address { .. }), "{elsewhere}");
    let mut long = Writer::new(3).bytes;
    long.extend(&log[..40]);
    long.extend((u32::MAX).to_le_bytes());
    assert!(matches!(
        read(&long, expected(1, None)),
        Err(Fault::Length { found: u32::MAX, .. })
    ));
    // No clusters but the first one, if none is expected.
    let any = Expected {
        system: None,
        ..expected(1, None)
    };
    let mut reader = Reader::new(first().start(size()), any);
    reader.push(&log, |_| ()).unwrap();
    assert_eq!(reader.system(), Some(SYSTEM));
}

#[test]
fn every_version_is_known_by_its_magic() {
    for (magic, major) in [(0xD10D, 14), (0xD110, 15), (0xD113, 16), (0xD116, 17), (0xD118, 18)] {
        let mut log = Writer::new(3).with_magic(magic);
        log.commit(at(1));
        let mut reader = Reader::new(log.start(), expected(1, None));
        reader.push(&log.bytes, |_| ()).unwrap();
        assert_eq!(reader.major(), Some(major));
    }
}

#[test]
fn pages_are_of_the_timeline_that_their_position_belongs_to() {
    let mut log = Writer::new(3);
    log.filler(20_000);
    let switch = log.promote(2);
    log.filler(20_000);
    log.commit(at(1));
    let history = History::parse(format!("1\t{switch}\twhy\n").as_bytes()).unwrap();
    for history in [None, Some(history.clone())] {
        read(&log.bytes, expected(2, history)).unwrap();
        let fault = read(&log.bytes, expected(1, None)).unwrap_err();
        assert!(matches!(fault, Fault::Timeline { found: Timeline(2), .. }), "{fault}");
    }
    // Another way to the same timeline.
    let early = History::parse(b"1\t0/300148\twhy\n").unwrap();
    let fault = read(&log.bytes, expected(2, Some(early))).unwrap_err();
    assert!(
        matches!(
            fault,
            Fault::Timeline {
                found: Timeline(1),
                expected: Timeline(2),
                ..
            }
        ),
        "{fault}"
    );
    // Back to an older one: even without a history that is none.
    let mut back = log.clone();
    back.promote(1);
    back.filler(9000);
    let fault = read(&back.bytes, expected(2, None)).unwrap_err();
    assert!(matches!(fault, Fault::Timeline { found: Timeline(1), .. }), "{fault}");
}

#[test]
fn a_record_follows_the_one_before_it() {
    let mut log = Writer::new(3);
    log.filler(100);
    // It goes on as one that does not know of the last record: each is sound, and one of them was never here.
    let mut other = log.clone();
    log.filler(60);
    other.bytes = log.bytes;
    let commit = other.commit(at(1));
    let fault = read(&other.bytes, expected(1, None)).unwrap_err();
    assert!(matches!(fault, Fault::Link { at, .. } if at == commit.start), "{fault}");
}

#[test]
fn reading_begins_and_ends_inside_of_records() {
    let mut log = Writer::new(3);
    log.filler(900_000);
    let over = log.filler(2_500_000);
    let last = log.commit(at(1));
    log.switch();
    let segment = |number: u64| {
        let from = ((number - 3) << 20) as usize;
        let segment = Segment { number, ..first() };
        check_segment(&log.bytes[from..from + (1 << 20)], segment, &expected(1, None)).unwrap()
    };
    assert_eq!(segment(3).unfinished, Some(over.start));
    assert_eq!(
        (segment(4).first, segment(4).records, segment(4).unfinished),
        (None, 0, None)
    );
    assert_eq!((segment(6).first, segment(6).records), (Some(last.start), 2));
    let seen = read(&log.bytes, expected(1, None)).unwrap();
    assert_eq!(seen.len(), 4, "and in one go all are read");
    // From any page on.
    let mut reader = Reader::new(over.end, expected(1, None));
    let from = (over.end.0 - over.end.0 % 8192 - log.start().0) as usize;
    reader.push(&log.bytes[from..], |_| ()).unwrap();
    assert_eq!(reader.records(), 2);
}

/// Positions near the end of what can be counted, as a hostile name of a file has them.
#[test]
fn no_position_is_too_large() {
    for start in [u64::MAX, u64::MAX - 8191, u64::MAX << 20] {
        let mut reader = Reader::new(Lsn(start), expected(1, None));
        assert!(reader.push(&vec![7; 20_000], |_| ()).is_err());
        let segment = Segment {
            number: u64::MAX,
            ..first()
        };
        assert!(check_segment(&vec![7; 20_000], segment, &expected(1, None)).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn records_are_read_wherever_the_log_is_cut(
        lengths in prop::collection::vec(prop_oneof![0..300_usize, 7000..9000_usize, 0..40_000_usize], 1..40),
        switches in prop::collection::vec(0..40_usize, 0..2),
        cuts in prop::collection::vec(1..20_000_usize, 1..200),
    ) {
        let mut log = Writer::new(3);
        let mut written = Vec::new();
        for (index, length) in lengths.into_iter().enumerate() {
            written.push(log.filler(length));
            if switches.contains(&index) {
                written.push(log.switch());
            }
        }
        let mut reader = Reader::new(log.start(), expected(1, None));
        let mut seen = Vec::new();
        let mut rest = &log.bytes[..];
        for cut in cuts.into_iter().cycle() {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            reader.push(piece, |record| seen.push(record.extent)).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(&seen, &written);
        prop_assert_eq!(reader.last(), written.last().copied());
        prop_assert_eq!(reader.at(), log.at());
    }
}
