//! What is done for an order belongs to the trace of the request that placed it: its saga, taken over by another instance
//! when the one that began it is gone, and its events.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use orders::delivery::Warehouse;
use orders::domain::{Item, NewOrder, Order, OrderId, Status};
use orders::metrics::OrderMetrics;
use orders::orchestrator::{Orchestrator, Settings};
use orders::origin::Origin;
use orders::ports::{Charge, ChargePage, Payments, PeerError, PublishError, Publisher};
use orders::relay::Relay;
use orders::saga::Outcome;
use orders::store::memory::MemoryStore;
use orders::store::{Create, Event, Lease, Store};
use telemetry::Telemetry;

/// Takes every charge.
struct Rich;

#[async_trait]
impl Payments for Rich {
    async fn charge(&self, _: &Order) -> Outcome {
        Outcome::Charged {
            charge_id: "charge-1".into(),
        }
    }
    async fn refund(&self, _: &Order) -> Outcome {
        Outcome::Refunded
    }
    async fn kept_charges(&self, _: &str) -> Result<ChargePage, PeerError> {
        Ok(ChargePage::default())
    }
    async fn refund_charge(&self, _: &Charge) -> Result<(), PeerError> {
        Ok(())
    }
}

/// Keeps the headers that a message would carry.
#[derive(Default)]
struct Consumer(Mutex<Vec<std::collections::BTreeMap<String, String>>>);

#[async_trait]
impl Publisher for Consumer {
    async fn publish(&self, _: &Event) -> Result<(), PublishError> {
        let mut headers = std::collections::BTreeMap::new();
        telemetry::inject(&mut headers);
        self.0.lock().expect("nobody panics with it").push(headers);
        Ok(())
    }
}

fn create(origin: Origin) -> Create {
    let long_ago = chassis::now() - Duration::from_hours(1);
    Create {
        id: OrderId::fresh(),
        customer: "ann".into(),
        order: NewOrder {
            items: vec![Item {
                sku: "book".into(),
                quantity: 1,
                unit_price_cents: 100,
            }],
            currency: "EUR".into(),
            address: "here".into(),
            total_cents: 100,
        },
        idempotency_key: None,
        now: long_ago,
        // Begun by an instance that was not heard of again.
        lease: Some(Lease {
            owner: "gone".into(),
            now: long_ago,
            ttl: Duration::from_secs(10),
        }),
        origin,
    }
}

#[tokio::test]
async fn a_saga_that_was_taken_over_and_its_events_belong_to_the_trace_of_the_request() {
    let captured = Telemetry::test();
    let headers: std::collections::BTreeMap<String, String> = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-correlation-id", "from-a-test"),
        ("baggage", "customer=ann"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let caller = telemetry::propagation::extract(&headers);
    let request = caller.scope(|| tracing::info_span!("POST /orders", otel.kind = "server"));
    let origin = request.in_scope(Origin::current);
    drop(request);
    assert!(
        !origin.to_json().expect("something").contains("ann"),
        "baggage is not stored"
    );

    let store = MemoryStore::new();
    let new = create(origin);
    let id = new.id;
    store.create(new).await.unwrap();
    let metrics = OrderMetrics::new(captured.metrics());
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let orchestrator = Orchestrator::new(
        Settings::new("another"),
        shared.clone(),
        Arc::new(Rich),
        Arc::new(Warehouse { stock: 10 }),
        metrics.clone(),
        Arc::default(),
    );
    let is_final = async {
        while store.order(id).await.unwrap().unwrap().saga.status != Status::Delivered {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), orchestrator.run(is_final))
        .await
        .unwrap();
    let consumer = Arc::new(Consumer::default());
    let relay = Relay {
        instance: "another".into(),
        store: shared,
        publisher: consumer.clone(),
        metrics,
        wake: Arc::default(),
        clock: chassis::now,
    };
    assert_eq!(relay.pass().await.unwrap().published, 3);

    let spans = captured.spans();
    let place = spans.iter().find(|span| span.name == "POST /orders").unwrap();
    for (name, count) in [("saga", 1), ("publish", 3)] {
        let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), count, "{name} in {spans:#?}");
        for span in found {
            assert_eq!(span.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
            assert_eq!(span.parent_span_id, place.span_id);
        }
    }
    for headers in consumer.0.lock().unwrap().iter() {
        assert!(headers["traceparent"].starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert_eq!(headers["x-correlation-id"], "from-a-test");
    }
    let lines = captured.lines();
    let steps: Vec<_> = lines.iter().filter(|line| line["message"] == "step done").collect();
    assert_eq!(steps.len(), 2, "{lines:#?}");
    for line in steps {
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(line["correlation_id"], "from-a-test");
    }
}

#[tokio::test]
async fn an_order_of_an_earlier_release_has_a_trace_of_its_own() {
    let captured = Telemetry::test();
    let request = tracing::info_span!("another request");
    let saga = request.in_scope(|| Origin::default().span(|| tracing::info_span!(parent: None, "saga")));
    drop((saga, request));
    let spans = captured.spans();
    assert_eq!(spans.len(), 2);
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
    assert_eq!(Origin::current(), Origin::default(), "nobody asks");
}
