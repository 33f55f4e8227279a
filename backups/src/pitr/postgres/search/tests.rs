//! Searches held against a reading of the whole log from its beginning.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Mutex;

use proptest::prelude::*;
use replication::{History, Segment, Timeline};

use super::super::contents::Held;
use super::super::reach::{self, Base, Branch};
use super::super::wal::writer::{SYSTEM, Writer, size};
use super::*;

/// Files of logs, and which of them were read.
struct Memory {
    logs: Vec<Writer>,
    read: Mutex<BTreeSet<u64>>,
    damaged: Option<u64>,
}

#[async_trait]
impl Log for Memory {
    type Error = Infallible;

    async fn read(&self, piece: &Piece) -> Result<Bytes, Infallible> {
        self.read.lock().unwrap().insert(piece.segment.number);
        let log = self
            .logs
            .iter()
            .find(|log| log.timeline == piece.segment.timeline)
            .unwrap();
        let from = piece.start.since(log.start()) as usize;
        let until = (from + size().bytes() as usize).min(log.bytes.len());
        let mut content = log.bytes[from..until].to_vec();
        if self.damaged == Some(piece.segment.number) {
            content[5000] ^= 1;
        }
        Ok(content.into())
    }
}

const FIRST: u64 = 3;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// The way over a log of one timeline, or over one and its successor.
fn way_over(logs: &[Writer], switch: Option<Lsn>) -> Way {
    let mut held = Held {
        segment_size: size(),
        ..Held::default()
    };
    for log in logs {
        let begin = switch
            .filter(|_| log.timeline != Timeline::FIRST)
            .unwrap_or(log.start());
        let mut segment = Segment::containing(log.timeline, begin, size());
        while segment.end(size()) <= log.at() {
            held.segments.insert(segment);
            segment = segment.next();
        }
        if segment.start(size()) < log.at() {
            held.partials.insert(segment, log.at());
        }
    }
    if let Some(switch) = switch {
        let history = History::parse(format!("1\t{switch}\twhy").as_bytes()).unwrap();
        held.histories.insert(Timeline(2), history);
    }
    let start = logs[0].start().plus(40);
    let base = Base {
        start,
        timeline: Timeline::FIRST,
        end: start,
        end_timeline: Timeline::FIRST,
    };
    reach::way(&held, &base, Branch::Newest).unwrap()
}

fn memory(logs: Vec<Writer>) -> Memory {
    Memory {
        logs,
        read: Mutex::default(),
        damaged: None,
    }
}

/// Every mark and the last record, as the log has them in order.
fn all(log: &Writer, switch: Option<Lsn>) -> (Vec<Mark>, Option<Extent>) {
    let history = switch.map(|switch| History::parse(format!("1\t{switch}\twhy").as_bytes()).unwrap());
    let expected = super::super::wal::writer::expected(log.timeline.0, history);
    let mut reader = Reader::new(log.start(), expected);
    let mut marks = Vec::new();
    reader
        .push(&log.bytes, |record| marks.extend(Mark::of(record)))
        .unwrap();
    (marks, reader.last())
}

/// PostgreSQL's rule, over the whole log.
fn rule(marks: &[Mark], last: Extent, time: Timestamp) -> AtTime {
    let stops = marks
        .iter()
        .position(|mark| mark.kind.ends_transaction() && mark.time > Some(time));
    let before = &marks[..stops.unwrap_or(marks.len())];
    let last_commit = before
        .iter()
        .rev()
        .find(|mark| mark.kind == Kind::Commit)
        .and_then(|mark| mark.time);
    match stops.map(|stop| &marks[stop]) {
        Some(stop) => AtTime::Before(Stop {
            lsn: stop.extent.start,
            inclusive: false,
            end: stop.extent.end,
            time: stop.time,
            last_commit,
        }),
        None => AtTime::NoneLater(Stop {
            lsn: last.start,
            inclusive: true,
            end: last.end,
            time: marks
                .last()
                .filter(|mark| mark.extent == last)
                .and_then(|mark| mark.time),
            last_commit,
        }),
    }
}

