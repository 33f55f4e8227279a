//! What tower asks of a service, and what goes wrong elsewhere: readiness, clones, reservations, errors of `poll_ready`,
//! calls that are never polled. In the spirit of tower-resilience's contract matrix, with probes of our own.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::future::{Future, Ready, poll_fn, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::join_all;
use resilience::{Breaker, By, Error, Jitter, Pipeline, PipelineBuilder, Retry};
use tokio::time::{sleep, timeout};
use tower::{Layer as _, Service, ServiceExt as _};

#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("down")]
struct Down;

/// A service that insists on the contract: whoever calls a clone that was not polled ready fails the test.
#[derive(Debug, Default)]
struct Strict {
    is_ready: bool,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Calls from this number on succeed, from 1.
    good_from: AtomicU32,
    calls: AtomicU32,
    polls: AtomicU32,
    /// So many polls are pending first.
    pending: AtomicU32,
    /// From this call on nobody gets ready any more; 0 for never.
    broken_after: AtomicU32,
    waker: Mutex<Option<Waker>>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self {
            is_ready: false,
            seen: Arc::clone(&self.seen),
        }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = Down;
    type Future = Ready<Result<u32, Down>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Down>> {
        let seen = &*self.seen;
        seen.polls.fetch_add(1, Ordering::Relaxed);
        let broken = seen.broken_after.load(Ordering::Relaxed);
        if broken > 0 && seen.calls.load(Ordering::Relaxed) >= broken {
            return Poll::Ready(Err(Down));
        }
        if seen
            .pending
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok()
        {
            *seen.waker.lock().unwrap() = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(std::mem::take(&mut self.is_ready), "called without being ready");
        let number = self.seen.calls.fetch_add(1, Ordering::Relaxed) + 1;
        ready(if number >= self.seen.good_from.load(Ordering::Relaxed) {
            Ok(request)
        } else {
            Err(Down)
        })
    }
}

fn strict() -> (Strict, Arc<Seen>) {
    let service = Strict::default();
    let seen = Arc::clone(&service.seen);
    (service, seen)
}

fn retrying() -> PipelineBuilder {
    let retry = Retry::default()
        .max(2)
        .jitter(Jitter::None)
        .backoff(Duration::from_millis(10), Duration::from_secs(1));
    Pipeline::builder("p")
        .retry(retry.without_budget())
        .breaker(Breaker::builder("p").min_calls(1_000))
}

/// One poll of `poll_ready`.
async fn poll_once<S: Service<u32>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    poll_fn(|context| Poll::Ready(service.poll_ready(context))).await
}

