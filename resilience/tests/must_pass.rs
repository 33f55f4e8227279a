//! The promises of this crate that some other library breaks, one by one, and the tests that hold it to them. What no
//! other file has is here; that the list tells the truth is a test too.
//!
//! | Promise | Test |
//! |---|---|
//! | a window of calls slides: after 10,000 successes ten failures open it | `breaker.rs` `the_count_window_slides` |
//! | a window of time slides | `breaker.rs` `the_time_window_slides` |
//! | probes further apart than the window still close it | `breaker.rs` `half_open_closes_also_when_probes_come_further_apart_than_the_window` |
//! | a hung probe loses its place when its lease is over | `breaker.rs` `a_hung_probe_loses_its_place_and_its_result_comes_too_late` |
//! | a dropped probe frees its place and is counted as cancelled | `breaker.rs` `a_dropped_probe_frees_its_place_and_counts_as_cancelled` |
//! | the same through a policy | `pipeline_stages.rs` `a_probe_that_is_dropped_frees_its_place` |
//! | a success admitted before the trip does not close it | `breaker.rs` `results_from_before_the_trip_decide_nothing` |
//! | 32 racers get exactly the probes | `breaker.rs` `racers_get_exactly_the_probes` |
//! | and so do threads | `breaker.rs` `racing_threads_open_it_once_and_get_exactly_the_probes` |
//! | an outer timeout is visible | `pipeline.rs` `the_breaker_sees_what_an_outer_limit_cuts_off` |
//! | a step of the wall clock has no effect | `must_pass.rs` `nothing_decides_by_the_wall_clock` |
//! | a clock that jumps ahead ends breaks and windows, and breaks nothing | `must_pass.rs` `a_clock_that_jumps_ahead_leaves_old_and_new_policies_alike` |
//! | exactly one state gauge is 1, before the first call too | `must_pass.rs` `exactly_one_state_is_on_at_all_times` |
//! | a budget of 0.6 grants 60 % | `budget.rs` `sixty_percent_are_sixty_percent_also_while_requests_come` |
//! | racers never overspend a budget | `budget.rs` `racers_never_overspend` |
//! | two axum routes share one limiter | `server_axum.rs` `two_routes_and_all_connections_share_one_limiter` |
//! | the first attempt of a streaming body succeeds | `http_layer.rs` `what_is_too_long_to_keep_is_sent_once_and_the_answer_stands` |
//! | of reqwest's too | `reqwest_client.rs` `a_stream_is_sent_once_and_whole` |
//! | a POST is not sent again after a reset | `reqwest_client.rs` `broken_answers_are_asked_for_again_when_that_is_safe` |
//! | but after REFUSED_STREAM | `reqwest_client.rs` `a_refused_stream_is_sent_again_at_once_and_counts_as_no_retry` |
//! | `Retry-After: 3600` with two seconds left returns at once | `pipeline.rs` `a_servers_hint_is_followed_unless_it_comes_too_late` |
//! | from a socket too | `reqwest_client.rs` `a_wait_that_ends_after_the_deadline_is_not_begun` |
//! | tonic's "Timeout expired" is a timeout | `protocols.rs` `refused_connections_were_not_sent_and_tonics_own_timeout_is_one` |
//! | from a server too | `grpc_layer.rs` `tonics_own_timeout_is_a_timeout` |
//! | a reload keeps the state | `breaker.rs` `a_reload_keeps_state_and_counts` |
//! | of a whole policy | `reload.rs` `a_reload_keeps_what_the_parts_know` |
//! | the closed path does not allocate | `no_allocation.rs` `the_closed_path_and_refusals_do_not_allocate` |
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use resilience::{
    Breaker, BreakerSnapshot, Budget, Event, Force, Jitter, Kind, Pipeline, PipelineSnapshot, RateLimitSettings, Retry,
    State, ThrottleSettings, Verdict,
};
use tokio::time::{Instant, advance};

const FAILED: Verdict = Verdict::Failure(Kind::Transient);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_test_of_the_list_is_there() {
    let own = fs::read_to_string(root().join("tests/must_pass.rs")).unwrap();
    let mut listed = 0;
    for row in own
        .lines()
        .filter(|line| line.starts_with("//! | ") && line.contains(".rs` `"))
    {
        let mut quoted = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2);
        let (file, test) = (quoted.next().unwrap(), quoted.next().unwrap());
        let text = fs::read_to_string(root().join("tests").join(file)).unwrap();
        let place = text.find(&format!("fn {test}("));
        let attributes = text[..place.unwrap_or_else(|| panic!("{file} has no test {test}"))]
            .rsplit("\n\n")
            .next();
        let attributes = attributes.unwrap();
        assert!(
            attributes.contains("test") && !attributes.contains("ignore"),
            "{test}: {attributes}"
        );
        listed += 1;
    }
    assert_eq!(listed, 27);
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// A process cannot step its machine's clock, so this looks at the source: the wall clock is asked where a date of HTTP
/// becomes a wait, and nowhere else.
#[test]
fn nothing_decides_by_the_wall_clock() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 40, "{}", files.len());
    let asking: Vec<String> = files
        .iter()
        .filter(|path| {
            let text = fs::read_to_string(path).unwrap();
            ["SystemTime::now", "UNIX_EPOCH", "ClockId::Realtime", "Utc::now"]
                .iter()
                .any(|word| text.contains(word))
        })
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    assert_eq!(asking, ["src/http.rs"]);
}

