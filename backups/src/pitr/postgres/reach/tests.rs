//! Ways held against a simulated archive: servers that write, are promoted and go on cut off, and whose files arrive in
//! part or get lost. What a way should be is found there byte group by byte group.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use replication::History;

use super::super::contents::Standing;
use super::*;

/// The log in the model is counted in parts of a segment.
const PARTS: u64 = 8;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn lsn(part: u64) -> Lsn {
    Lsn(part * (size().bytes() / PARTS))
}

fn history(switches: &[(u32, u64)]) -> History {
    let lines: Vec<String> = switches
        .iter()
        .map(|(parent, part)| format!("{parent}\t{}\twhy\n", lsn(*part)))
        .collect();
    History::parse(lines.concat().as_bytes()).unwrap()
}

fn segment(timeline: u32, number: u64) -> Segment {
    Segment {
        timeline: Timeline(timeline),
        number,
    }
}

fn held(segments: &[(u32, std::ops::Range<u64>)]) -> Held {
    let numbers = segments
        .iter()
        .flat_map(|(timeline, numbers)| numbers.clone().map(|number| segment(*timeline, number)));
    Held {
        segment_size: size(),
        segments: numbers.collect(),
        ..Held::default()
    }
}

fn base(start: u64, end: u64) -> Base {
    Base {
        start: lsn(start),
        timeline: Timeline::FIRST,
        end: lsn(end),
        end_timeline: Timeline::FIRST,
    }
}

fn newest(held: &Held, base: Base) -> Way {
    way(held, &base, Branch::Newest).unwrap()
}

#[test]
fn a_way_without_a_gap_reaches_the_end_of_the_last_file() {
    let mut held = held(&[(1, 2..5)]);
    held.partials.insert(segment(1, 5), lsn(43));
    // Older and shorter than the whole one: tells nothing.
    held.partials.insert(segment(1, 4), lsn(33));
    let way = newest(&held, base(17, 20));
    assert_eq!((way.reached, way.gaps.len(), way.pieces.len()), (lsn(43), 0, 4));
    assert_eq!(way.usable(), Ok(()));
    assert_eq!(way.reaches(lsn(43)), Ok(()));
    let short = way.reaches(lsn(44)).unwrap_err();
    assert_eq!(
        short.to_string(),
        "the log is held up to 0/560000, and 0/580000 is wanted"
    );
    assert_eq!(way.answer(segment(1, 4)), Answer::Give(way.pieces[2]));
    assert_eq!(way.answer(segment(1, 6)), Answer::Beyond);
    assert_eq!(way.answer(segment(1, 1)), Answer::Missing);
    assert_eq!(way.pieces_of(lsn(24)..lsn(33)).len(), 2);
}

#[test]
fn a_gap_is_named_by_its_files_and_by_what_follows() {
    let way = newest(&held(&[(1, 2..4), (1, 7..9)]), base(17, 20));
    assert_eq!(way.reached, lsn(32));
    let short = way.reaches(lsn(33)).unwrap_err();
    let text = "the log is held up to 0/400000, and 0/420000 is wanted: missing is 000000010000000000000004 to \
                000000010000000000000006 (0/400000 to 0/700000), before 000000010000000000000007";
    assert_eq!(short.to_string(), text);
    assert_eq!(way.answer(segment(1, 5)), Answer::Missing);
    assert_eq!(
        way.answer(segment(1, 8)),
        Answer::Missing,
        "nobody gets there without what is missing"
    );
    // A partial one, and something behind it: the rest of its segment is missing.
    let mut held = held(&[(1, 2..3), (1, 4..5)]);
    held.partials.insert(segment(1, 3), lsn(27));
    let way = newest(&held, base(17, 20));
    let [gap] = way.gaps[..] else { panic!("{:?}", way.gaps) };
    assert_eq!(
        (gap.first, gap.last, gap.from, gap.until),
        (segment(1, 3), segment(1, 3), lsn(27), lsn(32))
    );
}

