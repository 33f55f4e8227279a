//! Every interleaving of a few threads at one bucket, by loom: no place is given twice, none is lost but those that the
//! code says are.

use loom::sync::Arc;
use loom::thread;

use super::{Bucket, Gcra};

const INTERVAL: u64 = 100;
const NOW: u64 = 1_000;
const NO_LIMIT: u64 = u64::MAX;

const fn of(interval: u64, burst: u64) -> Gcra {
    Gcra {
        interval,
        span: interval * burst,
    }
}

#[test]
fn the_last_place_is_given_once() {
    loom::model(|| {
        let bucket = Arc::new(Bucket::default());
        let take = |bucket: &Bucket| bucket.take(of(INTERVAL, 2), NOW, 1, 0).is_ok();
        assert!(take(&bucket));
        let others = [(); 2].map(|()| {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || take(&bucket))
        });
        let entered = others.map(|other| other.join().unwrap());
        assert_eq!(entered.iter().filter(|entered| **entered).count(), 1);
    });
}

#[test]
fn those_who_wait_go_on_at_moments_of_their_own() {
    loom::model(|| {
        let bucket = Arc::new(Bucket::default());
        let wait = |bucket: &Bucket| bucket.take(of(INTERVAL, 1), NOW, 1, NO_LIMIT).unwrap().wait;
        let others = [(); 2].map(|()| {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || wait(&bucket))
        });
        let mut waits = others.map(|other| other.join().unwrap());
        waits.sort_unstable();
        assert_eq!(waits, [0, INTERVAL]);
        assert_eq!(bucket.full_at(), NOW + 2 * INTERVAL);
    });
}

#[test]
fn who_gives_a_place_back_takes_none_from_those_behind() {
    loom::model(|| {
        let gcra = of(INTERVAL, 1);
        let bucket = Arc::new(Bucket::default());
        let mine = bucket.take(gcra, NOW, 1, NO_LIMIT).unwrap();
        let other = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.take(gcra, NOW, 1, NO_LIMIT).unwrap().wait)
        };
        let is_back = bucket.give_back(mine);
        let others = other.join().unwrap();
        let next = bucket.take(gcra, NOW, 1, NO_LIMIT).unwrap().wait;
        // Given back, it was free for the other; else it is lost, and nobody else has a moment twice.
        let expected = if is_back {
            (0, INTERVAL)
        } else {
            (INTERVAL, 2 * INTERVAL)
        };
        assert_eq!((others, next), expected);
    });
}

#[test]
fn other_settings_lose_nobody_who_takes_meanwhile() {
    loom::model(|| {
        let (old, new) = (of(INTERVAL, 10), of(2 * INTERVAL, 10));
        let bucket = Arc::new(Bucket::default());
        bucket.take(old, NOW, 1, 0).unwrap();
        let other = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.take(old, NOW, 1, 0).is_ok())
        };
        bucket.carry(NOW, old, new);
        assert!(other.join().unwrap());
        // The other's call is worth an old interval if it came after the change, a new one if before.
        let used = bucket.full_at() - NOW;
        assert!(used == 3 * INTERVAL || used == 4 * INTERVAL, "{used}");
    });
}
