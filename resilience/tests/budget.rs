//! The retry budget: its share, its window, its floor, its tokens, and that racers never overspend it. In the spirit of
//! Finagle's `RetryBudgetTest`, failsafe-go's `budget_test` and grpc-go's `TestRetryThrottling`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use resilience::{Budget, BudgetSettings, Kind, Tokens, Verdict};
use tokio::time::advance;

const FAILED: Verdict = Verdict::Failure(Kind::Transient);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn withdrawn(budget: &Budget, times: usize) -> usize {
    (0..times).filter(|_| budget.try_withdraw()).count()
}

/// Finagle's cases, for a share of the requests alone: of so many requests at this share, so many retries.
#[tokio::test(start_paused = true)]
async fn a_share_of_the_requests_is_granted_and_no_more() {
    for (ratio, requests, granted) in [
        (0.0001, 100, 0),
        (0.1, 9, 0),
        (0.1, 10, 1),
        (0.1, 100, 10),
        (0.25, 100, 25),
        (0.6, 5, 3),
        (0.6, 1_000, 600),
        (1.0, 1, 1),
        (1.0, 100, 100),
    ] {
        let budget = Budget::new(ratio, 0.0);
        for _ in 0..requests {
            budget.deposit();
        }
        assert_eq!(withdrawn(&budget, 2_000), granted, "{requests} requests at {ratio}");
        assert_eq!(budget.snapshot().exhausted, 2_000 - granted as u64);
    }
}

