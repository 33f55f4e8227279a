//! No policy allocates on its closed path, nor a whole pipeline, nor an open breaker that refuses. A process of its own,
//! since it reads the production clock.

use std::future::{Future, ready};
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use resilience::{
    AdaptiveLimit, AdaptiveSettings, Breaker, Budget, Bulkhead, Kind, Pipeline, RateLimit, RateLimitSettings, State,
    Throttle, ThrottleSettings, Verdict,
};

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

/// An answer that is there when it is asked for the second time.
#[derive(Debug, Default)]
struct Later {
    asked: bool,
}

impl Future for Later {
    type Output = Result<u64, std::io::Error>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.asked {
            return Poll::Ready(Ok(1));
        }
        self.asked = true;
        Poll::Pending
    }
}

/// Polls a future until it is ready: no runtime's own allocations are counted.
fn finish<F: Future>(future: F) -> F::Output {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

#[tokio::test]
async fn the_standard_pipeline_does_not_allocate() {
    resilience::testing::production_clock();
    let policy = Pipeline::standard("payments").build().unwrap();
    let at_once = allocations(|| {
        let answer = finish(policy.call(|_| ready(Ok::<_, std::io::Error>(1))));
        assert_eq!(answer.unwrap(), 1);
    });
    assert_eq!(at_once, 0);
    let later = allocations(|| {
        let answer = finish(policy.call(|_| Later::default()));
        assert_eq!(answer.unwrap(), 1);
    });
    assert_eq!(later, 0, "pending once");
}

#[test]
fn limits_do_not_allocate_where_they_let_calls_pass() {
    resilience::testing::production_clock();
    let settings = RateLimitSettings {
        limit: 1_000_000,
        ..RateLimitSettings::default()
    };
    let rate = RateLimit::new("mail", settings).unwrap();
    assert_eq!(allocations(|| rate.try_acquire().unwrap()), 0, "rate limit");
    assert_eq!(
        allocations(|| finish(rate.acquire()).unwrap()),
        0,
        "rate limit, waiting"
    );

    let throttle = Throttle::new("mail", ThrottleSettings::default()).unwrap();
    let throttled = allocations(|| throttle.acquire().unwrap().record(Verdict::Success));
    assert_eq!(throttled, 0, "throttle");

    let adaptive = AdaptiveLimit::new("mail", AdaptiveSettings::default()).unwrap();
    let limited = allocations(|| adaptive.acquire().unwrap().record(Verdict::Success));
    assert_eq!(limited, 0, "adaptive limit");

    let bulkhead = Bulkhead::new("mail", 1, 1).unwrap();
    assert_eq!(allocations(|| drop(finish(bulkhead.enter()).unwrap())), 0, "bulkhead");

    let budget = Budget::new(0.2, 3.0);
    let kept = allocations(|| {
        budget.deposit();
        budget.record(Verdict::Success);
    });
    assert_eq!(kept, 0, "budget");
}