#[test]
fn nothing_but_a_backup_is_no_backup() {
    let way = newest(&held(&[]), base(17, 20));
    assert_eq!(way.reached, lsn(17));
    assert!(matches!(way.usable(), Err(Short::Ends { .. })));
    assert_eq!(
        way.answer(segment(1, 2)),
        Answer::Missing,
        "without it the backup is nothing"
    );
    assert_eq!(way.answer(segment(1, 3)), Answer::Beyond);
    let way = newest(&held(&[(1, 3..5)]), base(17, 20));
    assert_eq!(way.gaps[0].first, segment(1, 2));
    assert!(matches!(way.usable(), Err(Short::Gap { .. })));
}

#[test]
fn the_history_decides_between_two_files_of_one_number() {
    // Timeline 2 left 1 in the middle of segment 4; the old server wrote on, cut off.
    let mut held = held(&[(1, 2..8), (2, 4..6)]);
    held.histories.insert(Timeline(2), history(&[(1, 36)]));
    let way = newest(&held, base(17, 20));
    let files: Vec<_> = way.pieces.iter().map(|piece| piece.segment).collect();
    assert_eq!(files, [segment(1, 2), segment(1, 3), segment(2, 4), segment(2, 5)]);
    assert_eq!(
        (way.reached, way.gaps.len()),
        (lsn(48), 0),
        "what the old one wrote then is not on the way"
    );
    assert_eq!(way.answer(segment(2, 4)), Answer::Give(way.pieces[2]));
    assert_eq!(way.answer(segment(2, 3)), Answer::Older);
    assert_eq!(way.timeline_at(lsn(35)), Timeline(1));
    assert_eq!(way.timeline_at(lsn(36)), Timeline(2));
    let old = super::way(&held, &base(17, 20), Branch::Exactly(Timeline(1))).unwrap();
    assert_eq!((old.reached, old.pieces.len()), (lsn(64), 6));
    // The new one's first file has not come: the old one's serves up to the switch, and no further.
    held.segments.remove(&segment(2, 4));
    let way = newest(&held, base(17, 20));
    assert_eq!(way.reached, lsn(36));
    assert_eq!(way.gaps[0].first, segment(2, 4));
    assert_eq!(way.pieces.last().unwrap().segment, segment(1, 4));
    assert_eq!(way.answer(segment(2, 4)), Answer::Older);
    assert_eq!(way.histories().collect::<Vec<_>>(), [Timeline(2)]);
}

#[test]
fn what_does_not_lead_there_is_said() {
    let mut held = held(&[(1, 2..8), (3, 4..6)]);
    held.histories.insert(Timeline(2), history(&[(1, 36)]));
    let no = |held: &Held, base: Base, branch| way(held, &base, branch).unwrap_err();
    let timeline = Timeline(3);
    assert_eq!(no(&held, base(17, 20), Branch::Newest), NoWay::NoHistory { timeline });
    let nobodys = Timeline(4);
    assert_eq!(
        no(&held, base(17, 20), Branch::Exactly(nobodys)),
        NoWay::Unknown { timeline: nobodys }
    );
    held.histories.insert(Timeline(3), history(&[(2, 40)]));
    let of = Timeline(1);
    assert_eq!(
        no(&held, base(17, 20), Branch::Newest),
        NoWay::Unrelated { timeline, of }
    );
    held.histories.insert(Timeline(3), history(&[(1, 18)]));
    let left = no(&held, base(17, 20), Branch::Newest);
    let text = "the way to timeline 3 left timeline 1 at 0/240000, and the base backup reaches to 0/280000";
    assert_eq!(left.to_string(), text);
    // Of a standby that followed a promotion while it was backed up.
    held.histories.insert(Timeline(3), history(&[(1, 18)]));
    let across = Base {
        end_timeline: Timeline(3),
        ..base(17, 20)
    };
    assert_eq!(way(&held, &across, Branch::Newest).unwrap().timeline, Timeline(3));
}

