//! The queue alone: what goes when it is full, that nothing is uncounted under any order of events, and that nobody
//! waits longer than said.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Thing {
    severity: Severity,
    bytes: usize,
    number: u64,
}

impl Item for Thing {
    fn bytes(&self) -> usize {
        self.bytes
    }
    fn severity(&self) -> Severity {
        self.severity
    }
}

type Things = std::collections::VecDeque<(u64, Thing)>;

const LEVELS: [Severity; 5] = Severity::ALL;

fn limits(bytes: usize, on_full: OnFull) -> QueueLimits {
    QueueLimits {
        bytes,
        items: usize::MAX,
        on_full,
        block: Duration::from_millis(30),
    }
}

const ALL: BatchLimits = BatchLimits {
    bytes: usize::MAX,
    items: usize::MAX,
    linger: Duration::ZERO,
};

fn thing(severity: Severity, number: u64) -> Thing {
    Thing {
        severity,
        bytes: 10,
        number,
    }
}

fn take(queue: &Queue<Things>, limits: BatchLimits) -> Vec<Thing> {
    let mut batch = Vec::new();
    queue.take_blocking(limits, &mut batch);
    batch
}

fn numbers(things: &[Thing]) -> Vec<u64> {
    things.iter().map(|thing| thing.number).collect()
}

#[test]
fn items_come_out_in_order_whatever_their_severity() {
    let queue = Queue::<Things>::new("test", limits(1000, OnFull::DropLowest), None);
    for number in 0..20 {
        queue.push(thing(LEVELS[number as usize * 3 % 5], number));
    }
    let first = BatchLimits { items: 7, ..ALL };
    assert_eq!(numbers(&take(&queue, first)), (0..7).collect::<Vec<_>>());
    let some = BatchLimits { bytes: 35, ..ALL };
    assert_eq!(numbers(&take(&queue, some)), [7, 8, 9]);
    let none = BatchLimits { bytes: 1, ..ALL };
    assert_eq!(numbers(&take(&queue, none)), [10], "one item always fits");
    assert_eq!(numbers(&take(&queue, ALL)), (11..20).collect::<Vec<_>>());
    assert!(queue.settle(20, Fate::Delivered));
    assert!(queue.counts().is_lossless());
}

#[test]
fn a_full_queue_gives_up_the_oldest_of_the_lowest_level() {
    let queue = Queue::<Things>::new("test", limits(50, OnFull::DropLowest), None);
    for (number, severity) in LEVELS.into_iter().rev().enumerate() {
        queue.push(thing(severity, number as u64));
    }
    // ERROR 0, WARN 1, INFO 2, DEBUG 3, TRACE 4 wait.
    queue.push(thing(Severity::Error, 5));
    queue.push(thing(Severity::Info, 6));
    queue.push(thing(Severity::Debug, 7));
    assert_eq!(
        numbers(&take(&queue, ALL)),
        [0, 1, 2, 5, 6],
        "TRACE, then DEBUG; a DEBUG takes the place of nothing above it"
    );
    let counts = queue.counts();
    assert_eq!(
        (
            counts.emitted,
            counts.dropped_because(DropReason::QueueFull),
            counts.pending()
        ),
        (8, 3, 5)
    );
}

#[test]
fn drop_newest_keeps_what_waits() {
    let queue = Queue::<Things>::new("test", limits(30, OnFull::DropNewest), None);
    for number in 0..5 {
        queue.push(thing(LEVELS[number as usize], number));
    }
    assert_eq!(numbers(&take(&queue, ALL)), [0, 1, 2]);
    assert_eq!(queue.counts().dropped_because(DropReason::QueueFull), 2);
}

#[test]
fn what_is_larger_than_the_queue_is_counted_as_such() {
    for on_full in [OnFull::DropLowest, OnFull::Block, OnFull::DropNewest] {
        let queue = Queue::<Things>::new("test", limits(9, on_full), None);
        queue.push(thing(Severity::Error, 0));
        assert_eq!(queue.counts().dropped_because(DropReason::TooLarge), 1);
    }
}

#[test]
fn a_bound_in_items_holds_beside_the_one_in_bytes() {
    let few = |on_full| QueueLimits {
        items: 3,
        ..limits(1000, on_full)
    };
    for (on_full, kept) in [(OnFull::DropLowest, [2, 3, 4]), (OnFull::DropNewest, [0, 1, 2])] {
        let queue = Queue::<Things>::new("test", few(on_full), None);
        for number in 0..5 {
            queue.push(thing(Severity::Info, number));
        }
        // It lingers no more once half of what may wait is there.
        let lingering = BatchLimits {
            linger: Duration::from_secs(3600),
            ..ALL
        };
        assert_eq!(numbers(&take(&queue, lingering)), kept, "{on_full:?}");
        assert_eq!(queue.counts().dropped_because(DropReason::QueueFull), 2, "{on_full:?}");
        queue.push(thing(Severity::Info, 5));
        assert_eq!(numbers(&take(&queue, ALL)), [5], "there is room again");
    }
}

