//! Hedging: who begins when, who wins, what becomes of the losers, and what a hedge may cost. In the spirit of Polly's
//! `HedgingResilienceStrategyTests` and failsafe-go's `hedgepolicy_test`, written afresh, with the difference that here a
//! failure cancels nobody.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use resilience::{
    Attempt, Breaker, Budget, Error, Event, HedgeSettings, HedgeSnapshot, Jitter, Kind, Pipeline, PipelineBuilder,
    Retry, Safety, Scope, State, Verdict,
};
use tokio::time::{Instant, advance, sleep};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How an attempt ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Good,
    Bad,
    /// An error that is an answer.
    Gone,
    Busy,
}

/// What an attempt came to that was none: the number of the attempt. Neither it nor the answer can be cloned.
#[derive(Debug, PartialEq)]
struct Failed(u32, End);

#[derive(Debug, PartialEq)]
struct Answer(u32);

fn meaning(result: Result<&Answer, &Failed>) -> Verdict {
    match result {
        Ok(_) => Verdict::Success,
        Err(Failed(_, End::Gone)) => Verdict::Ignore,
        Err(Failed(_, End::Busy)) => Verdict::Overload { hint: None },
        Err(_) => Verdict::Failure(Kind::Transient),
    }
}

/// A dependency whose attempts take so long and end like this, in turn; what is not listed never ends.
struct Dependency {
    script: Vec<(u64, End)>,
    began: Instant,
    /// When each attempt began, in milliseconds.
    begun: RefCell<Vec<u64>>,
    dropped: Cell<usize>,
}

impl Dependency {
    fn new(script: &[(u64, End)]) -> Self {
        Self {
            script: script.to_vec(),
            began: Instant::now(),
            begun: RefCell::default(),
            dropped: Cell::new(0),
        }
    }

    async fn answer(&self, attempt: Attempt) -> Result<Answer, Failed> {
        struct Inside<'a>(&'a Cell<usize>);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let _inside = Inside(&self.dropped);
        self.begun
            .borrow_mut()
            .push(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let number = attempt.number();
        let Some((takes, end)) = self.script.get(number as usize - 1) else {
            return std::future::pending().await;
        };
        sleep(millis(*takes)).await;
        if *end == End::Good {
            Ok(Answer(number))
        } else {
            Err(Failed(number, *end))
        }
    }

    async fn ask(&self, policy: &Pipeline) -> Result<u32, Error<Failed>> {
        let answer = policy
            .call_with(Safety::Idempotent, &meaning, |attempt| self.answer(attempt))
            .await;
        answer.map(|Answer(number)| number)
    }
}

/// Another attempt every 100 ms, up to `max` of them, and a breaker that counts but never opens.
fn hedged(max: u32) -> PipelineBuilder {
    Pipeline::builder("p")
        .hedge(HedgeSettings {
            delay: millis(100),
            quantile: None,
            max,
        })
        .breaker(Breaker::builder("p").min_calls(1_000_000))
}

fn hedges(policy: &Pipeline) -> (u64, u64) {
    let HedgeSnapshot { hedges, won, .. } = policy.snapshot().hedge.unwrap();
    (hedges, won)
}

/// Successes, failures, answers that say nothing, and cancelled calls.
fn counted(policy: &Pipeline) -> [u64; 4] {
    let calls = policy.breaker().unwrap().snapshot().calls;
    [calls.success, calls.failure, calls.ignored, calls.cancelled]
}

