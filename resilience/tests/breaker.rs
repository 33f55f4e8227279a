//! The breaker's promises, each of which some other library breaks: the window slides, half-open neither sticks nor
//! floods, results of an earlier era change nothing, cancellation is an outcome.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{
    Breaker, BreakerBuilder, BreakerSettings, Event, Force, HalfOpen, Kind, OnDrop, Permit, State, Verdict,
};
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

#[tokio::test(start_paused = true)]
async fn a_forced_state_ends_by_itself() {
    let breaker = builder().build().unwrap();
    breaker.force(Force::Open, Some(secs(60)));
    assert_eq!(breaker.acquire().unwrap_err().retry_after, Some(secs(60)));
    assert_eq!(breaker.snapshot().forced_for_ms, Some(60_000));
    advance(secs(59)).await;
    assert_eq!(breaker.state(), State::ForcedOpen);
    assert!(breaker.gate().is_err());
    advance(secs(1)).await;
    assert_eq!(breaker.state(), State::Closed);
    assert!(breaker.gate().is_ok());
    assert_eq!(breaker.snapshot().forced_for_ms, None);
    record(&breaker, FAILED, 9);
    assert_eq!(breaker.state(), State::Closed);

    breaker.force(Force::Closed, Some(secs(60)));
    record(&breaker, FAILED, 100);
    assert_eq!(breaker.state(), State::ForcedClosed);
    advance(secs(60)).await;
    open(&breaker);
    // Longer than the packed word can tell.
    breaker.force(Force::Open, Some(secs(100 * 24 * 3600)));
    advance(secs(99 * 24 * 3600)).await;
    assert!(breaker.acquire().is_err());
    assert_eq!(breaker.state(), State::ForcedOpen);
    advance(secs(24 * 3600)).await;
    assert!(breaker.acquire().is_ok());
    breaker.force(Force::Open, Some(Duration::MAX));
    assert_eq!(breaker.state(), State::ForcedOpen, "for ever, and without a panic");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_observes_changes_its_state_and_refuses_nothing() {
    let breaker = builder().half_open(1, secs(30)).observe_only().build().unwrap();
    open(&breaker);
    record(&breaker, FAILED, 5);
    assert!(breaker.gate().is_ok());
    assert!(!breaker.is_healthy());
    let snapshot = breaker.snapshot();
    assert!(snapshot.observe_only);
    assert_eq!(
        (snapshot.calls.rejected, snapshot.calls.spared, snapshot.calls.failure),
        (0, 5, 15)
    );
    wait_for_half_open(&breaker).await;
    let probe = permit(&breaker);
    record(&breaker, FAILED, 5);
    assert_eq!(breaker.state(), State::HalfOpen, "only the probe decides");
    probe.record(Verdict::Success);
    assert_eq!(breaker.state(), State::Closed);
    breaker.force_open();
    assert!(breaker.acquire().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_gate_refuses_while_it_is_open_and_takes_no_probe() {
    let breaker = builder().half_open(1, secs(30)).build().unwrap();
    assert!(breaker.gate().is_ok());
    open(&breaker);
    let refused = breaker.gate().unwrap_err();
    assert!(refused.retry_after.is_some_and(|left| left >= secs(5)));
    assert_eq!(&*refused.named(&breaker).name, "payments");
    assert_eq!(breaker.snapshot().calls.rejected, 1);
    wait_for_half_open(&breaker).await;
    assert!((0..10).all(|_| breaker.gate().is_ok()));
    let probe = permit(&breaker);
    assert!(breaker.acquire().is_err());
    probe.record(Verdict::Success);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn what_a_dropped_call_says_can_be_chosen() {
    let hung = |builder: BreakerBuilder| async move {
        let breaker = builder.build().unwrap();
        let hung: Vec<Permit> = (0..10).map(|_| permit(&breaker)).collect();
        advance(secs(2)).await;
        drop(hung);
        breaker.state()
    };
    assert_eq!(
        hung(builder()).await,
        State::Closed,
        "nothing, where no limit says what is long"
    );
    assert_eq!(hung(builder().slow_calls(secs(2), 1.0)).await, State::Open);
    assert_eq!(
        hung(builder().slow_calls(secs(2), 1.0).on_drop(OnDrop::Ignore)).await,
        State::Closed
    );
    let after = |seconds| OnDrop::FailureAfter(secs(seconds));
    assert_eq!(hung(builder().on_drop(after(2))).await, State::Open);
    assert_eq!(hung(builder().on_drop(after(3))).await, State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_state_and_counts() {
    let breaker = builder().build().unwrap();
    let settings = |min_calls, last_calls| BreakerSettings {
        min_calls,
        last_calls,
        ..BreakerSettings::default()
    };
    record(&breaker, FAILED, 9);
    breaker.reload(settings(20, None)).unwrap();
    record(&breaker, FAILED, 10);
    assert_eq!(breaker.state(), State::Closed);
    let refused = breaker.reload(settings(0, None)).unwrap_err();
    assert_eq!(refused.key, "breaker.min_calls");
    assert_eq!(
        breaker.snapshot().settings.min_calls,
        20,
        "a refused reload changes nothing"
    );
    record(&breaker, FAILED, 1);
    assert_eq!(
        breaker.state(),
        State::Open,
        "the nine from before are among the twenty"
    );
    breaker.reload(settings(10, None)).unwrap();
    assert_eq!(breaker.state(), State::Open);
    assert_eq!(breaker.snapshot().calls.failure, 20);

    breaker.release();
    record(&breaker, FAILED, 9);
    breaker.reload(settings(10, Some(10))).unwrap();
    assert_eq!(
        breaker.snapshot().window_calls,
        0,
        "a window of the other kind starts empty"
    );
    record(&breaker, FAILED, 9);
    breaker.reload(settings(4, Some(4))).unwrap();
    assert_eq!(breaker.snapshot().window_calls, 4, "of calls the latest are kept");
}

#[tokio::test(start_paused = true)]
async fn with_fewer_probes_those_that_ended_may_be_enough() {
    let breaker = builder().half_open(5, secs(30)).build().unwrap();
    open(&breaker);
    wait_for_half_open(&breaker).await;
    record(&breaker, Verdict::Success, 1);
    let settings = BreakerSettings {
        half_open: HalfOpen {
            probes: 1,
            ..HalfOpen::default()
        },
        ..BreakerSettings::default()
    };
    breaker.reload(settings).unwrap();
    assert_eq!(
        breaker.state(),
        State::Closed,
        "else it would wait for a probe that it never admits"
    );
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_tells_the_last_changes_and_the_window() {
    let breaker = builder()
        .half_open(1, secs(30))
        .slow_calls(secs(1), 1.0)
        .build()
        .unwrap();
    record(&breaker, Verdict::Success, 2);
    record(&breaker, FAILED, 1);
    let slow = permit(&breaker);
    advance(secs(1)).await;
    slow.record(Verdict::Success);
    let snapshot = breaker.snapshot();
    assert_eq!(
        (snapshot.window_calls, snapshot.window_failures, snapshot.window_slow),
        (4, 1, 1)
    );
    assert!((snapshot.failure_ratio - 0.25).abs() < 1e-9);
    assert!(snapshot.last_transitions.is_empty() && breaker.is_healthy());

    for _ in 0..20 {
        breaker.force_open();
        advance(secs(1)).await;
        breaker.release();
    }
    let last = breaker.snapshot().last_transitions;
    assert_eq!(last.len(), 16);
    assert_eq!(
        (last[15].from, last[15].to, last[15].ago_ms),
        (State::ForcedOpen, State::Closed, 0)
    );
    assert_eq!((last[14].to, last[14].ago_ms), (State::ForcedOpen, 1_000));
    assert_eq!(
        breaker.snapshot().transitions[State::Closed as usize][State::ForcedOpen as usize],
        20
    );
}

/// Threads of their own, so time is real; nothing here depends on it.
#[test]
fn no_count_of_racing_threads_is_lost() {
    const THREADS: u64 = 16;
    const CALLS: u64 = 5_000;
    let breaker = Breaker::builder("race")
        .min_calls(1_000_000)
        .window(secs(3600))
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for call in 0..CALLS {
                    let verdict = if call % 4 == 0 { FAILED } else { Verdict::Success };
                    permit(&breaker).record(verdict);
                    drop(permit(&breaker));
                }
            });
        }
    });
    let snapshot = breaker.snapshot();
    assert_eq!(snapshot.calls.failure, THREADS * CALLS / 4);
    assert_eq!(snapshot.calls.success, THREADS * CALLS * 3 / 4);
    assert_eq!(snapshot.calls.cancelled, THREADS * CALLS);
    assert_eq!(
        (snapshot.window_calls, snapshot.window_failures),
        (THREADS * CALLS, THREADS * CALLS / 4)
    );
}

#[test]
fn racing_threads_open_it_once_and_get_exactly_the_probes() {
    for _ in 0..50 {
        let short = Duration::from_millis(1);
        let breaker = builder().open(short, short).half_open(3, secs(30)).build().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| permit(&breaker).record(FAILED));
            }
        });
        let opened = breaker.snapshot().transitions[State::Closed as usize][State::Open as usize];
        assert_eq!(opened, 1, "ten failures of ten calls");
        while breaker.state() == State::Open {
            std::thread::yield_now();
        }
        let start = std::sync::Barrier::new(32);
        let admitted: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..32)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        breaker.acquire().ok()
                    })
                })
                .collect();
            racers.into_iter().filter_map(|racer| racer.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 3);
    }
}

