//! Faults for drills as their users see them, under a paused clock.

use std::time::Duration;

use proptest::prelude::*;
use resilience::{Fault, Faults, Kind, Verdict};
use tokio::time::advance;

const FAILS: Verdict = Verdict::Failure(Kind::Transient);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn errors(percent: f64) -> Fault {
    Fault::Error {
        verdict: FAILS,
        percent,
    }
}

#[test]
fn without_a_fault_no_call_is_hit() {
    let faults = Faults::new("payments");
    assert!((0..100).all(|_| faults.next().is_none()));
    assert_eq!(faults.snapshot().hits, 0);
}

#[tokio::test(start_paused = true)]
async fn every_nth_call_is_hit_and_with_what_was_asked_for() {
    let faults = Faults::new("payments");
    faults.inject(errors(25.0), secs(60)).unwrap();
    let hit: Vec<bool> = (0..12).map(|_| faults.next().is_some()).collect();
    assert_eq!(hit, [false, false, false, true].repeat(3));
    faults.clear();
    faults
        .inject(
            Fault::Latency {
                delay: secs(2),
                percent: 100.0,
            },
            secs(60),
        )
        .unwrap();
    let injected = faults.next().unwrap();
    assert_eq!((injected.delay, injected.error, injected.abort), (secs(2), None, false));
    // Faults beside each other add up; the first error stands.
    faults
        .inject(
            Fault::Latency {
                delay: secs(1),
                percent: 100.0,
            },
            secs(60),
        )
        .unwrap();
    faults.inject(errors(100.0), secs(60)).unwrap();
    faults
        .inject(
            Fault::Error {
                verdict: Verdict::Ignore,
                percent: 100.0,
            },
            secs(60),
        )
        .unwrap();
    faults.inject(Fault::Abort { percent: 100.0 }, secs(60)).unwrap();
    let injected = faults.next().unwrap();
    assert_eq!(
        (injected.delay, injected.error, injected.abort),
        (secs(3), Some(FAILS), true)
    );
    assert_eq!(faults.snapshot().hits, 5);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Not by chance: at every moment the share is exact to one call, for any fault beside any others.
    #[test]
    fn a_share_is_exact_to_one_call(percents in prop::collection::vec(0.01..100.0_f64, 1..4), calls in 1..2_000_u32) {
        let faults = Faults::new("payments");
        let last = percents.len() - 1;
        for (number, percent) in percents.iter().enumerate() {
            let fault = if number == last {
                Fault::Abort { percent: *percent }
            } else {
                Fault::Latency { delay: secs(1), percent: *percent }
            };
            faults.inject(fault, secs(3600)).unwrap();
        }
        let mut aborted = 0_u32;
        for call in 1..=calls {
            aborted += u32::from(faults.next().is_some_and(|injected| injected.abort));
            let expected = f64::from(call) * percents[last] / 100.0;
            prop_assert!((f64::from(aborted) - expected).abs() < 1.01, "{} of {} calls", aborted, call);
        }
    }
}

#[test]
fn equal_shares_beside_each_other_do_not_hit_the_same_calls() {
    let faults = Faults::new("payments");
    faults.inject(Fault::Abort { percent: 50.0 }, secs(60)).unwrap();
    faults.inject(errors(50.0), secs(60)).unwrap();
    let both = (0..100)
        .filter_map(|_| faults.next())
        .filter(|injected| injected.abort && injected.error.is_some())
        .count();
    assert_eq!(both, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fault_ends_by_itself_and_can_be_ended_before() {
    let faults = Faults::new("payments");
    let first = faults.inject(errors(100.0), secs(10)).unwrap();
    let second = faults.inject(Fault::Abort { percent: 100.0 }, secs(20)).unwrap();
    advance(secs(4)).await;
    let left: Vec<(u64, Duration)> = faults.active().iter().map(|active| (active.id, active.left)).collect();
    assert_eq!(left, [(first, secs(6)), (second, secs(16))]);
    advance(secs(6)).await;
    let injected = faults.next().unwrap();
    assert_eq!((injected.error, injected.abort), (None, true), "the first is over");
    advance(secs(10)).await;
    assert_eq!(faults.next(), None);
    assert!(faults.active().is_empty());
    faults.inject(errors(100.0), secs(10)).unwrap();
    faults.clone().clear();
    assert_eq!(faults.next(), None, "clones share");
    assert_eq!((faults.snapshot().active, faults.snapshot().hits), (0, 1));
}

#[test]
fn faults_that_make_no_sense_are_refused_with_their_key() {
    let faults = Faults::new("payments");
    let latency = |delay| Fault::Latency { delay, percent: 1.0 };
    let bad = [
        ("fault.percent", errors(0.0), secs(1)),
        ("fault.percent", errors(-1.0), secs(1)),
        ("fault.percent", errors(f64::NAN), secs(1)),
        ("fault.percent", errors(0.000_01), secs(1)),
        ("fault.percent", errors(100.1), secs(1)),
        ("fault.delay", latency(Duration::ZERO), secs(1)),
        ("fault.delay", latency(secs(3601)), secs(1)),
        ("fault.ttl", errors(1.0), Duration::ZERO),
        ("fault.ttl", errors(1.0), secs(3601)),
        ("fault.ttl", errors(1.0), Duration::MAX),
    ];
    for (key, fault, ttl) in bad {
        let error = faults.inject(fault, ttl).unwrap_err();
        assert_eq!((&*error.name, &*error.key), ("payments", key), "{fault:?} for {ttl:?}");
    }
    assert!(faults.active().is_empty());
    for _ in 0..16 {
        faults.inject(errors(1.0), secs(3600)).unwrap();
    }
    assert_eq!(faults.inject(errors(1.0), secs(1)).unwrap_err().key, "fault");
}
