//! Retry, budget, time limits, bulkhead and deadlines as one pipeline, under a paused clock.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{
    Breaker, Budget, Bulkhead, By, Classify, Deadline, Error, Event, Jitter, Kind, Pipeline, Retry, Safety, Scope,
    State, Verdict,
};
use tokio::time::{Instant, sleep};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("down")]
struct Down;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two retries after exactly 50 and 100 ms, without a budget.
fn plain_retry() -> Retry {
    Retry::default().jitter(Jitter::None).without_budget()
}

/// Fails until call number `good`.
fn fails_until(calls: &Cell<u32>, good: u32) -> Ready<Result<u32, Down>> {
    calls.set(calls.get() + 1);
    ready(if calls.get() < good { Err(Down) } else { Ok(calls.get()) })
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_retried_after_exponential_waits() {
    let policy = Pipeline::builder("p").retry(plain_retry()).build().unwrap();
    let (calls, began) = (Cell::new(0), Instant::now());
    assert_eq!(policy.call(|_| fails_until(&calls, 3)).await.unwrap(), 3);
    assert_eq!(began.elapsed(), millis(150));
    assert!(policy.snapshot().retry.unwrap().retries.contains(&("transient", 2)));
}

#[tokio::test(start_paused = true)]
async fn after_the_last_retry_the_last_error_is_the_answer() {
    let policy = Pipeline::builder("p").retry(plain_retry()).build().unwrap();
    let calls = Cell::new(0);
    let error = policy.call(|_| fails_until(&calls, 99)).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(Down));
    assert_eq!(calls.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn full_jitter_lies_between_nothing_and_the_exponential_wait() {
    let policy = Pipeline::builder("p")
        .retry(Retry::default().max(1).backoff(secs(1), secs(1)).without_budget())
        .build()
        .unwrap();
    let mut waits = Vec::new();
    for _ in 0..200 {
        let (calls, began) = (Cell::new(0), Instant::now());
        policy.call(|_| fails_until(&calls, 2)).await.unwrap();
        waits.push(began.elapsed());
    }
    assert!(waits.iter().all(|wait| *wait <= millis(1002)), "{waits:?}");
    let mean = waits.iter().sum::<Duration>() / 200;
    assert!(
        mean > millis(400) && mean < millis(600),
        "200 uniform waits have a mean of {mean:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_idempotent_is_repeated_only_if_it_was_not_sent() {
    let policy = Pipeline::builder("p").retry(plain_retry()).build().unwrap();
    for (kind, attempts) in [
        (Kind::Transient, 1),
        (Kind::Timeout, 1),
        (Kind::Permanent, 1),
        (Kind::NotSent, 3),
    ] {
        let calls = Cell::new(0);
        let classify = move |result: Result<&u32, &Down>| match result {
            Ok(_) => Verdict::Success,
            Err(_) => Verdict::Failure(kind),
        };
        let _ = policy
            .call_with(Safety::Unsafe, &classify, |_| fails_until(&calls, 99))
            .await;
        assert_eq!(calls.get(), attempts, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_sixty_percent_grants_sixty_percent() {
    let budget = Budget::new(0.6, 0.0);
    let mut granted = 0;
    for _ in 0..1000 {
        budget.deposit();
        granted += u32::from(budget.try_withdraw());
    }
    assert_eq!(granted, 600);
    assert_eq!(budget.snapshot().exhausted, 400);
}

#[tokio::test(start_paused = true)]
async fn the_budget_binds_where_everything_fails_and_is_shared() {
    let budget = Budget::new(0.2, 0.0);
    let make = |name: &'static str| {
        Pipeline::builder(name)
            .retry(plain_retry().budget(budget.clone()))
            .build()
            .unwrap()
    };
    let (one, two) = (make("one"), make("two"));
    let calls = Cell::new(0);
    for _ in 0..50 {
        let _ = one.call(|_| fails_until(&calls, u32::MAX)).await;
        let _ = two.call(|_| fails_until(&calls, u32::MAX)).await;
    }
    // Each call waits at most 150 ms, so all hundred lie within two windows of ten seconds.
    assert!(
        (115..=125).contains(&calls.get()),
        "100 calls made {} attempts",
        calls.get()
    );
}

#[test]
fn racers_never_overspend_the_budget() {
    let budget = Budget::new(0.5, 0.0);
    for _ in 0..1000 {
        budget.deposit();
    }
    let granted = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    granted.fetch_add(u32::from(budget.try_withdraw()), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(granted.into_inner(), 500);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_cut_off_and_the_next_one_may_succeed() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(5))
        .attempt_timeout(secs(1))
        .retry(plain_retry())
        .build()
        .unwrap();
    let value = policy
        .call(|attempt| async move {
            assert!(attempt.timeout().unwrap() <= secs(1));
            if attempt.number() == 1 {
                sleep(secs(60)).await;
            }
            Ok::<_, Infallible>(attempt.number())
        })
        .await
        .unwrap();
    assert_eq!(value, 2);
    assert_eq!(policy.snapshot().attempt_timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_total_limit_holds_over_all_attempts_and_waits() {
    let policy = Pipeline::builder("p")
        .total_timeout(secs(2))
        .attempt_timeout(millis(900))
        .retry(plain_retry().max(100))
        .build()
        .unwrap();
    let began = Instant::now();
    let error = policy
        .call(|_| async { std::future::pending::<Result<(), Infallible>>().await })
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                scope: Scope::Total,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(began.elapsed().as_millis(), 2000);
    assert_eq!(policy.snapshot().total_timeouts, 1);
}

#[tokio::test(start_paused = true)]
async fn the_callers_deadline_is_kept_and_handed_on() {
    let policy = Pipeline::standard("p").build().unwrap();
    let seen = Deadline::after(millis(300))
        .scope(policy.call(|attempt| async move {
            assert_eq!(attempt.deadline(), Deadline::current());
            Ok::<_, Infallible>(attempt.timeout().unwrap())
        }))
        .await
        .unwrap();
    assert!(seen <= millis(300), "{seen:?}");
    let late = Deadline::after(Duration::ZERO)
        .scope(policy.call(|_| async { Ok::<_, Infallible>(()) }))
        .await;
    assert!(matches!(late, Err(Error::Rejected(rejected)) if rejected.by == By::Deadline));
}

#[tokio::test(start_paused = true)]
async fn a_servers_hint_is_followed_unless_it_comes_too_late() {
    struct Asks(Duration);
    impl<T, E> Classify<T, E> for Asks {
        fn classify(&self, result: Result<&T, &E>) -> Verdict {
            if result.is_ok() {
                Verdict::Success
            } else {
                Verdict::Overload { hint: Some(self.0) }
            }
        }
    }
    let policy = Pipeline::builder("p")
        .total_timeout(secs(2))
        .retry(plain_retry())
        .build()
        .unwrap();
    let (calls, began) = (Cell::new(0), Instant::now());
    policy
        .call_with(Safety::Unsafe, &Asks(millis(700)), |_| fails_until(&calls, 2))
        .await
        .unwrap();
    assert_eq!(began.elapsed(), millis(700));
    let (calls, began) = (Cell::new(0), Instant::now());
    let error = policy
        .call_with(Safety::Unsafe, &Asks(secs(3600)), |_| fails_until(&calls, 2))
        .await
        .unwrap_err();
    assert_eq!(
        (error.into_inner(), calls.get(), began.elapsed()),
        (Some(Down), 1, Duration::ZERO)
    );
}

#[tokio::test(start_paused = true)]
async fn the_breaker_sees_what_an_outer_limit_cuts_off() {
    let policy = Pipeline::builder("p")
        .attempt_timeout(secs(1))
        .breaker(Breaker::builder("p").min_calls(10).drop_fails_after(millis(500)))
        .build()
        .unwrap();
    for _ in 0..10 {
        let hung = policy.call(|_| async { std::future::pending::<Result<(), Infallible>>().await });
        assert!(
            tokio::time::timeout(millis(600), hung).await.is_err(),
            "the caller gave up first"
        );
    }
    assert_eq!(policy.breaker().unwrap().snapshot().calls.cancelled, 10);
    assert_eq!(policy.breaker().unwrap().state(), State::Open);
    let refused = policy.call(|_| async { Ok::<_, Infallible>(()) }).await.unwrap_err();
    assert!(
        matches!(refused, Error::Rejected(rejected) if rejected.by == By::Breaker && rejected.retry_after.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn retry_stops_when_the_breaker_opens_and_keeps_the_real_error() {
    let policy = Pipeline::builder("p")
        .retry(plain_retry().max(50))
        .breaker(Breaker::builder("p").min_calls(5))
        .build()
        .unwrap();
    let calls = Cell::new(0);
    let error = policy.call(|_| fails_until(&calls, 99)).await.unwrap_err();
    assert_eq!((error.into_inner(), calls.get()), (Some(Down), 5));
}

#[tokio::test(start_paused = true)]
async fn the_bulkhead_lets_so_many_in_queues_so_many_and_refuses_the_rest() {
    let policy = Pipeline::builder("p").bulkhead(2, 1).build().unwrap();
    let work = || {
        policy.call(|_| async {
            sleep(secs(1)).await;
            Ok::<_, Infallible>(())
        })
    };
    let began = Instant::now();
    let (a, b, c, d) = tokio::join!(work(), work(), work(), work());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert!(matches!(d, Err(Error::Rejected(rejected)) if rejected.by == By::Bulkhead));
    assert_eq!(began.elapsed(), secs(2), "the queued one went in when a place was free");
    let snapshot = policy.snapshot().bulkhead.unwrap();
    assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.rejected), (0, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_dropped_leaves_the_queue() {
    let bulkhead = Bulkhead::new("b", 1, 1).unwrap();
    let place = bulkhead.enter().await.unwrap();
    assert!(tokio::time::timeout(secs(1), bulkhead.enter()).await.is_err());
    assert_eq!(bulkhead.snapshot().queued, 0);
    drop(place);
    let _place = bulkhead.enter().await.unwrap();
    assert_eq!(bulkhead.snapshot().in_flight, 1);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_answers_what_failed() {
    let policy = Pipeline::builder("p").build().unwrap();
    let value = policy
        .call_or_else(|_| async { Err::<u32, _>(Down) }, |_| async { Ok(7) })
        .await
        .unwrap();
    assert_eq!((value, policy.snapshot().fallbacks[2]), (7, ("failure", 1)));
}

#[tokio::test(start_paused = true)]
async fn the_listener_is_told_in_order() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let of_listener = Arc::clone(&told);
    let policy = Pipeline::builder("p")
        .retry(plain_retry().max(1))
        .listener(move |event: &Event<'_>| of_listener.lock().unwrap().push(format!("{event:?}")))
        .build()
        .unwrap();
    let calls = Cell::new(0);
    let _ = policy.call(|_| fails_until(&calls, 99)).await;
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("Retry") && told[0].contains("transient"),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn layers_of_one_policy_share_its_state_and_repeat_only_what_may_be() {
    let policy = Pipeline::builder("p")
        .retry(plain_retry())
        .breaker(Breaker::builder("p").min_calls(4))
        .build()
        .unwrap();
    let calls = Arc::new(AtomicU32::new(0));
    let service = |calls: Arc<AtomicU32>| {
        tower::service_fn(move |(): ()| {
            calls.fetch_add(1, Ordering::Relaxed);
            async { Err::<(), Down>(Down) }
        })
    };
    let mut once = ServiceBuilder::new()
        .layer(policy.layer())
        .service(service(Arc::clone(&calls)));
    assert!(once.ready().await.unwrap().call(()).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 1, "nobody said that it may be repeated");
    let mut often = ServiceBuilder::new()
        .layer(policy.layer().idempotent())
        .service(service(Arc::clone(&calls)));
    assert!(often.ready().await.unwrap().call(()).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 4);
    assert_eq!(
        policy.breaker().unwrap().state(),
        State::Open,
        "four failures over both services"
    );
    assert!(once.ready().await.unwrap().call(()).await.unwrap_err().is_rejected());
}

#[test]
fn text_makes_policies_and_mistakes_are_named() {
    let text = r#"
        [policy.payments]
        timeout = { total = "5s", attempt = "1s" }
        retry = { max = 2, base = "50ms", cap = "1s", jitter = "full", budget = { ratio = 0.2, min_per_sec = 3 } }
        breaker = { failure_ratio = 0.5, window = "30s", min_calls = 20, open = "5s" }
        bulkhead = { limit = 10, queue = 5 }
    "#;
    let policy = Pipeline::from_toml(text, "payments").unwrap();
    let snapshot = policy.snapshot();
    assert_eq!(snapshot.bulkhead.unwrap().limit, 10);
    assert!(snapshot.breaker.is_some() && snapshot.retry.unwrap().budget.is_some());
    assert!(
        Pipeline::from_toml(text, "other")
            .unwrap_err()
            .to_string()
            .contains("policy.other")
    );
    for (text, word) in [
        ("[policy.x]\ntimeout = { totl = \"5s\" }", "totl"),
        ("[policy.x]\ntimeout = { total = \"5 parsecs\" }", "parsecs"),
    ] {
        let error = Pipeline::from_toml(text, "x").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(word) && source.contains("line 2"), "{source}");
    }
    for (text, word) in [
        (
            "[policy.x]\ntimeout = { total = \"1s\", attempt = \"2s\" }",
            "timeout.attempt",
        ),
        ("[policy.x]\nbreaker = { failure_ratio = 2.0 }", "failure_ratio"),
        (
            "[policy.x]\ntimeout = { attempt = \"20s\" }\nbreaker = { window = \"30s\" }",
            "breaker.window",
        ),
        ("[policy.x]\nbulkhead = { limit = 0 }", "bulkhead.limit"),
    ] {
        let error = Pipeline::from_toml(text, "x").unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
