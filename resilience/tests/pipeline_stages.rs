//! Time limits and dropped calls at every stage of a policy: whatever ends a call, wherever it is, gives back all that it
//! held. In the spirit of linkerd2-proxy's `logical/tests/timeouts.rs` and `failure_accrual.rs`, and against a plain
//! sequential model.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use proptest::prelude::*;
use resilience::{
    AdaptiveSettings, AnyError, Attempt, Breaker, BulkheadSettings, By, Deadline, Error, HedgeSettings, Jitter, Kind,
    Part, Pipeline, RateLimitSettings, Retry, Safety, Scope, State, ThrottleSettings, Verdict,
};
use tokio::time::{Instant, advance, sleep, timeout};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn hangs(_: Attempt) -> Result<(), ()> {
    std::future::pending().await
}

async fn good(_: Attempt) -> Result<(), ()> {
    Ok(())
}

fn exactly(retries: u32, wait: u64) -> Retry {
    Retry::default()
        .max(retries)
        .jitter(Jitter::None)
        .backoff(millis(wait), secs(10))
        .without_budget()
}

fn is_total<E>(result: &Result<(), Error<E>>, after: Duration) -> bool {
    matches!(result, Err(Error::Timeout { scope: Scope::Total, limit }) if *limit == after)
}

#[tokio::test(start_paused = true)]
async fn out_of_time_in_the_queue_of_the_bulkhead() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(1))
        .retry(exactly(5, 10))
        .breaker(Breaker::builder("p"))
        .bulkhead(1, 5)
        .build()
        .unwrap();
    let began = Instant::now();
    let first = policy.call(hangs);
    let second = async {
        sleep(millis(300)).await;
        policy.call(good).await
    };
    let third = async {
        sleep(millis(500)).await;
        let result = Deadline::after(millis(200)).scope(policy.call(good)).await;
        (result, began.elapsed(), policy.snapshot().bulkhead.unwrap().queued)
    };
    let (first, second, third) = tokio::join!(first, second, third);
    assert!(is_total(&first, secs(1)), "{first:?}");
    assert!(second.is_ok(), "it has the place of the first: {second:?}");
    assert!(is_total(&third.0, millis(200)), "its caller's deadline: {third:?}");
    assert_eq!((third.1, third.2), (millis(700), 1));
    let snapshot = policy.snapshot();
    let bulkhead = snapshot.bulkhead.unwrap();
    assert_eq!((bulkhead.in_flight, bulkhead.queued, bulkhead.rejected), (0, 0, 0));
    let calls = snapshot.breaker.unwrap().calls;
    assert_eq!(
        (calls.cancelled, calls.success, calls.failure),
        (1, 1, 0),
        "who waited asked nobody"
    );
    assert_eq!(snapshot.total_timeouts, 2);
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_in_the_queue_is_a_refusal() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(1))
        .retry(exactly(5, 10))
        .bulkhead_with(BulkheadSettings {
            limit: 1,
            queue: 1,
            max_wait: Some(millis(400)),
        })
        .build()
        .unwrap();
    let began = Instant::now();
    let (_, second) = tokio::join!(policy.call(hangs), async { (policy.call(good).await, began.elapsed()) });
    assert!(
        matches!(&second.0, Err(Error::Rejected(rejected)) if rejected.by == By::Bulkhead),
        "{second:?}"
    );
    assert_eq!(second.1, millis(400));
    let bulkhead = policy.snapshot().bulkhead.unwrap();
    assert_eq!((bulkhead.in_flight, bulkhead.queued, bulkhead.rejected), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn out_of_time_in_the_wait_of_a_rate_limit() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(20))
        .attempt_timeout(secs(1))
        .breaker(Breaker::builder("p"))
        .concurrency_limit(AdaptiveSettings::default())
        .rate_limit(RateLimitSettings {
            limit: 1,
            per: secs(10),
            burst: None,
            max_wait: secs(15),
        })
        .build()
        .unwrap();
    policy.call(good).await.unwrap();
    let began = Instant::now();
    let late = Deadline::after(secs(4)).scope(policy.call(good)).await;
    assert!(is_total(&late, secs(4)), "{late:?}");
    assert_eq!(began.elapsed(), secs(4));
    // The wait is outside of an attempt's limit, and what was cut off gave its slot back: the next waits 6 s, not 16.
    policy.call(good).await.unwrap();
    assert_eq!(began.elapsed(), secs(10));
    let snapshot = policy.snapshot();
    let calls = snapshot.breaker.unwrap().calls;
    assert_eq!((calls.success, calls.cancelled), (2, 1));
    assert_eq!(snapshot.concurrency_limit.unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn out_of_time_in_an_attempt_and_in_the_last_of_several() {
    let policy = Pipeline::builder("p")
        .total_timeout(millis(2_500))
        .attempt_timeout(secs(1))
        .retry(exactly(9, 100))
        .breaker(Breaker::builder("p"))
        .build()
        .unwrap();
    let begun = RefCell::new(Vec::new());
    let began = Instant::now();
    let result = policy
        .call(|attempt| {
            begun
                .borrow_mut()
                .push((began.elapsed().as_millis(), attempt.timeout().unwrap().as_millis()));
            hangs(attempt)
        })
        .await;
    assert!(is_total(&result, millis(2_500)), "{result:?}");
    assert_eq!(*begun.borrow(), [(0, 1_000), (1_100, 1_000), (2_300, 200)]);
    assert_eq!(began.elapsed(), millis(2_500));
    let calls = policy.breaker().unwrap().snapshot().calls;
    assert_eq!((calls.failure, calls.cancelled), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn of_limits_that_end_together_the_outer_one_is_told() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(1))
        .attempt_timeout(secs(1))
        .retry(exactly(5, 10))
        .breaker(Breaker::builder("p"))
        .build()
        .unwrap();
    let result = policy.call(hangs).await;
    assert!(is_total(&result, secs(1)), "{result:?}");
    assert_eq!(policy.breaker().unwrap().snapshot().calls.cancelled, 1);
}

/// A backoff that would end after the limit is not begun, so nobody is ever out of time in one.
#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_too_late_is_not_begun() {
    // Attempts of 100 ms at 0, 200, 500 and 1000.
    for (total, after, attempts) in [
        (150, 100, 1),
        (200, 100, 1),
        (400, 300, 2),
        (500, 300, 2),
        (601, 600, 3),
        (1_000, 600, 3),
    ] {
        let policy = Pipeline::builder("p")
            .total_timeout(millis(total))
            .retry(exactly(9, 100))
            .build()
            .unwrap();
        let (calls, began) = (Cell::new(0), Instant::now());
        let error = policy
            .call(|_| {
                calls.set(calls.get() + 1);
                async {
                    sleep(millis(100)).await;
                    Err::<(), _>("down")
                }
            })
            .await
            .unwrap_err();
        assert_eq!((began.elapsed(), calls.get()), (millis(after), attempts), "{total}");
        assert_eq!(error.into_inner(), Some("down"), "the failure, not the limit");
    }
}

