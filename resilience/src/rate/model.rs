//! The one number of `gcra` against a token bucket written out: a level that rises with time up to its brim and falls
//! with calls, and a list of everything that went on.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::gcra::{Bucket, Gcra, Taken};

/// A bucket as one draws it. The level is nanoseconds' worth of calls; below zero somebody waits.
struct Model {
    level: i128,
    brim: i128,
    seen: u64,
}

impl Model {
    /// The wait, or the wait that is too long, or nothing when it can never be.
    fn take(&mut self, gcra: Gcra, now: u64, calls: u32, max_wait: u64) -> Result<u64, Option<u64>> {
        self.level = (self.level + i128::from(now - self.seen)).min(self.brim);
        self.seen = now;
        let cost = i128::from(gcra.interval) * i128::from(calls);
        if cost > self.brim {
            return Err(None);
        }
        let wait = (cost - self.level).max(0) as u64;
        if wait > max_wait {
            return Err(Some(wait));
        }
        self.level -= cost;
        Ok(wait)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Wait(u64),
    Take { calls: u32, max_wait: u64 },
    GiveBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..250_u64).prop_map(Step::Wait),
        1 => (0..5_000_u64).prop_map(Step::Wait),
        6 => (1..7_u32, prop_oneof![Just(0), 0..600_u64]).prop_map(|(calls, max_wait)| Step::Take { calls, max_wait }),
        2 => Just(Step::GiveBack),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_number_is_a_token_bucket(steps in steps(), interval in 1..200_u64, burst in 1..6_u32) {
        let gcra = Gcra { interval, span: interval * u64::from(burst) };
        let bucket = Bucket::default();
        let mut model = Model { level: gcra.span.into(), brim: gcra.span.into(), seen: 0 };
        let mut now = 1_000;
        // What went on: when, how much.
        let mut passed: Vec<(u64, u64)> = Vec::new();
        // The last place, as long as nobody took another; and the model before it.
        let mut last: Option<(Taken, i128, u64)> = None;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Wait(nanos) => now += nanos,
                Step::Take { calls, max_wait } => {
                    let (level, seen) = (model.level, model.seen);
                    let expected = model.take(gcra, now, calls, max_wait);
                    let taken = bucket.take(gcra, now, calls, max_wait);
                    prop_assert_eq!(taken.map(|taken| taken.wait), expected, "step {}", number);
                    if let Ok(taken) = taken {
                        passed.push((now + taken.wait, calls.into()));
                        last = Some((taken, level, seen));
                    }
                }
                Step::GiveBack => {
                    if let Some((taken, level, seen)) = last.take() {
                        prop_assert!(bucket.give_back(taken));
                        passed.pop();
                        (model.level, model.seen) = (level, seen);
                        model.level = (level + i128::from(now - seen)).min(model.brim);
                        model.seen = now;
                    }
                }
            }
            let available = bucket_available(&bucket, gcra, now);
            let level = (model.level + i128::from(now - model.seen)).clamp(0, model.brim);
            prop_assert_eq!(i128::from(available), level / i128::from(interval), "step {}", number);
        }
        // In no time t more than burst + t / interval.
        for (first, (from, _)) in passed.iter().enumerate() {
            let mut sum = 0;
            for (at, calls) in &passed[first..] {
                sum += calls;
                let allowed = u64::from(burst) + (at - from) / interval;
                prop_assert!(sum <= allowed, "{} of {} from {} to {}", sum, allowed, from, at);
            }
        }
    }

    #[test]
    fn a_place_with_somebody_behind_it_is_not_given_back(interval in 1..200_u64, behind in 1..5_u32) {
        let gcra = Gcra { interval, span: interval };
        let bucket = Bucket::default();
        bucket.take(gcra, 1_000, 1, 0).unwrap();
        let dropped = bucket.take(gcra, 1_000, 1, u64::MAX).unwrap();
        let mut last = dropped;
        for _ in 0..behind {
            last = bucket.take(gcra, 1_000, 1, u64::MAX).unwrap();
        }
        prop_assert!(!bucket.give_back(dropped));
        // The next goes after the last, not beside it.
        let next = bucket.take(gcra, 1_000, 1, u64::MAX).unwrap();
        prop_assert_eq!(next.wait, last.wait + interval);
    }

    #[test]
    fn a_change_of_the_rate_keeps_the_calls_that_are_left(
        used in 0..6_u32, old in 1..200_u64, new in 1..200_u64,
    ) {
        let gcra = |interval: u64| Gcra { interval, span: interval * 6 };
        let bucket = Bucket::default();
        if used > 0 {
            bucket.take(gcra(old), 1_000, used, 0).unwrap();
        }
        bucket.carry(1_000, gcra(old), gcra(new));
        prop_assert_eq!(bucket_available(&bucket, gcra(new), 1_000), u64::from(6 - used));
    }
}

fn bucket_available(bucket: &Bucket, gcra: Gcra, now: u64) -> u64 {
    gcra.available(bucket.full_at(), now)
}

#[test]
fn racing_threads_get_the_burst_and_the_rate_and_not_one_call_more() {
    const INTERVAL: u64 = 100;
    const BURST: u64 = 50;
    let gcra = Gcra {
        interval: INTERVAL,
        span: INTERVAL * BURST,
    };
    let bucket = Bucket::default();
    let (clock, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let now = clock.fetch_add(7, Ordering::Relaxed);
                    if bucket.take(gcra, now, 1, 0).is_ok() {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (passed, end) = (passed.into_inner(), clock.into_inner());
    let most = BURST + end / INTERVAL;
    // A thread that is held up asks with an old time, so a few calls may be missing, never one too many.
    assert!(
        passed <= most && passed + BURST >= most,
        "{passed} went on of {most} in {end} ns"
    );
}
