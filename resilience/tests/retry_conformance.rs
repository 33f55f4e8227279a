//! What other libraries promise of their retries, as tables. Written afresh, in the spirit of Polly's `RetryHelperTests`,
//! smithy-rs' `strategy/standard.rs`, failsafe-go's `retrypolicy_test` and `nested_circuitbreaker_test`, grpc-go's
//! `TestRetryThrottling` and resilience4j's `RetryImplTest`.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use resilience::{
    Breaker, Budget, By, Classify, Deadline, Error, Event, Jitter, Kind, Pipeline, PipelineBuilder, Rejected, Retry,
    RetrySettings, Safety, State, Verdict,
};
use tokio::time::{Instant, sleep};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The waits that a policy says it makes, exact to the nanosecond; and whether its budget was spent.
#[derive(Clone, Default)]
struct Told {
    waits: Arc<Mutex<Vec<Duration>>>,
    spent: Arc<Mutex<u32>>,
}

impl Told {
    fn listen(&self, policy: PipelineBuilder) -> Pipeline {
        let told = self.clone();
        policy
            .listener(move |event: &Event<'_>| match event {
                Event::Retry { delay, .. } => told.waits.lock().unwrap().push(*delay),
                Event::BudgetExhausted { .. } => *told.spent.lock().unwrap() += 1,
                _ => {}
            })
            .build()
            .unwrap()
    }

    fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.waits.lock().unwrap())
    }
}

/// Results whose verdicts are said beforehand, in turn; the value is the number of the attempt.
struct Script(&'static [Verdict]);

impl Script {
    async fn run(&self, policy: &Pipeline, safety: Safety) -> (Result<usize, Error<usize>>, usize) {
        let calls = Cell::new(0);
        let result = policy
            .call_with(safety, self, |_| {
                let number = calls.get();
                calls.set(number + 1);
                async move {
                    if self.0[number] == Verdict::Success {
                        Ok(number + 1)
                    } else {
                        Err(number + 1)
                    }
                }
            })
            .await;
        (result, calls.get())
    }
}

impl Classify<usize, usize> for Script {
    fn classify(&self, result: Result<&usize, &usize>) -> Verdict {
        let (Ok(number) | Err(number)) = result;
        self.0[number - 1]
    }
}

const GOOD: Verdict = Verdict::Success;
const BAD: Verdict = Verdict::Failure(Kind::Transient);

fn exact(settings: RetrySettings) -> Retry {
    Retry::from(RetrySettings {
        jitter: Jitter::None,
        budget: None,
        ..settings
    })
}

/// smithy's `backoff_timing` and `max_backoff`, and Polly's exponential waits, without jitter.
#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest() {
    let day = secs(86_400);
    for (base, cap, expected) in [
        (
            secs(1),
            secs(20),
            vec![1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000],
        ),
        (secs(1), secs(3), vec![1_000, 2_000, 3_000, 3_000]),
        (secs(1), secs(1), vec![1_000, 1_000, 1_000]),
        (millis(50), secs(1), vec![50, 100, 200, 400, 800, 1_000]),
        (millis(1), day, vec![1, 2, 4, 8, 16]),
        (day, day, vec![86_400_000, 86_400_000]),
    ] {
        let told = Told::default();
        let max = u32::try_from(expected.len()).unwrap();
        let policy = told.listen(Pipeline::builder("p").retry(exact(RetrySettings {
            max,
            base,
            cap,
            ..RetrySettings::default()
        })));
        let (began, begun) = (Instant::now(), RefCell::new(Vec::new()));
        let error = policy
            .call(|_| {
                begun.borrow_mut().push(began.elapsed());
                async {
                    // A wait begins when the attempt has failed, however long that took.
                    sleep(secs(7)).await;
                    Err::<(), ()>(())
                }
            })
            .await;
        assert!(error.is_err());
        let expected: Vec<Duration> = expected.into_iter().map(millis).collect();
        assert_eq!(told.take(), expected);
        let gaps: Vec<Duration> = begun
            .borrow()
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0] + secs(7)))
            .collect();
        assert_eq!(gaps, expected);
    }
}

