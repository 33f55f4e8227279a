//! What Loki refuses for good: it is found, counted with its reason, and costs no other line.

use std::time::Duration;

use telemetry::RejectReason;
use telemetry::loki::LokiCompression;

use crate::gate::{Fault, Gate};
use crate::real::{self, LONGEST_LINE};
use crate::sender::{Sender, quick};

const LIMIT: Duration = Duration::from_secs(60);

/// Loki stores a part of a push and refuses it as a whole: of 200,000 lines every second is too long for it.
#[tokio::test]
async fn half_of_many_lines_is_refused() {
    let Some(tenant) = real::tenant("half_of_many_lines_is_refused").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let mut settings = quick();
    settings.timeout = Duration::from_secs(10);
    settings.queue_bytes = 512 << 20;
    let mut sender = Sender::own(&gate, &tenant, settings);
    let padding = "x".repeat(LONGEST_LINE);
    sender.log(200_000, || {
        for number in 0..100_000_u32 {
            tracing::info!(number, "short");
            tracing::info!(number, padding, "long");
        }
    });
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!((counts.delivered, counts.dropped), (100_000, 0), "{counts:?}");
    assert_eq!(counts.rejected_because(RejectReason::TooLarge), 100_000);
    assert_eq!(tenant.stored().await, 100_000);
    assert!(
        gate.largest() <= (1 << 20) + 4096,
        "no push is larger than said: {}",
        gate.largest()
    );
}

/// The same with a queue that is too small: what was dropped is counted as such.
#[tokio::test]
async fn a_flood_is_accounted_to_the_line() {
    let Some(tenant) = real::tenant("a_flood_is_accounted_to_the_line").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let mut settings = quick();
    settings.timeout = Duration::from_secs(10);
    settings.queue_bytes = 4 << 20;
    let mut sender = Sender::own(&gate, &tenant, settings);
    let padding = "x".repeat(LONGEST_LINE);
    sender.log(50_000, || {
        for number in 0..25_000_u32 {
            tracing::info!(number, "short");
            tracing::info!(number, padding, "long");
        }
    });
    let counts = sender.end(LIMIT).await.unwrap();
    assert!(counts.dropped > 0, "{counts:?}");
    assert_eq!(counts.dropped, counts.dropped_because(telemetry::DropReason::QueueFull));
    assert_eq!(tenant.stored().await, counts.delivered, "{counts:?}");
    let told = tenant.stored_in("{level=\"warn\"} |= `lost `").await;
    assert_eq!(told, counts.emitted - 50_000, "lines tell of the lost ones");
    assert!(told > 0);
}

/// Refused without a reason that can be read: halves are sent until what is bad is alone.
#[tokio::test]
async fn bad_lines_are_found_without_a_word() {
    let Some(tenant) = real::tenant("bad_lines_are_found_without_a_word").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::RefuseWhole("poison"));
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.log(1000, || {
        for number in 0..1000_u32 {
            if number % 100 == 7 {
                tracing::warn!(number, "poison");
            } else {
                tracing::info!(number, "line");
            }
        }
    });
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        (counts.delivered, counts.rejected, counts.dropped),
        (990, 10, 0),
        "{counts:?}"
    );
    assert_eq!(counts.rejected_because(RejectReason::BadRequest), 10);
    assert_eq!(tenant.stored().await, 990);
    assert!(gate.pushes() < 200, "{}", gate.pushes());
}

#[tokio::test]
async fn too_large_a_push_is_split() {
    let Some(tenant) = real::tenant("too_large_a_push_is_split").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::Status(413, None, ""));
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.burst(16);
    sender.flush(LIMIT).await;
    let counts = sender.counts().unwrap();
    assert_eq!(
        counts.rejected_because(RejectReason::TooLarge),
        16,
        "even alone they are too large"
    );
    gate.set(Fault::Pass);
    sender.burst(16);
    assert_eq!(sender.end(LIMIT).await.unwrap().delivered, 16);
    assert_eq!(tenant.stored().await, 16);
}

/// Answers without an end and of any size are read as far as they are of use.
#[tokio::test]
async fn an_endless_answer_ends_nothing() {
    let Some(tenant) = real::tenant("an_endless_answer_ends_nothing").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let mut sender = Sender::own(&gate, &tenant, quick());
    for status in [200, 500, 400] {
        gate.set(Fault::Endless(status));
        let before = gate.pushes();
        sender.burst(1);
        gate.until_pushes(before + 1, LIMIT).await;
        if status == 500 {
            gate.set(Fault::Pass);
        }
        sender.flush(LIMIT).await;
    }
    gate.set(Fault::Pass);
    sender.burst(1);
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!((counts.delivered, counts.rejected), (3, 1), "{counts:?}");
}

/// Loki understands what we make of a push, in either form.
#[tokio::test]
async fn both_compressions_arrive() {
    let Some(tenant) = real::tenant("both_compressions_arrive").await else {
        return;
    };
    for compression in [LokiCompression::Snappy, LokiCompression::Gzip] {
        let gate = Gate::open(tenant.loki).await;
        let mut settings = quick();
        settings.compression = compression;
        let mut sender = Sender::own(&gate, &tenant, settings);
        sender.log(5000, || (0..5000).for_each(|_| tracing::info!("the same")));
        assert_eq!(sender.end(LIMIT).await.unwrap().delivered, 5000);
    }
    assert_eq!(tenant.stored().await, 10_000);
}