/// Whatever a policy remembers of before the jump, afterwards it behaves like one that was made then.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_leaves_old_and_new_policies_alike() {
    let policy = || {
        Pipeline::standard("p")
            .retry(Retry::default().jitter(Jitter::None).budget(Budget::new(0.2, 0.0)))
            .breaker(Breaker::builder("p").min_calls(10))
            .rate_limit(RateLimitSettings {
                limit: 40,
                per: secs(60),
                ..RateLimitSettings::default()
            })
            .throttle(ThrottleSettings {
                min_per_sec: 1_000.0,
                ..ThrottleSettings::default()
            })
            .build()
            .unwrap()
    };
    async fn twenty(policy: &Pipeline) -> (Vec<bool>, Duration) {
        let began = Instant::now();
        let mut failed = Vec::new();
        for _ in 0..20 {
            let result = policy.call(|_| async { Err::<(), ()>(()) }).await;
            failed.push(result.unwrap_err().is_rejected());
        }
        (failed, began.elapsed())
    }
    let figures = |snapshot: PipelineSnapshot| {
        let breaker = snapshot.breaker.unwrap();
        let window = (breaker.state, breaker.window_calls, breaker.window_failures);
        (
            window,
            snapshot.rate_limit.unwrap().available,
            snapshot.throttle.unwrap().requests,
        )
    };
    for jump in [secs(120), secs(86_400), secs(86_400 * 365 * 60)] {
        let old = policy();
        // Something of everything, but no trip.
        for _ in 0..9 {
            old.call(|_| async { Ok::<_, ()>(()) }).await.unwrap();
        }
        advance(jump).await;
        let new = policy();
        assert_eq!(figures(old.snapshot()), figures(new.snapshot()), "{jump:?}");
        assert_eq!(twenty(&old).await, twenty(&new).await, "{jump:?}");
        assert_eq!(old.breaker().unwrap().state(), State::Open);
        // A break, too, is over after a jump and not prolonged by one.
        advance(jump).await;
        assert_eq!(old.breaker().unwrap().state(), State::HalfOpen, "{jump:?}");
        for _ in 0..3 {
            let _ = old.call(|_| async { Ok::<_, ()>(()) }).await;
        }
        assert_eq!(old.breaker().unwrap().state(), State::Closed, "{jump:?}");
    }
}

/// The gauges as a metric would have them: a state's is what came in less what went out, and closed is there at first.
fn gauges(snapshot: &BreakerSnapshot) -> Vec<i64> {
    let sum = |counts: &mut dyn Iterator<Item = u64>| i64::try_from(counts.sum::<u64>()).unwrap();
    (0..State::ALL.len())
        .map(|state| {
            let came = sum(&mut snapshot.transitions.iter().map(|row| row[state]));
            let went = sum(&mut snapshot.transitions[state].iter().copied());
            came - went + i64::from(State::ALL[state] == State::Closed)
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn exactly_one_state_is_on_at_all_times() {
    let told = Arc::new(Mutex::new(State::Closed));
    let of_listener = Arc::clone(&told);
    let policy = Pipeline::builder("p")
        .breaker(
            Breaker::builder("p")
                .min_calls(2)
                .half_open(1, secs(5))
                .open(secs(1), secs(2)),
        )
        .listener(move |event: &Event<'_>| {
            if let Event::Transition { from, to, .. } = event {
                let before = std::mem::replace(&mut *of_listener.lock().unwrap(), *to);
                assert_eq!(before, *from, "what was on goes off");
            }
        })
        .build()
        .unwrap();
    let breaker = policy.breaker().unwrap();
    let check = |what: &str| {
        let snapshot = breaker.snapshot();
        let told = *told.lock().unwrap();
        // What ends by itself, a break or a forced state, shows at once and is told when a call notices it.
        let ended_by_itself = match told {
            State::Open => snapshot.state == State::HalfOpen,
            State::ForcedOpen => snapshot.state != State::ForcedClosed,
            _ => false,
        };
        assert!(
            told == snapshot.state || ended_by_itself,
            "{what}: {told:?}, {:?}",
            snapshot.state
        );
        let expected: Vec<i64> = State::ALL.iter().map(|state| i64::from(*state == told)).collect();
        assert_eq!(gauges(&snapshot), expected, "{what}: {snapshot:?}");
    };
    check("before the first call");
    let steps: [(&str, &dyn Fn()); 8] = [
        ("success", &|| {
            breaker
                .acquire()
                .into_iter()
                .for_each(|permit| permit.record(Verdict::Success));
        }),
        ("failure", &|| {
            breaker.acquire().into_iter().for_each(|permit| permit.record(FAILED));
        }),
        ("dropped", &|| drop(breaker.acquire())),
        ("forced open", &|| breaker.force_open()),
        ("forced closed", &|| breaker.force_closed()),
        ("forced for a second", &|| breaker.force(Force::Open, Some(secs(1)))),
        ("released", &|| breaker.release()),
        ("nothing", &|| {}),
    ];
    // Every step after every other, several times over and at different distances.
    for round in 0..4_u64 {
        for (what, first) in &steps {
            for (then, second) in &steps {
                first();
                check(what);
                advance(Duration::from_millis(700 * round)).await;
                check("some time later");
                second();
                check(then);
            }
        }
    }
    let seen = breaker.snapshot().transitions;
    assert!(
        (0..5).all(|state| seen.iter().any(|row| row[state] > 0)),
        "every state was there: {seen:?}"
    );
}
