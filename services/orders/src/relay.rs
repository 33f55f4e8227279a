//! The relay of the transactional outbox: claims events, hands them to the consumer in their order per order, at least
//! once, and records what became of each. The consumer makes "at least once" into "exactly once" by the event's id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use rand::Rng as _;
use tokio::sync::Notify;
use tracing::Instrument as _;

use crate::domain::OrderId;
use crate::metrics::OrderMetrics;
use crate::orchestrator::chain;
use crate::ports::{PublishError, Publisher};
use crate::saga::backoff;
use crate::store::{ClaimedEvent, Fate, Lease, Settled, Store, StoreError};

/// Relays events for one instance.
pub struct Relay {
    /// The instance's name in leases.
    pub instance: String,
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// Who is told.
    pub publisher: Arc<dyn Publisher>,
    /// Counts.
    pub metrics: OrderMetrics,
    /// Told when there may be events.
    pub wake: Arc<Notify>,
    /// The world's time.
    pub clock: fn() -> Timestamp,
}

/// How long events stay with an instance that says nothing.
const LEASE: Duration = Duration::from_secs(30);
/// Events in one claim.
const BATCH: usize = 128;
/// Orders whose events are published at one time.
const CONCURRENCY: usize = 16;
/// How often to look when nobody says that there is something: events of dead instances, and back-offs that ended.
const POLL: Duration = Duration::from_millis(500);
/// How long to let events gather, so that one claim and one record serve many.
const GATHER: Duration = Duration::from_millis(40);
/// How often the consumer may refuse an event before it is dead.
pub const MAX_REFUSALS: u32 = 8;

impl Relay {
    /// Relays until `stop` ends; a batch that was begun is finished.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut failures: u32 = 0;
        loop {
            let wait = match self.pass().await {
                Ok(pass) if pass.unreachable => {
                    failures += 1;
                    Some(backoff(failures, rand::rng().random()).min(Duration::from_secs(5)))
                }
                Ok(pass) => {
                    failures = 0;
                    (pass.claimed == BATCH).then_some(Duration::ZERO)
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot relay events");
                    failures += 1;
                    Some(backoff(failures, rand::rng().random()))
                }
            };
            let pause = async {
                if let Some(wait) = wait {
                    tokio::time::sleep(wait).await;
                } else {
                    // An error says that nobody told within the time, which is as good.
                    drop(tokio::time::timeout(POLL, self.wake.notified()).await);
                    tokio::time::sleep(GATHER).await;
                }
            };
            tokio::select! {
                () = &mut stop => return,
                () = pause => {}
            }
        }
    }

    /// Claims one batch, publishes it, records what became of it.
    pub async fn pass(&self) -> Result<Pass, StoreError> {
        let lease = Lease {
            owner: self.instance.clone(),
            now: (self.clock)(),
            ttl: LEASE,
        };
        let claimed = self.store.claim_events(lease, BATCH).await?;
        if claimed.is_empty() {
            return Ok(Pass::default());
        }
        let mut pass = Pass {
            claimed: claimed.len(),
            ..Pass::default()
        };
        let mut by_order: HashMap<OrderId, Vec<ClaimedEvent>> = HashMap::new();
        for event in claimed {
            by_order.entry(event.event.order).or_default().push(event);
        }
        let settled: Vec<Vec<Settled>> = futures::stream::iter(by_order.into_values())
            .map(|events| self.publish(events))
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let settled: Vec<Settled> = settled.into_iter().flatten().collect();
        for item in &settled {
            match &item.fate {
                Fate::Published => pass.published += 1,
                Fate::Retry { refused: false, .. } => pass.unreachable = true,
                Fate::Retry { .. } | Fate::Dead { .. } => {}
            }
        }
        self.metrics
            .relayed(pass.published as u64, (settled.len() - pass.published) as u64);
        self.store.settle_events(settled, (self.clock)()).await?;
        Ok(pass)
    }

    /// Publishes events of one order, one after the other. After one that must wait, all wait.
    async fn publish(&self, events: Vec<ClaimedEvent>) -> Vec<Settled> {
        let mut settled = Vec::with_capacity(events.len());
        let mut held: Option<Duration> = None;
        for event in events {
            let fate = match held {
                Some(after) => Fate::Retry {
                    after,
                    refused: false,
                    error: "an earlier event waits".into(),
                },
                None => self.publish_one(&event).await,
            };
            if let Fate::Retry { after, .. } = &fate {
                held = Some(*after);
            }
            settled.push(Settled {
                seq: event.seq,
                number: event.number,
                fate,
            });
        }
        settled
    }

    async fn publish_one(&self, event: &ClaimedEvent) -> Fate {
        let (event_id, kind) = (event.event.id, event.event.kind.as_str());
        let span = || tracing::info_span!(target: telemetry::SPAN_TARGET, parent: None, "publish", %event_id, event_type = kind);
        let span = event.event.origin.span(span);
        self.hand_over(event).instrument(span).await
    }

    async fn hand_over(&self, event: &ClaimedEvent) -> Fate {
        match self.publisher.publish(&event.event).await {
            Ok(()) => Fate::Published,
            Err(PublishError::Unreachable(error)) => {
                tracing::warn!(event_id = %event.event.id, %error, "event waits");
                Fate::Retry {
                    after: backoff(2, rand::rng().random()),
                    refused: false,
                    error,
                }
            }
            Err(PublishError::Refused(error)) if event.refusals + 1 >= MAX_REFUSALS => {
                tracing::error!(event_id = %event.event.id, order_id = %event.event.order, %error, "event is dead");
                Fate::Dead { error }
            }
            Err(PublishError::Refused(error)) => {
                tracing::warn!(event_id = %event.event.id, %error, refusals = event.refusals + 1, "event was refused");
                Fate::Retry {
                    after: backoff(event.refusals + 1, rand::rng().random()),
                    refused: true,
                    error,
                }
            }
        }
    }
}

