//! The bulkhead as its users see it: who enters, who waits in which order, who is refused, and what a change of the
//! settings does. In the spirit of resilience4j's `SemaphoreBulkheadTest`, written afresh.

use std::time::Duration;

use resilience::{Bulkhead, BulkheadSettings, BulkheadSnapshot, By};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, timeout};

fn snapshot(limit: usize, in_flight: usize, queued: usize, rejected: u64) -> BulkheadSnapshot {
    BulkheadSnapshot {
        limit,
        in_flight,
        queued,
        rejected,
    }
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_again_when_it_is_dropped() {
    let bulkhead = Bulkhead::new("b", 2, 0).unwrap();
    let (first, _second) = (bulkhead.enter().await.unwrap(), bulkhead.enter().await.unwrap());
    let refused = bulkhead.enter().await.unwrap_err();
    assert_eq!(
        (refused.by, &*refused.name, refused.retry_after),
        (By::Bulkhead, "b", None)
    );
    drop(first);
    let _third = bulkhead.enter().await.unwrap();
    assert_eq!(bulkhead.snapshot(), snapshot(2, 2, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn clones_share() {
    let bulkhead = Bulkhead::new("b", 1, 0).unwrap();
    let _place = bulkhead.clone().enter().await.unwrap();
    assert!(bulkhead.enter().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_enter_in_the_order_of_arrival() {
    let bulkhead = Bulkhead::new("b", 1, 3).unwrap();
    let (order, mut entered) = tokio::sync::mpsc::unbounded_channel();
    let place = bulkhead.enter().await.unwrap();
    for number in 0..3 {
        let (bulkhead, order) = (bulkhead.clone(), order.clone());
        tokio::spawn(async move {
            let _place = bulkhead.enter().await.unwrap();
            order.send(number).unwrap();
            yield_now().await;
        });
        yield_now().await;
    }
    assert_eq!(bulkhead.snapshot(), snapshot(1, 1, 3, 0));
    assert!(bulkhead.enter().await.is_err(), "the queue is full");
    drop(place);
    // A newcomer does not overtake: the freed place is the first waiter's before that one has even run.
    assert_eq!(bulkhead.snapshot(), snapshot(1, 1, 2, 1));
    for number in 0..3 {
        assert_eq!(entered.recv().await, Some(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_leaves_the_queue_or_hands_its_place_on() {
    let bulkhead = Bulkhead::new("b", 1, 2).unwrap();
    let place = bulkhead.enter().await.unwrap();
    let spawn = |bulkhead: Bulkhead| tokio::spawn(async move { bulkhead.enter().await });
    let (first, second) = (spawn(bulkhead.clone()), spawn(bulkhead.clone()));
    yield_now().await;
    assert_eq!(bulkhead.snapshot().queued, 2);
    // The first has been granted the place, but goes away before it has run.
    drop(place);
    first.abort();
    let second = second.await.unwrap().unwrap();
    assert!(first.await.unwrap_err().is_cancelled());
    let third = spawn(bulkhead.clone());
    yield_now().await;
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    assert_eq!(bulkhead.snapshot(), snapshot(1, 1, 0, 0));
    drop(second);
    assert_eq!(bulkhead.snapshot(), snapshot(1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_longest_wait_is_kept_to() {
    let settings = BulkheadSettings {
        limit: 1,
        queue: 1,
        max_wait: Some(Duration::from_millis(200)),
    };
    let bulkhead = Bulkhead::from_settings("b", &settings).unwrap();
    let place = bulkhead.enter().await.unwrap();
    let start = Instant::now();
    assert_eq!(bulkhead.enter().await.unwrap_err().by, By::Bulkhead);
    assert!(start.elapsed() >= Duration::from_millis(200) && start.elapsed() < Duration::from_millis(210));
    assert_eq!(bulkhead.snapshot(), snapshot(1, 1, 0, 1));
    let waiter = tokio::spawn({
        let bulkhead = bulkhead.clone();
        async move { bulkhead.enter().await.map(drop) }
    });
    yield_now().await;
    advance(Duration::from_millis(100)).await;
    drop(place);
    waiter.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_who_is_inside_and_who_waits() {
    let bulkhead = Bulkhead::new("b", 2, 4).unwrap();
    let mut places = vec![bulkhead.enter().await.unwrap(), bulkhead.enter().await.unwrap()];
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let bulkhead = bulkhead.clone();
            tokio::spawn(async move { bulkhead.enter().await })
        })
        .collect();
    yield_now().await;
    let settings = |limit, queue| BulkheadSettings {
        limit,
        queue,
        max_wait: None,
    };
    bulkhead.reload(&settings(1, 0)).unwrap();
    assert_eq!(bulkhead.snapshot(), snapshot(1, 2, 2, 0));
    assert!(bulkhead.enter().await.is_err(), "the queue has no room any more");
    places.pop();
    assert_eq!(bulkhead.snapshot(), snapshot(1, 1, 2, 1), "two were inside of one");
    bulkhead.reload(&settings(3, 0)).unwrap();
    for waiter in waiters {
        places.push(waiter.await.unwrap().unwrap());
    }
    assert_eq!(bulkhead.snapshot(), snapshot(3, 3, 0, 1));
    assert!(bulkhead.reload(&settings(0, 0)).is_err());
    assert_eq!(bulkhead.snapshot().limit, 3, "a refused reload changes nothing");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_key() {
    let settings = BulkheadSettings::default();
    assert_eq!((settings.limit, settings.queue, settings.max_wait), (100, 100, None));
    for (limit, queue, max_wait, key) in [
        (0, 1, None, "bulkhead.limit"),
        (usize::MAX, 1, None, "bulkhead.limit"),
        (1, 1, Some(Duration::ZERO), "bulkhead.max_wait"),
        (1, 0, Some(Duration::from_secs(1)), "bulkhead.max_wait"),
    ] {
        let settings = BulkheadSettings { limit, queue, max_wait };
        let error = Bulkhead::from_settings("b", &settings).unwrap_err();
        assert_eq!((error.name.as_str(), error.key.as_str()), ("b", key));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_all_get_their_turn_and_never_more_at_a_time() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let (bulkhead, inside) = (Bulkhead::new("b", 3, 1_000).unwrap(), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let (bulkhead, inside) = (bulkhead.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                for _ in 0..20 {
                    let _place = bulkhead.enter().await.unwrap();
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                    yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for task in tasks {
        timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
    }
    assert_eq!(bulkhead.snapshot(), snapshot(3, 0, 0, 0));
}
