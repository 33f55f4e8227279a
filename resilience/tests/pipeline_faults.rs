//! Faults put into a policy's calls: its own parts must take them for what they stand for. Which calls are hit is in
//! `fault.rs`.

use std::cell::Cell;
use std::time::Duration;

use resilience::{
    Breaker, By, Error, Fault, HedgeSettings, Jitter, Kind, Pipeline, PipelineBuilder, Retry, Safety, Scope, State,
    Verdict,
};
use tokio::time::{Instant, advance, sleep};

const FAILED: Verdict = Verdict::Failure(Kind::Transient);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn latency(delay: Duration) -> Fault {
    Fault::Latency { delay, percent: 100.0 }
}

fn error(verdict: Verdict) -> Fault {
    Fault::Error {
        verdict,
        percent: 100.0,
    }
}

/// Two retries after 100 and 200 ms, attempts of at most a second, and a breaker that counts.
fn policy() -> PipelineBuilder {
    let retry = Retry::default()
        .max(2)
        .jitter(Jitter::None)
        .backoff(millis(100), secs(1));
    Pipeline::builder("p")
        .total_timeout(secs(30))
        .attempt_timeout(secs(1))
        .retry(retry.without_budget())
        .breaker(Breaker::builder("p").min_calls(1_000))
}

