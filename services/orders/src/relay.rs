//! The relay of the transactional outbox: claims events, hands them to the consumer in their order per order, at least
//! once, and records what became of each. The consumer makes "at least once" into "exactly once" by the event's id.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rand::Rng as _;
use tokio::sync::Notify;

use crate::clock;
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
            now: clock::now(),
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
        self.store.settle_events(settled, clock::now()).await?;
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