/// Polly's large attempts: nothing overflows, at any attempt.
#[tokio::test(start_paused = true)]
async fn a_thousand_attempts_wait_no_longer_than_the_longest() {
    for jitter in [Jitter::None, Jitter::Full] {
        for base in [Duration::from_nanos(1), millis(1), secs(86_400)] {
            let told = Told::default();
            let cap = secs(86_400);
            let settings = RetrySettings {
                max: 1_100,
                base,
                cap,
                jitter,
                budget: None,
                ..RetrySettings::default()
            };
            let policy = told.listen(Pipeline::builder("p").retry(settings.into()));
            let _ = policy.call(|_| async { Err::<(), ()>(()) }).await;
            let waits = told.take();
            assert_eq!(waits.len(), 1_100);
            assert!(waits.iter().all(|wait| *wait <= cap));
            let mean = waits[100..].iter().sum::<Duration>() / 1_000;
            let range = if jitter == Jitter::None {
                cap..=cap
            } else {
                cap * 2 / 5..=cap * 3 / 5
            };
            assert!(range.contains(&mean), "{jitter:?} {base:?}: {mean:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every wait against a reckoning in whole numbers: exactly that without jitter, nowhere above it with.
    #[test]
    fn a_wait_is_the_first_doubled_as_often_as_there_were_waits(
        base in 1..86_400_000_000_000_u64,
        longer in 0..86_400_000_000_000_u64,
        retries in 0..80_u32,
    ) {
        let cap = (base + longer).min(86_400_000_000_000);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            for jitter in [Jitter::None, Jitter::Full] {
                let told = Told::default();
                let policy = told.listen(Pipeline::builder("p").retry(Retry::from(RetrySettings {
                    max: retries,
                    base: Duration::from_nanos(base),
                    cap: Duration::from_nanos(cap),
                    jitter,
                    budget: None,
                    ..RetrySettings::default()
                })));
                let _ = policy.call(|_| async { Err::<(), ()>(()) }).await;
                let waits = told.take();
                prop_assert_eq!(waits.len(), retries as usize);
                for (number, wait) in waits.into_iter().enumerate() {
                    let full = (u128::from(base) << number.min(60)).min(u128::from(cap));
                    match jitter {
                        Jitter::None => prop_assert_eq!(wait.as_nanos(), full),
                        Jitter::Full => prop_assert!(wait.as_nanos() <= full),
                    }
                }
            }
            Ok(())
        })?;
    }
}

/// Polly's jitter formula is tried for its spread: ours is even, so every tenth of the range gets a tenth of the waits.
#[tokio::test(start_paused = true)]
async fn jitter_is_spread_evenly_and_no_two_clients_wait_alike() {
    let told = Told::default();
    let settings = RetrySettings {
        max: 2_000,
        base: secs(1),
        cap: secs(1),
        budget: None,
        ..RetrySettings::default()
    };
    let policy = told.listen(Pipeline::builder("p").retry(settings.into()));
    let _ = policy.call(|_| async { Err::<(), ()>(()) }).await;
    let one = told.take();
    let mut tenths = [0; 10];
    for wait in &one {
        tenths[(wait.as_nanos() / 100_000_001) as usize] += 1;
    }
    // 200 each; ten standard deviations are 134.
    assert!(tenths.iter().all(|count| (66..=334).contains(count)), "{tenths:?}");
    let _ = policy.call(|_| async { Err::<(), ()>(()) }).await;
    assert!(one.iter().zip(told.take()).filter(|(one, two)| *one == two).count() < 10);
}

/// What is repeated, by what the result means and whether the request may be sent twice; and the reason that is counted.
#[tokio::test(start_paused = true)]
async fn which_verdicts_ask_for_another_attempt() {
    const SOON: Verdict = Verdict::Overload {
        hint: Some(Duration::from_millis(70)),
    };
    const BUSY: Verdict = Verdict::Overload { hint: None };
    for (verdict, idempotent, once) in [
        ([GOOD, GOOD], None, None),
        ([BAD, GOOD], Some("transient"), None),
        ([Verdict::Failure(Kind::Timeout), GOOD], Some("timeout"), None),
        (
            [Verdict::Failure(Kind::NotSent), GOOD],
            Some("not_sent"),
            Some("not_sent"),
        ),
        ([Verdict::Failure(Kind::Permanent), GOOD], None, None),
        ([BUSY, GOOD], Some("overload"), None),
        ([SOON, GOOD], Some("overload"), Some("overload")),
        ([Verdict::Ignore, GOOD], None, None),
        ([Verdict::LocalReject, GOOD], None, None),
    ] {
        for (safety, reason) in [(Safety::Idempotent, idempotent), (Safety::Unsafe, once)] {
            let policy = Pipeline::builder("p")
                .retry(exact(RetrySettings::default()))
                .build()
                .unwrap();
            let script: &'static [Verdict] = Box::leak(Box::new(verdict));
            let (result, calls) = Script(script).run(&policy, safety).await;
            assert_eq!(calls, if reason.is_some() { 2 } else { 1 }, "{verdict:?} {safety:?}");
            assert_eq!(result.is_ok(), reason.is_some() || verdict[0] == GOOD);
            for (name, made) in policy.snapshot().retry.unwrap().retries {
                assert_eq!(made, u64::from(Some(name) == reason), "{verdict:?} {safety:?} {name}");
            }
        }
    }
}

/// resilience4j's results: an answer can be a failure too, and the last one is given back as it is.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_a_failure_is_repeated_and_the_last_one_is_the_answer() {
    let policy = Pipeline::builder("p")
        .retry(exact(RetrySettings::default()))
        .build()
        .unwrap();
    let status = |result: Result<&u16, &()>| if *result.unwrap() < 500 { GOOD } else { BAD };
    for (statuses, answer, calls) in [
        ([503, 200, 200], 200, 2),
        ([503, 502, 500], 500, 3),
        ([404, 200, 200], 404, 1),
    ] {
        let asked = Cell::new(0);
        let result = policy
            .call_with(Safety::Idempotent, &status, |_| {
                asked.set(asked.get() + 1);
                let status = statuses[asked.get() - 1];
                async move { Ok(status) }
            })
            .await;
        assert_eq!((result.unwrap(), asked.get()), (answer, calls));
    }
}