/// A dependency that answers in 10 ms, and counts.
async fn ask(policy: &Pipeline, safety: Safety, asked: &Cell<u32>) -> Result<(), Error<()>> {
    policy
        .call_with(safety, &resilience::AnyError, |_| async {
            asked.set(asked.get() + 1);
            sleep(millis(10)).await;
            Ok(())
        })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_latency_is_part_of_the_attempt() {
    let policy = policy().build().unwrap();
    policy.faults().unwrap().inject(latency(millis(400)), secs(60)).unwrap();
    assert_eq!(policy.snapshot().active_faults, 1);
    let (asked, began) = (Cell::new(0), Instant::now());
    ask(&policy, Safety::Idempotent, &asked).await.unwrap();
    assert_eq!((began.elapsed(), asked.get()), (millis(410), 1));
    let calls = policy.breaker().unwrap().snapshot().calls;
    assert_eq!((calls.success, calls.failure), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_latency_is_bounded_by_the_attempts_limit_and_a_failure_to_the_breaker() {
    let policy = policy().build().unwrap();
    policy.faults().unwrap().inject(latency(secs(3_600)), secs(60)).unwrap();
    let (asked, began) = (Cell::new(0), Instant::now());
    let error = ask(&policy, Safety::Idempotent, &asked).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Timeout {
                scope: Scope::Attempt,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(
        (began.elapsed(), asked.get()),
        (millis(3_300), 0),
        "the dependency was not asked"
    );
    assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, 3);
    assert_eq!(policy.snapshot().attempt_timeouts, 3);
    // One who gives up before leaves nothing behind.
    let gone = tokio::time::timeout(millis(500), ask(&policy, Safety::Idempotent, &asked)).await;
    assert!(gone.is_err());
    assert_eq!(policy.breaker().unwrap().snapshot().calls.cancelled, 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_the_attempt_with_its_verdict() {
    let hint = Verdict::Overload {
        hint: Some(millis(700)),
    };
    // Verdict, safety, hits, time, and what the breaker counts: failures, successes, answers that say nothing.
    for (verdict, safety, hits, after, counted) in [
        (FAILED, Safety::Idempotent, 3, 300, (3, 0, 0)),
        (FAILED, Safety::Unsafe, 1, 0, (1, 0, 0)),
        (Verdict::Failure(Kind::NotSent), Safety::Unsafe, 3, 300, (3, 0, 0)),
        (Verdict::Failure(Kind::Timeout), Safety::Idempotent, 3, 300, (3, 0, 0)),
        (Verdict::Failure(Kind::Permanent), Safety::Idempotent, 1, 0, (1, 0, 0)),
        (hint, Safety::Unsafe, 3, 1_400, (3, 0, 0)),
        (Verdict::Ignore, Safety::Idempotent, 1, 0, (0, 0, 1)),
        (Verdict::Success, Safety::Idempotent, 1, 0, (0, 1, 0)),
    ] {
        let policy = policy().build().unwrap();
        policy.faults().unwrap().inject(error(verdict), secs(60)).unwrap();
        let (asked, began) = (Cell::new(0), Instant::now());
        let refused = ask(&policy, safety, &asked).await.unwrap_err();
        assert!(
            matches!(&refused, Error::Rejected(rejected) if rejected.by == By::Fault),
            "{refused:?}"
        );
        assert_eq!(
            (asked.get(), began.elapsed()),
            (0, millis(after)),
            "{verdict:?} {safety:?}"
        );
        assert_eq!(
            policy.faults().unwrap().snapshot().hits,
            hits,
            "{verdict:?} {safety:?}: every attempt is hit"
        );
        let calls = policy.breaker().unwrap().snapshot().calls;
        assert_eq!(
            (calls.failure, calls.success, calls.ignored),
            counted,
            "{verdict:?} {safety:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_aborted_answer_was_asked_for_and_is_lost() {
    for (safety, times) in [(Safety::Idempotent, 3), (Safety::Unsafe, 1)] {
        let policy = policy().build().unwrap();
        policy
            .faults()
            .unwrap()
            .inject(Fault::Abort { percent: 100.0 }, secs(60))
            .unwrap();
        let asked = Cell::new(0);
        let lost = ask(&policy, safety, &asked).await.unwrap_err();
        assert!(
            matches!(&lost, Error::Rejected(rejected) if rejected.by == By::Fault),
            "{lost:?}"
        );
        assert_eq!(asked.get(), times, "the work was done, so only what may be repeated is");
        let calls = policy.breaker().unwrap().snapshot().calls;
        assert_eq!((calls.failure, calls.success), (u64::from(times), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn faults_open_the_breaker_and_when_they_end_it_recovers() {
    let policy = Pipeline::builder("p")
        .attempt_timeout(secs(1))
        .breaker(
            Breaker::builder("p")
                .min_calls(4)
                .half_open(1, secs(30))
                .open(secs(5), secs(5)),
        )
        .build()
        .unwrap();
    policy.faults().unwrap().inject(latency(secs(60)), secs(10)).unwrap();
    let asked = Cell::new(0);
    for _ in 0..4 {
        assert!(ask(&policy, Safety::Idempotent, &asked).await.unwrap_err().is_timeout());
    }
    assert_eq!(policy.breaker().unwrap().state(), State::Open);
    let refused = ask(&policy, Safety::Idempotent, &asked).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Rejected(rejected) if rejected.by == By::Breaker),
        "{refused:?}"
    );
    assert_eq!(
        (asked.get(), policy.faults().unwrap().snapshot().hits),
        (0, 4),
        "what is refused is not hit"
    );
    advance(secs(7)).await;
    assert_eq!(policy.snapshot().active_faults, 0, "ten seconds are over");
    ask(&policy, Safety::Idempotent, &asked).await.unwrap();
    assert_eq!((asked.get(), policy.breaker().unwrap().state()), (1, State::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_share_of_the_attempts_is_hit_and_retries_make_up_for_it() {
    let policy = policy().build().unwrap();
    policy
        .faults()
        .unwrap()
        .inject(
            Fault::Error {
                verdict: FAILED,
                percent: 25.0,
            },
            secs(3_600),
        )
        .unwrap();
    let asked = Cell::new(0);
    for _ in 0..300 {
        ask(&policy, Safety::Idempotent, &asked).await.unwrap();
    }
    // Every fourth attempt is hit, and no two in a row are.
    let hits = policy.faults().unwrap().snapshot().hits;
    assert_eq!((asked.get(), hits), (300, 99 + u64::from(hits == 100)));
    assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, hits);
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_attempt_is_hedged() {
    let policy = Pipeline::builder("p")
        .hedge(HedgeSettings {
            delay: millis(100),
            quantile: None,
            max: 1,
        })
        .build()
        .unwrap();
    // Every second attempt is slow: here the second, fourth and so on.
    policy
        .faults()
        .unwrap()
        .inject(
            Fault::Latency {
                delay: secs(5),
                percent: 50.0,
            },
            secs(60),
        )
        .unwrap();
    let (asked, began) = (Cell::new(0), Instant::now());
    for _ in 0..2 {
        ask(&policy, Safety::Idempotent, &asked).await.unwrap();
    }
    assert_eq!(began.elapsed(), millis(10 + 100 + 10));
    assert_eq!(policy.snapshot().hedge.unwrap().won, 1);
}