/// A life with a wait in the bulkhead's queue, an attempt that fails, a backoff, a wait for the rate limit, and an attempt
/// that hangs until its limit; it is dropped after so many milliseconds, at every step of it.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_at_any_moment_gives_back_everything() {
    let step = 25;
    for moment in (0..=2_000).step_by(step) {
        for hedge in [
            None,
            Some(HedgeSettings {
                delay: millis(60),
                quantile: None,
                max: 2,
            }),
        ] {
            let mut settings = resilience::PipelineSettings::standard();
            settings.timeout.total = Some(secs(60));
            settings.timeout.attempt = Some(millis(500));
            settings.hedge = hedge;
            settings.bulkhead = Some(BulkheadSettings {
                limit: 1,
                queue: 1,
                max_wait: None,
            });
            settings.throttle = Some(ThrottleSettings::default());
            settings.concurrency_limit = Some(AdaptiveSettings::default());
            settings.rate_limit = Some(RateLimitSettings {
                limit: 10,
                per: secs(10),
                burst: Some(1),
                max_wait: secs(9),
            });
            let policy = Pipeline::from_settings("p", settings)
                .retry(exactly(2, 100))
                .build()
                .unwrap();
            let inside = Cell::new(0);
            let attempts = Cell::new(0_u64);
            let life = async {
                let result = policy
                    .call(|attempt| {
                        attempts.set(attempts.get() + 1);
                        let inside = &inside;
                        async move {
                            inside.set(inside.get() + 1);
                            let _guard = Leave(inside);
                            if attempt.number() == 1 {
                                sleep(millis(100)).await;
                                return Err::<(), ()>(());
                            }
                            std::future::pending().await
                        }
                    })
                    .await;
                assert!(result.is_err());
            };
            // Not hedged, so that all hedges are those of the call in question.
            let blocker = policy.call_with(Safety::Unsafe, &AnyError, |_| async {
                sleep(millis(200)).await;
                Ok::<_, ()>(())
            });
            let (blocked, _) = tokio::join!(blocker, timeout(millis(moment as u64), life));
            blocked.unwrap();
            let what = format!("dropped after {moment} ms: {:?}", policy.snapshot());
            assert_eq!(inside.get(), 0, "{what}");
            let snapshot = policy.snapshot();
            let bulkhead = snapshot.bulkhead.unwrap();
            assert_eq!((bulkhead.in_flight, bulkhead.queued), (0, 0), "{what}");
            assert_eq!(snapshot.concurrency_limit.unwrap().in_flight, 0, "{what}");
            let calls = snapshot.breaker.unwrap().calls;
            let ended = calls.success + calls.failure + calls.cancelled;
            // Besides the attempts, those who waited for the rate limit when they were dropped.
            assert!((attempts.get() + 1..=attempts.get() + 4).contains(&ended), "{what}");
            assert_eq!(snapshot.throttle.unwrap().requests, ended - calls.cancelled, "{what}");
            // A slot that nobody used is free: the last attempt began a second ago at the latest.
            advance(secs(1)).await;
            assert_eq!(policy.snapshot().rate_limit.unwrap().available, 1, "{what}");
            let began = Instant::now();
            policy.call(good).await.unwrap();
            assert_eq!(began.elapsed(), Duration::ZERO, "{what}");
        }
    }
}

