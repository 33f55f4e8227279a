//! The breaker's promises, each of which some other library breaks: the window slides, half-open neither sticks nor
//! floods, results of an earlier era change nothing, cancellation is an outcome.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{Breaker, BreakerBuilder, Event, Kind, Permit, State, Verdict};
use tokio::time::advance;

const FAILED: Verdict = Verdict::Failure(Kind::Transient);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn builder() -> BreakerBuilder {
    Breaker::builder("payments").min_calls(10)
}

fn permit(breaker: &Breaker) -> Permit {
    breaker.acquire().expect("the breaker should let this call pass")
}

fn record(breaker: &Breaker, verdict: Verdict, times: usize) {
    for _ in 0..times {
        permit(breaker).record(verdict);
    }
}

/// Opens a fresh breaker with ten failures.
fn open(breaker: &Breaker) {
    record(breaker, FAILED, 10);
    assert_eq!(breaker.state(), State::Open);
}

/// Waits until the break is over: at most the longest one and its jitter.
async fn wait_for_half_open(breaker: &Breaker) {
    for _ in 0..100 {
        if breaker.state() == State::HalfOpen {
            return;
        }
        advance(secs(1)).await;
    }
    panic!("the break never ends: {:?}", breaker.snapshot());
}

#[tokio::test(start_paused = true)]
async fn the_time_window_slides() {
    let breaker = builder().window(secs(10)).build().unwrap();
    record(&breaker, Verdict::Success, 10_000);
    advance(secs(11)).await;
    // What is older than the window must not hide ten failures now.
    record(&breaker, FAILED, 9);
    assert_eq!(breaker.state(), State::Closed, "fewer calls than the minimum");
    record(&breaker, FAILED, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_burst_at_the_edge_of_a_bucket_is_not_forgotten() {
    let breaker = builder().window(secs(10)).build().unwrap();
    record(&breaker, FAILED, 5);
    advance(Duration::from_millis(8_900)).await;
    record(&breaker, FAILED, 5);
    assert_eq!(breaker.state(), State::Open, "all ten failures lie within ten seconds");
}

#[tokio::test(start_paused = true)]
async fn the_count_window_slides() {
    let breaker = builder().last_calls(10).build().unwrap();
    record(&breaker, Verdict::Success, 10_000);
    record(&breaker, FAILED, 4);
    assert_eq!(breaker.state(), State::Closed);
    record(&breaker, FAILED, 1);
    assert_eq!(breaker.state(), State::Open, "5 of the last 10 failed");
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_below_the_minimum_of_calls() {
    let breaker = Breaker::builder("x").min_calls(1000).consecutive(3).build().unwrap();
    record(&breaker, FAILED, 2);
    record(&breaker, Verdict::Success, 1);
    record(&breaker, FAILED, 2);
    assert_eq!(breaker.state(), State::Closed, "a success began a new row");
    record(&breaker, FAILED, 1);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_answers_open_it() {
    let breaker = builder().slow_calls(secs(1), 0.5).build().unwrap();
    for index in 0..10 {
        let permit = permit(&breaker);
        if index % 2 == 0 {
            advance(secs(1)).await;
        }
        permit.record(Verdict::Success);
    }
    // The last slow one was the ninth call; the tenth was fast and cannot open anything.
    assert_eq!(breaker.state(), State::Closed);
    let slow = permit(&breaker);
    advance(secs(1)).await;
    slow.record(Verdict::Success);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().calls.slow, 6);
}

#[tokio::test(start_paused = true)]
async fn half_open_closes_also_when_probes_come_further_apart_than_the_window() {
    let breaker = builder().window(secs(1)).half_open(3, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Success, 1);
    assert_eq!(breaker.state(), State::HalfOpen);
    advance(secs(60)).await;
    record(&breaker, Verdict::Success, 1);
    assert_eq!(
        breaker.state(),
        State::Closed,
        "two of three probes are enough at a ratio of one half"
    );
}

#[tokio::test(start_paused = true)]
async fn racers_get_exactly_the_probes() {
    let breaker = builder().half_open(3, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    let results: Vec<_> = (0..32).map(|_| breaker.acquire()).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    let refused = results.iter().find_map(|result| result.as_ref().err()).unwrap();
    assert_eq!(refused.retry_after, Some(secs(30)), "when the first lease is over");
}

#[tokio::test(start_paused = true)]
async fn a_hung_probe_loses_its_place_and_its_result_comes_too_late() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    let hung = permit(&breaker);
    assert!(breaker.acquire().is_err(), "the only place is taken");
    advance(secs(31)).await;
    let second = permit(&breaker);
    hung.record(Verdict::Success);
    assert_eq!(
        breaker.state(),
        State::HalfOpen,
        "a probe without a place decides nothing"
    );
    assert_eq!(breaker.snapshot().calls.stale, 1);
    second.record(Verdict::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_frees_its_place_and_counts_as_cancelled() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    drop(permit(&breaker));
    assert_eq!(breaker.state(), State::HalfOpen, "a cancelled probe closes nothing");
    assert_eq!(breaker.snapshot().calls.cancelled, 1);
    record(&breaker, Verdict::Success, 1);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_nothing_neither_closes_nor_opens() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Ignore, 5);
    assert_eq!(breaker.state(), State::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn results_from_before_the_trip_decide_nothing() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    let before: Vec<Permit> = (0..5).map(|_| permit(&breaker)).collect();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    let probe = permit(&breaker);
    for permit in before {
        permit.record(Verdict::Success);
    }
    assert_eq!(breaker.state(), State::HalfOpen, "old successes must not close it");
    assert_eq!(breaker.snapshot().calls.stale, 5);
    probe.record(FAILED);
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn results_from_before_a_recovery_do_not_open_it_again() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    let before: Vec<Permit> = (0..100).map(|_| permit(&breaker)).collect();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Success, 1);
    for permit in before {
        permit.record(FAILED);
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_break_doubles_while_probes_fail_and_starts_again_after_a_recovery() {
    let breaker = builder()
        .open(secs(5), secs(60))
        .half_open(1, secs(30))
        .build()
        .unwrap();
    let mut breaks = Vec::new();
    open(&breaker);
    for _ in 0..6 {
        let wait = breaker.acquire().unwrap_err().retry_after.unwrap();
        breaks.push(wait);
        advance(wait).await;
        record(&breaker, FAILED, 1);
    }
    for (index, wait) in breaks.iter().enumerate() {
        let base = secs((5 << index).min(60));
        assert!(
            *wait >= base && *wait <= base.mul_f64(1.25),
            "break {index} of {wait:?}, base {base:?}"
        );
    }
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Success, 1);
    open(&breaker);
    let wait = breaker.acquire().unwrap_err().retry_after.unwrap();
    assert!(wait <= secs(5).mul_f64(1.25), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_after_its_limit_is_a_failure_and_an_early_one_is_not() {
    let breaker = builder().drop_fails_after(secs(1)).build().unwrap();
    for _ in 0..50 {
        drop(permit(&breaker));
    }
    assert_eq!(
        breaker.state(),
        State::Closed,
        "callers that change their mind say nothing"
    );
    let hung: Vec<Permit> = (0..10).map(|_| permit(&breaker)).collect();
    advance(secs(2)).await;
    drop(hung);
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().calls.cancelled, 60);
}

#[tokio::test(start_paused = true)]
async fn forced_states_hold_until_released() {
    let breaker = builder().build().unwrap();
    breaker.force_open();
    assert_eq!(breaker.state(), State::ForcedOpen);
    assert!(breaker.acquire().is_err());
    breaker.force_closed();
    record(&breaker, FAILED, 100);
    assert_eq!(breaker.state(), State::ForcedClosed);
    breaker.release();
    assert_eq!(breaker.state(), State::Closed);
    record(&breaker, FAILED, 9);
    assert_eq!(
        breaker.state(),
        State::Closed,
        "nothing is remembered from the forced time"
    );
}

#[tokio::test(start_paused = true)]
async fn every_change_is_told_once_and_counted() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_listener = Arc::clone(&seen);
    let breaker = builder()
        .half_open(1, secs(30))
        .listener(move |event: &Event<'_>| {
            if let Event::Transition { from, to, .. } = event {
                of_listener.lock().unwrap().push((*from, *to));
            }
        })
        .build()
        .unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Success, 1);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.first(), Some(&(State::Closed, State::Open)));
    assert_eq!(seen.last().map(|(_, to)| *to), Some(State::Closed));
    assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].0), "no gap: {seen:?}");
    let counted: u64 = breaker.snapshot().transitions.iter().flatten().sum();
    assert_eq!(counted, seen.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn clones_share_one_state() {
    let breaker = builder().build().unwrap();
    let other = breaker.clone();
    open(&breaker);
    assert!(other.acquire().is_err());
}

#[test]
fn senseless_settings_are_refused_with_their_name() {
    for (builder, word) in [
        (builder().failure_ratio(0.0), "failure_ratio"),
        (builder().failure_ratio(1.5), "failure_ratio"),
        (builder().failure_ratio(f64::NAN), "failure_ratio"),
        (builder().half_open(0, secs(1)), "half_open"),
        (builder().window(Duration::ZERO), "window"),
        (builder().last_calls(5), "min_calls"),
        (builder().open(secs(10), secs(5)), "open_max"),
        (builder().slow_calls(Duration::ZERO, 0.5), "slow"),
    ] {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
