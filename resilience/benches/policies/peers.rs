//! What others ask for the same: tower's own layers, tower-resilience, recloser, failsafe, and tokio's timeout as the
//! floor of everything that has a time limit.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use failsafe::CircuitBreaker as _;
use recloser::Recloser;
use tokio::time::timeout;
use tower::retry::Policy;
use tower::retry::budget::{Budget as _, TpsBudget};
use tower::{Service, ServiceBuilder, service_fn};
use tower_resilience::bulkhead::BulkheadLayer;
use tower_resilience::circuitbreaker::CircuitBreakerLayer;
use tower_resilience::ratelimiter::RateLimiterLayer;
use tower_resilience::retry::{RetryBudgetBuilder, RetryLayer};
use tower_resilience::timelimiter::TimeLimiterLayer;

use crate::{Failed, Later, bad, good};
use measure::{Candidate, finish};

const TOWER: &str = "tower";
const TOWER_RESILIENCE: &str = "tower-resilience";
const TOKIO: &str = "tokio::time::timeout";
const LIMIT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);
const MANY: usize = 1_000_000_000;

pub fn candidates() -> Vec<Candidate> {
    let mut all = Vec::new();
    all.extend(floors());
    all.extend(breakers());
    all.extend(retries());
    all.extend(pipelines());
    all.extend(limits());
    all
}

/// A service that the threads have clones of, called as its contract says.
fn service<S>(what: &str, who: &'static str, service: S) -> Candidate
where
    S: Service<()> + Clone + Send + 'static,
{
    let service = Mutex::new(service);
    Candidate::new(what, who, move || {
        let mut service = service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        move || {
            if finish(std::future::poll_fn(|context| service.poll_ready(context))).is_ok() {
                let _ = finish(service.call(()));
            }
        }
    })
}

fn floors() -> impl IntoIterator<Item = Candidate> {
    [
        service("no policy", "a tower service", service_fn(|(): ()| good())),
        Candidate::new("standard pipeline, ready", TOKIO, || {
            || _ = finish(timeout(LIMIT, good()))
        }),
        Candidate::on_runtime("standard pipeline, pending once", "no policy", || Later::default),
        Candidate::on_runtime("standard pipeline, pending once", TOKIO, || {
            || timeout(LIMIT, Later::default())
        }),
        Candidate::new("standard pipeline, pending once, by hand", TOKIO, || {
            || _ = finish(timeout(LIMIT, Later::default()))
        }),
        Candidate::new(
            "standard pipeline, pending once, by hand",
            "two tokio::time::timeout",
            || || _ = finish(timeout(LIMIT, timeout(LIMIT, Later::default()))),
        ),
        // The least that a limit costs which all cores share: one word, up and down again.
        {
            let word = Arc::new(AtomicU64::new(0));
            Candidate::new("bulkhead", "a shared word", move || {
                let word = Arc::clone(&word);
                move || {
                    word.fetch_add(1, Ordering::AcqRel);
                    word.fetch_sub(1, Ordering::AcqRel);
                }
            })
        },
    ]
}

fn breakers() -> impl IntoIterator<Item = Candidate> {
    let failing = || service_fn(|(): ()| bad());
    let theirs = || CircuitBreakerLayer::builder().wait_duration_in_open(HOUR);
    let closed = theirs().build_with_handle().expect("sound settings").0;
    let slow = theirs().slow_call_duration_threshold(HOUR).build_with_handle();
    let slow = slow.expect("sound settings").0;
    let open = theirs()
        .consecutive_failures(1)
        .build_with_handle()
        .expect("sound settings")
        .0;
    let mut opened = ServiceBuilder::new().layer(open).service(failing());
    let _ = finish(opened.call(()));
    assert!(opened.is_open());

    let recloser = |open: bool| {
        let breaker = Recloser::custom().closed_len(100).open_wait(HOUR).build();
        for _ in 0..if open { 1_000 } else { 0 } {
            let _ = breaker.call(|| Err::<u64, Failed>(Failed));
        }
        let breaker = Arc::new(breaker);
        move || {
            let breaker = Arc::clone(&breaker);
            move || _ = black_box(black_box(&*breaker).call(|| Ok::<u64, Failed>(1)))
        }
    };
    let failsafe = |open: bool| {
        let breaker = failsafe::Config::new().build();
        for _ in 0..if open { 1_000 } else { 0 } {
            let _ = breaker.call(|| Err::<u64, Failed>(Failed));
        }
        assert_ne!(open, breaker.is_call_permitted());
        move || {
            let breaker = breaker.clone();
            move || _ = black_box(black_box(&breaker).call(|| Ok::<u64, Failed>(1)))
        }
    };
    [
        service(
            "closed breaker",
            TOWER_RESILIENCE,
            ServiceBuilder::new().layer(closed).service_fn(|(): ()| good()),
        ),
        service(
            "closed breaker, slow calls",
            TOWER_RESILIENCE,
            ServiceBuilder::new().layer(slow).service_fn(|(): ()| good()),
        ),
        // Who meets another caller at it sleeps.
        service("open breaker", TOWER_RESILIENCE, opened).alone(),
        Candidate::new("closed breaker, last 100 calls", "recloser", recloser(false)),
        Candidate::new("open breaker", "recloser", recloser(true)),
        Candidate::new("closed breaker", "failsafe", failsafe(false)),
        Candidate::new("open breaker", "failsafe", failsafe(true)),
    ]
}

/// Tower's retry as its documentation has it: a budget, and what failed is tried again.
#[derive(Debug, Clone)]
struct WithBudget(Arc<TpsBudget>);

impl WithBudget {
    fn new() -> Self {
        Self(Arc::new(TpsBudget::new(LIMIT, 3, 0.2)))
    }
}

impl<T, E> Policy<(), T, E> for WithBudget {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, (): &mut (), result: &mut Result<T, E>) -> Option<Self::Future> {
        if result.is_ok() {
            self.0.deposit();
            return None;
        }
        self.0.withdraw().then(|| std::future::ready(()))
    }

    fn clone_request(&mut self, (): &()) -> Option<()> {
        Some(())
    }
}