/// smithy's `retry_after_bounded`: a server's hint is followed between our own wait and the bound, and beyond what the
/// deadline leaves nothing is waited for.
#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_within_its_bounds() {
    struct Asks(Duration);
    impl<T, E> Classify<T, E> for Asks {
        fn classify(&self, result: Result<&T, &E>) -> Verdict {
            if result.is_ok() {
                GOOD
            } else {
                Verdict::Overload { hint: Some(self.0) }
            }
        }
    }
    // Own wait, hint, bound, time limit (all in ms), and the wait.
    for (own, hint, bound, total, wait) in [
        (100, 0, 60_000, 100_000, Some(100)),
        (100, 99, 60_000, 100_000, Some(100)),
        (100, 101, 60_000, 100_000, Some(101)),
        (100, 5_000, 60_000, 100_000, Some(5_000)),
        (100, 60_000, 60_000, 100_000, Some(60_000)),
        (100, 60_001, 60_000, 100_000, None),
        (100, 3_600_000, 60_000, 100_000, None),
        (100, 3_600_000, 7_200_000, 2_000, None),
        (100, 1_999, 60_000, 2_000, Some(1_999)),
        (100, 2_000, 60_000, 2_000, None),
        (100, 50, 60, 100_000, Some(100)),
        (100, 61, 60, 100_000, None),
    ] {
        let settings = RetrySettings {
            base: millis(own),
            cap: millis(own),
            hint_cap: millis(bound),
            ..RetrySettings::default()
        };
        let told = Told::default();
        let policy = told.listen(
            Pipeline::builder("p")
                .total_timeout(millis(total))
                .retry(exact(settings)),
        );
        let (calls, began) = (Cell::new(0), Instant::now());
        let result = policy
            .call_with(Safety::Unsafe, &Asks(millis(hint)), |_| {
                calls.set(calls.get() + 1);
                let first = calls.get() == 1;
                async move { if first { Err("busy") } else { Ok(()) } }
            })
            .await;
        let row = (own, hint, bound, total);
        assert_eq!(told.take(), wait.map(millis).into_iter().collect::<Vec<_>>(), "{row:?}");
        assert_eq!(began.elapsed(), millis(wait.unwrap_or(0)), "{row:?}");
        match result {
            Ok(()) => assert!(wait.is_some()),
            Err(error) => assert_eq!((error.into_inner(), wait), (Some("busy"), None)),
        }
    }
}

