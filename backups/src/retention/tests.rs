//! Policies in tables, and against a model that looks at every snapshot anew.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn candidate(number: u32, when: Timestamp) -> Candidate {
    Candidate {
        id: Id::of(&number.to_be_bytes()),
        time: when,
        modified: None,
        tags: vec!["datastore:db".to_owned()],
        host: "host".to_owned(),
        paths: vec!["/db".to_owned()],
        is_whole: true,
        is_proved: false,
    }
}

fn policy(parts: &[(Slot, u32)]) -> Policy {
    Policy {
        counts: parts.iter().copied().collect(),
        ..Policy::default()
    }
}

const LATE: &str = "2030-01-01T00:00:00Z";

/// The times that stay, newest first.
fn kept(policy: &Policy, candidates: Vec<Candidate>, zone: &TimeZone) -> Vec<String> {
    let groups = apply(policy, candidates, time(LATE), zone).unwrap();
    let kept = groups
        .iter()
        .flat_map(|group| &group.decisions)
        .filter(|decision| decision.is_kept());
    kept.map(|decision| decision.counted.to_string()).collect()
}

fn at(times: &[&str]) -> Vec<Candidate> {
    (0..)
        .zip(times)
        .map(|(number, when)| candidate(number, time(when)))
        .collect()
}

#[test]
fn each_slot_keeps_the_newest_of_each_of_its_spans() {
    let times = [
        "2023-12-31T23:30:00Z",
        "2024-01-01T00:10:00Z",
        "2024-01-01T00:50:00Z",
        "2024-01-07T12:00:00Z",
        "2024-01-08T12:00:00Z",
        "2024-02-29T12:00:00Z",
        "2024-12-30T12:00:00Z",
        "2025-01-05T12:00:00Z",
    ];
    let table: [(Slot, u32, &[&str]); 7] = [
        (Slot::Last, 2, &["2025-01-05T12:00:00Z", "2024-12-30T12:00:00Z"]),
        (
            Slot::Hourly,
            7,
            &[
                "2025-01-05T12:00:00Z",
                "2024-12-30T12:00:00Z",
                "2024-02-29T12:00:00Z",
                "2024-01-08T12:00:00Z",
                "2024-01-07T12:00:00Z",
                "2024-01-01T00:50:00Z",
                "2023-12-31T23:30:00Z",
            ],
        ),
        (Slot::Daily, 1, &["2025-01-05T12:00:00Z"]),
        // Monday 30 December 2024 and Sunday 5 January 2025 are one week, the first of 2025.
        (Slot::Weekly, 2, &["2025-01-05T12:00:00Z", "2024-02-29T12:00:00Z"]),
        // Monday 1 January to Sunday 7 January is another than that from the 8th on; 31 December is in 2023's last.
        (
            Slot::Weekly,
            9,
            &[
                "2025-01-05T12:00:00Z",
                "2024-02-29T12:00:00Z",
                "2024-01-08T12:00:00Z",
                "2024-01-07T12:00:00Z",
                "2023-12-31T23:30:00Z",
            ],
        ),
        (Slot::Monthly, 2, &["2025-01-05T12:00:00Z", "2024-12-30T12:00:00Z"]),
        (
            Slot::Yearly,
            9,
            &["2025-01-05T12:00:00Z", "2024-12-30T12:00:00Z", "2023-12-31T23:30:00Z"],
        ),
    ];
    for (slot, count, expected) in table {
        assert_eq!(
            kept(&policy(&[(slot, count)]), at(&times), &TimeZone::UTC),
            expected,
            "{slot:?} {count}"
        );
    }
}

#[test]
fn days_begin_where_the_time_zone_says() {
    let times = ["2024-06-01T21:30:00Z", "2024-06-01T22:30:00Z"];
    let daily = policy(&[(Slot::Daily, 9)]);
    assert_eq!(kept(&daily, at(&times), &TimeZone::UTC).len(), 1);
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    assert_eq!(kept(&daily, at(&times), &berlin).len(), 2, "midnight lies between them");
    // On 27 October 2024 the hour from two to three was there twice.
    let twice = ["2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z"];
    assert_eq!(kept(&policy(&[(Slot::Hourly, 9)]), at(&twice), &berlin).len(), 2);
}

#[test]
fn within_counts_from_the_newest_and_not_from_now() {
    let times = [
        "2024-06-01T12:00:00Z",
        "2024-06-02T12:00:00Z",
        "2024-06-02T18:00:00Z",
        "2024-06-03T12:00:00Z",
    ];
    let within = |hours| Policy {
        within: Some(SignedDuration::from_hours(hours)),
        ..Policy::default()
    };
    assert_eq!(
        kept(&within(24), at(&times), &TimeZone::UTC).len(),
        2,
        "exactly a day is too old"
    );
    assert_eq!(kept(&within(25), at(&times), &TimeZone::UTC).len(), 3);
    let daily = Policy {
        slots_within: [(Slot::Daily, SignedDuration::from_hours(49))].into(),
        ..Policy::default()
    };
    assert_eq!(
        kept(&daily, at(&times), &TimeZone::UTC),
        ["2024-06-03T12:00:00Z", "2024-06-02T18:00:00Z", "2024-06-01T12:00:00Z"]
    );
}