#[tokio::test(start_paused = true)]
async fn the_service_that_was_ready_makes_the_call_and_every_retry_gets_ready_first() {
    let (service, seen) = strict();
    seen.good_from.store(3, Ordering::Relaxed);
    let policy = retrying().build().unwrap();
    let mut service = policy.layer().idempotent().layer(service);
    assert_eq!(service.ready().await.unwrap().call(7).await.unwrap(), 7);
    assert_eq!(
        (seen.calls.load(Ordering::Relaxed), seen.polls.load(Ordering::Relaxed)),
        (3, 3)
    );
    // And once more on the same service, which is a clone now.
    assert_eq!(service.ready().await.unwrap().call(8).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_clone_gets_ready_by_itself_and_takes_nothing_from_the_original() {
    let (service, seen) = strict();
    let policy = retrying().build().unwrap();
    let mut original = policy.layer().layer(service);
    original.ready().await.unwrap();
    let mut clone = original.clone();
    clone.ready().await.unwrap();
    let (one, two) = (original.call(1), clone.call(2));
    assert_eq!((two.await.unwrap(), one.await.unwrap()), (2, 1));
    assert_eq!(seen.polls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn being_ready_reserves_nothing() {
    let (service, _) = strict();
    let policy = retrying().bulkhead(1, 0).build().unwrap();
    let service = policy.layer().layer(service);
    // Ten that get ready, of which nine never call, some of which are dropped.
    let mut others: Vec<_> = (0..9).map(|_| service.clone()).collect();
    for other in &mut others {
        other.ready().await.unwrap();
    }
    others.truncate(4);
    let mut last = service.clone();
    assert_eq!(last.ready().await.unwrap().call(1).await.unwrap(), 1);
    assert_eq!(policy.snapshot().bulkhead.unwrap().rejected, 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_not_ready_is_waited_for_and_wakes() {
    let (service, seen) = strict();
    seen.pending.store(1, Ordering::Relaxed);
    let policy = retrying().build().unwrap();
    let mut service = policy.layer().idempotent().layer(service);
    assert!(poll_once(&mut service).await.is_pending());
    seen.waker.lock().unwrap().take().unwrap().wake();
    assert!(matches!(poll_once(&mut service).await, Poll::Ready(Ok(()))));
    // A retry waits for readiness too, and the waiting is part of its attempt.
    seen.good_from.store(2, Ordering::Relaxed);
    seen.pending.store(1, Ordering::Relaxed);
    let waking = async {
        sleep(Duration::from_millis(500)).await;
        let waker = seen.waker.lock().unwrap().take();
        waker.unwrap().wake();
    };
    let (result, ()) = tokio::join!(service.call(5), waking);
    assert_eq!(result.unwrap(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_is_the_dependencys() {
    let (service, seen) = strict();
    seen.broken_after.store(1, Ordering::Relaxed);
    seen.good_from.store(9, Ordering::Relaxed);
    let policy = retrying().build().unwrap();
    let mut service = policy.layer().idempotent().layer(service);
    // The first attempt fails, the retries do not get ready.
    let error = service.ready().await.unwrap().call(1).await.unwrap_err();
    assert_eq!(error.into_inner(), Some(Down));
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
    assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, 3);
    assert!(matches!(
        poll_once(&mut service).await,
        Poll::Ready(Err(Error::Inner(Down)))
    ));
}

/// Errors of `poll_ready` are final, so a refusal must come from `call`.
#[tokio::test(start_paused = true)]
async fn whoever_is_refused_learns_it_from_the_call() {
    let (service, seen) = strict();
    let policy = retrying().bulkhead(1, 0).build().unwrap();
    let mut service = policy.layer().layer(service);
    policy.breaker().unwrap().force_open();
    for _ in 0..3 {
        assert!(matches!(poll_once(&mut service).await, Poll::Ready(Ok(()))));
        let error = service.call(1).await.unwrap_err();
        assert!(
            matches!(&error, Error::Rejected(rejected) if rejected.by == By::Breaker),
            "{error:?}"
        );
    }
    policy.breaker().unwrap().release();
    assert_eq!(service.ready().await.unwrap().call(1).await.unwrap(), 1);
    assert_eq!(seen.calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_begins_when_it_is_polled_and_not_before() {
    let (service, seen) = strict();
    let policy = retrying().bulkhead(1, 0).build().unwrap();
    let mut service = policy.layer().layer(service);
    let mut idle = Vec::new();
    for request in 0..5 {
        idle.push(service.ready().await.unwrap().call(request));
    }
    assert_eq!(seen.calls.load(Ordering::Relaxed), 0);
    assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 0);
    idle.truncate(2);
    for (request, call) in idle.into_iter().enumerate() {
        assert_eq!(call.await.unwrap() as usize, request);
    }
    assert_eq!(seen.calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_service_run_at_one_time_and_each_gets_its_own_answer() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let slow = tower::service_fn({
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move |request: u32| {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                sleep(Duration::from_millis(100 - u64::from(request))).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Ok::<_, Down>(request * 10)
            }
        }
    });
    let policy = Pipeline::standard("p").bulkhead(8, 100).build().unwrap();
    let mut service = policy.layer().layer(slow);
    let mut calls = Vec::new();
    for request in 0..50 {
        calls.push(service.ready().await.unwrap().call(request));
    }
    let answers: Vec<u32> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, (0..50).map(|request| request * 10).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::Relaxed), 8);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_drops_the_services_future() {
    struct Waits(Arc<AtomicUsize>);
    impl Future for Waits {
        type Output = Result<u32, Down>;
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            Poll::Pending
        }
    }
    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let alive = Arc::new(AtomicUsize::new(0));
    let of_service = Arc::clone(&alive);
    let hanging = tower::service_fn(move |_: u32| {
        of_service.fetch_add(1, Ordering::Relaxed);
        Waits(Arc::clone(&of_service))
    });
    let policy = retrying().bulkhead(1, 0).build().unwrap();
    let mut service = policy.layer().layer(hanging);
    let call = service.ready().await.unwrap().call(1);
    assert!(timeout(Duration::from_secs(1), call).await.is_err());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert_eq!(policy.snapshot().bulkhead.unwrap().in_flight, 0);
    assert_eq!(policy.breaker().unwrap().snapshot().calls.cancelled, 1);
}

/// Nothing more is asked of a service than that its calls may be made again: here it is not `Send`.
#[tokio::test(start_paused = true)]
async fn a_service_of_one_thread_may_be_put_under_a_policy() {
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let of_service = std::rc::Rc::clone(&count);
    let local = tower::service_fn(move |_: u32| {
        of_service.set(of_service.get() + 1);
        let count = std::rc::Rc::clone(&of_service);
        async move { if count.get() < 2 { Err(Down) } else { Ok(count.get()) } }
    });
    let policy = retrying().build().unwrap();
    let answer = policy.layer().idempotent().layer(local).oneshot(1).await;
    assert_eq!((answer.unwrap(), count.get()), (2, 2));
}

#[test]
fn a_call_of_a_service_that_may_travel_may_travel() {
    fn travels<T: Send + 'static>(_: T) {}
    let (service, _) = strict();
    let policy = Pipeline::standard("p").build().unwrap();
    let mut service = policy.layer().layer(service);
    service.inner_is_ready();
    travels(service.call(1));
    travels(service);
}

trait InnerIsReady {
    fn inner_is_ready(&mut self);
}

impl<S: Service<u32>> InnerIsReady for S {
    fn inner_is_ready(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.poll_ready(&mut context).is_ready());
    }
}