/// A caller's deadline bounds the waits like a limit of our own.
#[tokio::test(start_paused = true)]
async fn a_callers_deadline_ends_the_retries() {
    let settings = RetrySettings {
        max: 9,
        base: millis(100),
        cap: secs(10),
        ..RetrySettings::default()
    };
    let policy = Pipeline::standard("p").retry(exact(settings)).build().unwrap();
    let calls = Cell::new(0);
    let began = Instant::now();
    let result = Deadline::after(millis(701)).scope(policy.call(|_| {
        calls.set(calls.get() + 1);
        async { Err::<(), _>("down") }
    }));
    assert_eq!(result.await.unwrap_err().into_inner(), Some("down"));
    // At 0, 100, 300 and 700; the next one would be at 1500.
    assert_eq!((calls.get(), began.elapsed()), (4, millis(700)));
}

/// smithy's `no_quota`, and its `quota_replenishes_on_success`, through a policy.
#[tokio::test(start_paused = true)]
async fn without_budget_left_the_failure_stands_and_successes_bring_it_back() {
    let told = Told::default();
    let none = told.listen(Pipeline::builder("p").retry(Retry::default().budget(Budget::new(0.0, 0.0))));
    let (result, calls) = Script(&[BAD, GOOD]).run(&none, Safety::Idempotent).await;
    assert_eq!((result.unwrap_err().into_inner(), calls), (Some(1), 1));
    assert_eq!(*told.spent.lock().unwrap(), 1);

    // Four tokens, retries while more than two are left, a success gives one back.
    let policy = Pipeline::builder("p")
        .retry(
            exact(RetrySettings {
                max: 9,
                ..RetrySettings::default()
            })
            .budget(Budget::tokens(4.0, 1.0).unwrap()),
        )
        .build()
        .unwrap();
    for (row, (script, calls, left)) in [
        (&[BAD, GOOD] as &[_], 2, 4.0),
        (&[BAD, BAD], 2, 2.0),
        (&[BAD], 1, 1.0),
        (&[GOOD], 1, 2.0),
        (&[BAD], 1, 1.0),
        (&[GOOD], 1, 2.0),
        (&[GOOD], 1, 3.0),
        (&[BAD], 1, 2.0),
        (&[GOOD], 1, 3.0),
        (&[GOOD], 1, 4.0),
        (&[BAD, BAD], 2, 2.0),
        // What says nothing of the server takes nothing.
        (&[Verdict::Ignore], 1, 2.0),
        (&[Verdict::LocalReject], 1, 2.0),
    ]
    .into_iter()
    .enumerate()
    {
        let (_, made) = Script(script).run(&policy, Safety::Idempotent).await;
        let budget = policy.snapshot().retry.unwrap().budget.unwrap();
        assert_eq!((made, budget.tokens_left), (calls, Some(left)), "row {row}");
    }
}

/// Neither a first attempt nor a retry is ever made because of `max` alone.
#[tokio::test(start_paused = true)]
async fn so_many_retries_and_not_one_more() {
    for max in [0, 1, 2, 7] {
        let policy = Pipeline::builder("p")
            .retry(exact(RetrySettings {
                max,
                ..RetrySettings::default()
            }))
            .build()
            .unwrap();
        let (result, calls) = Script(&[BAD; 9]).run(&policy, Safety::Idempotent).await;
        assert_eq!(calls, max as usize + 1);
        assert_eq!(
            result.unwrap_err().into_inner(),
            Some(max as usize + 1),
            "the last attempt's error"
        );
        assert!(
            policy
                .snapshot()
                .retry
                .unwrap()
                .retries
                .contains(&("transient", u64::from(max)))
        );
    }
}

