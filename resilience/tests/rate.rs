//! Rate limits as their users see them, under a paused clock. The table of cycles is in the spirit of resilience4j's
//! `AtomicRateLimiterTest`, with the difference that calls come back one by one and not in cycles.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilience::{By, KeyedRateLimit, KeyedRateLimitSettings, RateLimit, RateLimitSettings};
use tokio::time::{Instant, advance};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// `limit` calls a second, `burst` at once, `max_wait` milliseconds of waiting.
fn limit(limit: u32, burst: u32, max_wait: u64) -> RateLimit {
    RateLimit::new("limit", settings(limit, burst, max_wait)).unwrap()
}

fn settings(limit: u32, burst: u32, max_wait: u64) -> RateLimitSettings {
    RateLimitSettings {
        limit,
        per: Duration::from_secs(1),
        burst: Some(burst),
        max_wait: millis(max_wait),
    }
}

/// What one call is told: the wait before it goes on, or the time after which it would have.
async fn ask(limit: &RateLimit) -> Result<u128, u128> {
    match limit.reserve(1) {
        Ok(place) => {
            let wait = place.wait();
            if wait.is_zero() {
                place.ready().await;
            } else {
                // It is kept, and nobody waits for it.
                std::mem::forget(place);
            }
            Ok(wait.as_millis())
        }
        Err(rejected) => Err(rejected.retry_after.unwrap().as_millis()),
    }
}