#[test]
fn tags_keep_and_are_not_counted() {
    let mut candidates = at(&["2024-06-01T12:00:00Z", "2024-06-02T12:00:00Z", "2024-06-03T12:00:00Z"]);
    candidates[0].tags.push("audit".to_owned());
    let mut policy = policy(&[(Slot::Last, 1)]);
    policy.tags.push("audit".to_owned());
    assert_eq!(
        kept(&policy, candidates, &TimeZone::UTC),
        ["2024-06-03T12:00:00Z", "2024-06-01T12:00:00Z"]
    );
}

#[test]
fn groups_do_not_see_each_other() {
    let mut candidates = at(&["2024-06-01T12:00:00Z"; 6]);
    candidates[1].tags = vec!["datastore:files".to_owned()];
    candidates[2].tags = vec!["environment:production".to_owned(), "datastore:db".to_owned()];
    for other in &mut candidates[3..] {
        other.tags = vec!["anything".to_owned()];
    }
    candidates[4].host = "another".to_owned();
    candidates[5].paths = vec!["/other".to_owned()];
    let groups = apply(&policy(&[(Slot::Last, 1)]), candidates, time(LATE), &TimeZone::UTC).unwrap();
    let names: Vec<String> = groups.iter().map(|group| group.key.to_string()).collect();
    assert_eq!(
        names,
        [
            "db",
            "db in production",
            "files",
            "/db on another",
            "/db on host",
            "/other on host"
        ]
    );
    assert!(groups.iter().all(|group| group.decisions.len() == 1));
}

#[test]
fn the_last_whole_and_the_last_proved_always_stay() {
    let mut candidates = at(&[
        "2024-06-01T12:00:00Z",
        "2024-06-02T12:00:00Z",
        "2024-06-03T12:00:00Z",
        "2024-06-04T12:00:00Z",
    ]);
    candidates[1].is_proved = true;
    candidates[3].is_whole = false;
    let tags_alone = Policy {
        tags: vec!["none has it".to_owned()],
        ..Policy::default()
    };
    let expected = ["2024-06-03T12:00:00Z", "2024-06-02T12:00:00Z"];
    assert_eq!(kept(&tags_alone, candidates.clone(), &TimeZone::UTC), expected);
    let all: Vec<Id> = candidates.iter().map(|candidate| candidate.id).collect();
    let groups = remove(&all, candidates, time(LATE));
    let stay: Vec<String> = groups[0]
        .decisions
        .iter()
        .filter(|decision| decision.is_kept())
        .map(|decision| decision.counted.to_string())
        .collect();
    assert_eq!(stay, expected);
}

#[test]
fn partial_ones_push_out_no_whole_ones_and_unproved_ones_no_proved_ones() {
    let mut candidates = at(&[
        "2024-06-01T12:00:00Z",
        "2024-06-02T12:00:00Z",
        "2024-06-03T12:00:00Z",
        "2024-06-04T12:00:00Z",
        "2024-06-05T12:00:00Z",
        "2024-06-05T18:00:00Z",
    ]);
    candidates[0].is_proved = true;
    candidates[1].is_proved = true;
    candidates[5].is_whole = false;
    let kept = kept(&policy(&[(Slot::Daily, 2)]), candidates, &TimeZone::UTC);
    let expected = [
        "2024-06-05T18:00:00Z", // the newest of the day, partial
        "2024-06-05T12:00:00Z", // the newest whole one of the day
        "2024-06-04T12:00:00Z",
        "2024-06-02T12:00:00Z", // two days with proved ones
        "2024-06-01T12:00:00Z",
    ];
    assert_eq!(kept, expected);
}

#[test]
fn a_clock_that_is_early_makes_no_snapshot_younger_than_its_file() {
    let mut candidates = at(&["2024-06-01T12:00:00Z", "2024-06-01T14:00:00Z"]);
    // Written at one by a machine whose clock said two.
    candidates[1].modified = Some(time("2024-06-01T11:00:00Z"));
    assert_eq!(
        kept(&policy(&[(Slot::Last, 1)]), candidates.clone(), &TimeZone::UTC),
        ["2024-06-01T12:00:00Z"]
    );
    // One of next year is no younger than now.
    candidates[1].modified = None;
    candidates[1].time = time("2031-01-01T00:00:00Z");
    assert_eq!(kept(&policy(&[(Slot::Last, 1)]), candidates, &TimeZone::UTC), [LATE]);
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    for empty in [Policy::default(), policy(&[(Slot::Daily, 0)])] {
        let refused = apply(&empty, at(&["2024-06-01T12:00:00Z"]), time(LATE), &TimeZone::UTC);
        assert_eq!(refused, Err(EmptyPolicy));
    }
}