/// What is written next: filler of so many bytes, and the end of a transaction so many milliseconds later, and by how
/// many its time is too early.
type Step = (usize, i64, i64, bool);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // A long filler takes a segment without any end of a transaction.
    let filler = prop_oneof![6 => 0..60_000_usize, 2 => 300_000..700_000_usize, 1 => 1_500_000..2_500_000_usize];
    prop::collection::vec((filler, 0..20_000_i64, 0..9_000_i64, prop::bool::weighted(0.8)), 1..30)
}

fn write(log: &mut Writer, clock: &mut i64, steps: &[Step]) {
    for (filler, later, early, commits) in steps {
        log.filler(*filler);
        *clock += later;
        let time = Timestamp::from_millisecond(*clock - early).unwrap();
        if *commits {
            log.commit(time);
        } else {
            log.abort(time);
        }
    }
}

async fn found(memory: &Memory, way: &Way, time: Timestamp) -> AtTime {
    // Times are at most nine seconds too early.
    let margin = SignedDuration::from_secs(9);
    position_of_time(memory, way, SYSTEM, time, margin).await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_time_is_found_where_postgresql_would_stop(steps in steps(), probes in prop::collection::vec(0..600_000_i64, 8)) {
        let mut log = Writer::new(FIRST);
        let mut clock = at(0).as_millisecond();
        write(&mut log, &mut clock, &steps);
        let (marks, last) = all(&log, None);
        let way = way_over(std::slice::from_ref(&log), None);
        let memory = memory(vec![log]);
        let exact = marks.iter().filter_map(|mark| mark.time);
        let probes = probes.into_iter().map(|ms| at(0) + SignedDuration::from_millis(ms));
        runtime().block_on(async {
            for time in probes.chain(exact.take(8)) {
                let (found, rule) = (found(&memory, &way, time).await, rule(&marks, last.unwrap(), time));
                prop_assert_eq!(found, rule, "{}", time);
            }
            Ok(())
        })?;
    }

    /// The new primary's clock may be behind by any time: what counts is the first later one in the order of the log.
    #[test]
    fn after_a_promotion_another_clock_counts(
        before in steps(), after in steps(), skew in -300_000..300_000_i64, probes in prop::collection::vec(0..900_000_i64, 8),
    ) {
        let mut old = Writer::new(FIRST);
        let mut clock = at(0).as_millisecond();
        write(&mut old, &mut clock, &before);
        let mut new = old.clone();
        let switch = new.promote(2);
        clock += skew;
        write(&mut new, &mut clock, &after);
        // The old one goes on, cut off: none of that counts.
        old.filler(100_000);
        old.commit(at(-10_000_000));
        old.commit(at(10_000_000));
        old.filler(2_000_000);
        let (marks, last) = all(&new, Some(switch));
        let way = way_over(&[old.clone(), new.clone()], Some(switch));
        let memory = memory(vec![old, new]);
        runtime().block_on(async {
            for ms in probes {
                let time = at(0) + SignedDuration::from_millis(ms);
                let (found, rule) = (found(&memory, &way, time).await, rule(&marks, last.unwrap(), time));
                prop_assert_eq!(found, rule, "{}", time);
            }
            Ok(())
        })?;
    }
}

/// A minute in each of 40 segments.
fn forty() -> Writer {
    let mut log = Writer::new(FIRST);
    for minute in 0..40 {
        log.commit(at(60 * minute));
        log.filler(900_000);
        log.commit(at(60 * minute + 30));
        log.switch();
    }
    log
}

#[tokio::test]
async fn few_files_are_read_to_find_a_time() {
    let log = forty();
    let way = way_over(std::slice::from_ref(&log), None);
    let memory = memory(vec![log]);
    let time = at(60 * 17 + 10);
    let AtTime::Before(stop) = found(&memory, &way, time).await else {
        panic!("there are later ones")
    };
    assert_eq!(
        (stop.time, stop.last_commit),
        (Some(at(60 * 17 + 30)), Some(at(60 * 17)))
    );
    let read = memory.read.lock().unwrap().len();
    assert!(read <= 12, "{read} of 40");
}

