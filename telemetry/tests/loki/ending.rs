//! The end, whatever Loki does then: within its time, and what is not known is not claimed.

use std::time::Duration;

use telemetry::DropReason;

use crate::gate::{Fault, Gate};
use crate::real;
use crate::sender::{Sender, quick};

const LIMIT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn lines_of_the_last_moment_arrive() {
    let Some(tenant) = real::tenant("lines_of_the_last_moment_arrive").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let mut settings = quick();
    settings.linger = Duration::from_secs(60);
    let mut sender = Sender::own(&gate, &tenant, settings);
    sender.burst(5000);
    let counts = sender.end(Duration::from_secs(10)).await.unwrap();
    assert_eq!((counts.delivered, counts.dropped), (5000, 0), "{counts:?}");
    assert_eq!(tenant.stored().await, 5000);
}

/// Sent and never answered: whether Loki has them is not known, and here it has.
#[tokio::test]
async fn what_was_never_answered_is_not_called_delivered() {
    let Some(tenant) = real::tenant("what_was_never_answered").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::LostAnswer);
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.burst(100);
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!(
        (counts.delivered, counts.dropped_because(DropReason::Unanswered)),
        (0, 100),
        "{counts:?}"
    );
    assert_eq!(
        tenant.stored().await,
        100,
        "they arrived once, however often they were sent"
    );
}

#[tokio::test]
async fn nobody_is_there() {
    let Some(tenant) = real::tenant("nobody_is_there").await else {
        return;
    };
    let gate = Gate::down(tenant.loki).await;
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.burst(200);
    let counts = sender.end(LIMIT).await.unwrap();
    assert_eq!((counts.delivered, counts.dropped), (0, 200), "{counts:?}");
    assert_eq!(
        counts.dropped_because(DropReason::Unanswered),
        0,
        "nothing was sent: {counts:?}"
    );
}

/// When Loki says that it wants to be left alone for longer than there is time, the end does not wait for it.
#[tokio::test]
async fn an_end_that_is_asked_to_wait_longer_ends_at_once() {
    let Some(tenant) = real::tenant("an_end_that_is_asked_to_wait").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    gate.set(Fault::Status(503, Some("120"), ""));
    let mut sender = Sender::own(&gate, &tenant, quick());
    sender.burst(10);
    let began = tokio::time::Instant::now();
    let counts = sender.end(Duration::from_secs(30)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(counts.dropped_because(DropReason::Unreachable), 10, "{counts:?}");
}

/// A layer that is dropped without an end delivers what it has, and its future ends.
#[tokio::test]
async fn a_layer_that_is_dropped_ends() {
    let Some(tenant) = real::tenant("a_layer_that_is_dropped_ends").await else {
        return;
    };
    use tracing_subscriber::layer::SubscriberExt as _;
    let url = telemetry::loki::Url::parse(&format!("http://{}", tenant.loki)).unwrap();
    let (layer, task) = telemetry::loki::builder()
        .label("test", "dropped")
        .unwrap()
        .http_header("X-Scope-OrgID", &tenant.name)
        .unwrap()
        .build_url(url)
        .unwrap();
    let task = tokio::spawn(task);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        tracing::info!("the last words");
    });
    tokio::time::timeout(Duration::from_secs(5), task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(tenant.stored_at_least(1, LIMIT).await, 1);
}