struct Leave<'a>(&'a Cell<u32>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_frees_its_place() {
    let policy = Pipeline::builder("p")
        .attempt_timeout(secs(5))
        .breaker(
            Breaker::builder("p")
                .min_calls(1)
                .half_open(1, secs(60))
                .open(secs(1), secs(1)),
        )
        .build()
        .unwrap();
    policy.call(|_| async { Err::<(), ()>(()) }).await.unwrap_err();
    advance(secs(2)).await;
    assert_eq!(policy.breaker().unwrap().state(), State::HalfOpen);
    assert!(timeout(secs(1), policy.call(hangs)).await.is_err());
    policy.call(good).await.unwrap();
    assert_eq!(policy.breaker().unwrap().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_gives_back_everything() {
    let policy = Pipeline::standard("p")
        .bulkhead(1, 0)
        .throttle(ThrottleSettings::default())
        .concurrency_limit(AdaptiveSettings::default())
        .build()
        .unwrap();
    for at_once in [true, false] {
        let broken = policy.call(|_| {
            assert!(!at_once, "on purpose, while it is made");
            async {
                sleep(millis(10)).await;
                assert!(at_once, "on purpose, while it runs");
                Ok::<_, ()>(())
            }
        });
        assert!(AssertUnwindSafe(broken).catch_unwind().await.is_err());
        let snapshot = policy.snapshot();
        assert_eq!(snapshot.bulkhead.unwrap().in_flight, 0);
        assert_eq!(snapshot.concurrency_limit.unwrap().in_flight, 0);
        assert_eq!(snapshot.throttle.unwrap().requests, 0);
        assert_eq!(snapshot.breaker.unwrap().calls.cancelled, if at_once { 1 } else { 2 });
    }
    policy.call(good).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_never_polled_holds_nothing() {
    let policy = Pipeline::standard("p").bulkhead(1, 0).build().unwrap();
    let idle: Vec<_> = (0..10).map(|_| policy.call(good)).collect();
    policy.call(good).await.unwrap();
    assert_eq!(policy.snapshot().bulkhead.unwrap().rejected, 0);
    drop(idle);
    assert_eq!(policy.breaker().unwrap().snapshot().calls.cancelled, 0);
}

/// How an attempt ends, and after how many milliseconds.
#[derive(Debug, Clone, Copy)]
struct Ends(u64, Option<Kind>);

fn ends() -> impl Strategy<Value = Ends> {
    let kind = prop_oneof![
        3 => Just(Some(Kind::Transient)),
        1 => Just(Some(Kind::Permanent)),
        1 => Just(Some(Kind::NotSent)),
        2 => Just(None),
    ];
    (0..400_u64, kind).prop_map(|(takes, kind)| Ends(takes, kind))
}

fn meaning(result: Result<&(), &Option<Kind>>) -> Verdict {
    match result {
        Err(Some(kind)) => Verdict::Failure(*kind),
        _ => Verdict::Success,
    }
}

#[derive(Debug, PartialEq)]
enum Came {
    Good,
    Bad(Kind),
    AttemptLate,
    TotalLate,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    retries: u32,
    base: u64,
    cap: u64,
    attempt: Option<u64>,
    total: Option<u64>,
}

/// One call, as a person would reckon it: what it comes to, with how many attempts, after how many milliseconds.
fn reckon(limits: Limits, safety: Safety, script: &[Ends]) -> (Came, usize, u64) {
    let total = limits.total.unwrap_or(u64::MAX);
    let mut now = 0;
    for (number, Ends(takes, kind)) in script.iter().copied().enumerate() {
        let limit = limits.attempt.map_or(u64::MAX, |limit| now + limit);
        let came = if now + takes <= limit.min(total) {
            now += takes;
            kind.map_or(Came::Good, Came::Bad)
        } else if total <= limit {
            return (Came::TotalLate, number + 1, total);
        } else {
            now = limit;
            Came::AttemptLate
        };
        let again = match came {
            Came::Bad(Kind::NotSent) => true,
            Came::Bad(Kind::Transient) | Came::AttemptLate => safety == Safety::Idempotent,
            _ => false,
        };
        let wait = (limits.base << number).min(limits.cap);
        if !again || number as u32 == limits.retries || now + wait >= total {
            return (came, number + 1, now);
        }
        now += wait;
    }
    unreachable!()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_one_after_the_other_are_what_one_reckons(
        (retries, base, cap) in (0..5_u32, 1..200_u64, 200..500_u64),
        (attempt, total) in (prop::option::of(1..300_u64), prop::option::of(300..1_500_u64)),
        is_idempotent in any::<bool>(),
        scripts in prop::collection::vec(prop::collection::vec(ends(), 6), 1..4),
    ) {
        let limits = Limits { retries, base, cap, attempt, total };
        let safety = if is_idempotent { Safety::Idempotent } else { Safety::Unsafe };
        let retry = Retry::default().max(retries).jitter(Jitter::None).backoff(millis(base), millis(cap));
        let mut settings = Pipeline::builder("p").retry(retry.without_budget()).bulkhead(1, 0);
        settings = settings.breaker(Breaker::builder("p").min_calls(1_000));
        if let Some(attempt) = attempt {
            settings = settings.attempt_timeout(millis(attempt));
        }
        if let Some(total) = total {
            settings = settings.total_timeout(millis(total));
        }
        let policy = settings.build().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut all = 0;
            for script in &scripts {
                let began = Instant::now();
                let calls = Cell::new(0);
                let result = policy
                    .call_with(safety, &meaning, |attempt| {
                        calls.set(calls.get() + 1);
                        let Ends(takes, kind) = script[attempt.number() as usize - 1];
                        async move {
                            sleep(millis(takes)).await;
                            if kind.is_some() { Err(kind) } else { Ok(()) }
                        }
                    })
                    .await;
                let came = match result {
                    Ok(()) => Came::Good,
                    Err(Error::Inner(kind)) => Came::Bad(kind.unwrap()),
                    Err(Error::Timeout { scope: Scope::Attempt, .. }) => Came::AttemptLate,
                    Err(Error::Timeout { scope: Scope::Total, .. }) => Came::TotalLate,
                    Err(other) => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                let took = u64::try_from(began.elapsed().as_millis()).unwrap();
                prop_assert_eq!((came, calls.get(), took), reckon(limits, safety, script), "{:?} {:?}", limits, script);
                all += calls.get() as u64;
            }
            let calls = policy.breaker().unwrap().snapshot().calls;
            prop_assert_eq!(calls.success + calls.failure + calls.cancelled, all);
            prop_assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 0);
            Ok(())
        })?;
    }
}

/// A policy out of which some parts are left, in any order.
#[derive(Debug, Clone)]
struct Shape {
    parts: Vec<Part>,
    total: u64,
    attempt: u64,
    retries: u32,
    limit: usize,
    queue: usize,
    hedges: u32,
    rate: u32,
}

fn shape() -> impl Strategy<Value = Shape> {
    let all = Part::STANDARD
        .into_iter()
        .filter(|part| !matches!(part, Part::Deadline | Part::Faults))
        .collect::<Vec<_>>();
    let parts = prop::sample::subsequence(all, 0..=9).prop_shuffle();
    (
        parts,
        500..5_000_u64,
        50..400_u64,
        0..4_u32,
        1..4_usize,
        0..4_usize,
        1..4_u32,
        1..20_u32,
    )
        .prop_map(|(mut parts, total, attempt, retries, limit, queue, hedges, rate)| {
            // A gate needs a breaker further in.
            let breaker = parts.iter().position(|part| *part == Part::Breaker);
            let gate = parts.iter().position(|part| *part == Part::Gate);
            match (gate, breaker) {
                (Some(gate), None) => drop(parts.remove(gate)),
                (Some(gate), Some(breaker)) if gate > breaker => parts.swap(gate, breaker),
                _ => {}
            }
            Shape {
                parts,
                total,
                attempt,
                retries,
                limit,
                queue,
                hedges,
                rate,
            }
        })
}

fn build(shape: &Shape) -> Pipeline {
    let mut builder = Pipeline::builder("p")
        .total_timeout(millis(shape.total))
        .order(shape.parts.clone());
    for part in &shape.parts {
        builder = match part {
            Part::Gate => builder.gate(),
            Part::Bulkhead => builder.bulkhead(shape.limit, shape.queue),
            Part::Retry => builder.retry(exactly(shape.retries, 30)),
            Part::Hedge => builder.hedge(HedgeSettings {
                delay: millis(70),
                quantile: None,
                max: shape.hedges,
            }),
            Part::Throttle => builder.throttle(ThrottleSettings {
                min_per_sec: 0.0,
                ..ThrottleSettings::default()
            }),
            Part::Breaker => builder.breaker(Breaker::builder("p").min_calls(5).open(millis(300), secs(1))),
            Part::RateLimit => builder.rate_limit(RateLimitSettings {
                limit: shape.rate,
                per: secs(1),
                burst: Some(2),
                max_wait: millis(400),
            }),
            Part::ConcurrencyLimit => builder.concurrency_limit(AdaptiveSettings {
                min: 1,
                initial: 2,
                max: 4,
                ..AdaptiveSettings::default()
            }),
            Part::AttemptTimeout => builder.attempt_timeout(millis(shape.attempt)),
            Part::Deadline | Part::Faults => builder,
        };
    }
    builder.build().unwrap()
}

/// When a call begins, when it is dropped at the latest, whether it may be repeated, and how its attempts end.
type Caller = (u64, u64, bool, Vec<Ends>);

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_left_inside_and_counts_add_up(
        shape in shape(),
        callers in prop::collection::vec((0..3_000_u64, 0..6_000_u64, any::<bool>(), prop::collection::vec(ends(), 3)), 1..25),
    ) {
        let policy = build(&shape);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (inside, most, attempts) = (Cell::new(0_u32), Cell::new(0_u32), Cell::new(0_u64));
            let has = |part| shape.parts.contains(&part);
            let call = async |(begin, patience, is_idempotent, script): &Caller| {
                sleep(millis(*begin)).await;
                let began = Instant::now();
                let last = Cell::new(0);
                let safety = if *is_idempotent { Safety::Idempotent } else { Safety::Unsafe };
                let call = policy.call_with(safety, &meaning, |attempt| {
                    // Attempts are numbered through, whoever makes them.
                    assert_eq!(attempt.number(), last.replace(attempt.number()) + 1);
                    assert!(attempt.timeout().unwrap() <= millis(shape.total));
                    attempts.set(attempts.get() + 1);
                    inside.set(inside.get() + 1);
                    most.set(most.get().max(inside.get()));
                    let guard = Leave(&inside);
                    let Ends(takes, kind) = script[(attempt.number() as usize - 1) % script.len()];
                    async move {
                        let _guard = guard;
                        sleep(millis(takes)).await;
                        if kind.is_some() { Err(kind) } else { Ok(()) }
                    }
                });
                let result = timeout(millis(*patience), call).await;
                let most = if has(Part::Retry) { shape.retries + 1 } else { 1 } * if has(Part::Hedge) { shape.hedges + 1 } else { 1 };
                assert!(last.get() <= if *is_idempotent { most } else { most.min(shape.retries + 1) });
                if result.is_ok() {
                    assert!(began.elapsed() <= millis(shape.total), "{:?}", began.elapsed());
                }
            };
            join_all(callers.iter().map(call)).await;
            prop_assert_eq!(inside.get(), 0);
            let snapshot = policy.snapshot();
            if let Some(bulkhead) = snapshot.bulkhead {
                prop_assert_eq!((bulkhead.in_flight, bulkhead.queued), (0, 0));
                let place = |wanted| shape.parts.iter().position(|part| *part == wanted);
                // One place is one attempt at a time, unless a hedge races inside it.
                let racers = if place(Part::Hedge) > place(Part::Bulkhead) { shape.hedges + 1 } else { 1 };
                prop_assert!(most.get() as usize <= shape.limit * racers as usize, "{} at one time", most.get());
            }
            if let Some(limit) = snapshot.concurrency_limit {
                prop_assert_eq!(limit.in_flight, 0);
            }
            if let Some(breaker) = snapshot.breaker {
                let calls = breaker.calls;
                let ended = calls.success + calls.failure + calls.slow + calls.ignored + calls.cancelled + calls.stale;
                if shape.parts.last() == Some(&Part::Breaker) {
                    prop_assert_eq!(ended, attempts.get(), "{:?}", calls);
                }
            }
            // Whoever comes later, when everything is past, is let in.
            sleep(secs(3_600)).await;
            let later = policy.call_with(Safety::Unsafe, &meaning, |_| async { Ok(()) }).await;
            let refused_by_chance = matches!(&later, Err(Error::Rejected(rejected)) if rejected.by == By::Throttle);
            prop_assert!(later.is_ok() || refused_by_chance, "{:?}", later);
            Ok(())
        })?;
    }
}