#[test]
fn a_moment_is_known_where_everything_of_then_is_held() {
    let mut held = held(&[(1, 2..5)]);
    let moment = Timestamp::from_second(1_700_000_000).unwrap();
    let standing = |timeline, part| {
        Some(Standing {
            timeline: Timeline(timeline),
            lsn: lsn(part),
            moment,
        })
    };
    held.standing = standing(1, 40);
    assert_eq!(newest(&held, base(17, 20)).moment, Some(moment));
    held.standing = standing(1, 41);
    assert_eq!(newest(&held, base(17, 20)).moment, None);
    held.histories.insert(Timeline(2), history(&[(1, 36)]));
    held.segments.insert(segment(2, 4));
    held.standing = standing(1, 37);
    assert_eq!(
        newest(&held, base(17, 20)).moment,
        None,
        "the old server's end is not on the way"
    );
    held.standing = standing(2, 38);
    assert_eq!(newest(&held, base(17, 20)).moment, Some(moment));
}

#[test]
fn numbers_beyond_all_measure_do_no_harm() {
    let mut held = held(&[(1, 2..4)]);
    held.segments.insert(segment(1, u64::MAX));
    held.partials.insert(segment(1, u64::MAX - 1), Lsn(u64::MAX));
    let way = newest(&held, base(17, 20));
    assert_eq!(way.reached, lsn(32));
    assert_eq!(
        way.answer(segment(1, u64::MAX)),
        if way.gaps.is_empty() {
            Answer::Beyond
        } else {
            Answer::Missing
        }
    );
}

/// What happens in the simulation.
#[derive(Debug, Clone)]
enum Event {
    /// A server writes so many parts.
    Write { server: usize, parts: u64 },
    /// A copy of a server, up to so many parts before its end, is promoted.
    Promote { server: usize, behind: u64 },
    /// The files of a server that are whole arrive, and the beginning of the last one.
    Archive { server: usize, partial: bool },
    /// A file is lost.
    Lose(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let server = 0..4_usize;
    let event = prop_oneof![
        6 => (server.clone(), 1..30_u64).prop_map(|(server, parts)| Event::Write { server, parts }),
        2 => (server.clone(), 0..12_u64).prop_map(|(server, behind)| Event::Promote { server, behind }),
        6 => (server, any::<bool>()).prop_map(|(server, partial)| Event::Archive { server, partial }),
        1 => (0..100_usize).prop_map(Event::Lose),
    ];
    prop::collection::vec(event, 1..40)
}

/// A server: who wrote each part of its log, from part 16 on.
#[derive(Debug, Clone)]
struct Server {
    timeline: u32,
    switches: Vec<(u32, u64)>,
    owners: Vec<u32>,
}

const START: u64 = 16;

impl Server {
    fn end(&self) -> u64 {
        START + self.owners.len() as u64
    }

