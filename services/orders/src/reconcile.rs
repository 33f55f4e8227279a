//! Reconciliation with payments. After a restore of the orders database to an earlier state, payments holds charges
//! whose orders are gone: they are found at start and every minute, refunded, and listed.
//!
//! Why no charge of a living order is ever refunded: an order's row is committed before its charge is asked for, by
//! whichever instance; and here the charges are read first, the orders after. So an order that is missing then was
//! missing when its charge was listed, and since ids are never used again it will not come back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt as _};
use jiff::Timestamp;

use crate::clock;
use crate::domain::OrderId;
use crate::metrics::OrderMetrics;
use crate::orchestrator::chain;
use crate::ports::{Charge, Payments, PeerError};
use crate::store::{Orphan, Store, StoreError};

/// Compares charges with orders. Clones share.
#[derive(Clone)]
pub struct Reconciler {
    store: Arc<dyn Store>,
    payments: Arc<dyn Payments>,
    metrics: OrderMetrics,
    seen: Arc<Mutex<Seen>>,
}

/// What this instance's comparisons saw so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Where the next pass begins; empty for a pass over everything.
    pub after: String,
    /// When the last whole pass ended.
    pub last_pass_at: Option<Timestamp>,
    /// Why the last one failed, if it did.
    pub last_error: Option<String>,
    /// Charges compared since the start.
    pub checked: u64,
}

/// Between two passes.
const INTERVAL: Duration = Duration::from_mins(1);
/// Until the next try after one that failed.
const RETRY: Duration = Duration::from_secs(5);
/// Refunds under way at once.
const AT_ONCE: usize = 16;
/// Passes that look at new charges only, before one that looks at everything again.
const SHORT_PASSES: u32 = 59;

/// Why a pass did not end.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Payments did not answer.
    #[error("payments did not do its part")]
    Peer(#[from] PeerError),
    /// The orders could not be read or written.
    #[error("the store did not do its part")]
    Store(#[from] StoreError),
}

impl Reconciler {
    /// Makes one that has seen nothing.
    pub fn new(store: Arc<dyn Store>, payments: Arc<dyn Payments>, metrics: OrderMetrics) -> Self {
        Self {
            store,
            payments,
            metrics,
            seen: Arc::default(),
        }
    }

    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    /// Compares at once, then every minute, until `stop` ends.
    pub async fn run(&self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        let mut short = 0;
        loop {
            let work = async {
                match self.pass().await {
                    Ok(()) => {
                        short += 1;
                        if short > SHORT_PASSES {
                            short = 0;
                            self.lock().after.clear();
                        }
                        INTERVAL
                    }
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "reconciliation will be tried again");
                        RETRY
                    }
                }
            };
            let pause = async {
                let wait = work.await;
                tokio::time::sleep(wait).await;
            };
            tokio::select! {
                () = &mut stop => return,
                () = pause => {}
            }
        }
    }

    /// Compares the charges made since the last pass, and refunds what has no order and what could not be refunded
    /// before.
    pub async fn pass(&self) -> Result<(), ReconcileError> {
        let mut refunds = 0;
        let result = self.try_pass(&mut refunds).await;
        self.metrics.reconciled(result.is_ok(), refunds);
        let mut seen = self.lock();
        match &result {
            Ok(()) => {
                seen.last_pass_at = Some(clock::now());
                seen.last_error = None;
            }
            Err(error) => seen.last_error = Some(chain(error)),
        }
        result
    }

    async fn try_pass(&self, refunds: &mut u64) -> Result<(), ReconcileError> {
        let waiting: Vec<Orphan> = self
            .store
            .orphans()
            .await?
            .into_iter()
            .filter(|o| o.refunded_at.is_none())
            .collect();
        self.refund(waiting, refunds).await?;
        loop {
            let after = self.lock().after.clone();
            // First the charges, then the orders: see above.
            let page = self.payments.kept_charges(&after).await?;
            let checked = page.charges.len() as u64;
            let missing = self.missing(page.charges).await?;
            if !missing.is_empty() {
                tracing::warn!(charges = missing.len(), "charges without orders");
            }
            // Written down before anything is done about it.
            self.store.save_orphans(missing.clone()).await?;
            self.refund(missing, refunds).await?;
            let mut seen = self.lock();
            seen.checked += checked;
            if !page.next.is_empty() {
                seen.after = page.next;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn missing(&self, charges: Vec<Charge>) -> Result<Vec<Orphan>, StoreError> {
        let ids = charges
            .iter()
            .filter_map(|charge| charge.order_id.parse().ok())
            .collect();
        let known = self.store.known(ids).await?;
        let found_at = clock::now();
        let missing = charges
            .into_iter()
            .filter(|charge| {
                charge
                    .order_id
                    .parse::<OrderId>()
                    .map_or(true, |id| !known.contains(&id))
            })
            .map(|charge| Orphan {
                charge_id: charge.id,
                order_id: charge.order_id,
                amount_cents: charge.amount_cents,
                currency: charge.currency,
                charged_at: charge.created_at,
                found_at,
                refunded_at: None,
                error: None,
            });
        Ok(missing.collect())
    }

    async fn refund(&self, orphans: Vec<Orphan>, refunds: &mut u64) -> Result<(), ReconcileError> {
        let mut failed = None;
        let mut after = Vec::with_capacity(orphans.len());
        let mut answers = stream::iter(orphans)
            .map(|orphan| self.refund_one(orphan))
            .buffer_unordered(AT_ONCE);
        while let Some((orphan, answer)) = answers.next().await {
            match answer {
                Ok(()) => *refunds += 1,
                Err(error) => failed = Some(error),
            }
            after.push(orphan);
        }
        drop(answers);
        if !after.is_empty() {
            self.store.save_orphans(after).await?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn refund_one(&self, mut orphan: Orphan) -> (Orphan, Result<(), PeerError>) {
        let charge = Charge {
            id: orphan.charge_id.clone(),
            order_id: orphan.order_id.clone(),
            amount_cents: orphan.amount_cents,
            currency: orphan.currency.clone(),
            created_at: orphan.charged_at.clone(),
        };
        let answer = self.payments.refund_charge(&charge).await;
        match &answer {
            Ok(()) => {
                tracing::info!(
                    charge_id = charge.id,
                    order_id = charge.order_id,
                    "refunded a charge without order"
                );
                orphan.refunded_at = Some(clock::now());
                orphan.error = None;
            }
            Err(error) => orphan.error = Some(error.to_string()),
        }
        (orphan, answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
