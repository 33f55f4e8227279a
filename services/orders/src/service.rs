//! The application: what can be asked of orders, whatever the protocol. REST and gRPC are thin views of it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;
use tracing::Instrument as _;

use crate::clock;
use crate::domain::{FieldError, Order, OrderId, OrderRequest, is_idempotency_key};
use crate::metrics::OrderMetrics;
use crate::orchestrator::{Orchestrator, chain};
use crate::origin::Origin;
use crate::reconcile::{Reconciler, Seen};
use crate::store::{Cancelled, Claimed, Create, Created, DeadEvent, Orphan, StepRecord, Store, StoreError};

/// What orders does. Clones share.
#[derive(Clone)]
pub struct Orders {
    store: Arc<dyn Store>,
    orchestrator: Orchestrator,
    reconciler: Reconciler,
    metrics: OrderMetrics,
    events: Arc<Notify>,
}

/// Who asks: the subject of a verified access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Customer(pub Arc<str>);

/// An order that is durable now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The order.
    pub order: Order,
    /// Whether the same request had placed it before.
    pub replayed: bool,
}

/// Some orders and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Oldest first.
    pub orders: Vec<Order>,
    /// Where the next page begins, if there is one.
    pub next_after: Option<OrderId>,
}

/// What reconciliation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciliation {
    /// What this instance saw.
    pub seen: Seen,
    /// All charges without orders, of all instances.
    pub orphans: Vec<Orphan>,
}

/// Orders on one page where nothing else is asked for.
pub const DEFAULT_LIMIT: usize = 100;
/// Orders on one page at most.
pub const MAX_LIMIT: usize = 1000;

/// Why a request is not done.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The request is wrong.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
    /// No such order, or somebody else's.
    #[error("no such order")]
    NotFound,
    /// Delivered or failed orders cannot be cancelled; the order as it is.
    #[error("the order is {} and cannot be cancelled", .0.saga.status.as_str())]
    TooLate(Box<Order>),
    /// The idempotency key came with another request before.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The store cannot now, or not at all.
    #[error("the order could not be read or written")]
    Store(#[from] StoreError),
}

impl Orders {
    /// Puts the parts together.
    pub fn new(
        store: Arc<dyn Store>,
        orchestrator: Orchestrator,
        reconciler: Reconciler,
        metrics: OrderMetrics,
        events: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            orchestrator,
            reconciler,
            metrics,
            events,
        }
    }

    /// Stores an order durably; its saga runs after that. The same key with the same request gives the same order.
    pub async fn place(
        &self,
        customer: &Customer,
        request: OrderRequest,
        key: Option<String>,
    ) -> Result<Placed, ServiceError> {
        if key.as_deref().is_some_and(|key| !is_idempotency_key(key)) {
            let detail = "must be 1 to 128 visible ASCII characters".to_owned();
            return Err(ServiceError::Invalid(vec![FieldError {
                pointer: "Idempotency-Key".into(),
                detail,
            }]));
        }
        let order = request.validate().map_err(ServiceError::Invalid)?;
        let (slot, lease) = self.orchestrator.try_slot().unzip();
        let create = Create {
            id: OrderId::fresh(),
            customer: customer.0.as_ref().to_owned(),
            order,
            idempotency_key: key,
            now: clock::now(),
            lease,
            origin: Origin::current(),
        };
        let this = self.clone();
        // A task of its own: a customer who hangs up between commit and answer must not leave the saga to its lease.
        let work = async move {
            let created = this.store.create(create).await?;
            if let (Created::New(order, Some(claim)), Some(slot)) = (&created, slot) {
                this.orchestrator.run_saga(
                    Claimed {
                        claim: *claim,
                        order: order.clone(),
                    },
                    slot,
                );
            }
            this.events.notify_one();
            Ok::<_, StoreError>(created)
        };
        let created = match tokio::spawn(work.in_current_span()).await {
            Ok(created) => created?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        match created {
            Created::New(order, _) => {
                self.metrics.created();
                let (order_id, total_cents, currency) = (order.id, order.total_cents, order.currency.as_str());
                tracing::info!(%order_id, total_cents, currency, "order placed");
                Ok(Placed { order, replayed: false })
            }
            Created::Replayed(order) => {
                self.metrics.replayed();
                tracing::info!(order_id = %order.id, "order placed before");
                Ok(Placed { order, replayed: true })
            }
            Created::KeyReused => Err(ServiceError::KeyReused),
        }
    }

    /// One order of this customer.
    pub async fn order(&self, customer: &Customer, id: OrderId) -> Result<Order, ServiceError> {
        let order = self.store.order(id).await?;
        order
            .filter(|order| order.customer == *customer.0)
            .ok_or(ServiceError::NotFound)
    }

    /// This customer's orders after `after`, oldest first.
    pub async fn orders(
        &self,
        customer: &Customer,
        after: Option<OrderId>,
        limit: Option<usize>,
    ) -> Result<Page, ServiceError> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let detail = format!("must be 1 to {MAX_LIMIT}");
            return Err(ServiceError::Invalid(vec![FieldError {
                pointer: "limit".into(),
                detail,
            }]));
        }
        let mut orders = self.store.orders(&customer.0, after, limit + 1).await?;
        let more = orders.len() > limit;
        orders.truncate(limit);
        let next_after = orders.last().filter(|_| more).map(|order| order.id);
        Ok(Page { orders, next_after })
    }

    /// What was done for one order of this customer.
    pub async fn steps(&self, customer: &Customer, id: OrderId) -> Result<Vec<StepRecord>, ServiceError> {
        self.order(customer, id).await?;
        Ok(self.store.steps(id).await?)
    }

    /// Cancels one order of this customer; what was charged is refunded.
    pub async fn cancel(&self, customer: &Customer, id: OrderId) -> Result<Order, ServiceError> {
        match self.store.cancel(id, &customer.0, clock::now()).await? {
            Cancelled::Accepted(order) => {
                self.events.notify_one();
                tracing::info!(order_id = %order.id, status = order.saga.status.as_str(), "cancel accepted");
                Ok(*order)
            }
            Cancelled::TooLate(order) => Err(ServiceError::TooLate(order)),
            Cancelled::Unknown => Err(ServiceError::NotFound),
        }
    }

    /// The charges whose orders are missing.
    pub async fn reconciliation(&self) -> Result<Reconciliation, ServiceError> {
        Ok(Reconciliation {
            seen: self.reconciler.seen(),
            orphans: self.store.orphans().await?,
        })
    }

    /// Events that nobody accepts, oldest first.
    pub async fn dead_events(&self) -> Result<Vec<DeadEvent>, ServiceError> {
        Ok(self.store.dead_events(MAX_LIMIT).await?)
    }

    /// Measures the backlog and forgets what is old, until `stop` ends.
    pub async fn keep_house(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut round: u32 = 0;
        loop {
            if let Err(error) = self.tidy(clock::now(), round).await {
                tracing::warn!(error = %chain(&error), "cannot keep house");
            }
            round = round.wrapping_add(1);
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {}
            }
        }
    }

    async fn tidy(&self, now: Timestamp, round: u32) -> Result<(), StoreError> {
        self.metrics.backlog(self.store.backlog(now).await?);
        if round % 12 == 11 {
            // Long enough for any client's retries; small bites, so that nobody waits for it.
            let before = now.saturating_sub(jiff::SignedDuration::from_hours(24)).unwrap_or(now);
            self.store.forget(before, 500).await?;
        }
        Ok(())
    }
}
