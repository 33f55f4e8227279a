//! What other libraries promise of their breakers, as tables: what is done, and the state after it. Written afresh, in
//! the spirit of Polly's `CircuitStateControllerTests`, `AdvancedCircuitBehaviorTests` and `RollingHealthMetricsTests`,
//! resilience4j's `CircuitBreakerStateMachineTest`, `CircuitBreakerMetricsTest`, `FixedSizeSlidingWindowMetricsTest` and
//! `SlidingTimeWindowMetricsTest`, and failsafe-go's `closedstate`, `openstate` and `halfopenstate` tests.
//!
//! A row is a string, one letter a step: `s` a success, `f` a failure, `o` an overload, `i` an answer that says nothing,
//! `d` a call that is dropped, `l` a slow success (2 s), `L` a slow failure, `.` one second, `w` until the break is
//! over; and between them the expected state in capitals: `C`, `O` or `H`, or `R`: a call is refused.

use std::time::Duration;

use resilience::{Breaker, BreakerBuilder, Kind, Permit, State, Verdict};
use tokio::time::advance;

const FAILED: Verdict = Verdict::Failure(Kind::Transient);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A window of 10 s, breaks of exactly 5 s but for the jitter, one probe.
fn builder() -> BreakerBuilder {
    Breaker::builder("table")
        .window(secs(10))
        .min_calls(4)
        .open(secs(5), secs(5))
        .half_open(1, secs(30))
}