/// failsafe-go's nested breaker: it opens in the midst of the retries, which end then with the dependency's own error;
/// while it is open nothing is repeated, and its refusals take nothing out of the budget.
#[tokio::test(start_paused = true)]
async fn a_breaker_inside_ends_the_retries() {
    let told = Told::default();
    let policy = told.listen(
        Pipeline::builder("p")
            .retry(
                exact(RetrySettings {
                    max: 9,
                    ..RetrySettings::default()
                })
                .budget(Budget::new(1.0, 10.0)),
            )
            .breaker(
                Breaker::builder("p")
                    .min_calls(1_000)
                    .consecutive(3)
                    .half_open(1, secs(30))
                    .open(secs(5), secs(5)),
            ),
    );
    let state = || policy.breaker().unwrap().state();
    let (result, calls) = Script(&[BAD; 9]).run(&policy, Safety::Idempotent).await;
    assert_eq!(
        (result.unwrap_err().into_inner(), calls, state()),
        (Some(3), 3, State::Open)
    );
    told.take();
    let before = policy.snapshot().retry.unwrap().retries;
    let (result, calls) = Script(&[GOOD]).run(&policy, Safety::Idempotent).await;
    let Error::Rejected(Rejected {
        by: By::Breaker,
        retry_after: Some(left),
        ..
    }) = result.unwrap_err()
    else {
        panic!("it is open")
    };
    assert!(left <= millis(6_250));
    assert_eq!(
        (calls, told.take().len(), policy.snapshot().retry.unwrap().retries),
        (0, 0, before)
    );
    sleep(left).await;
    let (result, calls) = Script(&[BAD, GOOD]).run(&policy, Safety::Idempotent).await;
    assert_eq!(
        (result.unwrap_err().into_inner(), calls),
        (Some(1), 1),
        "the probe failed and it is open again"
    );
    sleep(secs(20)).await;
    let (result, calls) = Script(&[GOOD]).run(&policy, Safety::Idempotent).await;
    assert_eq!((result.unwrap(), calls, state()), (1, 1, State::Closed));
}

/// A policy in a policy: what the inner one refuses is no failure of the dependency, if the caller says so.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_policy_further_in_is_not_repeated() {
    let inner = Pipeline::builder("inner")
        .breaker(Breaker::builder("inner"))
        .build()
        .unwrap();
    inner.breaker().unwrap().force_open();
    let outer = Pipeline::builder("outer")
        .retry(exact(RetrySettings::default()))
        .breaker(Breaker::builder("outer"))
        .build()
        .unwrap();
    let meaning = |result: Result<&(), &Error<()>>| match result {
        Ok(()) => GOOD,
        Err(Error::Rejected(_)) => Verdict::LocalReject,
        Err(_) => BAD,
    };
    let asked = Cell::new(0);
    let error = outer
        .call_with(Safety::Idempotent, &meaning, |_| {
            asked.set(asked.get() + 1);
            inner.call(|_| async { Ok::<_, ()>(()) })
        })
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Inner(Error::Rejected(Rejected { by: By::Breaker, .. }))),
        "{error:?}"
    );
    assert_eq!(asked.get(), 1);
    let calls = outer.breaker().unwrap().snapshot().calls;
    assert_eq!(
        (calls.failure, calls.success),
        (0, 0),
        "the outer one's dependency was not asked"
    );
}

/// A call that is dropped in its backoff makes no other attempt.
#[tokio::test(start_paused = true)]
async fn a_backoff_ends_with_its_caller() {
    let settings = RetrySettings {
        base: secs(1),
        ..RetrySettings::default()
    };
    let policy = Pipeline::builder("p").retry(exact(settings)).build().unwrap();
    let calls = Cell::new(0);
    let call = policy.call(|_| {
        calls.set(calls.get() + 1);
        async { Err::<(), ()>(()) }
    });
    assert!(tokio::time::timeout(millis(500), call).await.is_err());
    sleep(secs(60)).await;
    assert_eq!(calls.get(), 1);
}
