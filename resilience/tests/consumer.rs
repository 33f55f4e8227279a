//! The consumer as its users see it, under a paused clock, and its example.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::cell::Cell;
use std::time::Duration;

use resilience::{Breaker, Consumer, ConsumerSettings, Deadline, Disposition, Error, Kind, Pipeline, Verdict};
use tokio::time::{Instant, advance, sleep};

#[path = "../examples/consumer.rs"]
mod example;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn plain() -> Pipeline {
    Pipeline::builder("mail").build().unwrap()
}

/// Handles a message that fails with this verdict.
async fn fail(consumer: &Consumer, delivery: u32, verdict: Verdict) -> Disposition<&'static str> {
    let classify = move |_: Result<&(), &&'static str>| verdict;
    consumer.handle_with(&classify, delivery, |_| async { Err("no") }).await
}

fn name<E>(disposition: &Disposition<E>) -> &'static str {
    match disposition {
        Disposition::Ack => "ack",
        Disposition::Nack { .. } => "nack",
        Disposition::DeadLetter { reason, .. } => reason.as_str(),
        Disposition::Pause { .. } => "pause",
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_message() {
    let soon = Some(secs(7));
    // Verdict, number of the delivery, what the broker is told.
    let table = [
        (Verdict::Success, 1, "ack"),
        (Verdict::Failure(Kind::Transient), 1, "nack"),
        (Verdict::Failure(Kind::Timeout), 4, "nack"),
        (Verdict::Failure(Kind::NotSent), 4, "nack"),
        (Verdict::Failure(Kind::Transient), 5, "too_many_attempts"),
        (Verdict::Failure(Kind::Transient), u32::MAX, "too_many_attempts"),
        (Verdict::Failure(Kind::Permanent), 1, "permanent"),
        (Verdict::Ignore, 1, "permanent"),
        (Verdict::Overload { hint: None }, 1, "nack"),
        (Verdict::Overload { hint: None }, 5, "too_many_attempts"),
        (Verdict::Overload { hint: soon }, 99, "pause"),
        (Verdict::LocalReject, 99, "pause"),
    ];
    for (verdict, delivery, told) in table {
        let disposition = fail(&Consumer::new(plain()), delivery, verdict).await;
        assert_eq!(name(&disposition), told, "{verdict:?} at delivery {delivery}");
        if let Disposition::Nack { error, .. } | Disposition::DeadLetter { error, .. } = disposition {
            assert_eq!(error.into_inner(), Some("no"), "what went wrong is told");
        }
    }
    let consumer = Consumer::new(plain());
    assert_eq!(name(&consumer.handle(1, |_| async { Ok::<_, &str>(()) }).await), "ack");
    assert_eq!(consumer.snapshot().acked, 1);
}

#[tokio::test(start_paused = true)]
async fn the_wait_doubles_up_to_its_cap_and_is_spread() {
    let settings = ConsumerSettings {
        max_attempts: 100,
        base: secs(1),
        cap: secs(60),
        ..ConsumerSettings::default()
    };
    let consumer = Consumer::with_settings(plain(), settings).unwrap();
    for (delivery, whole) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (40, 60), (99, 60)] {
        let whole = secs(whole);
        let mut waits = Vec::new();
        for _ in 0..200 {
            match fail(&consumer, delivery, Verdict::Failure(Kind::Transient)).await {
                Disposition::Nack { delay, .. } => waits.push(delay),
                other => panic!("{other:?}"),
            }
        }
        assert!(
            waits.iter().all(|wait| *wait >= whole / 2 && *wait <= whole),
            "delivery {delivery}"
        );
        let mean = waits.iter().sum::<Duration>() / 200;
        let (low, high) = (whole.mul_f64(0.70), whole.mul_f64(0.80));
        assert!(
            mean > low && mean < high,
            "delivery {delivery}: 200 uniform waits have a mean of {mean:?}"
        );
    }
    assert_eq!(consumer.snapshot().nacked, 1_400);
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_pauses_every_worker_and_burns_no_delivery() {
    let breaker = Breaker::builder("mail").consecutive(1).open(secs(5), secs(5));
    let consumer = Consumer::new(Pipeline::builder("mail").breaker(breaker).build().unwrap());
    let worker = consumer.clone();
    assert_eq!(
        name(&fail(&consumer, 1, Verdict::Failure(Kind::Transient)).await),
        "nack"
    );
    let calls = Cell::new(0);
    let disposition = consumer
        .handle(1, |_| {
            calls.set(calls.get() + 1);
            async { Ok::<_, &str>(()) }
        })
        .await;
    let Disposition::Pause { retry_after, error } = disposition else {
        panic!("{disposition:?}");
    };
    assert!(error.is_rejected());
    // The break has up to a quarter of jitter.
    assert!(retry_after >= secs(5) && retry_after <= secs(7), "{retry_after:?}");
    assert_eq!(calls.get(), 0, "the message was not touched");
    assert!(worker.snapshot().is_paused);
    let began = Instant::now();
    worker.ready().await;
    assert!(began.elapsed() >= retry_after);
    assert_eq!(name(&worker.handle(1, |_| async { Ok::<_, &str>(()) }).await), "ack");
    let figures = consumer.snapshot();
    assert_eq!(
        (figures.acked, figures.nacked, figures.paused, figures.is_paused),
        (1, 1, 1, false)
    );
    let began = Instant::now();
    consumer.ready().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_pause_has_a_length_even_if_nobody_names_one_and_is_never_too_long() {
    for (verdict, expected) in [
        (Verdict::LocalReject, 1),
        (Verdict::Overload { hint: Some(secs(7)) }, 7),
        (Verdict::Overload { hint: Some(secs(3600)) }, 30),
        (
            Verdict::Overload {
                hint: Some(Duration::MAX),
            },
            30,
        ),
    ] {
        match fail(&Consumer::new(plain()), 1, verdict).await {
            Disposition::Pause { retry_after, .. } => assert_eq!(retry_after, secs(expected), "{verdict:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_grows_meanwhile_is_waited_for() {
    let consumer = Consumer::new(plain());
    let _ = fail(&consumer, 1, Verdict::Overload { hint: Some(secs(5)) }).await;
    let waiting = tokio::spawn({
        let (consumer, began) = (consumer.clone(), Instant::now());
        async move {
            consumer.ready().await;
            began.elapsed()
        }
    });
    tokio::task::yield_now().await;
    advance(secs(3)).await;
    let _ = fail(&consumer, 1, Verdict::Overload { hint: Some(secs(10)) }).await;
    // A shorter one does not make it shorter.
    let _ = fail(&consumer, 1, Verdict::Overload { hint: Some(secs(1)) }).await;
    let waited = waiting.await.unwrap();
    assert!(waited >= secs(13) && waited < secs(14), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn the_handler_has_a_deadline_and_is_cut_off_at_it() {
    let settings = ConsumerSettings {
        deadline: secs(10),
        ..ConsumerSettings::default()
    };
    let consumer = Consumer::with_settings(plain(), settings).unwrap();
    let (began, seen) = (Instant::now(), Cell::new(None));
    let disposition = consumer
        .handle(1, |_| {
            let seen = &seen;
            async move {
                seen.set(Deadline::current().map(Deadline::remaining));
                sleep(secs(60)).await;
                Ok::<_, &str>(())
            }
        })
        .await;
    assert_eq!((began.elapsed(), seen.get()), (secs(10), Some(secs(10))));
    assert!(
        matches!(
            disposition,
            Disposition::Nack {
                error: Error::Timeout { .. },
                ..
            }
        ),
        "{disposition:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_over_does_not_pause() {
    let consumer = Consumer::new(plain());
    let over = Deadline::after(Duration::ZERO);
    let disposition = over.scope(consumer.handle(1, |_| async { Ok::<_, &str>(()) })).await;
    assert_eq!(name(&disposition), "nack");
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_key() {
    let good = ConsumerSettings::default();
    let bad = [
        (
            "consumer.max_attempts",
            ConsumerSettings {
                max_attempts: 0,
                ..good.clone()
            },
        ),
        (
            "consumer.base",
            ConsumerSettings {
                base: Duration::ZERO,
                ..good.clone()
            },
        ),
        (
            "consumer.base",
            ConsumerSettings {
                base: secs(301),
                ..good.clone()
            },
        ),
        (
            "consumer.deadline",
            ConsumerSettings {
                deadline: Duration::ZERO,
                ..good.clone()
            },
        ),
        (
            "consumer.cap",
            ConsumerSettings {
                cap: Duration::MAX,
                ..good.clone()
            },
        ),
        (
            "consumer.deadline",
            ConsumerSettings {
                deadline: Duration::MAX,
                ..good.clone()
            },
        ),
        (
            "consumer.max_pause",
            ConsumerSettings {
                max_pause: Duration::MAX,
                ..good.clone()
            },
        ),
        (
            "consumer.pause",
            ConsumerSettings {
                pause: Duration::ZERO,
                ..good.clone()
            },
        ),
        (
            "consumer.pause",
            ConsumerSettings {
                pause: secs(31),
                ..good.clone()
            },
        ),
    ];
    for (key, settings) in bad {
        let error = Consumer::with_settings(plain(), settings).unwrap_err();
        assert_eq!((&*error.name, &*error.key), ("mail", key));
    }
    let read: ConsumerSettings = toml::from_str("max_attempts = 3\ncap = \"1m\"").unwrap();
    assert_eq!(
        read,
        ConsumerSettings {
            max_attempts: 3,
            cap: secs(60),
            ..good
        }
    );
}

#[test]
fn the_example_runs_and_ends() {
    example::main().unwrap();
}