#[tokio::test]
async fn damage_matters_only_where_it_lies_on_the_way() {
    let log = forty();
    let way = way_over(std::slice::from_ref(&log), None);
    let whole = memory(vec![log]);
    for damaged in [FIRST, FIRST + 5, FIRST + 20, FIRST + 39] {
        let memory = Memory {
            damaged: Some(damaged),
            logs: whole.logs.clone(),
            read: Mutex::default(),
        };
        for minute in [0, 4, 5, 6, 19, 20, 21, 38] {
            let time = at(60 * minute + 10);
            let margin = SignedDuration::from_secs(9);
            let sought = position_of_time(&memory, &way, SYSTEM, time, margin).await;
            match sought {
                Ok(sought) => assert_eq!(sought, found(&whole, &way, time).await, "{damaged} {minute}"),
                Err(SearchError::Damaged { file, .. }) => {
                    assert_eq!(file, format!("0000000100000000{damaged:08X}"));
                    assert!(
                        damaged <= FIRST + minute as u64,
                        "{damaged} does not matter to {minute}"
                    );
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[tokio::test]
async fn names_are_found_behind_the_base_backup() {
    let mut log = Writer::new(FIRST);
    log.commit(at(1));
    log.restore_point("deploy", at(2));
    log.filler(1_500_000);
    let end = log.commit(at(3)).end;
    log.filler(1_500_000);
    let second = log.restore_point("deploy", at(4));
    log.commit(at(5));
    log.restore_point("deploy", at(6));
    log.restore_point("other", at(7));
    let mut way = way_over(std::slice::from_ref(&log), None);
    let memory = memory(vec![log]);
    way.base.end = end;
    let found = position_of_name(&memory, &way, SYSTEM, "deploy").await.unwrap();
    let stop = Stop {
        lsn: second.start,
        inclusive: true,
        end: second.end,
        time: Some(at(4)),
        last_commit: Some(at(3)),
    };
    assert_eq!(found.stop, stop, "the first one behind the backup");
    let all = restore_points(&memory, &way, SYSTEM).await.unwrap();
    let told: Vec<_> = all.iter().map(|point| (point.name.as_str(), point.stop.time)).collect();
    assert_eq!(
        told,
        [("deploy", Some(at(4))), ("deploy", Some(at(6))), ("other", Some(at(7)))]
    );
    let missing = position_of_name(&memory, &way, SYSTEM, "deplo").await.unwrap_err();
    assert!(matches!(missing, SearchError::NoSuchName { .. }), "{missing}");
    way.base.end = way.reached;
    assert!(position_of_name(&memory, &way, SYSTEM, "deploy").await.is_err());
}

#[tokio::test]
async fn the_end_is_the_last_record_that_is_whole() {
    let mut log = Writer::new(FIRST);
    log.commit(at(1));
    log.filler(100_000);
    let long = log.filler(3_000_000);
    let middle = long.start.plus(2_000_000);
    let mut way = way_over(std::slice::from_ref(&log), None);
    let end = position_of_end(&memory(vec![log.clone()]), &way, SYSTEM).await.unwrap();
    assert_eq!(
        (end.lsn, end.inclusive, end.last_commit),
        (long.start, true, Some(at(1)))
    );
    // Received up to the middle of it.
    way.pieces.retain(|piece| piece.start < middle);
    way.pieces.last_mut().unwrap().until = middle;
    let end = position_of_end(&memory(vec![log.clone()]), &way, SYSTEM).await.unwrap();
    assert!(end.end <= long.start);
    way.pieces.clear();
    let none = position_of_end(&memory(vec![log]), &way, SYSTEM).await.unwrap_err();
    assert!(matches!(none, SearchError::NoRecords));
}