async fn run(source: &str, builder: BreakerBuilder, row: &str) {
    let breaker = builder.build().expect(source);
    for (at, step) in row.char_indices() {
        let here = format!("{source}: {row} at {at} ({step})");
        let permit = || -> Permit { breaker.acquire().expect(&here) };
        let call = |verdict| permit().record(verdict);
        match step {
            's' => call(Verdict::Success),
            'f' => call(FAILED),
            'o' => call(Verdict::Overload { hint: None }),
            'i' => call(Verdict::Ignore),
            'd' => drop(permit()),
            'l' | 'L' => {
                let permit = permit();
                advance(secs(2)).await;
                permit.record(if step == 'l' { Verdict::Success } else { FAILED });
            }
            '.' => advance(secs(1)).await,
            'w' => {
                let left = breaker.gate().expect_err(&here).retry_after.expect(&here);
                advance(left).await;
            }
            'C' => assert_eq!(breaker.state(), State::Closed, "{here}"),
            'O' => assert_eq!(breaker.state(), State::Open, "{here}"),
            'H' => assert_eq!(breaker.state(), State::HalfOpen, "{here}"),
            'R' => assert!(breaker.acquire().is_err(), "{here}"),
            ' ' => {}
            other => panic!("{here}: no step {other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn closed_opens_at_the_ratio_of_enough_calls() {
    let ratio = |ratio, min| builder().failure_ratio(ratio).min_calls(min);
    for (source, builder, row) in [
        ("Polly advanced: below the throughput", ratio(0.5, 4), "fffC"),
        ("Polly advanced: at the throughput", ratio(0.5, 4), "fffC fO"),
        ("Polly advanced: exactly the ratio", ratio(0.5, 4), "ssffO"),
        ("Polly advanced: under the ratio", ratio(0.5, 4), "sssfC"),
        ("Polly advanced: the last one decides it", ratio(0.5, 4), "sfsC fO"),
        ("Polly advanced: a success never opens", ratio(0.5, 4), "fffC sC"),
        ("Polly advanced: all must fail", ratio(1.0, 4), "sffffffffC"),
        ("Polly advanced: all fail", ratio(1.0, 4), "ffffO"),
        ("Polly: ten percent", ratio(0.1, 10), "sssssssssC fO"),
        ("Polly: less than ten percent", ratio(0.1, 11), "ssssssssssC fC"),
        (
            "resilience4j: ignored ones do not count",
            ratio(0.5, 4),
            "iiiiiifffC fO",
        ),
        ("resilience4j: dropped ones do not count", ratio(0.5, 4), "ddddfffC fO"),
        ("linkerd: overload counts for the ratio", ratio(0.5, 4), "ssooO"),
        ("failsafe-go: one failure", ratio(1.0, 1), "fO"),
        ("failsafe-go: three of three", ratio(1.0, 3), "ffC fO"),
        ("failsafe-go: two of three", ratio(0.6, 3), "sfC fO"),
    ] {
        run(source, builder, row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_of_time_slides() {
    let ratio = |ratio, min| builder().failure_ratio(ratio).min_calls(min);
    for (source, builder, row) in [
        ("Polly rolling: all within", ratio(0.5, 4), "f..f..f..C fO"),
        ("Polly rolling: the first is past", ratio(0.5, 4), "f...........fffC fO"),
        ("Polly rolling: at the far edge", ratio(0.5, 4), "fff........C fO"),
        (
            "Polly rolling: successes go as well",
            ratio(0.5, 4),
            "ssssssss...........fffC fO",
        ),
        ("resilience4j time: still within", ratio(0.5, 4), "ff......ffO"),
        (
            "resilience4j time: idle for a minute",
            ratio(0.5, 2),
            "f............................................................fC",
        ),
    ] {
        run(source, builder, row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_window_of_calls_slides() {
    let last = |calls, min| builder().failure_ratio(0.5).last_calls(calls).min_calls(min);
    for (source, builder, row) in [
        (
            "resilience4j fixed: the minimum is not the window",
            last(10, 2),
            "fC fO",
        ),
        ("resilience4j fixed: full of successes", last(4, 4), "ssssssssssfC fO"),
        (
            "resilience4j fixed: old failures leave",
            last(4, 4),
            "fsss sfC sssfC sfO",
        ),
        (
            "resilience4j fixed: time does not matter",
            last(4, 4),
            "f............s............s............C fO",
        ),
        (
            "failsafe-go: two of the last two",
            builder().failure_ratio(1.0).last_calls(2).min_calls(2),
            "fsfC fO",
        ),
    ] {
        run(source, builder, row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row() {
    let row_of = |failures| builder().min_calls(1_000).consecutive(failures);
    for (source, builder, row) in [
        ("Polly: the number in a row", row_of(2), "fC fO"),
        ("Polly: interrupted", row_of(2), "fsfsfsC fC"),
        ("Polly: what says nothing does not interrupt", row_of(2), "fidC fO"),
        ("linkerd: overload is no part of a row", row_of(2), "fooooC fO"),
        (
            "Finagle accrual: begins anew after a recovery",
            row_of(2),
            "ffO wsC fC fO",
        ),
        (
            "Finagle accrual: time does not interrupt",
            row_of(2),
            "f...................................fO",
        ),
    ] {
        run(source, builder, row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn slow_calls() {
    let slow = |ratio, min| builder().window(secs(100)).slow_calls(secs(2), ratio).min_calls(min);
    for (source, builder, row) in [
        ("resilience4j: all slow", slow(1.0, 4), "lllC lO"),
        ("resilience4j: half slow", slow(0.5, 4), "sslC lO"),
        ("resilience4j: too few slow", slow(0.75, 4), "sllC sC lC"),
        ("resilience4j: fast failures are not slow", slow(0.5, 4), "sssfC"),
        ("resilience4j: a slow failure is both", slow(0.5, 4), "ssLC LO"),
        (
            "resilience4j: a slow probe is a failed one",
            slow(1.0, 4),
            "llllO wH lO",
        ),
        ("resilience4j: a fast probe is a good one", slow(1.0, 4), "llllO wH sC"),
    ] {
        run(source, builder, row).await;
    }
}

#[tokio::test(start_paused = true)]
async fn open_and_half_open() {
    for (source, builder, row) in [
        ("Polly controller: refuses", builder(), "ffffO RRR O"),
        ("Polly controller: over by itself", builder(), "ffffO .......H"),
        ("Polly controller: not over yet", builder(), "ffffO ....O R"),
        ("Polly controller: a success closes", builder(), "ffffO wH sC"),
        ("Polly controller: a failure opens again", builder(), "ffffO wH fO R"),
        (
            "not as in Polly: what says nothing does not close",
            builder(),
            "ffffO wH iH iH sC",
        ),
        (
            "not as in Polly: a dropped probe does not close",
            builder(),
            "ffffO wH dH dH fO",
        ),
        (
            "resilience4j: closed with an empty window",
            builder(),
            "ffffO wsC fffC fO",
        ),
        ("linkerd: overload fails a probe", builder(), "ffffO wH oO"),
    ] {
        run(source, builder, row).await;
    }
}

/// failsafe-go's matrix: so many probes at so high a share of failures, and what decides.
#[tokio::test(start_paused = true)]
async fn probes_decide_by_their_share() {
    let probes = |probes, ratio| builder().half_open(probes, secs(30)).half_open_ratio(ratio);
    for (source, builder, row) in [
        ("1 at 1/2", probes(1, 0.5), "ffffw sC"),
        ("2 at 1/2", probes(2, 0.5), "ffffw sH sC"),
        ("2 at 1/2", probes(2, 0.5), "ffffw sH fO"),
        ("3 at 1/2", probes(3, 0.5), "ffffw sH sC"),
        ("3 at 1/2", probes(3, 0.5), "ffffw fH sH sC"),
        ("3 at 1/2", probes(3, 0.5), "ffffw fH sH fO"),
        ("3 at 1/2", probes(3, 0.5), "ffffw fH fO"),
        ("3 at 1/3", probes(3, 0.33), "ffffw fO"),
        ("3 at all", probes(3, 1.0), "ffffw fH fH sC"),
        ("3 at all", probes(3, 1.0), "ffffw fH fH fO"),
        ("10 at 3/10", probes(10, 0.3), "ffffw ffH ssssssH sH sC"),
        ("10 at 3/10", probes(10, 0.3), "ffffw ffH sssssssH fO"),
        (
            "its own share, not that of calls",
            probes(2, 1.0).failure_ratio(0.5),
            "ffffw fH sC",
        ),
        ("the share of calls", builder().half_open(2, secs(30)), "ffffw fO"),
    ] {
        run(source, builder, row).await;
    }
}