#[test]
fn settings_are_read_from_text_and_shown_as_text() {
    let text = r#"
        failure_ratio = 0.3
        window = "1m 30s"
        last_calls = 50
        consecutive = 7
        slow = { limit = "250ms", ratio = 0.9 }
        open = "2s"
        half_open = { probes = 5, ratio = 0.4 }
        on_drop = { failure_after = "1500ms" }
        observe_only = true
    "#;
    let settings: BreakerSettings = toml::from_str(text).unwrap();
    assert_eq!((settings.window, settings.min_calls), (secs(90), 20));
    assert_eq!(settings.half_open.lease, secs(30));
    assert_eq!(
        settings.on_drop,
        Some(OnDrop::FailureAfter(Duration::from_millis(1_500)))
    );
    assert!(settings.check("x").is_ok());
    let again: BreakerSettings = toml::from_str(&toml::to_string(&settings).unwrap()).unwrap();
    assert_eq!(again, settings, "what a snapshot shows can be read");
    assert_eq!(
        toml::from_str::<BreakerSettings>("").unwrap(),
        BreakerSettings::default()
    );
    for mistake in [
        "windows = \"1s\"",
        "half_open = { probe = 1 }",
        "slow = { limit = \"1s\" }",
        "window = 30",
    ] {
        assert!(toml::from_str::<BreakerSettings>(mistake).is_err(), "{mistake}");
    }
}

