//! Runs sagas: claims what is due, executes each step against payments and delivery, records what came of it. What
//! follows what is decided by [`crate::saga`]; who owns a saga by the store's leases.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

use crate::clock;
use crate::metrics::OrderMetrics;
use crate::ports::{Delivery, Payments};
use crate::saga::{Outcome, Step, backoff};
use crate::store::{Claimed, Lease, Recorded, Store, StoreError};

/// Runs sagas for one instance. Clones share.
#[derive(Clone)]
pub struct Orchestrator {
    inner: Arc<Inner>,
}

/// How an instance runs sagas.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The instance's name in leases.
    pub instance: String,
    /// How long a saga stays with an instance that says nothing; longer than any step may take.
    pub lease: Duration,
    /// Sagas at one time.
    pub concurrency: usize,
    /// How often to look for sagas that are due.
    pub poll: Duration,
}

impl Settings {
    /// The usual figures.
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            lease: Duration::from_secs(10),
            concurrency: 64,
            poll: Duration::from_millis(250),
        }
    }
}

struct Inner {
    settings: Settings,
    store: Arc<dyn Store>,
    payments: Arc<dyn Payments>,
    delivery: Arc<dyn Delivery>,
    metrics: OrderMetrics,
    slots: Arc<Semaphore>,
    /// Told after every transaction that may have added events.
    events: Arc<Notify>,
}

/// The right to run one saga now.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
}

/// How often recording is tried before the saga is left to the next claim.
const RECORD_ATTEMPTS: u32 = 5;

impl Orchestrator {
    /// Makes one; `events` is told when there may be events to relay.
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        payments: Arc<dyn Payments>,
        delivery: Arc<dyn Delivery>,
        metrics: OrderMetrics,
        events: Arc<Notify>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(settings.concurrency));
        Self {
            inner: Arc::new(Inner {
                settings,
                store,
                payments,
                delivery,
                metrics,
                slots,
                events,
            }),
        }
    }

    /// A slot and the lease to claim a saga with, if there is room now.
    pub fn try_slot(&self) -> Option<(Slot, Lease)> {
        let permit = self.inner.slots.clone().try_acquire_owned().ok()?;
        Some((Slot { _permit: permit }, self.lease()))
    }

    /// Runs a claimed saga in the background until it is final, must wait, or is lost.
    pub fn run_saga(&self, claimed: Claimed, slot: Slot) {
        let inner = self.inner.clone();
        let order_id = claimed.order.id;
        let origin = claimed.order.origin.clone();
        let span = origin.span(|| tracing::info_span!(target: telemetry::SPAN_TARGET, parent: None, "saga", %order_id));
        let work = async move {
            inner.drive(claimed).await;
            drop(slot);
        };
        drop(tokio::spawn(work.instrument(span)));
    }

    /// Claims and runs sagas until `stop` ends, then waits until those that run are through with what they do.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            let wait = match self.claim().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.inner.settings.poll,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "cannot claim sagas");
                    self.inner.settings.poll.saturating_mul(4)
                }
            };
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        let all = u32::try_from(self.inner.settings.concurrency).unwrap_or(u32::MAX);
        // Closed only with the semaphore, which nobody does.
        if let Ok(permits) = self.inner.slots.acquire_many(all).await {
            permits.forget();
        }
    }

    /// Claims as much as there is room for; true when there may be more.
    async fn claim(&self) -> Result<bool, StoreError> {
        let free = self.inner.slots.available_permits();
        if free == 0 {
            return Ok(false);
        }
        let claimed = self.inner.store.claim_sagas(self.lease(), free).await?;
        let more = claimed.len() == free;
        for claimed in claimed {
            // A request may have taken a slot meanwhile; waiting for one is as good, the lease is long.
            match self.inner.slots.clone().acquire_owned().await {
                Ok(permit) => self.run_saga(claimed, Slot { _permit: permit }),
                Err(_) => return Ok(false),
            }
        }
        Ok(more)
    }

    fn lease(&self) -> Lease {
        self.inner.lease()
    }
}

impl Inner {
    fn lease(&self) -> Lease {
        Lease {
            owner: self.settings.instance.clone(),
            now: clock::now(),
            ttl: self.settings.lease,
        }
    }

    async fn drive(&self, mut claimed: Claimed) {
        loop {
            let step = claimed.claim.step;
            let outcome = self.execute(&claimed).await;
            self.metrics.step(step, &outcome);
            let (order_id, attempt) = (claimed.order.id, claimed.order.saga.attempts);
            if let Outcome::Unknown { reason } = &outcome {
                tracing::warn!(%order_id, step = step.as_str(), attempt, %reason, "step will be tried again");
            } else {
                tracing::info!(%order_id, step = step.as_str(), attempt, outcome = outcome.as_str(), "step done");
            }
            match self.record(&claimed, outcome).await {
                Some(Recorded::Continue(next)) => {
                    self.events.notify_one();
                    claimed = *next;
                }
                Some(Recorded::Finished(order)) => {
                    self.events.notify_one();
                    self.metrics.finished(&order);
                    tracing::info!(order_id = %order.id, status = order.saga.status.as_str(), "order is final");
                    return;
                }
                Some(Recorded::Later | Recorded::Lost) | None => return,
            }
        }
    }

    async fn execute(&self, claimed: &Claimed) -> Outcome {
        match claimed.claim.step {
            Step::Charge => self.payments.charge(&claimed.order).await,
            Step::Deliver => self.delivery.deliver(&claimed.order).await,
            Step::Refund => self.payments.refund(&claimed.order).await,
            // Never claimed.
            Step::Done => Outcome::Unknown {
                reason: "nothing to do".into(),
            },
        }
    }

    /// Records an outcome. `None`: the store does not take it; whoever claims the saga next asks again, under the same
    /// idempotency keys.
    async fn record(&self, claimed: &Claimed, outcome: Outcome) -> Option<Recorded> {
        let retry_after = backoff(claimed.order.saga.attempts, rand::rng().random());
        for attempt in 1..=RECORD_ATTEMPTS {
            match self
                .store
                .record(claimed.claim, outcome.clone(), self.lease(), retry_after)
                .await
            {
                Ok(recorded) => return Some(recorded),
                Err(error) if attempt < RECORD_ATTEMPTS && error.is_transient() => {
                    tracing::debug!(error = %chain(&error), attempt, "cannot record yet");
                    let wait = backoff(attempt, rand::rng().random());
                    tokio::time::sleep(wait).await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), outcome = outcome.as_str(), "cannot record a step");
                    return None;
                }
            }
        }
        None
    }
}

/// An error with all its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
