//! Every interleaving of a few threads over the window without a lock. Run with
//! `RUSTFLAGS="--cfg resilience_loom" cargo test -p resilience --lib loom`.

use loom::sync::Arc;
use loom::thread;

use super::slot::Given;
use super::{Shard, Sharded};

const LENGTH: u64 = 100;
const OK: usize = 0;
const FAILED: usize = 1;

type Window = Sharded<2, 1>;

fn add(window: &Window, slot: usize, era: u32, now: u64, which: usize) {
    window.write_as(slot, |shard: &Shard<2, 1>| {
        if let Some(bucket) = shard.bucket(LENGTH, era, now) {
            bucket.add(which);
            shard.count(0);
        }
    });
}

#[test]
fn of_two_failures_at_one_time_one_sees_both() {
    loom::model(|| {
        let window = Arc::new(Window::with_shards(LENGTH, 2));
        let other = {
            let window = Arc::clone(&window);
            thread::spawn(move || {
                add(&window, 1, 0, 1_000, FAILED);
                window.sums(0, 1_000)[FAILED]
            })
        };
        add(&window, 0, 0, 1_000, FAILED);
        let mine = window.sums(0, 1_000)[FAILED];
        let others = other.join().unwrap();
        assert!(
            mine == 2 || others == 2,
            "{mine} and {others}: nobody would open the breaker"
        );
    });
}

#[test]
fn threads_without_a_shard_of_their_own_lose_no_count() {
    loom::model(|| {
        let window = Arc::new(Window::with_shards(LENGTH, 0));
        let other = {
            let window = Arc::clone(&window);
            thread::spawn(move || add(&window, usize::MAX, 0, 1_000, OK))
        };
        add(&window, usize::MAX, 0, 1_000, OK);
        other.join().unwrap();
        assert_eq!(window.sums(0, 1_000)[OK], 2);
        assert_eq!(window.totals(), [2]);
    });
}

#[test]
fn who_sees_a_bucket_of_this_turn_sees_no_count_of_an_earlier_one() {
    loom::model(|| {
        let window = Arc::new(Window::with_shards(LENGTH, 1));
        for _ in 0..3 {
            add(&window, 0, 0, 1_000, FAILED);
        }
        let reader = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.sums(0, 2_000)[FAILED])
        };
        // The same bucket, ten turns later.
        add(&window, 0, 0, 2_000, FAILED);
        let seen = reader.join().unwrap();
        assert!(seen <= 1, "{seen} failures where there is one");
        assert_eq!(window.sums(0, 2_000)[FAILED], 1);
    });
}

#[test]
fn a_new_era_is_empty_whatever_an_owner_still_writes_into_the_old_one() {
    loom::model(|| {
        let window = Arc::new(Window::with_shards(LENGTH, 1));
        add(&window, 0, 4, 1_000, FAILED);
        let reader = {
            let window = Arc::clone(&window);
            thread::spawn(move || window.sums(5, 1_000))
        };
        add(&window, 0, 4, 1_000, FAILED);
        add(&window, 0, 5, 1_000, OK);
        let [ok, failed] = reader.join().unwrap();
        assert!(ok <= 1 && failed == 0, "{ok} ok, {failed} failed");
        assert_eq!(window.sums(5, 1_000), [1, 0]);
    });
}

#[test]
fn a_slot_has_one_owner_at_a_time_and_hands_on_its_counts() {
    loom::model(|| {
        let given = Arc::new(Given::new());
        let window = Arc::new(Window::with_shards(LENGTH, 1));
        let turn = |given: &Given, window: &Window| {
            if let Some(slot) = given.take(1) {
                add(window, slot, 0, 1_000, OK);
                given.give_back(slot);
                1
            } else {
                0
            }
        };
        let other = {
            let (given, window) = (Arc::clone(&given), Arc::clone(&window));
            thread::spawn(move || turn(&given, &window))
        };
        let counted = turn(&given, &window) + other.join().unwrap();
        assert_eq!(window.sums(0, 1_000)[OK], counted);
    });
}
