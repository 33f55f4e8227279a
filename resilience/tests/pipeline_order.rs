//! The order of a policy's parts: what another order means, which ones are refused, the gate, and what a policy warns of
//! when it is built and when it runs inside another one.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fmt::Debug;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{
    AdaptiveSettings, Attempt, Breaker, BreakerSettings, Budget, BulkheadSettings, By, Error, HedgeSettings, Jitter,
    Part, Pipeline, PipelineBuilder, PipelineSettings, RateLimitSettings, Retry, RetrySettings, Scope,
    ThrottleSettings, TimeoutSettings,
};
use tokio::time::{Instant, sleep};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn parts(policy: &Pipeline) -> Vec<&'static str> {
    // Faults are always there in these tests and say nothing.
    policy
        .parts()
        .map(Part::as_str)
        .filter(|part| *part != "faults")
        .collect()
}

/// Two retries after exactly 100 and 200 ms.
fn retry() -> Retry {
    Retry::default()
        .max(2)
        .jitter(Jitter::None)
        .backoff(millis(100), secs(1))
        .without_budget()
}

/// Counts but does not open.
fn patient() -> resilience::BreakerBuilder {
    Breaker::builder("p").min_calls(1_000_000)
}

async fn fails(_: Attempt) -> Result<(), ()> {
    Err(())
}

fn everything() -> PipelineBuilder {
    Pipeline::standard("p")
        .gate()
        .hedge(HedgeSettings::default())
        .throttle(ThrottleSettings::default())
        .rate_limit(RateLimitSettings {
            per: secs(1_000),
            ..RateLimitSettings::default()
        })
        .concurrency_limit(AdaptiveSettings::default())
}

#[tokio::test(start_paused = true)]
async fn all_parts_stand_in_their_order_and_work_together() {
    let policy = everything().build().unwrap();
    let all = [
        "deadline",
        "gate",
        "bulkhead",
        "retry",
        "hedge",
        "throttle",
        "breaker",
        "rate_limit",
        "concurrency_limit",
        "attempt_timeout",
    ];
    assert_eq!(parts(&policy), all);
    assert!(policy.warnings().is_empty(), "{:?}", policy.warnings());
    let answer = policy
        .call(|attempt| async move {
            assert_eq!(attempt.timeout(), Some(secs(10)));
            sleep(millis(5)).await;
            if attempt.number() == 1 {
                Err(())
            } else {
                Ok(attempt.number())
            }
        })
        .await;
    assert_eq!(answer.unwrap(), 2);
    let snapshot = policy.snapshot();
    let calls = snapshot.breaker.unwrap().calls;
    assert_eq!((calls.success, calls.failure), (1, 1));
    assert_eq!(snapshot.throttle.unwrap().requests, 2);
    assert_eq!(snapshot.rate_limit.unwrap().available, 98);
    assert_eq!(
        (
            snapshot.bulkhead.unwrap().in_flight,
            snapshot.concurrency_limit.unwrap().in_flight
        ),
        (0, 0)
    );
    assert_eq!(snapshot.hedge.unwrap().hedges, 0);
    assert!(snapshot.retry.unwrap().retries.contains(&("transient", 1)));
    assert_eq!(parts(&Pipeline::builder("p").build().unwrap()), ["deadline"]);
}