#[tokio::test(start_paused = true)]
async fn who_begins_when_and_who_wins() {
    use End::{Bad, Busy, Gone, Good};
    struct Row {
        what: &'static str,
        max: u32,
        script: &'static [(u64, End)],
        /// The attempt whose answer it is, or whose failure.
        result: Result<u32, u32>,
        after: u64,
        begun: &'static [u64],
        won: u64,
        counted: [u64; 4],
    }
    let rows = [
        Row {
            what: "a quick answer needs no other",
            max: 2,
            script: &[(99, Good)],
            result: Ok(1),
            after: 99,
            begun: &[0],
            won: 0,
            counted: [1, 0, 0, 0],
        },
        Row {
            what: "an answer just in time too",
            max: 2,
            script: &[(100, Good)],
            result: Ok(1),
            after: 100,
            begun: &[0],
            won: 0,
            counted: [1, 0, 0, 0],
        },
        Row {
            what: "the second is faster",
            max: 2,
            script: &[(1_000, Good), (50, Good)],
            result: Ok(2),
            after: 150,
            begun: &[0, 100],
            won: 1,
            counted: [1, 0, 0, 1],
        },
        Row {
            what: "the first is faster after all",
            max: 2,
            script: &[(150, Good), (1_000, Good)],
            result: Ok(1),
            after: 150,
            begun: &[0, 100],
            won: 0,
            counted: [1, 0, 0, 1],
        },
        Row {
            what: "of two answers at one moment the first attempt's is taken",
            max: 2,
            script: &[(150, Good), (50, Good)],
            result: Ok(1),
            after: 150,
            begun: &[0, 100],
            won: 0,
            counted: [1, 0, 0, 1],
        },
        Row {
            what: "the third is the fastest",
            max: 2,
            script: &[(1_000, Good), (1_000, Good), (50, Good)],
            result: Ok(3),
            after: 250,
            begun: &[0, 100, 200],
            won: 1,
            counted: [1, 0, 0, 2],
        },
        Row {
            what: "no more than the most",
            max: 1,
            script: &[(1_000, Good), (1_000, Good), (1, Good)],
            result: Ok(1),
            after: 1_000,
            begun: &[0, 100],
            won: 0,
            counted: [1, 0, 0, 1],
        },
        Row {
            what: "ten extra ones",
            max: 10,
            script: &[(2_000, Good)],
            result: Ok(1),
            after: 2_000,
            begun: &[0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1_000],
            won: 0,
            counted: [1, 0, 0, 10],
        },
        Row {
            what: "a failure before any other began is the result: repeating is the retry's matter",
            max: 2,
            script: &[(50, Bad)],
            result: Err(1),
            after: 50,
            begun: &[0],
            won: 0,
            counted: [0, 1, 0, 0],
        },
        Row {
            what: "the first one's failure does not end the second",
            max: 1,
            script: &[(150, Bad), (200, Good)],
            result: Ok(2),
            after: 300,
            begun: &[0, 100],
            won: 1,
            counted: [1, 1, 0, 0],
        },
        Row {
            what: "and the third still begins when its time comes",
            max: 2,
            script: &[(150, Bad), (1_000, Good), (50, Good)],
            result: Ok(3),
            after: 250,
            begun: &[0, 100, 200],
            won: 1,
            counted: [1, 1, 0, 1],
        },
        Row {
            what: "the second one's failure does not end the first",
            max: 1,
            script: &[(500, Good), (50, Bad)],
            result: Ok(1),
            after: 500,
            begun: &[0, 100],
            won: 0,
            counted: [1, 1, 0, 0],
        },
        Row {
            what: "of failures alone the earliest is the result, once all have failed",
            max: 2,
            script: &[(350, Bad), (150, Bad), (300, Bad)],
            result: Err(2),
            after: 500,
            begun: &[0, 100, 200],
            won: 0,
            counted: [0, 3, 0, 0],
        },
        Row {
            what: "an overload is a failure",
            max: 1,
            script: &[(150, Busy), (100, Good)],
            result: Ok(2),
            after: 200,
            begun: &[0, 100],
            won: 1,
            counted: [1, 1, 0, 0],
        },
        Row {
            what: "an error that is an answer wins like any answer",
            max: 1,
            script: &[(1_000, Good), (50, Gone)],
            result: Err(2),
            after: 150,
            begun: &[0, 100],
            won: 1,
            counted: [0, 0, 1, 1],
        },
    ];
    for row in rows {
        let what = row.what;
        let policy = hedged(row.max).build().unwrap();
        let dependency = Dependency::new(row.script);
        let result = dependency.ask(&policy).await;
        let after = dependency.began.elapsed();
        let result = result.map_err(|error| error.into_inner().map(|Failed(number, _)| number).unwrap());
        assert_eq!((result, after), (row.result, millis(row.after)), "{what}");
        assert_eq!(*dependency.begun.borrow(), row.begun, "{what}");
        // Losers are dropped at once, not left to run.
        assert_eq!(dependency.dropped.get(), row.begun.len(), "{what}");
        assert_eq!(hedges(&policy), (row.begun.len() as u64 - 1, row.won), "{what}");
        assert_eq!(counted(&policy), row.counted, "{what}");
        advance(millis(10_000)).await;
        assert_eq!(
            dependency.begun.borrow().len(),
            row.begun.len(),
            "{what}: nobody begins after the end"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_repeated_is_never_hedged() {
    let policy = hedged(3).build().unwrap();
    let dependency = Dependency::new(&[(5_000, End::Good)]);
    let answer = policy
        .call_with(Safety::Unsafe, &meaning, |attempt| dependency.answer(attempt))
        .await
        .unwrap();
    assert_eq!((answer, hedges(&policy)), (Answer(1), (0, 0)));
    assert_eq!(*dependency.begun.borrow(), [0]);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_taken_out_of_the_retry_budget() {
    let told = Arc::new(AtomicU32::new(0));
    let of_listener = Arc::clone(&told);
    let policy = hedged(1)
        .retry(Retry::default().budget(Budget::new(0.2, 0.0)))
        .listener(move |event: &Event<'_>| {
            of_listener.fetch_add(
                u32::from(matches!(event, Event::BudgetExhausted { .. })),
                Ordering::Relaxed,
            );
        })
        .build()
        .unwrap();
    for _ in 0..50 {
        // Within ten seconds, so that nothing of it is forgotten.
        let dependency = Dependency::new(&[(150, End::Good), (1_000, End::Good)]);
        assert_eq!(
            dependency.ask(&policy).await.unwrap(),
            1,
            "a refused hedge does no harm"
        );
    }
    assert_eq!(hedges(&policy), (10, 0));
    assert_eq!(told.load(Ordering::Relaxed), 40);
    assert_eq!(policy.snapshot().retry.unwrap().budget.unwrap().exhausted, 40);
}

#[tokio::test(start_paused = true)]
async fn what_a_hedge_has_taken_no_retry_can_take() {
    let policy = hedged(1)
        .retry(Retry::default().max(5).budget(Budget::new(1.0, 0.0)))
        .build()
        .unwrap();
    let dependency = Dependency::new(&[(200, End::Bad), (200, End::Bad), (1, End::Good)]);
    let error = dependency.ask(&policy).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(Failed(1, End::Bad)));
    assert_eq!(dependency.begun.borrow().len(), 2, "one request, one extra attempt");
}

#[tokio::test(start_paused = true)]
async fn a_race_that_failed_is_run_again_and_attempts_are_numbered_through() {
    let retry = Retry::default()
        .max(1)
        .jitter(Jitter::None)
        .backoff(millis(50), millis(50));
    let policy = hedged(1).retry(retry.without_budget()).build().unwrap();
    let dependency = Dependency::new(&[(300, End::Bad), (100, End::Bad), (1_000, End::Good), (20, End::Good)]);
    assert_eq!(dependency.ask(&policy).await.unwrap(), 4);
    assert_eq!(*dependency.begun.borrow(), [0, 100, 350, 450]);
    assert_eq!(hedges(&policy), (2, 1));
    assert_eq!(counted(&policy), [1, 2, 0, 1]);
    assert!(policy.snapshot().retry.unwrap().retries.contains(&("transient", 1)));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_its_own_limit_and_all_have_the_calls() {
    let policy = hedged(2)
        .attempt_timeout(millis(150))
        .total_timeout(millis(330))
        .build()
        .unwrap();
    let limits = RefCell::new(Vec::new());
    let began = Instant::now();
    let error = policy
        .call_with(Safety::Idempotent, &meaning, |attempt| {
            let limit = attempt.deadline().unwrap().instant() - began;
            limits.borrow_mut().push((attempt.number(), limit.as_millis()));
            std::future::pending::<Result<Answer, Failed>>()
        })
        .await
        .unwrap_err();
    assert_eq!(*limits.borrow(), [(1, 150), (2, 250), (3, 330)]);
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
    assert_eq!(began.elapsed(), millis(330));
    let snapshot = policy.snapshot();
    assert_eq!((snapshot.attempt_timeouts, snapshot.total_timeouts), (2, 1));
    assert_eq!(
        counted(&policy),
        [0, 2, 0, 1],
        "what the call's limit cuts off is cancelled"
    );
}

#[tokio::test(start_paused = true)]
async fn a_first_attempt_out_of_time_leaves_the_race_to_the_second() {
    let policy = hedged(1).attempt_timeout(millis(150)).build().unwrap();
    let dependency = Dependency::new(&[(1_000, End::Good), (140, End::Good)]);
    assert_eq!(dependency.ask(&policy).await.unwrap(), 2);
    assert_eq!(dependency.began.elapsed(), millis(240));
    assert_eq!(counted(&policy), [1, 1, 0, 0]);
    let dependency = Dependency::new(&[]);
    let error = dependency.ask(&policy).await.unwrap_err();
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
        dependency.began.elapsed(),
        millis(250),
        "when the last one is out of time"
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_takes_all_its_attempts_along() {
    let policy = hedged(3)
        .bulkhead(1, 0)
        .concurrency_limit(resilience::AdaptiveSettings::default())
        .build()
        .unwrap();
    let dependency = Dependency::new(&[]);
    assert!(
        tokio::time::timeout(millis(250), dependency.ask(&policy))
            .await
            .is_err()
    );
    assert_eq!((dependency.begun.borrow().len(), dependency.dropped.get()), (3, 3));
    assert_eq!(counted(&policy), [0, 0, 0, 3]);
    let snapshot = policy.snapshot();
    assert_eq!(snapshot.bulkhead.unwrap().in_flight, 0);
    assert_eq!(snapshot.concurrency_limit.unwrap().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_is_refused_here_says_nothing() {
    let policy = Pipeline::builder("p")
        .hedge(HedgeSettings {
            delay: millis(100),
            quantile: None,
            max: 2,
        })
        .breaker(Breaker::builder("p").min_calls(1).half_open(1, millis(30_000)))
        .build()
        .unwrap();
    let breaker = policy.breaker().unwrap();
    let half_open = async || {
        for _ in 0..100 {
            advance(millis(1_000)).await;
            if breaker.state() == State::HalfOpen {
                return;
            }
        }
    };
    assert!(Dependency::new(&[(1, End::Bad)]).ask(&policy).await.is_err());
    half_open().await;
    // There is one probe: the hedges get none, and its failure is the result, not their refusals.
    let dependency = Dependency::new(&[(350, End::Bad)]);
    let error = dependency.ask(&policy).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(Failed(1, End::Bad)));
    assert_eq!(dependency.begun.borrow().len(), 1);
    assert_eq!(breaker.snapshot().calls.rejected, 2);
    half_open().await;
    assert_eq!(Dependency::new(&[(350, End::Good)]).ask(&policy).await.unwrap(), 1);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_quantile_decides_once_enough_answers_are_known() {
    let policy = Pipeline::builder("p")
        .hedge(HedgeSettings {
            delay: millis(2_000),
            quantile: Some(0.9),
            max: 1,
        })
        .build()
        .unwrap();
    let delay = || policy.snapshot().hedge.unwrap().delay_seconds;
    for number in 0..49 {
        // Every tenth takes 400 ms, the others 40.
        let takes = if number % 10 == 9 { 400 } else { 40 };
        Dependency::new(&[(takes, End::Good)]).ask(&policy).await.unwrap();
        // What fails quickly is no answer, and does not make hedges come sooner.
        Dependency::new(&[(1, End::Bad)]).ask(&policy).await.unwrap_err();
    }
    assert!((delay() - 2.0).abs() < 1e-9, "{}", delay());
    Dependency::new(&[(400, End::Good)]).ask(&policy).await.unwrap();
    // 45 of 50 took 40 ms, and a quantile is right to an eighth.
    assert!((0.040..=0.046).contains(&delay()), "{}", delay());
    let dependency = Dependency::new(&[(400, End::Good), (40, End::Good)]);
    assert_eq!(dependency.ask(&policy).await.unwrap(), 2);
    assert!(
        (80..=88).contains(&dependency.began.elapsed().as_millis()),
        "{:?}",
        dependency.began.elapsed()
    );
    assert_eq!(hedges(&policy), (1, 1));
    // When the answers of the last minute are forgotten, the fixed time counts again.
    advance(millis(61_000)).await;
    Dependency::new(&[(40, End::Good)]).ask(&policy).await.unwrap();
    assert!((delay() - 2.0).abs() < 1e-9, "{}", delay());
}

#[tokio::test(start_paused = true)]
async fn a_reload_holds_for_the_waits_that_come() {
    let policy = hedged(1).build().unwrap();
    let mut settings = policy.settings();
    settings.hedge = Some(HedgeSettings {
        delay: millis(30),
        quantile: None,
        max: 3,
    });
    let (before, after) = (
        Dependency::new(&[(150, End::Good)]),
        Dependency::new(&[(150, End::Good)]),
    );
    let later = async {
        sleep(millis(10)).await;
        policy.reload(settings).unwrap();
        after.ask(&policy).await
    };
    let (one, two) = tokio::join!(before.ask(&policy), later);
    assert!(one.is_ok() && two.is_ok());
    assert_eq!(*before.begun.borrow(), [0, 100, 130], "its first wait had begun before");
    assert_eq!(*after.begun.borrow(), [10, 40, 70, 100]);
}

#[tokio::test(start_paused = true)]
async fn many_calls_at_one_time_add_up() {
    let policy = hedged(2).build().unwrap();
    // Call n is answered by its attempt n % 3 + 1.
    let calls: Vec<Dependency> = (0..90)
        .map(|number| {
            let mut script = [(10_000, End::Good); 3];
            script[number % 3].0 = 10;
            Dependency::new(&script)
        })
        .collect();
    let results = join_all(calls.iter().map(|call| call.ask(&policy))).await;
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.unwrap() as usize, number % 3 + 1);
    }
    assert_eq!(hedges(&policy), (30 + 2 * 30, 60));
    assert_eq!(counted(&policy), [90, 0, 0, 30 + 2 * 30]);
    assert!(calls.iter().all(|call| call.dropped.get() == call.begun.borrow().len()));
}

#[tokio::test(start_paused = true)]
async fn a_layer_hedges_what_it_is_told_is_idempotent() {
    let policy = hedged(1).build().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = {
        let seen = Arc::clone(&seen);
        tower::service_fn(move |request: u32| {
            let first = {
                let mut seen = seen.lock().unwrap();
                seen.push(request);
                seen.len() == 1
            };
            async move {
                sleep(millis(if first { 1_000 } else { 10 })).await;
                Ok::<_, Failed>(request * 2)
            }
        })
    };
    let mut hedging = ServiceBuilder::new()
        .layer(policy.layer().idempotent())
        .service(service.clone());
    assert_eq!(hedging.ready().await.unwrap().call(21).await.unwrap(), 42);
    assert_eq!((seen.lock().unwrap().clone(), hedges(&policy)), (vec![21, 21], (1, 1)));
    seen.lock().unwrap().clear();
    let mut plain = ServiceBuilder::new().layer(policy.layer()).service(service);
    assert_eq!(plain.ready().await.unwrap().call(4).await.unwrap(), 8);
    assert_eq!((seen.lock().unwrap().len(), hedges(&policy)), (1, (1, 1)));
}