#[test]
fn block_waits_for_room_and_no_longer_than_said() {
    let queue = Queue::<Things>::new("test", limits(20, OnFull::Block), None);
    queue.push(thing(Severity::Info, 0));
    queue.push(thing(Severity::Info, 1));
    // Nobody takes anything.
    queue.push(thing(Severity::Info, 2));
    assert_eq!(queue.counts().dropped_because(DropReason::QueueFull), 1);
    let patient = Queue::<Things>::new(
        "test",
        QueueLimits {
            block: Duration::from_secs(60),
            ..limits(20, OnFull::Block)
        },
        None,
    );
    std::thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|number| patient.push(thing(Severity::Info, number))));
        let mut taken = Vec::new();
        while taken.len() < 100 {
            taken.extend(take(&patient, BatchLimits { items: 1, ..ALL }));
        }
        assert_eq!(numbers(&taken), (0..100).collect::<Vec<_>>());
    });
    assert_eq!(patient.counts().dropped, 0);
    // A producer that waits is let go by the end.
    patient.push(thing(Severity::Info, 0));
    patient.push(thing(Severity::Info, 0));
    std::thread::scope(|scope| {
        scope.spawn(|| patient.push(thing(Severity::Info, 0)));
        while patient.lock().blocked == 0 {
            std::thread::yield_now();
        }
        patient.take_no_more(Duration::ZERO);
    });
    assert_eq!(patient.counts().dropped_because(DropReason::Closed), 1);
}

#[test]
fn a_loss_is_told_when_room_returns() {
    let told = |lost: Lost, batch: &mut Vec<Thing>| {
        batch.push(thing(Severity::Warn, 1000 + lost.items));
    };
    let queue = Queue::<Things>::new("test", limits(100, OnFull::DropLowest), Some(Box::new(told)));
    for number in 0..13 {
        queue.push(thing(Severity::Info, number));
    }
    let three = BatchLimits { items: 3, ..ALL };
    assert_eq!(numbers(&take(&queue, three)), [3, 4, 5], "there is little room yet");
    assert_eq!(numbers(&take(&queue, three)), [6, 7, 8, 1003]);
    assert_eq!(numbers(&take(&queue, ALL)), [9, 10, 11, 12], "told once");
    let counts = queue.counts();
    assert_eq!((counts.emitted, counts.dropped, counts.pending()), (14, 3, 11));
}

#[test]
fn the_end_says_what_was_queued_and_what_was_on_its_way() {
    let queue = Queue::<Things>::new("test", limits(1000, OnFull::DropLowest), None);
    (0..10).for_each(|number| queue.push(thing(Severity::Info, number)));
    take(&queue, BatchLimits { items: 4, ..ALL });
    queue.settle(1, Fate::Delivered);
    let counts = queue.close(Duration::from_millis(20));
    assert_eq!(counts.delivered, 1);
    assert_eq!(counts.dropped_because(DropReason::Unanswered), 3);
    assert_eq!(counts.dropped_because(DropReason::Deadline), 6);
    assert!(counts.is_exact());
    // An answer that comes too late changes nothing, and what comes later is counted.
    assert!(!queue.settle(3, Fate::Delivered));
    queue.push(thing(Severity::Error, 11));
    let counts = queue.close(Duration::from_secs(60));
    assert_eq!((counts.emitted, counts.delivered, counts.dropped), (11, 1, 10));
    assert_eq!(counts.dropped_because(DropReason::Closed), 1);
    assert!(!queue.take_blocking(ALL, &mut Vec::new()));
}

/// The end comes while the consumer lingers and has a loss to tell.
#[test]
fn nothing_is_emitted_after_the_end() {
    let told = |lost: Lost, batch: &mut Vec<Thing>| {
        batch.push(thing(Severity::Warn, lost.items));
    };
    let queue = Queue::<Things>::new("test", limits(100, OnFull::DropLowest), Some(Box::new(told)));
    queue.push(thing(Severity::Info, 0));
    let lingering = BatchLimits {
        linger: Duration::from_secs(60),
        ..ALL
    };
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| queue.take_blocking(lingering, &mut Vec::new()));
        while queue.lock().wake_at.bytes != 50 {
            std::thread::yield_now();
        }
        queue.push(Thing {
            bytes: 101,
            ..thing(Severity::Info, 1)
        });
        let sealed = queue.seal();
        assert!(sealed.is_exact(), "{sealed:?}");
        assert!(!taken.join().unwrap(), "the end is over");
        assert_eq!(queue.counts(), sealed);
    });
}

/// A batch may be larger than the queue: a consumer that waits for a full one would sleep while callers lose.
#[test]
fn nobody_lingers_before_a_queue_that_is_half_full() {
    let queue = Queue::<Things>::new("test", limits(100, OnFull::DropNewest), None);
    let lingering = BatchLimits {
        linger: Duration::from_secs(3600),
        ..ALL
    };
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| take(&queue, lingering));
        while queue.lock().wake_at.bytes != 1 {
            std::thread::yield_now();
        }
        (0..5).for_each(|number| queue.push(thing(Severity::Info, number)));
        assert_eq!(numbers(&taken.join().unwrap()), [0, 1, 2, 3, 4]);
    });
}

