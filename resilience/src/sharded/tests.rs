//! The window without a lock against the plain one, and under threads. Vectors in the spirit of resilience4j's
//! `SlidingTimeWindowMetricsTest` and `LockFreeMetricsContentionTest` and of Polly's `RollingHealthMetricsTests`.

use proptest::prelude::*;

use super::*;

const LENGTH: u64 = 100;

fn add(window: &Sharded<2, 1>, slot: usize, era: u32, now: u64, which: usize) -> bool {
    let length = window.bucket_millis();
    window.write_as(slot, |shard| {
        shard.count(0);
        shard.bucket(length, era, now).is_some_and(|bucket| {
            bucket.add(which);
            true
        })
    })
}

#[test]
fn ten_buckets_slide_one_at_a_time() {
    let window = Sharded::<2, 1>::with_shards(LENGTH, 1);
    for bucket in 0..10 {
        add(&window, 0, 0, 5_000 + bucket * LENGTH, 0);
        assert_eq!(window.sums(0, 5_000 + bucket * LENGTH)[0], bucket + 1);
    }
    // The last moment of the first bucket, then one bucket less for each step.
    assert_eq!(window.sums(0, 5_999)[0], 10);
    for gone in 0..=10 {
        assert_eq!(
            window.sums(0, 5_900 + gone * LENGTH)[0],
            10 - gone,
            "after {gone} buckets"
        );
    }
    assert_eq!(window.sums(0, 1_000_000_000)[0], 0);
    assert_eq!(window.totals(), [10], "totals do not slide");
}

#[test]
fn a_bucket_whose_turn_comes_again_begins_empty() {
    let window = Sharded::<2, 1>::with_shards(LENGTH, 1);
    for _ in 0..5 {
        add(&window, 0, 0, 1_000, 1);
    }
    add(&window, 0, 0, 2_000, 0);
    assert_eq!(window.sums(0, 2_000), [1, 0]);
}

#[test]
fn a_later_era_is_empty_and_an_earlier_one_adds_nothing_to_it() {
    let window = Sharded::<2, 1>::with_shards(LENGTH, 0);
    assert!(add(&window, 0, 7, 1_000, 1));
    assert_eq!(window.sums(8, 1_000), [0, 0]);
    assert!(add(&window, 0, 8, 1_000, 0));
    assert!(!add(&window, 0, 7, 1_000, 1), "the shard has gone on");
    assert_eq!(window.sums(8, 1_000), [1, 0]);
    let last = (1 << ERA_BITS) - 1;
    assert!(is_later(0, last) && !is_later(last, 0) && !is_later(3, 3), "eras wrap");
}

#[test]
fn a_longer_window_keeps_what_was_counted_and_a_shorter_one_forgets_the_old() {
    let window = Sharded::<2, 1>::with_shards(LENGTH, 1);
    for at in [1_000, 1_500, 1_900] {
        add(&window, 0, 0, at, 0);
    }
    window.set_bucket_millis(10 * LENGTH);
    assert_eq!(window.sums(0, 2_000)[0], 3);
    window.set_bucket_millis(LENGTH / 2);
    assert_eq!(window.sums(0, 1_910)[0], 2);
}

#[test]
fn no_count_is_lost_with_more_threads_than_shards() {
    const CALLS: u64 = 20_000;
    let threads = slot::count() as u64 + 8;
    let window = Sharded::<2, 1>::new(1_000_000);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for call in 0..CALLS {
                    window.write(|shard| {
                        shard.count(0);
                        if let Some(bucket) = shard.bucket(1_000_000, 3, 500) {
                            bucket.add((call % 2) as usize);
                        }
                    });
                }
            });
        }
    });
    assert_eq!(window.totals(), [threads * CALLS]);
    assert_eq!(window.sums(3, 500), [threads * CALLS / 2; 2]);
}

#[derive(Debug, Clone)]
enum Step {
    Add { slot: usize, which: usize },
    Wait(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4_usize, 0..2_usize).prop_map(|(slot, which)| Step::Add { slot, which }),
        3 => (1..1_500_u64).prop_map(Step::Wait),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model is a list of everything that was counted, looked through anew at each step.
    #[test]
    fn the_window_is_its_model(steps in prop::collection::vec(step(), 1..150)) {
        let window = Sharded::<2, 1>::with_shards(LENGTH, 3);
        let (mut now, mut era) = (10_000, 0);
        let mut model: Vec<(u64, usize)> = Vec::new();
        for step in steps {
            match step {
                Step::Add { slot, which } => {
                    add(&window, slot, era, now, which);
                    model.push((now, which));
                }
                Step::Wait(millis) => now += millis,
                Step::Clear => {
                    era += 1;
                    model.clear();
                }
            }
            let first = now / LENGTH - 9;
            let count = |lane| model.iter().filter(|(at, which)| at / LENGTH >= first && *which == lane).count() as u64;
            prop_assert_eq!(window.sums(era, now), [count(0), count(1)]);
        }
    }
}