/// What one batch was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pass {
    /// Events claimed.
    pub claimed: usize,
    /// Of these, taken over by the consumer.
    pub published: usize,
    /// Whether the consumer was not reached for some.
    pub unreachable: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicI64, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::domain::EventKind;
    use crate::store::contract::create;
    use crate::store::memory::MemoryStore;
    use crate::store::{Event, StoreError};

    /// Answers what it was told to, and keeps what it was handed.
    #[derive(Default)]
    struct Consumer {
        refuse: Option<EventKind>,
        away: bool,
        seen: Mutex<Vec<EventKind>>,
    }

    #[async_trait]
    impl Publisher for Consumer {
        async fn publish(&self, event: &Event) -> Result<(), PublishError> {
            if self.away {
                return Err(PublishError::Unreachable("away".into()));
            }
            self.seen.lock().unwrap().push(event.kind);
            match self.refuse {
                Some(kind) if kind == event.kind => Err(PublishError::Refused("bad".into())),
                _ => Ok(()),
            }
        }
    }

    /// Every look at the clock finds it a minute later: longer than any back-off or lease.
    fn leaping() -> Timestamp {
        static MINUTES: AtomicI64 = AtomicI64::new(0);
        crate::store::contract::at(60 * MINUTES.fetch_add(1, Ordering::Relaxed) + 60)
    }

    async fn relay(consumer: Consumer) -> (Relay, Arc<Consumer>, MemoryStore) {
        let store = MemoryStore::new();
        let new = create("ann", 0);
        let id = new.id;
        store.create(new).await.unwrap();
        store.cancel(id, "ann", crate::store::contract::at(1)).await.unwrap();
        let consumer = Arc::new(consumer);
        let relay = Relay {
            instance: "a".into(),
            store: Arc::new(store.clone()),
            publisher: consumer.clone(),
            metrics: OrderMetrics::new(&telemetry::Metrics::new()),
            wake: Arc::default(),
            clock: leaping,
        };
        (relay, consumer, store)
    }

    #[tokio::test]
    async fn events_go_out_once_and_in_order() {
        let (relay, consumer, store) = relay(Consumer::default()).await;
        assert_eq!(relay.pass().await.unwrap().published, 2);
        assert_eq!(relay.pass().await.unwrap(), Pass::default());
        assert_eq!(
            *consumer.seen.lock().unwrap(),
            [EventKind::Created, EventKind::Cancelled]
        );
        assert_eq!(store.backlog(leaping()).await.unwrap().events, 0);
    }

    #[tokio::test]
    async fn a_poisonous_event_dies_and_lets_the_next_one_pass() -> Result<(), StoreError> {
        let refuse = Some(EventKind::Created);
        let (relay, consumer, store) = relay(Consumer {
            refuse,
            ..Consumer::default()
        })
        .await;
        for _ in 1..MAX_REFUSALS {
            assert_eq!(
                relay.pass().await?.published,
                0,
                "what follows waits as long as there is hope"
            );
        }
        assert!(store.dead_events(10).await?.is_empty());
        assert_eq!(relay.pass().await?.published, 1);
        let dead = store.dead_events(10).await?;
        assert_eq!(
            (dead[0].event.kind, dead[0].refusals),
            (EventKind::Created, MAX_REFUSALS)
        );
        assert_eq!(consumer.seen.lock().unwrap().last(), Some(&EventKind::Cancelled));
        Ok(())
    }

    #[tokio::test]
    async fn a_consumer_that_is_away_kills_no_event() {
        let (relay, _, store) = relay(Consumer {
            away: true,
            ..Consumer::default()
        })
        .await;
        for _ in 0..3 * MAX_REFUSALS {
            let pass = relay.pass().await.unwrap();
            assert_eq!((pass.published, pass.unreachable), (0, true));
        }
        let backlog = store.backlog(leaping()).await.unwrap();
        assert_eq!((backlog.events, backlog.dead_events), (2, 0));
    }
}
