//! Reloads: every setting of a policy can change while it is in use, what its parts know is kept, a refused reload changes
//! nothing, and nobody who is inside meanwhile is lost.

#[path = "support/whole_policy.rs"]
mod whole_policy;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use resilience::{
    AdaptiveSettings, BreakerSettings, Budget, BudgetSettings, BulkheadSettings, Error, HedgeSettings, Jitter, Part,
    Pipeline, PipelineSettings, RateLimitSettings, Retry, RetrySettings, State, ThrottleSettings, TimeoutSettings,
};
use tokio::time::{Instant, sleep};

use whole_policy::{all, from_text, secs};

#[tokio::test(start_paused = true)]
async fn every_setting_can_change_and_holds_for_the_calls_that_come() {
    let policy = Pipeline::from_settings("x", all()).build().unwrap();
    let other = PipelineSettings {
        timeout: TimeoutSettings {
            total: Some(secs(8)),
            attempt: Some(secs(2)),
        },
        bulkhead: Some(BulkheadSettings {
            limit: 7,
            queue: 3,
            max_wait: Some(secs(1)),
        }),
        retry: Some(RetrySettings {
            max: 5,
            base: Duration::from_millis(10),
            cap: Duration::from_millis(10),
            jitter: Jitter::None,
            budget: Some(BudgetSettings {
                ratio: 0.75,
                min_per_sec: 9.0,
                tokens: None,
            }),
            ..RetrySettings::default()
        }),
        hedge: Some(HedgeSettings {
            delay: secs(1),
            quantile: None,
            max: 3,
        }),
        throttle: Some(ThrottleSettings {
            k: 3.0,
            ..ThrottleSettings::default()
        }),
        breaker: Some(BreakerSettings {
            min_calls: 3,
            failure_ratio: 1.0,
            ..BreakerSettings::default()
        }),
        rate_limit: Some(RateLimitSettings {
            limit: 10,
            burst: Some(4),
            ..RateLimitSettings::default()
        }),
        concurrency_limit: Some(AdaptiveSettings {
            max: 15,
            min: 1,
            initial: 15,
            ..AdaptiveSettings::default()
        }),
        ..all()
    };
    policy.reload(other.clone()).unwrap();
    assert_eq!(policy.settings(), other);
    let snapshot = policy.snapshot();
    assert_eq!(
        (snapshot.total_timeout_seconds, snapshot.attempt_timeout_seconds),
        (Some(8.0), Some(2.0))
    );
    assert_eq!(snapshot.bulkhead.unwrap().limit, 7);
    assert!((snapshot.retry.unwrap().budget.unwrap().limit_ratio - 0.75).abs() < 1e-9);
    assert!((snapshot.hedge.unwrap().delay_seconds - 1.0).abs() < 1e-9);
    assert_eq!(Some(snapshot.breaker.unwrap().settings), other.breaker);
    assert_eq!(snapshot.rate_limit.unwrap().burst, 4);
    assert_eq!(snapshot.concurrency_limit.unwrap().limit, 15);
    // Hedges after one and two seconds; each attempt ends after two, the call after eight.
    let began = Instant::now();
    let error = policy
        .call(|_| std::future::pending::<Result<(), ()>>())
        .await
        .unwrap_err();
    assert!(error.is_timeout() || error.is_rejected(), "{error:?}");
    assert!(began.elapsed() <= secs(8), "{:?}", began.elapsed());
    assert!(policy.snapshot().hedge.unwrap().hedges >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_the_parts_know() {
    let settings = PipelineSettings {
        retry: Some(RetrySettings {
            max: 1,
            budget: Some(BudgetSettings {
                ratio: 0.1,
                min_per_sec: 0.0,
                tokens: None,
            }),
            ..RetrySettings::default()
        }),
        hedge: None,
        throttle: None,
        concurrency_limit: None,
        breaker: Some(BreakerSettings {
            min_calls: 10,
            ..BreakerSettings::default()
        }),
        rate_limit: Some(RateLimitSettings {
            limit: 20,
            per: secs(60),
            ..RateLimitSettings::default()
        }),
        ..all()
    };
    let policy = Pipeline::from_settings("x", settings.clone()).build().unwrap();
    for _ in 0..10 {
        let _ = policy.call(|_| async { Err::<(), ()>(()) }).await;
    }
    let before = policy.snapshot();
    assert_eq!(before.breaker.as_ref().unwrap().state, State::Open);
    // One who is inside while the settings change.
    let held = policy.clone();
    policy.breaker().unwrap().force_closed();
    let inside = tokio::spawn(async move {
        held.call(|_| async {
            sleep(secs(5)).await;
            Ok::<_, ()>(())
        })
        .await
    });
    tokio::task::yield_now().await;
    policy.breaker().unwrap().release();
    let mut other = settings;
    other.bulkhead = Some(BulkheadSettings {
        limit: 1,
        queue: 0,
        max_wait: None,
    });
    other.rate_limit.as_mut().unwrap().limit = 40;
    other.retry.as_mut().unwrap().max = 9;
    other.timeout.total = Some(secs(20));
    policy.reload(other).unwrap();
    let after = policy.snapshot();
    assert_eq!(after.bulkhead.unwrap().in_flight, 1);
    let (kept, counted) = (after.retry.unwrap(), before.retry.unwrap());
    assert_eq!(kept.retries, counted.retries);
    assert_eq!(kept.budget.unwrap().exhausted, counted.budget.unwrap().exhausted);
    assert_eq!(
        after.breaker.unwrap().calls.failure,
        before.breaker.unwrap().calls.failure
    );
    assert!(after.rate_limit.unwrap().available < 40);
    let refused = policy.call(|_| async { Ok::<_, ()>(()) }).await.unwrap_err();
    assert!(refused.is_rejected(), "the one place is taken: {refused:?}");
    assert!(inside.await.unwrap().is_ok(), "who is inside goes on as before");
    assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 0);
}

/// A policy without a budget may be given one, and the other way round; one that is shared is nobody's to change.
#[tokio::test(start_paused = true)]
async fn a_reload_may_give_and_take_a_budget_but_leaves_a_shared_one_alone() {
    let with = |ratio| RetrySettings {
        max: 1,
        budget: Some(BudgetSettings {
            ratio,
            min_per_sec: 0.0,
            tokens: None,
        }),
        ..RetrySettings::default()
    };
    let settings = |retry| PipelineSettings {
        retry: Some(retry),
        ..PipelineSettings::default()
    };
    let attempts = AtomicU64::new(0);
    let hundred = async |policy: &Pipeline| {
        attempts.store(0, Ordering::Relaxed);
        for _ in 0..100 {
            let _ = policy
                .call(|_| async {
                    attempts.fetch_add(1, Ordering::Relaxed);
                    Err::<(), ()>(())
                })
                .await;
        }
        attempts.load(Ordering::Relaxed)
    };
    let policy = Pipeline::from_settings(
        "x",
        settings(RetrySettings {
            budget: None,
            ..with(0.0)
        }),
    )
    .build()
    .unwrap();
    assert_eq!(
        (hundred(&policy).await, policy.snapshot().retry.unwrap().budget),
        (200, None)
    );
    policy.reload(settings(with(0.1))).unwrap();
    assert_eq!(hundred(&policy).await, 110);
    policy
        .reload(settings(RetrySettings {
            budget: None,
            ..with(0.0)
        }))
        .unwrap();
    assert_eq!(hundred(&policy).await, 200);

    let shared = Budget::new(0.5, 0.0);
    let policy = Pipeline::builder("x")
        .retry(Retry::from(with(0.1)).budget(shared.clone()))
        .build()
        .unwrap();
    policy.reload(policy.settings()).unwrap();
    policy
        .reload(settings(RetrySettings {
            budget: None,
            ..with(0.0)
        }))
        .unwrap();
    assert!(
        (shared.snapshot().limit_ratio - 0.5).abs() < 1e-9,
        "{:?}",
        shared.snapshot()
    );
    assert_eq!(hundred(&policy).await, 150);
}

#[test]
fn parts_and_their_order_stay_as_they_were_built() {
    type Change = fn(&mut PipelineSettings);
    let policy = Pipeline::from_settings(
        "x",
        PipelineSettings {
            timeout: TimeoutSettings::default(),
            ..all()
        },
    )
    .build()
    .unwrap();
    let cases: &[(&str, Change)] = &[
        ("retry", |s| s.retry = None),
        ("bulkhead", |s| s.bulkhead = None),
        ("hedge", |s| s.hedge = None),
        ("gate", |s| s.gate = false),
        ("throttle", |s| s.throttle = None),
        ("rate_limit", |s| s.rate_limit = None),
        ("concurrency_limit", |s| s.concurrency_limit = None),
        ("timeout.attempt", |s| s.timeout.attempt = Some(secs(1))),
        ("order", |s| {
            let mut order: Vec<Part> = Part::STANDARD
                .into_iter()
                .filter(|part| *part != Part::AttemptTimeout)
                .collect();
            order.swap(2, 3);
            s.order = Some(order);
        }),
    ];
    for (key, change) in cases {
        let before = policy.settings();
        let mut settings = before.clone();
        change(&mut settings);
        assert_eq!(policy.reload(settings).unwrap_err().key, *key);
        assert_eq!(policy.settings(), before);
    }
    // The same order in words, and a limit for the whole call, which every policy has room for.
    let mut settings = policy.settings();
    settings.timeout.total = Some(secs(3));
    settings.order = Some(policy.parts().collect());
    policy.reload(settings).unwrap();
    assert_eq!(policy.snapshot().total_timeout_seconds, Some(3.0));
}

#[test]
fn a_reload_takes_text_and_a_refused_one_changes_nothing() {
    let policy = from_text("retry = { max = 1 }\nbreaker = {}\nbulkhead = { limit = 5 }").unwrap();
    let text = |body: &str| format!("[policy.x]\n{body}\n[policy.other]\nretry = {{}}");
    policy
        .reload_toml(&text(
            "retry = { max = 3 }\nbreaker = { min_calls = 7 }\nbulkhead = { limit = 6 }",
        ))
        .unwrap();
    let now = policy.settings();
    assert_eq!(
        (now.retry.as_ref().unwrap().max, now.bulkhead.as_ref().unwrap().limit),
        (3, 6)
    );
    for bad in [
        "retry = { max = 9 }\nbreaker = { min_calls = 0 }\nbulkhead = { limit = 9 }",
        "retry = { max = 9 }\nbreaker = {}\nbulkhead = { limit = 9, que = 1 }",
        "retry = { max = 9 }\nbreaker = {}",
        "= nonsense",
    ] {
        assert!(policy.reload_toml(&text(bad)).is_err(), "{bad}");
        assert_eq!(policy.settings(), now, "{bad}");
    }
}

/// Threads of their own, so time is real; nothing here depends on it.
#[test]
fn reloads_under_load_lose_nothing() {
    const THREADS: u64 = 4;
    const CALLS: u64 = 500;
    let settings = |fast: bool| PipelineSettings {
        timeout: TimeoutSettings {
            total: Some(secs(if fast { 50 } else { 60 })),
            attempt: Some(secs(20)),
        },
        bulkhead: Some(BulkheadSettings {
            limit: if fast { 1 } else { 4 },
            queue: 100,
            max_wait: None,
        }),
        retry: Some(RetrySettings {
            max: if fast { 1 } else { 2 },
            base: Duration::from_micros(10),
            cap: Duration::from_micros(20),
            jitter: Jitter::None,
            budget: if fast { None } else { Some(BudgetSettings::default()) },
            ..RetrySettings::default()
        }),
        throttle: Some(ThrottleSettings {
            k: if fast { 1e6 } else { 2e6 },
            ..ThrottleSettings::default()
        }),
        breaker: Some(BreakerSettings {
            min_calls: 1_000_000_000,
            last_calls: None,
            window: secs(if fast { 40 } else { 50 }),
            ..BreakerSettings::default()
        }),
        rate_limit: Some(RateLimitSettings {
            limit: if fast { 1_000_000 } else { 900_000 },
            ..RateLimitSettings::default()
        }),
        concurrency_limit: Some(AdaptiveSettings {
            max: if fast { 150 } else { 200 },
            ..AdaptiveSettings::default()
        }),
        ..PipelineSettings::default()
    };
    let policy = Pipeline::from_settings("x", settings(true)).build().unwrap();
    let (attempts, good, bad, running) = (
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(0),
        AtomicU64::new(THREADS),
    );
    let mut reloads = 0_u64;
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    for _ in 0..CALLS {
                        let result = policy
                            .call(|_| async {
                                let number = attempts.fetch_add(1, Ordering::Relaxed);
                                tokio::task::yield_now().await;
                                if number % 10 == 0 { Err(()) } else { Ok(()) }
                            })
                            .await;
                        match result {
                            Ok(()) => good.fetch_add(1, Ordering::Relaxed),
                            Err(Error::Inner(())) => bad.fetch_add(1, Ordering::Relaxed),
                            Err(other) => panic!("{other:?}"),
                        };
                    }
                });
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while running.load(Ordering::Relaxed) > 0 {
            policy.reload(settings(reloads % 2 == 0)).unwrap();
            reloads += 1;
        }
    });
    let snapshot = policy.snapshot();
    let attempts = attempts.into_inner();
    let (breaker, retry) = (snapshot.breaker.unwrap(), snapshot.retry.unwrap());
    let retries: u64 = retry.retries.iter().map(|(_, made)| made).sum();
    assert_eq!(
        good.into_inner() + bad.into_inner(),
        THREADS * CALLS,
        "after {reloads} reloads"
    );
    assert_eq!(attempts, THREADS * CALLS + retries);
    assert_eq!(breaker.calls.success + breaker.calls.failure, attempts);
    assert_eq!(snapshot.throttle.unwrap().requests, attempts);
    let bulkhead = snapshot.bulkhead.unwrap();
    assert_eq!((bulkhead.in_flight, bulkhead.queued, bulkhead.rejected), (0, 0, 0));
    assert_eq!(snapshot.concurrency_limit.unwrap().in_flight, 0);
}