#[tokio::test(start_paused = true)]
async fn sixty_percent_are_sixty_percent_also_while_requests_come() {
    let budget = Budget::new(0.6, 0.0);
    let mut granted = 0;
    for _ in 0..10_000 {
        budget.deposit();
        granted += usize::from(budget.try_withdraw());
    }
    assert!((5_900..=6_100).contains(&granted), "{granted} of 10000");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_grants_nothing_and_a_floor_grants_without_requests() {
    assert_eq!(withdrawn(&Budget::new(1.0, 0.0), 10), 0);
    let floor = Budget::new(0.0, 3.0);
    assert_eq!(withdrawn(&floor, 100), 30, "three a second, over ten seconds");
    advance(millis(11_000)).await;
    assert_eq!(withdrawn(&floor, 100), 30, "and again when they are past");
}

#[tokio::test(start_paused = true)]
async fn requests_and_retries_are_forgotten_after_ten_seconds() {
    let budget = Budget::new(0.5, 0.0);
    for _ in 0..100 {
        budget.deposit();
    }
    advance(millis(8_900)).await;
    assert_eq!(withdrawn(&budget, 10), 10);
    advance(millis(2_200)).await;
    assert_eq!(withdrawn(&budget, 10), 0, "the requests are past, the retries are not");
    for _ in 0..40 {
        budget.deposit();
    }
    assert_eq!(withdrawn(&budget, 100), 10, "20 of the 40 less the 10 that are spent");
    assert!((budget.snapshot().ratio - 0.5).abs() < 1e-9, "{:?}", budget.snapshot());
}

#[test]
fn racers_never_overspend() {
    let budget = Budget::new(0.5, 0.0);
    let granted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                for _ in 0..100 {
                    budget.deposit();
                    for _ in 0..3 {
                        if budget.try_withdraw() {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    // All of it unless the window slid meanwhile, and never more.
    let granted = granted.into_inner();
    assert!(granted <= 800, "{granted} granted of 800");
    assert!(granted >= 750, "{granted} granted of 800");
}

/// grpc-go's trace: ten tokens, of which a success gives half a one back; retries while more than five are left.
#[test]
fn tokens_go_with_failures_and_come_back_with_successes() {
    let budget = Budget::tokens(10.0, 0.5).unwrap();
    let trace = [
        (FAILED, 9.0, true),
        (FAILED, 8.0, true),
        (FAILED, 7.0, true),
        (FAILED, 6.0, true),
        (FAILED, 5.0, false),
        (FAILED, 4.0, false),
        (Verdict::Success, 4.5, false),
        (Verdict::Success, 5.0, false),
        (Verdict::Ignore, 5.0, false),
        (Verdict::Success, 5.5, true),
        (Verdict::Overload { hint: None }, 4.5, false),
        (Verdict::Success, 5.0, false),
    ];
    for (row, (verdict, left, retries)) in trace.into_iter().enumerate() {
        budget.record(verdict);
        assert_eq!(budget.snapshot().tokens_left, Some(left), "row {row}");
        assert_eq!(budget.try_withdraw(), retries, "row {row}");
    }
    for _ in 0..100 {
        budget.record(Verdict::Success);
    }
    assert_eq!(budget.snapshot().tokens_left, Some(10.0), "never more than all");
    for _ in 0..100 {
        budget.record(FAILED);
    }
    assert_eq!(budget.snapshot().tokens_left, Some(0.0), "never less than none");
}

#[test]
fn senseless_settings_are_refused_with_their_key() {
    let settings = |ratio, min_per_sec| BudgetSettings {
        ratio,
        min_per_sec,
        tokens: None,
    };
    let tokens = |max, ratio| BudgetSettings {
        tokens: Some(Tokens { max, ratio }),
        ..BudgetSettings::default()
    };
    for (settings, key) in [
        (settings(f64::NAN, 3.0), "retry.budget.ratio"),
        (settings(-0.1, 3.0), "retry.budget.ratio"),
        (settings(1.1, 3.0), "retry.budget.ratio"),
        (settings(0.2, f64::NAN), "retry.budget.min_per_sec"),
        (settings(0.2, -1.0), "retry.budget.min_per_sec"),
        (settings(0.2, f64::INFINITY), "retry.budget.min_per_sec"),
        (settings(0.0, 0.0), "retry.budget"),
        (settings(0.0, 0.01), "retry.budget"),
        (tokens(0.0, 0.1), "retry.budget.tokens.max"),
        (tokens(1_001.0, 0.1), "retry.budget.tokens.max"),
        (tokens(f64::NAN, 0.1), "retry.budget.tokens.max"),
        (tokens(10.0, 0.0), "retry.budget.tokens.ratio"),
        (tokens(10.0, f64::NAN), "retry.budget.tokens.ratio"),
    ] {
        assert_eq!(
            Budget::from_settings("x", settings.clone()).unwrap_err().key,
            key,
            "{settings:?}"
        );
    }
    assert!(BudgetSettings::default().check("x").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_counted() {
    let budget = Budget::new(0.1, 0.0);
    for _ in 0..100 {
        budget.deposit();
    }
    assert_eq!(withdrawn(&budget, 100), 10);
    let half = BudgetSettings {
        ratio: 0.5,
        min_per_sec: 0.0,
        tokens: None,
    };
    budget.reload("x", half.clone()).unwrap();
    assert_eq!(withdrawn(&budget, 100), 40);
    assert!(budget.reload("x", BudgetSettings { ratio: 2.0, ..half }).is_err());
    budget.deposit();
    budget.deposit();
    assert_eq!(withdrawn(&budget, 100), 1, "a refused reload changed nothing");
}

#[derive(Debug, Clone)]
enum Step {
    Deposit,
    Withdraw,
    Wait(u64),
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// The model is a list of everything that happened. Steps of whole seconds, so that where a bucket begins is of no
    /// account: what is a full ten seconds old is past.
    #[test]
    fn the_budget_is_its_model(
        ratio in prop_oneof![Just(0.2), Just(0.6), Just(1.0)],
        floor in prop_oneof![Just(0.0), Just(0.3)],
        steps in prop::collection::vec(
            prop_oneof![
                6 => Just(Step::Deposit),
                5 => Just(Step::Withdraw),
                1 => (1..15_u64).prop_map(Step::Wait),
            ],
            1..200,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let budget = Budget::new(ratio, floor);
            let (mut second, mut requests, mut retries) = (100_u64, Vec::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Deposit => {
                        budget.deposit();
                        requests.push(second);
                    }
                    Step::Withdraw => {
                        let recent = |times: &[u64]| times.iter().filter(|at| **at + 10 > second).count() as f64;
                        let granted = recent(&retries) + 1.0 <= ratio * recent(&requests) + floor * 10.0 + 1e-9;
                        prop_assert_eq!(budget.try_withdraw(), granted);
                        if granted {
                            retries.push(second);
                        }
                    }
                    Step::Wait(seconds) => {
                        advance(Duration::from_secs(seconds)).await;
                        second += seconds;
                    }
                }
            }
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_what_can_be_withdrawn() {
    for (budget, requests, left) in [
        (Budget::new(0.2, 0.0), 17, 3),
        (Budget::new(0.6, 0.0), 5, 3),
        (Budget::new(0.0, 0.35), 4, 3),
        (Budget::new(0.2, 3.0), 0, 30),
        // More than half of the tokens must be there before each; every retry that fails takes one.
        (Budget::tokens(10.0, 0.1).unwrap(), 0, 5),
        (Budget::tokens(3.0, 0.1).unwrap(), 0, 2),
        (Budget::tokens(1.0, 0.1).unwrap(), 0, 1),
    ] {
        (0..requests).for_each(|_| budget.deposit());
        assert_eq!(budget.snapshot().left, left, "{budget:?}");
        for left_after in (0..left).rev() {
            assert!(budget.try_withdraw());
            budget.record(Verdict::Failure(Kind::Transient));
            assert_eq!(budget.snapshot().left, left_after);
        }
        assert!(!budget.try_withdraw());
    }
}