fn retries() -> impl IntoIterator<Item = Candidate> {
    let budget = RetryBudgetBuilder::new()
        .token_bucket()
        .build()
        .expect("sound settings");
    let theirs = RetryLayer::<(), u64, Failed>::exponential_backoff()
        .budget(budget.clone())
        .build();
    let tps = WithBudget::new().0;
    [
        service(
            "retry, first try",
            TOWER,
            ServiceBuilder::new()
                .retry(WithBudget::new())
                .service_fn(|(): ()| good()),
        ),
        service(
            "retry, first try",
            TOWER_RESILIENCE,
            ServiceBuilder::new().layer(theirs).service_fn(|(): ()| good()),
        ),
        Candidate::new("budget deposit", TOWER, move || {
            let tps = Arc::clone(&tps);
            move || black_box(&tps).deposit()
        }),
        Candidate::new("budget deposit", TOWER_RESILIENCE, move || {
            let budget = budget.clone();
            move || black_box(&budget).deposit()
        }),
    ]
}

/// The parts of our standard pipeline, as far as there are such parts.
fn pipelines() -> impl IntoIterator<Item = Candidate> {
    let tower = |ready: bool| {
        ServiceBuilder::new()
            .timeout(HOUR)
            .concurrency_limit(100)
            .retry(WithBudget::new())
            .timeout(LIMIT)
            .service_fn(move |(): ()| async move { if ready { good().await } else { Later::default().await } })
    };
    let theirs = |ready: bool| {
        let limit = |time| TimeLimiterLayer::builder().timeout_duration(time).build();
        let bulkhead = BulkheadLayer::builder()
            .max_concurrent_calls(100)
            .build()
            .expect("sound settings");
        let breaker = CircuitBreakerLayer::builder()
            .build_with_handle()
            .expect("sound settings")
            .0;
        let inner = ServiceBuilder::new()
            .layer(breaker)
            .layer(limit(LIMIT))
            .service_fn(move |(): ()| async move { if ready { good().await } else { Later::default().await } });
        // The retry asks for errors that can be cloned.
        let inner = ServiceBuilder::new().map_err(|_| Failed).service(inner);
        let budget = RetryBudgetBuilder::new()
            .token_bucket()
            .build()
            .expect("sound settings");
        let retry = RetryLayer::<(), u64, Failed>::exponential_backoff()
            .budget(budget)
            .build();
        ServiceBuilder::new()
            .layer(limit(HOUR))
            .layer(bulkhead)
            .layer(retry)
            .service(inner)
    };
    [
        service("standard pipeline, ready", "tower, without a breaker", tower(true)),
        service(
            "standard pipeline, pending once, by hand",
            "tower, without a breaker",
            tower(false),
        ),
        service("standard pipeline, ready", TOWER_RESILIENCE, theirs(true)),
        service(
            "standard pipeline, pending once, by hand",
            TOWER_RESILIENCE,
            theirs(false),
        ),
    ]
}

fn limits() -> impl IntoIterator<Item = Candidate> {
    let bulkhead = BulkheadLayer::builder()
        .max_concurrent_calls(100)
        .build()
        .expect("sound settings");
    let rate = RateLimiterLayer::builder().limit_for_period(MANY);
    let rate = rate
        .refresh_period(Duration::from_secs(1))
        .build()
        .expect("sound settings");
    [
        service(
            "bulkhead",
            TOWER,
            ServiceBuilder::new().concurrency_limit(100).service_fn(|(): ()| good()),
        ),
        service(
            "bulkhead",
            TOWER_RESILIENCE,
            ServiceBuilder::new().layer(bulkhead).service_fn(|(): ()| good()),
        ),
        service(
            "rate limit",
            TOWER_RESILIENCE,
            ServiceBuilder::new().layer(rate).service_fn(|(): ()| good()),
        ),
    ]
}
