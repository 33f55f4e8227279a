//! Neither a call through a closed breaker nor a refusal by an open one allocates. A process of its own, since it reads
//! the production clock.

use std::hint::black_box;
use std::time::Duration;

use resilience::{Breaker, Budget, Kind, State, Verdict};

const CALLS: usize = 1_000;

/// Allocations of a thousand runs, after one that may set things up.
fn allocations(mut run: impl FnMut()) -> u64 {
    run();
    allocation_counter::measure(|| {
        for _ in 0..CALLS {
            run();
        }
    })
    .count_total
}

#[test]
fn the_closed_path_and_refusals_do_not_allocate() {
    resilience::testing::production_clock();
    let hour = Duration::from_secs(3600);
    let builder = || Breaker::builder("payments").min_calls(1_000_000).open(hour, hour);
    assert!(allocations(|| drop(black_box(Box::new(1)))) > 0, "the counter counts");

    for (what, builder) in [
        ("plain", builder()),
        ("slow calls", builder().slow_calls(hour, 0.5)),
        ("in a row", builder().consecutive(1_000_000)),
        ("last calls", builder().last_calls(1_000_000)),
    ] {
        let breaker = builder.build().unwrap();
        let closed = allocations(|| {
            breaker.acquire().unwrap().record(Verdict::Success);
            breaker.try_acquire().unwrap().record(Verdict::Success);
            breaker.acquire().unwrap().record(Verdict::Failure(Kind::Transient));
            drop(breaker.acquire().unwrap());
        });
        assert_eq!(closed, 0, "{what}");
    }

    let open = builder().consecutive(1).build().unwrap();
    open.acquire().unwrap().record(Verdict::Failure(Kind::Transient));
    assert_eq!(open.state(), State::Open);
    let refused = allocations(|| {
        assert!(open.acquire().is_err());
        assert!(open.try_acquire().is_err());
        assert!(open.gate().is_err());
    });
    assert_eq!(refused, 0);

    let budget = Budget::new(0.2, 3.0);
    let spent = allocations(|| {
        budget.deposit();
        black_box(budget.try_withdraw());
    });
    assert_eq!(spent, 0);
}