#[test]
fn senseless_settings_are_refused_with_their_key() {
    let (day, longer) = (secs(24 * 3600), secs(24 * 3600 + 1));
    assert!(builder().window(day).open(day, day).half_open(1, day).build().is_ok());
    for (builder, key) in [
        (builder().failure_ratio(0.0), "failure_ratio"),
        (builder().failure_ratio(-0.5), "failure_ratio"),
        (builder().failure_ratio(1.5), "failure_ratio"),
        (builder().failure_ratio(f64::NAN), "failure_ratio"),
        (builder().min_calls(0), "min_calls"),
        (builder().window(Duration::ZERO), "window"),
        (builder().window(longer), "window"),
        (builder().last_calls(0), "last_calls"),
        (builder().last_calls(usize::MAX), "last_calls"),
        (builder().last_calls(5), "min_calls"),
        (builder().consecutive(0), "consecutive"),
        (builder().slow_calls(Duration::ZERO, 0.5), "slow.limit"),
        (builder().slow_calls(secs(1), f64::INFINITY), "slow.ratio"),
        (builder().open(Duration::ZERO, secs(5)), "open"),
        (builder().open(secs(10), secs(5)), "open"),
        (builder().open(secs(10), Duration::MAX), "open_max"),
        (builder().half_open(0, secs(1)), "half_open.probes"),
        (builder().half_open(1, Duration::ZERO), "half_open.lease"),
        (builder().half_open_ratio(f64::NAN), "half_open.ratio"),
        (builder().drop_fails_after(Duration::ZERO), "on_drop.failure_after"),
    ] {
        assert_eq!(builder.build().unwrap_err().key, format!("breaker.{key}"));
    }
}