#[tokio::test(start_paused = true)]
async fn what_calls_are_told_at_each_moment() {
    /// A moment, and what a call is told there: all in milliseconds.
    type Call = (u64, Result<u128, u128>);
    let table: [(&str, RateLimit, &[Call]); 5] = [
        (
            "one every 250 ms, refused at once",
            limit(4, 1, 0),
            &[
                (0, Ok(0)),
                (0, Err(250)),
                (100, Err(150)),
                (249, Err(1)),
                (250, Ok(0)),
                (250, Err(250)),
                (500, Ok(0)),
            ],
        ),
        (
            "one may wait for the next turn, the second behind it may not",
            limit(4, 1, 250),
            &[
                (0, Ok(0)),
                (0, Ok(250)),
                (0, Err(500)),
                (250, Ok(250)),
                (1000, Ok(0)),
                (1000, Ok(250)),
            ],
        ),
        (
            "a burst of three comes back one by one",
            limit(10, 3, 0),
            &[
                (0, Ok(0)),
                (0, Ok(0)),
                (0, Ok(0)),
                (0, Err(100)),
                (100, Ok(0)),
                (100, Err(100)),
                (300, Ok(0)),
                (300, Ok(0)),
                (300, Err(100)),
            ],
        ),
        (
            "quiet cycles save up one burst and no more",
            limit(4, 2, 0),
            &[(0, Ok(0)), (10_000, Ok(0)), (10_000, Ok(0)), (10_000, Err(250))],
        ),
        (
            "reserved upfront, as far as the wait allows",
            limit(10, 3, 120),
            &[
                (0, Ok(0)),
                (0, Ok(0)),
                (0, Ok(0)),
                (1, Ok(99)),
                (1, Err(199)),
                (81, Ok(119)),
                (82, Err(218)),
            ],
        ),
    ];
    for (name, limit, calls) in table {
        let began = Instant::now();
        for (number, (at, told)) in calls.iter().enumerate() {
            advance(millis(*at).saturating_sub(began.elapsed())).await;
            assert_eq!(ask(&limit).await, *told, "{name}: call {number} at {at} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_exactly_as_long_as_it_was_told_and_refusals_name_the_limit() {
    let limit = limit(10, 1, 150);
    let began = Instant::now();
    limit.acquire().await.unwrap();
    limit.acquire().await.unwrap();
    limit.acquire().await.unwrap();
    assert_eq!(began.elapsed(), millis(200));
    let refused = limit.try_acquire().unwrap_err();
    assert_eq!((refused.by, &*refused.name), (By::RateLimit, "limit"));
    assert_eq!(refused.retry_after, Some(millis(100)));
    assert_eq!(limit.snapshot().rejected, 1);
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_go_on_in_their_order_one_interval_apart() {
    let limit = limit(10, 1, 10_000);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let limit = limit.clone();
        tasks.push(tokio::spawn(async move {
            limit.acquire().await.unwrap();
            began.elapsed()
        }));
        tokio::task::yield_now().await;
    }
    for (number, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), millis(100 * number as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_gives_its_place_back_if_it_was_the_last() {
    let limit = limit(10, 1, 10_000);
    limit.try_acquire().unwrap();
    let cut_off = tokio::time::timeout(millis(30), limit.acquire()).await;
    assert!(cut_off.is_err());
    assert_eq!(limit.reserve(1).unwrap().wait(), millis(70), "as if nobody had waited");
}

#[tokio::test(start_paused = true)]
async fn a_place_with_somebody_behind_it_is_lost_so_that_no_two_calls_share_a_moment() {
    let limit = limit(10, 1, 10_000);
    limit.try_acquire().unwrap();
    let (first, second) = (limit.reserve(1).unwrap(), limit.reserve(1).unwrap());
    drop(first);
    assert_eq!(second.wait(), millis(200), "it keeps its moment");
    let third = limit.reserve(1).unwrap();
    assert_eq!(third.wait(), millis(300));
    // From the end they are all given back.
    drop(third);
    drop(second);
    assert_eq!(limit.reserve(1).unwrap().wait(), millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_place_that_was_used_does_not_come_back() {
    let limit = limit(10, 2, 0);
    limit.reserve(1).unwrap().ready().await;
    assert_eq!(limit.snapshot().available, 1);
    drop(limit.reserve(1).unwrap());
    assert_eq!(limit.snapshot().available, 1, "this one was not");
}

#[tokio::test(start_paused = true)]
async fn several_calls_go_on_together_or_never() {
    let limit = limit(10, 5, 1_000);
    limit.reserve(4).unwrap().ready().await;
    assert_eq!(limit.reserve(3).unwrap().wait(), millis(200));
    let never = limit.reserve(6).unwrap_err();
    assert_eq!(never.retry_after, None, "more than the burst never fit");
    assert!(limit.reserve(0).unwrap().wait().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_used() {
    let limit = limit(10, 10, 0);
    for _ in 0..8 {
        limit.try_acquire().unwrap();
    }
    limit.reload(settings(1000, 10, 0)).unwrap();
    assert_eq!(
        limit.snapshot().available,
        2,
        "eight of ten are used under the new rate too"
    );
    limit.try_acquire().unwrap();
    limit.try_acquire().unwrap();
    assert_eq!(limit.try_acquire().unwrap_err().retry_after, Some(millis(1)));
    limit.reload(settings(1, 1, 0)).unwrap();
    assert!(limit.try_acquire().is_err());
    assert!(limit.reload(settings(0, 1, 0)).is_err());
    assert!(
        (limit.snapshot().per_second - 1.0).abs() < 1e-9,
        "a refused reload changes nothing"
    );
}

#[test]
fn threads_get_the_burst_and_not_one_call_more() {
    let settings = RateLimitSettings {
        limit: 1,
        per: Duration::from_secs(86_400),
        burst: Some(1_000),
        max_wait: Duration::ZERO,
    };
    let limit = RateLimit::new("limit", settings).unwrap();
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1_000 {
                    passed.fetch_add(u64::from(limit.try_acquire().is_ok()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 1_000);
    assert_eq!(limit.snapshot().rejected, 7_000);
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_key() {
    let good = RateLimitSettings::default();
    let year = Duration::from_secs(366 * 86_400);
    let bad = [
        (
            "rate_limit.limit",
            RateLimitSettings {
                limit: 0,
                ..good.clone()
            },
        ),
        (
            "rate_limit.per",
            RateLimitSettings {
                per: Duration::ZERO,
                ..good.clone()
            },
        ),
        (
            "rate_limit.per",
            RateLimitSettings {
                per: year,
                ..good.clone()
            },
        ),
        (
            "rate_limit.burst",
            RateLimitSettings {
                burst: Some(0),
                ..good.clone()
            },
        ),
        (
            "rate_limit.limit",
            RateLimitSettings {
                limit: 1_001,
                per: Duration::from_micros(1),
                ..good.clone()
            },
        ),
        (
            "rate_limit.burst",
            RateLimitSettings {
                limit: 1,
                burst: Some(u32::MAX),
                ..good.clone()
            },
        ),
        (
            "rate_limit.max_wait",
            RateLimitSettings {
                max_wait: Duration::MAX,
                ..good.clone()
            },
        ),
    ];
    for (key, settings) in bad {
        let error = RateLimit::new("limit", settings.clone()).unwrap_err();
        assert_eq!((&*error.name, &*error.key), ("limit", key), "{settings:?}");
    }
    assert!(RateLimit::new("limit", good).is_ok());
    let no_keys = KeyedRateLimitSettings {
        max_keys: 0,
        ..KeyedRateLimitSettings::default()
    };
    assert_eq!(no_keys.check("limit").unwrap_err().key, "rate_limit.max_keys");
}

#[test]
fn settings_are_read_as_they_are_written_in_toml() {
    let read: RateLimitSettings = toml::from_str("limit = 50\nper = \"1m\"\nburst = 10\nmax_wait = \"100ms\"").unwrap();
    let expected = RateLimitSettings {
        limit: 50,
        per: Duration::from_secs(60),
        burst: Some(10),
        max_wait: millis(100),
    };
    assert_eq!(read, expected);
    assert!(toml::from_str::<RateLimitSettings>("rate = 5").is_err());
}

/// One call a second for every key, one at once.
fn keyed(max_keys: usize) -> KeyedRateLimit<String> {
    KeyedRateLimit::new("clients", keyed_settings(1, max_keys)).unwrap()
}

fn keyed_settings(limit: u32, max_keys: usize) -> KeyedRateLimitSettings {
    KeyedRateLimitSettings {
        limit,
        per: Duration::from_secs(1),
        burst: Some(1),
        max_keys,
    }
}

#[tokio::test(start_paused = true)]
async fn keys_do_not_take_from_each_other() {
    let limit = keyed(10);
    for client in ["a", "b", "c"] {
        assert!(limit.try_acquire(client).is_ok());
        let refused = limit.try_acquire(client).unwrap_err();
        assert_eq!(refused.retry_after, Some(Duration::from_secs(1)));
    }
    advance(millis(400)).await;
    assert_eq!(limit.try_acquire("b").unwrap_err().retry_after, Some(millis(600)));
    let figures = limit.snapshot();
    assert_eq!((figures.keys, figures.keys_in_use, figures.rejected), (3, 3, 4));
}

#[tokio::test(start_paused = true)]
async fn many_made_up_keys_take_no_memory_and_nobody_elses_place() {
    let limit = keyed(100);
    assert!(limit.try_acquire("honest").is_ok());
    let mut passed = 0;
    for number in 0..10_000 {
        passed += u32::from(limit.try_acquire(&format!("made up {number}")).is_ok());
    }
    // The 99 that fit, and the one call of the bucket that all others share.
    assert_eq!(passed, 100);
    let figures = limit.snapshot();
    assert_eq!(
        (figures.keys, figures.overflowed, figures.rejected),
        (100, 9_901, 9_900)
    );
    assert!(
        limit.try_acquire("honest").is_err(),
        "it was not forgotten, or it would start afresh"
    );
    advance(millis(1_000)).await;
    for number in 0..50 {
        let _ = limit.try_acquire(&format!("made up later {number}"));
    }
    assert!(limit.try_acquire("honest").is_ok(), "it is served as ever");
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_not_in_use_go_first_and_those_in_use_stay() {
    let limit = keyed(4);
    for client in ["a", "b", "c", "d"] {
        limit.try_acquire(client).unwrap();
    }
    advance(millis(1_000)).await;
    // Used again, so it is not the one to go although it came first.
    limit.try_acquire("a").unwrap();
    for client in ["e", "f", "g"] {
        limit.try_acquire(client).unwrap();
    }
    let figures = limit.snapshot();
    assert_eq!((figures.keys, figures.overflowed), (4, 0));
    assert!(limit.try_acquire("a").is_err(), "it is remembered");
    // Now all are in use: a new one gets what the shared bucket has.
    assert!(limit.try_acquire("h").is_ok());
    assert!(limit.try_acquire("i").is_err());
    assert_eq!(limit.snapshot().overflowed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_large_limit_is_sharded_and_still_bounded() {
    let limit: KeyedRateLimit<u64> = KeyedRateLimit::new("clients", keyed_settings(1, 1_600)).unwrap();
    for key in 0..20_000_u64 {
        let _ = limit.try_acquire(&key);
    }
    assert_eq!(limit.snapshot().keys, 1_600);
    advance(millis(1_000)).await;
    for key in 0..100_u64 {
        assert!(limit.try_acquire(&(1_000_000 + key)).is_ok());
    }
    let figures = limit.snapshot();
    assert_eq!(figures.keys_in_use, 100);
    assert!(
        figures.keys < 1_600,
        "idle keys are forgotten as new ones come: {}",
        figures.keys
    );
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_every_key() {
    let limit = keyed(10);
    limit.try_acquire("a").unwrap();
    limit.reload(keyed_settings(10, 1)).unwrap();
    assert_eq!(limit.try_acquire("a").unwrap_err().retry_after, Some(millis(100)));
    assert!(
        limit.try_acquire("b").is_ok(),
        "the shared bucket, for there is room for one"
    );
    assert_eq!(limit.snapshot().overflowed, 1);
    advance(millis(100)).await;
    assert!(limit.try_acquire("c").is_ok());
    let figures = limit.snapshot();
    assert_eq!((figures.keys, figures.overflowed), (1, 1), "a made room");
    assert!(limit.reload(keyed_settings(0, 1)).is_err());
}