/// Every call fails three times; how often a part sees that depends on its place.
#[tokio::test(start_paused = true)]
async fn what_stands_inside_the_retry_sees_every_attempt_and_what_stands_outside_every_call() {
    use Part::{Breaker as B, Bulkhead as P, Deadline as D, RateLimit as L, Retry as R, Throttle as T};
    for (order, failures, requests, used) in [
        (vec![D, P, R, T, B, L], 3, 3, 3),
        (vec![D, B, P, R, T, L], 1, 3, 3),
        (vec![B, T, L, P, R], 1, 1, 1),
        (vec![T, R, B, L, P, D], 3, 1, 3),
        (vec![R, L, D, T, P, B], 3, 3, 3),
        (vec![L, R, D, T, P, B], 3, 3, 1),
    ] {
        let policy = Pipeline::builder("p")
            .retry(retry())
            .breaker(patient())
            .bulkhead(1, 0)
            .throttle(ThrottleSettings::default())
            .rate_limit(RateLimitSettings {
                limit: 10,
                per: secs(1_000),
                ..RateLimitSettings::default()
            })
            .order(order.clone())
            .build()
            .unwrap();
        let began = Instant::now();
        assert_eq!(policy.call(fails).await.unwrap_err().into_inner(), Some(()));
        assert_eq!(began.elapsed(), millis(300), "{order:?}");
        let snapshot = policy.snapshot();
        let counted = (
            snapshot.breaker.unwrap().calls.failure,
            snapshot.throttle.unwrap().requests,
            10 - snapshot.rate_limit.unwrap().available,
        );
        assert_eq!(counted, (failures, requests, used), "{order:?}");
        let names: Vec<&str> = order.iter().map(|part| part.as_str()).collect();
        let expected: Vec<&str> = if order.contains(&D) {
            names
        } else {
            std::iter::once("deadline").chain(names).collect()
        };
        assert_eq!(parts(&policy), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_says_the_order_too() {
    let policy = Pipeline::from_toml(
        r#"
        [policy.p]
        retry = { max = 2, base = "1ms", cap = "1ms" }
        breaker = { min_calls = 1000 }
        bulkhead = { limit = 1 }
        order = ["breaker", "deadline", "retry", "bulkhead"]
        "#,
        "p",
    )
    .unwrap();
    assert_eq!(parts(&policy), ["breaker", "deadline", "retry", "bulkhead"]);
    policy.call(fails).await.unwrap_err();
    assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, 1);
}

#[tokio::test(start_paused = true)]
async fn a_bulkhead_inside_the_retry_is_free_during_the_backoff() {
    for (order, free) in [
        ([Part::Bulkhead, Part::Retry], false),
        ([Part::Retry, Part::Bulkhead], true),
    ] {
        let policy = Pipeline::builder("p")
            .retry(retry())
            .bulkhead(1, 0)
            .order(order)
            .build()
            .unwrap();
        let other = async {
            sleep(millis(50)).await;
            policy.call(|_| async { Ok::<_, ()>(()) }).await.is_ok()
        };
        let (_, entered) = tokio::join!(policy.call(fails), other);
        assert_eq!(entered, free, "{order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_bounds_what_stands_inside_it() {
    let hangs = |_: Attempt| std::future::pending::<Result<(), ()>>();
    // Around the retry an attempt's limit is one for all attempts, and in the breaker's eyes a hung call is cancelled.
    for (order, after, failure, cancelled) in [
        ([Part::Retry, Part::Breaker, Part::AttemptTimeout], 3 * 500 + 300, 3, 0),
        ([Part::Retry, Part::AttemptTimeout, Part::Breaker], 3 * 500 + 300, 0, 3),
        ([Part::AttemptTimeout, Part::Retry, Part::Breaker], 500, 0, 1),
        ([Part::Breaker, Part::AttemptTimeout, Part::Retry], 500, 1, 0),
    ] {
        let policy = Pipeline::builder("p")
            .retry(retry())
            .breaker(patient())
            .attempt_timeout(millis(500))
            .order(order)
            .build()
            .unwrap();
        let began = Instant::now();
        let error = policy.call(hangs).await.unwrap_err();
        assert!(
            matches!(error, Error::Timeout { scope: Scope::Attempt, limit } if limit == millis(500)),
            "{order:?}: {error:?}"
        );
        assert_eq!(began.elapsed(), millis(after), "{order:?}");
        let calls = policy.breaker().unwrap().snapshot().calls;
        assert_eq!((calls.failure, calls.cancelled), (failure, cancelled), "{order:?}");
    }
    // Inside the bulkhead the total limit begins when the call has its place, and says its own length.
    let policy = Pipeline::builder("p")
        .total_timeout(secs(2))
        .bulkhead(1, 1)
        .order([Part::Bulkhead, Part::Deadline])
        .build()
        .unwrap();
    let began = Instant::now();
    let (one, two) = tokio::join!(policy.call(hangs), policy.call(hangs));
    assert_eq!(began.elapsed(), secs(4));
    for error in [one.unwrap_err(), two.unwrap_err()] {
        assert!(
            matches!(error, Error::Timeout { scope: Scope::Total, limit } if limit == secs(2)),
            "{error:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedge_around_the_retry_races_whole_retries() {
    let policy = Pipeline::builder("p")
        .retry(retry())
        .hedge(HedgeSettings {
            delay: millis(250),
            quantile: None,
            max: 1,
        })
        .order([Part::Hedge, Part::Retry])
        .build()
        .unwrap();
    let begun = Mutex::new(Vec::new());
    let began = Instant::now();
    policy
        .call(|attempt| {
            begun.lock().unwrap().push(began.elapsed().as_millis());
            fails(attempt)
        })
        .await
        .unwrap_err();
    assert_eq!(*begun.lock().unwrap(), [0, 100, 250, 300, 350, 550]);
}

#[test]
fn an_order_that_cannot_be_is_refused_and_says_why() {
    let base = || {
        Pipeline::builder("p")
            .retry(retry())
            .breaker(Breaker::builder("p"))
            .bulkhead(1, 0)
    };
    for (order, problem) in [
        (vec![], "leaves out bulkhead"),
        (vec![Part::Bulkhead, Part::Breaker], "leaves out retry"),
        (
            vec![Part::Bulkhead, Part::Retry, Part::Retry, Part::Breaker],
            "names retry twice",
        ),
        (vec![Part::Deadline, Part::Deadline], "names deadline twice"),
        (
            vec![Part::Bulkhead, Part::Retry, Part::Breaker, Part::Throttle],
            "names throttle, which the policy does not have",
        ),
        (
            vec![Part::Bulkhead, Part::Retry, Part::Breaker, Part::Gate],
            "names gate, which the policy does not have",
        ),
        (
            vec![Part::Bulkhead, Part::Retry, Part::Breaker, Part::AttemptTimeout],
            "names attempt_timeout, which the policy does not have",
        ),
    ] {
        let error = base().order(order.clone()).build().unwrap_err();
        assert_eq!((&*error.key, &*error.problem), ("order", problem), "{order:?}");
    }
    let error = base()
        .gate()
        .order([Part::Bulkhead, Part::Retry, Part::Breaker, Part::Gate])
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("order has gate behind breaker"), "{error}");
}

/// Without the gate a call that is going to be refused has taken a place and counts in the budget.
#[tokio::test(start_paused = true)]
async fn behind_a_gate_a_refused_call_has_cost_nothing() {
    for gate in [false, true] {
        let budget = Budget::new(1.0, 0.0);
        let builder = Pipeline::builder("p")
            .retry(retry().budget(budget.clone()))
            .bulkhead(1, 0)
            .breaker(Breaker::builder("p"));
        let policy = if gate { builder.gate() } else { builder }.build().unwrap();
        let inside = policy.clone();
        let inside = tokio::spawn(async move {
            inside
                .call(|_| async {
                    sleep(secs(9)).await;
                    Ok::<_, ()>(())
                })
                .await
        });
        tokio::task::yield_now().await;
        policy.breaker().unwrap().force_open();
        for _ in 0..10 {
            let Error::Rejected(rejected) = policy.call(fails).await.unwrap_err() else {
                panic!("it is open")
            };
            let by = if gate { By::Breaker } else { By::Bulkhead };
            assert_eq!(rejected.by, by, "the only place is taken");
        }
        inside.await.unwrap().unwrap();
        for _ in 0..10 {
            let Error::Rejected(rejected) = policy.call(fails).await.unwrap_err() else {
                panic!("it is open")
            };
            assert_eq!(rejected.by, By::Breaker);
        }
        let bulkhead = policy.snapshot().bulkhead.unwrap();
        assert_eq!((bulkhead.in_flight, bulkhead.rejected), (0, if gate { 0 } else { 10 }));
        let granted = (0..100).filter(|_| budget.try_withdraw()).count();
        assert_eq!(granted, if gate { 1 } else { 11 }, "requests that the budget knows of");
    }
}

#[test]
fn what_is_doubtful_is_a_warning() {
    let breaker = || Some(BreakerSettings::default());
    let quick = || RetrySettings {
        max: 1,
        ..RetrySettings::default()
    };
    let timeout = |total: Option<u64>, attempt: Option<u64>| TimeoutSettings {
        total: total.map(secs),
        attempt: attempt.map(secs),
    };
    let none = PipelineSettings::default;
    for (settings, warnings) in [
        (PipelineSettings::standard(), vec![]),
        (none(), vec![]),
        (
            PipelineSettings {
                breaker: breaker(),
                ..none()
            },
            vec!["breaker without timeout.attempt"],
        ),
        (
            PipelineSettings {
                breaker: breaker(),
                timeout: timeout(None, Some(1)),
                ..none()
            },
            vec![],
        ),
        (
            PipelineSettings {
                breaker: breaker(),
                timeout: timeout(None, Some(1)),
                order: Some(vec![Part::AttemptTimeout, Part::Breaker]),
                ..none()
            },
            vec!["attempt_timeout outside of breaker"],
        ),
        (
            PipelineSettings {
                retry: Some(quick()),
                ..none()
            },
            vec!["retry without timeout.total"],
        ),
        (
            PipelineSettings {
                retry: Some(quick()),
                timeout: timeout(Some(5), Some(4)),
                ..none()
            },
            vec![],
        ),
        (
            PipelineSettings {
                retry: Some(quick()),
                timeout: timeout(Some(5), Some(5)),
                ..none()
            },
            vec!["retry may come to its last attempt after 5.05s, timeout.total is 5s"],
        ),
        (
            PipelineSettings {
                retry: Some(RetrySettings {
                    max: u32::MAX,
                    ..quick()
                }),
                breaker: breaker(),
                timeout: timeout(Some(5), None),
                ..none()
            },
            vec!["breaker without timeout.attempt"],
        ),
        (
            PipelineSettings {
                retry: Some(quick()),
                breaker: breaker(),
                bulkhead: Some(BulkheadSettings::default()),
                ..none()
            },
            vec!["breaker without timeout.attempt", "retry without timeout.total"],
        ),
    ] {
        let policy = Pipeline::from_settings("p", settings.clone()).build().unwrap();
        let said = policy.warnings();
        assert_eq!(said.len(), warnings.len(), "{settings:?}: {said:?}");
        for (said, warning) in said.iter().zip(warnings) {
            assert!(said.starts_with(warning), "{said}");
        }
        assert_eq!(policy.snapshot().warnings, said);
    }
}

#[test]
fn two_retries_in_one_stack_are_a_warning_when_they_are_known() {
    let inner = Pipeline::standard("inner").build().unwrap();
    let outer = |inner: &Pipeline| Pipeline::standard("outer").around(inner).build().unwrap();
    assert_eq!(
        outer(&inner).warnings(),
        ["retry around the policy inner, which retries too: the attempts multiply"]
    );
    let once = Pipeline::standard("inner")
        .retry(Retry::default().max(0))
        .build()
        .unwrap();
    assert!(outer(&once).warnings().is_empty());
    let never = Pipeline::standard("inner").without_retry().build().unwrap();
    assert!(outer(&never).warnings().is_empty());
    assert!(
        Pipeline::standard("outer")
            .without_retry()
            .around(&inner)
            .build()
            .unwrap()
            .warnings()
            .is_empty()
    );
}

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn two_retries_in_one_stack_are_a_warning_when_they_meet() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let inner = Pipeline::standard("inner").build().unwrap();
    let plain = Pipeline::standard("plain").without_retry().build().unwrap();
    let outer = Pipeline::standard("outer").retry(retry().max(1)).build().unwrap();
    let asked = AtomicU32::new(0);
    let nested = |by: Pipeline, within: Pipeline| {
        let asked = &asked;
        async move {
            by.call(|_| {
                let within = within.clone();
                async move {
                    within
                        .call(|_| async {
                            asked.fetch_add(1, Ordering::Relaxed);
                            Err::<(), ()>(())
                        })
                        .await
                }
            })
            .await
            .unwrap_err();
        }
    };
    nested(outer.clone(), plain.clone()).await;
    nested(plain.clone(), inner.clone()).await;
    assert!(
        log.0.lock().unwrap().is_empty(),
        "one of them does not retry: {:?}",
        log.0
    );
    asked.store(0, Ordering::Relaxed);
    nested(outer.clone(), inner.clone()).await;
    nested(outer, inner).await;
    assert_eq!(asked.into_inner(), 2 * 2 * 3, "two tries around three");
    let said = log.0.lock().unwrap();
    assert_eq!(said.len(), 1, "told once: {said:?}");
    assert!(said[0].contains("retries inside a policy that retries"), "{said:?}");
}