#[tokio::test(start_paused = true)]
async fn a_task_lingers_for_a_batch_but_not_when_it_is_full_or_somebody_waits() {
    let queue = Queue::<Things>::new("test", limits(1000, OnFull::DropLowest), None);
    let lingering = BatchLimits {
        bytes: 30,
        items: 100,
        linger: Duration::from_secs(5),
    };
    let began = Instant::now();
    queue.push(thing(Severity::Info, 0));
    let mut batch = Vec::new();
    assert!(queue.take_async(lingering, &mut batch).await);
    assert_eq!((batch.len(), began.elapsed().as_secs()), (1, 5));

    let began = Instant::now();
    let filler = Arc::clone(&queue);
    tokio::spawn(async move {
        for number in 0..3 {
            filler.push(thing(Severity::Info, number));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    batch.clear();
    assert!(queue.take_async(lingering, &mut batch).await);
    assert_eq!((batch.len(), began.elapsed().as_secs()), (3, 2), "full");

    let began = Instant::now();
    queue.push(thing(Severity::Info, 0));
    let flusher = Arc::clone(&queue);
    let flushed = tokio::task::spawn_blocking(move || flusher.settle_all(Duration::from_secs(60)));
    batch.clear();
    assert!(queue.take_async(lingering, &mut batch).await);
    queue.settle(5, Fate::Delivered);
    assert!(flushed.await.unwrap(), "everything was settled");
    assert!(began.elapsed() < Duration::from_secs(5), "somebody waited");

    queue.take_no_more(Duration::from_secs(1));
    assert!(!queue.take_async(lingering, &mut batch).await);
}

proptest! {
    #[test]
    fn a_full_queue_counts_every_item_and_keeps_its_bound(
        limit in 1..300_usize,
        most_items in prop_oneof![1..10_usize, Just(usize::MAX)],
        policy in 0..3_usize,
        items in proptest::collection::vec((0..5_usize, 1..60_usize, 0..4_usize), 0..200),
    ) {
        let on_full = [OnFull::DropLowest, OnFull::DropNewest, OnFull::Block][policy];
        let limits = QueueLimits { bytes: limit, items: most_items, on_full, block: Duration::ZERO };
        let queue = Queue::<Things>::new("test", limits, None);
        let mut taken = Vec::new();
        for (number, (severity, bytes, takes)) in items.iter().enumerate() {
            queue.push(Thing { severity: LEVELS[*severity], bytes: *bytes, number: number as u64 });
            prop_assert!(queue.queued_bytes() <= limit && queue.lock().size.items <= most_items);
            if *takes == 0 && queue.queued_bytes() > 0 {
                taken.extend(take(&queue, BatchLimits { items: 2, ..ALL }));
            }
        }
        if queue.queued_bytes() > 0 {
            taken.extend(take(&queue, ALL));
        }
        prop_assert!(taken.windows(2).all(|pair| pair[0].number < pair[1].number), "in order");
        queue.settle(taken.len() as u64, Fate::Delivered);
        let counts = queue.counts();
        prop_assert_eq!(counts.emitted, items.len() as u64);
        prop_assert_eq!(counts.delivered, taken.len() as u64);
        prop_assert!(counts.is_exact());
    }
}

/// Producers, a consumer that settles or forgets, and an end in the middle of it, all at once.
#[test]
fn nothing_is_uncounted_while_threads_race_with_the_end() {
    for seed in 0..60_u64 {
        println!("seed {seed}");
        let on_full = [OnFull::DropLowest, OnFull::DropNewest, OnFull::Block][seed as usize % 3];
        let queue = Queue::<Things>::new(
            "test",
            QueueLimits {
                block: Duration::from_micros(50),
                ..limits(400, on_full)
            },
            None,
        );
        let delivered = AtomicU64::new(0);
        let go = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for producer in 0..3 {
                let (queue, go) = (&queue, &go);
                scope.spawn(move || {
                    while !go.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    for number in 0..2000 {
                        queue.push(thing(LEVELS[(number as usize + producer) % 5], number));
                    }
                });
            }
            scope.spawn(|| {
                let mut batch = Vec::new();
                while queue.take_blocking(BatchLimits { items: 16, ..ALL }, &mut batch) {
                    // Now and then the consumer dies with a batch in its hands.
                    if batch.len() as u64 % 13 != seed % 13 && queue.settle(batch.len() as u64, Fate::Delivered) {
                        delivered.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    }
                    batch.clear();
                }
            });
            go.store(true, Ordering::Release);
            while queue.counts().emitted < seed * 100 {
                std::hint::spin_loop();
            }
            let counts = queue.close(Duration::from_micros(seed * 20));
            assert!(counts.is_exact(), "seed {seed}: {counts:?}");
        });
        let counts = queue.counts();
        assert_eq!(counts.emitted, 6000, "seed {seed}");
        assert_eq!(counts.delivered, delivered.into_inner(), "seed {seed}");
        assert!(counts.is_exact(), "seed {seed}: {counts:?}");
    }
}
