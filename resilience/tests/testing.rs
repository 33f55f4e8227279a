//! What `resilience::testing` gives to tests of services: scripts, forced states, time that passes, events, and statements
//! that fail when they should.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use resilience::testing::{self, Ended, Events, Script, Told, What};
use resilience::{
    Breaker, Budget, By, Deadline, Error, HedgeSettings, Jitter, Pipeline, PipelineBuilder, RateLimitSettings, Retry,
    Scope, State, Verdict,
};
use tokio::time::{Instant, sleep};
use tower::{Layer as _, Service as _, ServiceExt as _};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Down;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn standard() -> PipelineBuilder {
    Pipeline::standard("payments").retry(Retry::default().jitter(Jitter::None))
}

fn policy() -> Pipeline {
    standard().build().unwrap()
}

// Scripts.

#[tokio::test(start_paused = true)]
async fn a_script_answers_in_order_and_remembers_what_it_was_asked() {
    let policy = policy();
    let script = Script::new().err(Down).hang().after(ms(20)).ok(7);
    assert_eq!(script.left(), 3);
    assert_eq!(policy.call(script.op()).await.unwrap(), 7);
    let asked = script.asked();
    let ends = [Ended::Answered, Ended::Dropped, Ended::Answered];
    assert_eq!(asked.iter().map(|asked| asked.ended).collect::<Vec<_>>(), ends);
    assert_eq!(asked.iter().map(|asked| asked.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    // The backoffs, whatever the attempts took.
    let waits = asked.iter().map(|asked| asked.waited).collect::<Vec<_>>();
    assert_eq!(waits, [Duration::ZERO, ms(50), ms(100)]);
    // An attempt has 10 s.
    assert!(asked.iter().all(|asked| asked.timeout == Some(Duration::from_secs(10))));
    assert!(asked[1].deadline.unwrap() < asked[2].deadline.unwrap());
    assert_eq!((script.calls(), script.left(), script.running()), (3, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_question_under_way_is_running_until_it_is_dropped() {
    let policy = policy();
    let script = Script::<u32, Down>::new().hang();
    let call = tokio::spawn({
        let (policy, op) = (policy.clone(), script.op());
        async move { policy.call(op).await }
    });
    testing::advance(ms(1)).await;
    assert_eq!(script.running(), 1);
    assert_eq!(script.asked()[0].ended, Ended::NotYet);
    call.abort();
    testing::advance(ms(1)).await;
    assert_eq!(script.asked()[0].ended, Ended::Dropped);
    testing::assert(&policy).cancelled(1).nothing_in_flight();
}

#[tokio::test(start_paused = true)]
async fn answers_are_given_many_times_or_for_ever() {
    let policy = Pipeline::builder("plain").attempt_timeout(ms(100)).build().unwrap();
    let script = Script::new().err(Down).times(2).ok(1).repeat();
    for expected in [None, None, Some(1), Some(1), Some(1)] {
        assert_eq!(policy.call(script.op()).await.ok(), expected);
    }
    assert_eq!(script.left(), 1, "the one that is repeated");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "the script has 1 answers, and is asked once more")]
async fn a_script_that_is_asked_too_often_fails_its_test() {
    let script = Script::<u32, _>::new().err(Down);
    let _ = policy().call(script.op()).await;
}

#[tokio::test(start_paused = true)]
async fn a_script_stands_in_for_a_tower_service() {
    let policy = policy();
    let script = Script::new().err(Down).ok("answer");
    let mut service = policy.layer().idempotent().layer(script.service::<&str>());
    let deadline = Deadline::after(ms(700));
    let answer = deadline.scope(async { service.ready().await.unwrap().call("question").await });
    assert_eq!(answer.await.unwrap(), "answer");
    let asked = script.asked();
    assert_eq!(asked.iter().map(|asked| asked.attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(
        asked[0].timeout,
        Some(ms(700)),
        "the caller's deadline is nearer than the attempt's"
    );
    assert_eq!(asked[1].timeout, Some(ms(650)));
}

// States.

#[tokio::test(start_paused = true)]
async fn a_tripped_breaker_is_open_for_exactly_its_first_break_and_goes_on_by_itself() {
    let policy = policy();
    let script = Script::<_, Down>::new().ok(1).repeat();
    testing::trip(&policy);
    let Err(Error::Rejected(rejected)) = policy.call(script.op()).await else {
        panic!("an open breaker refuses");
    };
    assert_eq!(
        (rejected.by, rejected.retry_after),
        (By::Breaker, Some(Duration::from_secs(5)))
    );
    assert_eq!(script.calls(), 0);
    testing::advance(ms(4_999)).await;
    testing::assert(&policy).state(State::Open);
    testing::advance(ms(1)).await;
    testing::assert(&policy).state(State::HalfOpen);
    // Two of three probes are enough.
    for _ in 0..2 {
        policy.call(script.op()).await.unwrap();
    }
    testing::assert(&policy)
        .state(State::Closed)
        .successes(2)
        .rejected_by(By::Breaker, 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_breaker_lets_three_probes_out_and_one_can_be_forced_from_every_state() {
    type Put = fn(&Breaker);
    let breaker = Breaker::builder("payments").build().unwrap();
    let states: [(Put, State); 3] = [
        (|breaker| testing::trip(breaker), State::Open),
        (|breaker| testing::half_open(breaker), State::HalfOpen),
        (|breaker| testing::close(breaker), State::Closed),
    ];
    for (first, _) in states {
        for (then, state) in states {
            first(&breaker);
            then(&breaker);
            assert_eq!(breaker.state(), state);
        }
        breaker.force_open();
    }
    assert_eq!(breaker.snapshot().calls.rejected, 0, "nothing was called");
    testing::half_open(&breaker);
    let probes: Vec<_> = (0..4).map(|_| breaker.acquire().ok()).collect();
    assert_eq!(probes.iter().flatten().count(), 3);
    for probe in probes.into_iter().flatten() {
        probe.record(Verdict::Success);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_makes_the_first_failure_the_answer() {
    for budget in [Budget::new(0.0, 1.0), Budget::tokens(10.0, 0.5).unwrap()] {
        let events = Events::new();
        let retry = Retry::default().jitter(Jitter::None).budget(budget);
        let policy = standard().retry(retry).listener(events.clone()).build().unwrap();
        assert!(testing::spend_budget(&policy) > 0);
        let script = Script::<u32, _>::new().err(Down).repeat();
        assert!(policy.call(script.op()).await.is_err());
        assert_eq!(script.calls(), 1);
        events.assert_exactly(&["budget exhausted"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_bulkhead_lets_calls_wait_or_refuses_them_until_it_is_emptied() {
    let policy = standard().bulkhead(2, 1).build().unwrap();
    let script = Script::<_, Down>::new().ok(1).repeat();
    let full = testing::fill(&policy);
    let waiting = tokio::spawn({
        let (policy, op) = (policy.clone(), script.op());
        async move { policy.call(op).await }
    });
    testing::advance(ms(10)).await;
    assert_eq!(policy.snapshot().bulkhead.unwrap().queued, 1);
    drop(full);
    assert_eq!(waiting.await.unwrap().unwrap(), 1);

    let full = testing::fill(&policy).and_queue();
    assert!(policy.call(script.op()).await.is_err_and(|error| error.is_rejected()));
    testing::assert(&policy).rejected_by(By::Bulkhead, 1);
    drop(full);
    testing::assert(&policy).nothing_in_flight();
    assert_eq!(policy.call(script.op()).await.unwrap(), 1);
}

#[test]
#[should_panic(expected = "the policy plain has no breaker")]
fn a_breaker_that_is_not_there_cannot_be_tripped() {
    testing::trip(&Pipeline::builder("plain").build().unwrap());
}

#[test]
#[should_panic(expected = "the policy plain has no retry budget")]
fn a_budget_that_is_not_there_cannot_be_spent() {
    testing::spend_budget(&Pipeline::builder("plain").build().unwrap());
}

#[test]
#[should_panic(expected = "the policy plain has no bulkhead")]
fn a_bulkhead_that_is_not_there_cannot_be_filled() {
    let _full = testing::fill(&Pipeline::builder("plain").build().unwrap());
}

// Time.

#[tokio::test(start_paused = true)]
async fn what_is_due_while_time_passes_happens_at_its_own_moment() {
    let begun = Instant::now();
    let moments = tokio::spawn(async move {
        let mut moments = Vec::new();
        for _ in 0..3 {
            sleep(ms(10)).await;
            moments.push(begun.elapsed());
        }
        moments
    });
    testing::advance(ms(30)).await;
    assert!(moments.is_finished());
    assert_eq!(moments.await.unwrap(), [ms(10), ms(20), ms(30)]);
    assert_eq!(begun.elapsed(), ms(30));
}

#[tokio::test]
#[should_panic(expected = "time is not frozen")]
async fn time_that_is_not_paused_is_not_waited_for() {
    testing::advance(Duration::from_secs(3600)).await;
}

// Events.

#[tokio::test(start_paused = true)]
async fn events_are_remembered_with_their_moments() {
    let events = Events::new();
    let policy = standard().listener(events.clone()).build().unwrap();
    let script = Script::<u32, _>::new().after(ms(5)).err(Down).repeat();
    let fallback = |_| async { Ok(0) };
    assert_eq!(policy.call_or_else(script.op(), fallback).await.unwrap(), 0);
    events.assert_exactly(&["retry 1: transient", "retry 2: transient", "fallback: failure"]);
    let all = events.all();
    assert_eq!(
        all.iter().map(|told| told.at).collect::<Vec<_>>(),
        [ms(5), ms(60), ms(165)]
    );
    let Told { name, what, .. } = &all[1];
    let (attempt, reason, delay) = (2, "transient", ms(100));
    assert_eq!(
        (name.as_str(), *what),
        ("payments", What::Retry { attempt, reason, delay })
    );
    assert_eq!(events.count(|what| matches!(what, What::Retry { .. })), 2);

    events.clear();
    testing::trip(&policy);
    assert!(policy.call(script.op()).await.is_err());
    events.assert_in_order(&["closed -> open", "rejected: breaker"]);
    events.assert_in_order(&["rejected: breaker"]);
    events.assert_in_order(&[]);
}

fn two_events() -> Events {
    let events = Events::new();
    let breaker = Breaker::builder("payments").listener(events.clone()).build().unwrap();
    testing::trip(&breaker);
    testing::close(&breaker);
    events
}

#[test]
#[should_panic(expected = "expected exactly [\"closed -> open\"]; what happened:")]
fn one_event_more_is_not_exactly_what_was_expected() {
    two_events().assert_exactly(&["closed -> open"]);
}

#[test]
#[should_panic(expected = "payments  open -> closed")]
fn a_failure_shows_all_events() {
    two_events().assert_exactly(&[]);
}

#[test]
#[should_panic(expected = "expected \"closed -> open\" in its place")]
fn another_order_is_not_the_order() {
    two_events().assert_in_order(&["open -> closed", "closed -> open"]);
}

#[test]
#[should_panic(expected = "expected \"fallback\" in its place in [\"fallback\"]; nothing happened")]
fn nothing_is_not_something() {
    Events::new().assert_in_order(&["fallback"]);
}

// Statements.

/// One call that fails, is cut off and is answered; one that is refused by the rate limit; one by the open breaker, for
/// which there is a fallback.
async fn busy() -> Pipeline {
    let rate = RateLimitSettings {
        limit: 3,
        per: Duration::from_secs(3600),
        ..RateLimitSettings::default()
    };
    let policy = standard().rate_limit(rate).build().unwrap();
    let script = Script::new().err(Down).hang().ok(1);
    policy.call(script.op()).await.unwrap();
    policy.call(script.op()).await.unwrap_err();
    testing::trip(&policy);
    policy.call_or_else(script.op(), |_| async { Ok(0) }).await.unwrap();
    policy
}

/// What a statement that does not hold says.
fn failure(statement: impl FnOnce()) -> String {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(statement));
    *panic
        .expect_err("the statement does not hold")
        .downcast::<String>()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn statements_that_hold_can_stand_in_a_row() {
    testing::assert(&busy().await)
        .state(State::Open)
        .retries(2)
        .budget_exhausted(0)
        .successes(1)
        .failures(2)
        .cancelled(0)
        .timeouts(Scope::Attempt, 1)
        .timeouts(Scope::Total, 0)
        .rejected_by(By::Breaker, 1)
        .rejected_by(By::RateLimit, 1)
        .rejected_by(By::Bulkhead, 0)
        .fallbacks(1)
        .nothing_in_flight();
}

#[tokio::test(start_paused = true)]
async fn every_statement_fails_when_it_does_not_hold() {
    let policy = busy().await;
    let now = || testing::assert(&policy);
    let _full = testing::fill(&policy);
    type Statement<'a> = Box<dyn FnOnce() + 'a>;
    let statements: [(Statement<'_>, &str); 11] = [
        (Box::new(|| _ = now().fallbacks(0)), "fallbacks: expected 0, found 1"),
        (
            Box::new(|| _ = now().state(State::Closed)),
            "state of the breaker: expected Closed, found Open",
        ),
        (Box::new(|| _ = now().retries(3)), "retries: expected 3, found 2"),
        (
            Box::new(|| _ = now().budget_exhausted(1)),
            "retries without budget: expected 1, found 0",
        ),
        (Box::new(|| _ = now().successes(0)), "successes: expected 0, found 1"),
        (Box::new(|| _ = now().failures(0)), "failures: expected 0, found 2"),
        (
            Box::new(|| _ = now().cancelled(1)),
            "cancelled attempts: expected 1, found 0",
        ),
        (
            Box::new(|| _ = now().timeouts(Scope::Attempt, 0)),
            "timeouts of attempts: expected 0, found 1",
        ),
        (
            Box::new(|| _ = now().timeouts(Scope::Total, 1)),
            "timeouts of calls: expected 1, found 0",
        ),
        (
            Box::new(|| _ = now().rejected_by(By::Breaker, 9)),
            "refusals by the circuit breaker: expected 9, found 1",
        ),
        (
            Box::new(|| _ = now().nothing_in_flight()),
            "expected [0, 0, 0], found [100, 0, 0]",
        ),
    ];
    for (statement, expected) in statements {
        let message = failure(statement);
        assert!(
            message.starts_with("policy payments: ") && message.contains(expected),
            "{message}"
        );
        // And all figures behind it.
        for figures in [
            "breaker: BreakerSnapshot",
            "in_flight: 100",
            "rate limit: RateLimitSnapshot",
        ] {
            assert!(message.contains(figures), "{message}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn hedges_are_stated_too() {
    let policy = standard().hedge(HedgeSettings::default()).build().unwrap();
    let script = Script::<_, Down>::new().hang().ok(1);
    policy.call(script.op()).await.unwrap();
    testing::assert(&policy).hedges(1).cancelled(1).nothing_in_flight();
    assert!(failure(|| _ = testing::assert(&policy).hedges(0)).contains("hedges: expected 0, found 1"));
}

#[test]
#[should_panic(expected = "policy plain: there is no breaker")]
fn nothing_is_said_of_a_part_that_is_not_there() {
    testing::assert(&Pipeline::builder("plain").build().unwrap()).state(State::Closed);
}

#[test]
#[should_panic(expected = "refusals by the deadline are in no figure: count them with Events")]
fn what_is_not_counted_is_not_taken_for_zero() {
    testing::assert(&policy()).rejected_by(By::Deadline, 0);
}

#[test]
#[should_panic(expected = "calls in flight are counted by a bulkhead or a concurrency limit, and there is none")]
fn nobody_inside_needs_somebody_who_counts() {
    testing::assert(&Pipeline::builder("plain").build().unwrap()).nothing_in_flight();
}