    /// The first number of a file of its own timeline.
    fn begins(&self) -> u64 {
        self.switches.last().map_or(START, |(_, part)| *part) / PARTS
    }
}

/// What is held, with who wrote each part of each file.
type Files = BTreeMap<(u32, u64), Vec<u32>>;

fn simulate(events: &[Event]) -> (Vec<Server>, Files) {
    let first = Server {
        timeline: 1,
        switches: Vec::new(),
        owners: vec![1; 4],
    };
    let (mut servers, mut files) = (vec![first], Files::new());
    for event in events {
        match event {
            Event::Write { server, parts } => {
                let count = servers.len();
                let server = &mut servers[server % count];
                let timeline = server.timeline;
                server.owners.extend((0..*parts).map(|_| timeline));
            }
            Event::Promote { server, behind } => {
                let mut new = servers[server % servers.len()].clone();
                let begun = new.switches.last().map_or(START + 4, |(_, part)| *part);
                let at = new.end().saturating_sub(*behind).max(begun);
                new.owners.truncate((at - START) as usize);
                new.switches.push((new.timeline, at));
                new.timeline = servers.len() as u32 + 1;
                servers.push(new);
            }
            Event::Archive { server, partial } => {
                let server = &servers[server % servers.len()];
                for number in server.begins()..=server.end() / PARTS {
                    let from = (number * PARTS - START) as usize;
                    let until = (from + PARTS as usize).min(server.owners.len());
                    let content = server.owners[from..until].to_vec();
                    if content.len() == PARTS as usize || *partial && !content.is_empty() {
                        files.insert((server.timeline, number), content);
                    }
                }
            }
            Event::Lose(index) => {
                let key = files.keys().nth(index % files.len().max(1)).copied();
                key.map(|key| files.remove(&key));
            }
        }
    }
    (servers, files)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn a_way_is_what_the_files_hold(events in events(), target in 0..4_usize, begin in 0..4_u64) {
        let (servers, files) = simulate(&events);
        let target = &servers[target % servers.len()];
        let mut held = Held { segment_size: size(), ..Held::default() };
        for ((timeline, number), content) in &files {
            let segment = segment(*timeline, *number);
            if content.len() == PARTS as usize {
                held.segments.insert(segment);
            } else {
                held.partials.insert(segment, lsn(number * PARTS + content.len() as u64));
            }
        }
        for server in servers.iter().skip(1) {
            held.histories.insert(Timeline(server.timeline), history(&server.switches));
        }
        let base = base(START + begin, START + 4);
        let way = way(&held, &base, Branch::Exactly(Timeline(target.timeline))).unwrap();

        // Part by part: held where any file of a timeline on the way has the part that its owner wrote.
        let on_the_way: BTreeSet<u32> = target.switches.iter().map(|(parent, _)| *parent).chain([target.timeline]).collect();
        let holds = |part: u64| {
            let owner = target.owners[(part - START) as usize];
            let inside = (part % PARTS) as usize;
            on_the_way.iter().any(|timeline| {
                let file = files.get(&(*timeline, part / PARTS));
                file.and_then(|content| content.get(inside)) == Some(&owner)
            })
        };
        let missing: Vec<u64> = (START + begin..target.end()).filter(|part| !holds(*part)).collect();
        let reached = missing.first().copied().unwrap_or(target.end());
        prop_assert_eq!(way.reached, lsn(reached), "{:?}", way);
        // Gaps are the missing parts that something held follows.
        let mut gaps: Vec<(u64, u64)> = Vec::new();
        for part in missing {
            match gaps.last_mut() {
                Some((_, until)) if *until == part => *until += 1,
                _ => gaps.push((part, part + 1)),
            }
        }
        gaps.retain(|(_, until)| *until < target.end());
        let found: Vec<(Lsn, Lsn)> = way.gaps.iter().map(|gap| (gap.from, gap.until)).collect();
        let gaps: Vec<(Lsn, Lsn)> = gaps.into_iter().map(|(from, until)| (lsn(from), lsn(until))).collect();
        prop_assert_eq!(found, gaps);

        // Recovery asks for each number on the newest timeline that may have it, then on older ones.
        let mut number = (START + begin) / PARTS;
        let mut read = START + begin;
        let ended = loop {
            let timelines = way.spans.iter().rev().filter(|span| span.from.0 / size().bytes() <= number);
            let answers: Vec<Answer> = timelines.map(|span| way.answer(segment(span.timeline.0, number))).collect();
            let given = answers.iter().find(|answer| **answer != Answer::Older);
            match given {
                Some(Answer::Give(piece)) => {
                    let content = &files[&(piece.segment.timeline.0, number)];
                    for (inside, owner) in (0..).zip(content) {
                        let part = number * PARTS + inside;
                        if lsn(part) < piece.until && part >= START {
                            prop_assert_eq!(Some(owner), target.owners.get((part - START) as usize), "another past");
                            read = read.max(part + 1);
                        }
                    }
                }
                ended => break ended.copied(),
            }
            number += 1;
        };
        prop_assert_eq!(read, reached);
        let expected = match (way.gaps.is_empty(), way.usable()) {
            (true, Ok(())) => Answer::Beyond,
            (true, Err(_)) if lsn(number * PARTS) >= base.end => Answer::Beyond,
            _ => Answer::Missing,
        };
        prop_assert_eq!(ended, Some(expected));
    }
}