/// The definition, looked up for every snapshot anew.
fn model(policy: &Policy, all: &[Candidate], among: Among) -> BTreeSet<Id> {
    let mut chosen: Vec<&Candidate> = all.iter().filter(|candidate| among.holds(candidate)).collect();
    chosen.sort_by_key(|candidate| std::cmp::Reverse((candidate.time, candidate.id)));
    let Some(newest) = chosen.first().map(|candidate| candidate.time) else {
        return BTreeSet::new();
    };
    let day = |candidate: &Candidate| candidate.time.as_second().div_euclid(86_400);
    let name = |slot: Slot, candidate: &Candidate| -> String {
        let utc = candidate.time.to_zoned(TimeZone::UTC);
        match slot {
            Slot::Last => candidate.id.to_string(),
            Slot::Hourly => candidate.time.as_second().div_euclid(3600).to_string(),
            Slot::Daily => day(candidate).to_string(),
            // The epoch was a Thursday.
            Slot::Weekly => (day(candidate) + 3).div_euclid(7).to_string(),
            Slot::Monthly => utc.strftime("%Y-%m").to_string(),
            Slot::Yearly => utc.strftime("%Y").to_string(),
        }
    };
    let first_of_span = |slot: Slot, candidate: &Candidate| {
        let twin = chosen.iter().find(|other| name(slot, other) == name(slot, candidate));
        twin.is_some_and(|first| first.id == candidate.id)
    };
    let keeps = |(rank, candidate): &(usize, &&Candidate)| {
        let age = newest.duration_since(candidate.time);
        let newer_spans = |slot: Slot| {
            let newer = chosen[..*rank].iter().map(|other| name(slot, other));
            newer.collect::<BTreeSet<_>>().len()
        };
        policy.tags.iter().any(|tag| candidate.tags.contains(tag))
            || policy.within.is_some_and(|span| age < span)
            || policy
                .counts
                .iter()
                .any(|(slot, count)| first_of_span(*slot, candidate) && newer_spans(*slot) < *count as usize)
            || policy
                .slots_within
                .iter()
                .any(|(slot, span)| age < *span && first_of_span(*slot, candidate))
    };
    let kept = chosen.iter().enumerate().filter(keeps);
    kept.map(|(_, candidate)| candidate.id).collect()
}

fn slots<T: std::fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = BTreeMap<Slot, T>> {
    let pairs = proptest::collection::vec((proptest::sample::select(Slot::ALL.to_vec()), values), 0..4);
    pairs.prop_map(|pairs| pairs.into_iter().collect())
}

proptest! {
    #[test]
    fn what_stays_is_what_the_definition_says(
        counts in slots(0..5_u32),
        within in proptest::option::of(1..2000_i64),
        slots_within in slots((1..2000_i64).prop_map(SignedDuration::from_hours)),
        tagged in any::<bool>(),
        // Hours apart, so that every span is met; some at one time.
        snapshots in proptest::collection::vec((0..20_000_i64, 0..4_u8, any::<bool>(), 0..5_u8), 1..40),
    ) {
        let policy = Policy {
            counts,
            within: within.map(SignedDuration::from_hours),
            slots_within,
            tags: if tagged { vec!["audit".to_owned()] } else { Vec::new() },
        };
        prop_assume!(!policy.is_empty());
        let base = time("2022-12-25T00:00:00Z").as_second();
        let mut candidates = Vec::new();
        for (number, (hour, tag, whole, proved)) in (0..).zip(&snapshots) {
            let mut one = candidate(number, Timestamp::from_second(base + hour * 1200).unwrap());
            if *tag == 0 {
                one.tags.push("audit".to_owned());
            }
            one.is_whole = *whole;
            one.is_proved = *whole && *proved == 0;
            candidates.push(one);
        }
        let groups = apply(&policy, candidates.clone(), time(LATE), &TimeZone::UTC).unwrap();
        prop_assert_eq!(groups.len(), 1);
        let decisions = &groups[0].decisions;
        let kept: BTreeSet<Id> = decisions.iter().filter(|decision| decision.is_kept()).map(|decision| decision.candidate.id).collect();
        let mut expected = BTreeSet::new();
        for among in [Among::All, Among::Whole, Among::Proved] {
            expected.extend(model(&policy, &candidates, among));
            if among != Among::All {
                let newest = candidates.iter().filter(|candidate| among.holds(candidate)).max_by_key(|candidate| (candidate.time, candidate.id));
                expected.extend(newest.map(|candidate| candidate.id));
            }
        }
        prop_assert_eq!(kept, expected);
    }
}
