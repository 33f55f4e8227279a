//! The throttle as its users see it, under a paused clock. The tables are in the spirit of failsafe-go's
//! `adaptivethrottler_test` and Finagle's `NackAdmissionFilterTest`; the formula is that of the SRE book.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilience::{By, Kind, Throttle, ThrottleSettings, Verdict};
use tokio::time::advance;

const NACK: Verdict = Verdict::Overload { hint: None };

/// No floor, so that few calls are enough to see something.
fn settings() -> ThrottleSettings {
    ThrottleSettings {
        min_per_sec: 0.0,
        ..ThrottleSettings::default()
    }
}

/// Chance that always says the same number: 0 refuses whenever the probability is above zero, 1 never.
fn fixed(settings: ThrottleSettings, chance: f64) -> Throttle {
    Throttle::with_chance("throttle", settings, move || chance).unwrap()
}

fn send(throttle: &Throttle, verdict: Verdict) {
    throttle.acquire().unwrap().record(verdict);
}

fn probability(throttle: &Throttle) -> f64 {
    throttle.snapshot().reject_probability
}

#[tokio::test(start_paused = true)]
async fn the_probability_after_so_many_requests_and_accepts() {
    // Accepted, not accepted, k, cap; the probability.
    let table = [
        (0, 0, 2.0, 0.9, 0.0),
        (0, 1, 2.0, 0.9, 0.5),
        (1, 1, 2.0, 0.9, 0.0),
        (10, 10, 2.0, 0.9, 0.0),
        (10, 11, 2.0, 0.9, 1.0 / 22.0),
        (10, 90, 2.0, 0.9, 80.0 / 101.0),
        (0, 20, 2.0, 0.5, 0.5),
        (0, 50, 2.0, 1.0, 50.0 / 51.0),
        (0, 50, 2.0, 0.9, 0.9),
        (90, 10, 1.0, 0.9, 10.0 / 101.0),
        (90, 10, 1.1, 0.9, 1.0 / 101.0),
        (100, 0, 1.0, 0.9, 0.0),
    ];
    for (accepted, not, k, max_reject, expected) in table {
        let throttle = fixed(
            ThrottleSettings {
                k,
                max_reject,
                ..settings()
            },
            1.0,
        );
        (0..accepted).for_each(|_| send(&throttle, Verdict::Success));
        (0..not).for_each(|_| send(&throttle, NACK));
        let is = probability(&throttle);
        assert!(
            (is - expected).abs() < 1e-9,
            "{accepted} accepted, {not} not, k {k}, cap {max_reject}: {is} instead of {expected}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_verdict_says_of_acceptance() {
    // Requests and accepts after one call.
    let table = [
        (Verdict::Success, (1, 1)),
        (Verdict::Ignore, (1, 1)),
        (Verdict::Failure(Kind::Permanent), (1, 1)),
        (NACK, (1, 0)),
        (
            Verdict::Overload {
                hint: Some(Duration::from_secs(1)),
            },
            (1, 0),
        ),
        (Verdict::Failure(Kind::Timeout), (1, 0)),
        (Verdict::Failure(Kind::Transient), (1, 0)),
        (Verdict::Failure(Kind::NotSent), (1, 0)),
        (Verdict::LocalReject, (0, 0)),
    ];
    for (verdict, expected) in table {
        let throttle = fixed(settings(), 1.0);
        send(&throttle, verdict);
        let figures = throttle.snapshot();
        assert_eq!((figures.requests, figures.accepts), expected, "{verdict:?}");
    }
    let throttle = fixed(settings(), 1.0);
    drop(throttle.acquire().unwrap());
    assert_eq!(throttle.snapshot().requests, 0, "a cancelled call says nothing");
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_before_its_answer_and_a_refused_one_too() {
    let throttle = fixed(settings(), 0.0);
    let first = throttle.acquire().unwrap();
    assert_eq!(throttle.snapshot().requests, 1);
    let refused = throttle.acquire().unwrap_err();
    assert_eq!(
        (refused.by, &*refused.name, refused.retry_after),
        (By::Throttle, "throttle", None)
    );
    let figures = throttle.snapshot();
    assert_eq!((figures.requests, figures.rejected), (2, 1));
    first.record(Verdict::Success);
    assert!(
        throttle.acquire().is_ok(),
        "two requests of one accept are what k allows"
    );
}

#[tokio::test(start_paused = true)]
async fn half_of_what_is_sent_may_be_refused_by_the_dependency_before_anything_is_refused_here() {
    // Chance that refuses whenever it may.
    let throttle = fixed(settings(), 0.0);
    for _ in 0..100 {
        send(&throttle, Verdict::Success);
        send(&throttle, NACK);
    }
    // This one has no answer yet, which is one too many.
    let _hangs = throttle.acquire().unwrap();
    assert!(throttle.acquire().is_err());
}

#[tokio::test(start_paused = true)]
async fn under_the_floor_nothing_is_refused() {
    let window = Duration::from_secs(10);
    let throttle = fixed(
        ThrottleSettings {
            window,
            min_per_sec: 5.0,
            ..settings()
        },
        0.0,
    );
    for _ in 0..50 {
        send(&throttle, NACK);
    }
    assert!(throttle.acquire().is_err(), "fifty in ten seconds are five a second");
    let throttle = fixed(
        ThrottleSettings {
            window,
            min_per_sec: 5.0,
            ..settings()
        },
        0.0,
    );
    for _ in 0..100 {
        for _ in 0..4 {
            send(&throttle, NACK);
        }
        advance(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_share_that_passes_a_dependency_that_refuses_everything_is_what_the_cap_leaves() {
    // Numbers that fill 0..1 evenly stand for chance.
    let number = Arc::new(AtomicU64::new(0));
    let chance = move || (number.fetch_add(1, Ordering::Relaxed) as f64 * 0.618_033_988_749).fract();
    let throttle = Throttle::with_chance("throttle", settings(), chance).unwrap();
    let mut sent = 0;
    for _ in 0..10_000 {
        if let Ok(permit) = throttle.acquire() {
            permit.record(NACK);
            sent += 1;
        }
    }
    assert!((950..1_050).contains(&sent), "{sent} of 10000 with a cap of 0.9");
    // Well again: what passes is accepted, and the share rises until all passes.
    let mut last = 0;
    for _ in 0..40_000 {
        advance(Duration::from_millis(10)).await;
        last = match throttle.acquire() {
            Ok(permit) => {
                permit.record(Verdict::Success);
                last + 1
            }
            Err(_) => 0,
        };
    }
    assert!(last > 1_000, "only the last {last} calls passed");
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_window_is_forgotten() {
    let throttle = fixed(settings(), 1.0);
    for _ in 0..30 {
        send(&throttle, NACK);
    }
    advance(Duration::from_secs(107)).await;
    assert_eq!(throttle.snapshot().requests, 30);
    advance(Duration::from_secs(13)).await;
    assert_eq!(throttle.snapshot().requests, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_counts() {
    let throttle = fixed(settings(), 1.0);
    assert_eq!(throttle.snapshot().requests, 0);
    // Late enough that no two windows number their steps alike.
    advance(Duration::from_secs(1_000)).await;
    for _ in 0..9 {
        send(&throttle, NACK);
    }
    send(&throttle, Verdict::Success);
    throttle.reload(ThrottleSettings { k: 4.0, ..settings() }).unwrap();
    assert!((probability(&throttle) - 6.0 / 11.0).abs() < 1e-9);
    for window in [Duration::from_secs(3), Duration::from_secs(600)] {
        throttle.reload(ThrottleSettings { window, ..settings() }).unwrap();
        let figures = throttle.snapshot();
        assert_eq!((figures.requests, figures.accepts), (10, 1), "{window:?}");
    }
    advance(Duration::from_secs(500)).await;
    assert_eq!(throttle.snapshot().requests, 10);
    advance(Duration::from_secs(100)).await;
    assert_eq!(throttle.snapshot().requests, 0);
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_key() {
    let good = ThrottleSettings::default();
    let bad = [
        ("throttle.k", ThrottleSettings { k: 0.9, ..good.clone() }),
        (
            "throttle.k",
            ThrottleSettings {
                k: f64::NAN,
                ..good.clone()
            },
        ),
        (
            "throttle.k",
            ThrottleSettings {
                k: f64::INFINITY,
                ..good.clone()
            },
        ),
        (
            "throttle.window",
            ThrottleSettings {
                window: Duration::ZERO,
                ..good.clone()
            },
        ),
        (
            "throttle.window",
            ThrottleSettings {
                window: Duration::MAX,
                ..good.clone()
            },
        ),
        (
            "throttle.max_reject",
            ThrottleSettings {
                max_reject: 0.0,
                ..good.clone()
            },
        ),
        (
            "throttle.max_reject",
            ThrottleSettings {
                max_reject: 1.1,
                ..good.clone()
            },
        ),
        (
            "throttle.max_reject",
            ThrottleSettings {
                max_reject: f64::NAN,
                ..good.clone()
            },
        ),
        (
            "throttle.min_per_sec",
            ThrottleSettings {
                min_per_sec: -1.0,
                ..good.clone()
            },
        ),
        (
            "throttle.min_per_sec",
            ThrottleSettings {
                min_per_sec: f64::NAN,
                ..good.clone()
            },
        ),
    ];
    for (key, settings) in bad {
        let error = Throttle::new("throttle", settings.clone()).unwrap_err();
        assert_eq!(error.key, key, "{settings:?}");
    }
    assert!(Throttle::new("throttle", good).is_ok());
    let read: ThrottleSettings = toml::from_str("k = 1.5\nwindow = \"1m\"").unwrap();
    let expected = ThrottleSettings {
        k: 1.5,
        window: Duration::from_secs(60),
        ..ThrottleSettings::default()
    };
    assert_eq!(read, expected);
}
