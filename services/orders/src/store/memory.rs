//! The store's memory twin: the same rules in plain collections under one lock. For tests; nothing survives the process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Backlog, Cancelled, Claim, Claimed, ClaimedEvent, Create, Created, DeadEvent, Event, Fate, Lease, Orphan, Recorded,
    Settled, StepRecord, Store, StoreError, later,
};
use crate::domain::{EventKind, Fingerprint, Order, OrderId};
use crate::saga::{Cancel, Next, Outcome, Saga, Step};

/// Orders, sagas and outbox in memory. Clones share the data, as instances share a file.
#[derive(Debug, Default, Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    orders: BTreeMap<OrderId, Row>,
    keys: HashMap<(String, String), (OrderId, Fingerprint, Timestamp)>,
    outbox: BTreeMap<i64, EventRow>,
    next_seq: i64,
    orphans: BTreeMap<String, Orphan>,
}

#[derive(Debug)]
struct Row {
    order: Order,
    due_at: Timestamp,
    claim: i64,
    owner: Option<String>,
    steps: Vec<StepRecord>,
}

#[derive(Debug)]
struct EventRow {
    event: Event,
    due_at: Timestamp,
    claim: i64,
    refusals: u32,
    fate: Option<Result<Timestamp, String>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    fn begin(&mut self, saga: Saga, lease: &Lease) -> Claim {
        let saga = saga.begin();
        let step = saga.step;
        match self.steps.iter_mut().find(|s| s.step == step) {
            Some(record) => record.attempts = saga.attempts,
            None => self.steps.push(StepRecord {
                step,
                attempts: saga.attempts,
                begun_at: lease.now,
                ended_at: None,
                outcome: None,
            }),
        }
        self.order.saga = saga;
        self.order.updated_at = lease.now;
        self.due_at = lease.until();
        self.claim += 1;
        self.owner = Some(lease.owner.clone());
        Claim {
            order: self.order.id,
            number: self.claim,
            step,
        }
    }
}

impl Inner {
    fn emit(&mut self, order: &Order, kinds: &[EventKind], now: Timestamp) {
        for kind in kinds {
            self.next_seq += 1;
            let event = Event::new(*kind, order, now);
            self.outbox.insert(
                self.next_seq,
                EventRow {
                    event,
                    due_at: now,
                    claim: 0,
                    refusals: 0,
                    fate: None,
                },
            );
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, create: Create) -> Result<Created, StoreError> {
        let mut inner = self.lock();
        if let Some(key) = &create.idempotency_key {
            let fingerprint = create.order.fingerprint();
            if let Some((id, known, _)) = inner.keys.get(&(create.customer.clone(), key.clone())) {
                return Ok(if *known == fingerprint {
                    Created::Replayed(inner.orders[id].order.clone())
                } else {
                    Created::KeyReused
                });
            }
            inner.keys.insert(
                (create.customer.clone(), key.clone()),
                (create.id, fingerprint, create.now),
            );
        }
        let order = Order {
            id: create.id,
            customer: create.customer,
            items: create.order.items,
            currency: create.order.currency,
            address: create.order.address,
            total_cents: create.order.total_cents,
            saga: Saga::default(),
            created_at: create.now,
            updated_at: create.now,
            origin: create.origin,
        };
        inner.emit(&order, &[EventKind::Created], create.now);
        let mut row = Row {
            order,
            due_at: create.now,
            claim: 0,
            owner: None,
            steps: Vec::new(),
        };
        let claim = create.lease.map(|lease| row.begin(Saga::default(), &lease));
        let order = row.order.clone();
        inner.orders.insert(order.id, row);
        Ok(Created::New(order, claim))
    }

    async fn order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        Ok(self.lock().orders.get(&id).map(|row| row.order.clone()))
    }

    async fn orders(&self, customer: &str, after: Option<OrderId>, limit: usize) -> Result<Vec<Order>, StoreError> {
        let inner = self.lock();
        let all = inner.orders.values().map(|row| &row.order);
        Ok(all
            .filter(|o| o.customer == customer && after.is_none_or(|after| o.id > after))
            .take(limit)
            .cloned()
            .collect())
    }

    async fn steps(&self, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
        Ok(self
            .lock()
            .orders
            .get(&id)
            .map(|row| row.steps.clone())
            .unwrap_or_default())
    }

    async fn cancel(&self, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
        let mut inner = self.lock();
        let Some(row) = inner.orders.get_mut(&id).filter(|row| row.order.customer == customer) else {
            return Ok(Cancelled::Unknown);
        };
        match row.order.saga.cancel() {
            Cancel::Already => Ok(Cancelled::Accepted(Box::new(row.order.clone()))),
            Cancel::TooLate => Ok(Cancelled::TooLate(Box::new(row.order.clone()))),
            Cancel::Accepted(change) => {
                row.order.saga = change.saga;
                row.order.updated_at = now;
                let order = row.order.clone();
                inner.emit(&order, &change.events, now);
                Ok(Cancelled::Accepted(Box::new(order)))
            }
        }
    }

    async fn claim_sagas(&self, lease: Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
        let mut inner = self.lock();
        let mut due: Vec<_> = inner
            .orders
            .values()
            .filter(|row| row.order.saga.step != Step::Done && row.due_at <= lease.now)
            .map(|row| (row.due_at, row.order.id))
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        let mut claimed = Vec::with_capacity(due.len());
        for (_, id) in due {
            if let Some(row) = inner.orders.get_mut(&id) {
                let claim = row.begin(row.order.saga.clone(), &lease);
                claimed.push(Claimed {
                    claim,
                    order: row.order.clone(),
                });
            }
        }
        Ok(claimed)
    }

    async fn record(
        &self,
        claim: Claim,
        outcome: Outcome,
        lease: Lease,
        retry_after: Duration,
    ) -> Result<Recorded, StoreError> {
        let mut inner = self.lock();
        let Some(row) = inner
            .orders
            .get_mut(&claim.order)
            .filter(|row| row.claim == claim.number)
        else {
            return Ok(Recorded::Lost);
        };
        let Some(change) = row.order.saga.after(claim.step, &outcome) else {
            return Ok(Recorded::Lost);
        };
        if let Some(record) = row.steps.iter_mut().find(|s| s.step == claim.step) {
            record.ended_at = Some(lease.now);
            record.outcome = Some(outcome.as_str().to_owned());
        }
        row.order.saga = change.saga.clone();
        row.order.updated_at = lease.now;
        let recorded = match change.next {
            Next::Run => {
                let claim = row.begin(change.saga, &lease);
                Recorded::Continue(Box::new(Claimed {
                    claim,
                    order: row.order.clone(),
                }))
            }
            Next::Retry => {
                row.due_at = later(lease.now, retry_after);
                row.claim += 1;
                row.owner = None;
                Recorded::Later
            }
            Next::Finished => {
                row.claim += 1;
                Recorded::Finished(Box::new(row.order.clone()))
            }
        };
        let order = row.order.clone();
        inner.emit(&order, &change.events, lease.now);
        Ok(recorded)
    }

    async fn hand_back(&self, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
        let mut inner = self.lock();
        let claimed = |row: &&mut Row| row.order.saga.step != Step::Done && row.owner.as_deref() == Some(owner);
        let mut count = 0;
        for row in inner.orders.values_mut().filter(claimed) {
            row.due_at = now;
            row.claim += 1;
            row.owner = None;
            count += 1;
        }
        Ok(count)
    }

    async fn claim_events(&self, lease: Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
        let mut inner = self.lock();
        // An order's first pending event decides for all of them.
        let mut heads: HashMap<OrderId, bool> = HashMap::new();
        let mut claimed = Vec::new();
        for (seq, row) in inner.outbox.iter_mut().filter(|(_, row)| row.fate.is_none()) {
            let due = *heads.entry(row.event.order).or_insert(row.due_at <= lease.now);
            if !due {
                continue;
            }
            if claimed.len() == limit {
                break;
            }
            row.claim += 1;
            row.due_at = lease.until();
            claimed.push(ClaimedEvent {
                seq: *seq,
                number: row.claim,
                refusals: row.refusals,
                event: row.event.clone(),
            });
        }
        Ok(claimed)
    }

    async fn settle_events(&self, settled: Vec<Settled>, now: Timestamp) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for item in settled {
            let Some(row) = inner.outbox.get_mut(&item.seq) else {
                continue;
            };
            if row.claim != item.number || row.fate.is_some() {
                continue;
            }
            match item.fate {
                Fate::Published => row.fate = Some(Ok(now)),
                Fate::Dead { error } => {
                    row.refusals += 1;
                    row.fate = Some(Err(error));
                }
                Fate::Retry { after, refused, .. } => {
                    row.due_at = later(now, after);
                    row.refusals += u32::from(refused);
                }
            }
        }
        Ok(())
    }

    async fn dead_events(&self, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
        let inner = self.lock();
        let dead = inner.outbox.values().filter_map(|row| match &row.fate {
            Some(Err(error)) => Some(DeadEvent {
                event: row.event.clone(),
                refusals: row.refusals,
                error: error.clone(),
            }),
            _ => None,
        });
        Ok(dead.take(limit).collect())
    }

    async fn backlog(&self, now: Timestamp) -> Result<Backlog, StoreError> {
        let inner = self.lock();
        let pending = || inner.outbox.values().filter(|row| row.fate.is_none());
        let oldest = pending().map(|row| row.event.occurred_at).min();
        Ok(Backlog {
            events: pending().count() as u64,
            oldest_event: oldest.map(|at| super::age(at, now)).unwrap_or_default(),
            dead_events: inner
                .outbox
                .values()
                .filter(|row| matches!(row.fate, Some(Err(_))))
                .count() as u64,
            open_sagas: inner
                .orders
                .values()
                .filter(|row| row.order.saga.step != Step::Done)
                .count() as u64,
        })
    }

    async fn known(&self, ids: Vec<OrderId>) -> Result<HashSet<OrderId>, StoreError> {
        let inner = self.lock();
        Ok(ids.into_iter().filter(|id| inner.orders.contains_key(id)).collect())
    }

    async fn save_orphans(&self, orphans: Vec<Orphan>) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for new in orphans {
            let orphan = inner
                .orphans
                .entry(new.charge_id.clone())
                .or_insert_with(|| new.clone());
            orphan.refunded_at = orphan.refunded_at.or(new.refunded_at);
            orphan.error = new.error;
        }
        Ok(())
    }

    async fn orphans(&self) -> Result<Vec<Orphan>, StoreError> {
        let mut all: Vec<_> = self.lock().orphans.values().cloned().collect();
        all.sort_by(|a, b| (&a.found_at, &a.charge_id).cmp(&(&b.found_at, &b.charge_id)));
        Ok(all)
    }

    async fn forget(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let mut inner = self.lock();
        let old: Vec<i64> = inner
            .outbox
            .iter()
            .filter(|(_, row)| matches!(row.fate, Some(Ok(at)) if at < before))
            .map(|(seq, _)| *seq)
            .take(limit)
            .collect();
        for seq in &old {
            inner.outbox.remove(seq);
        }
        let keys: Vec<_> = inner
            .keys
            .iter()
            .filter(|(_, (.., at))| *at < before)
            .map(|(k, _)| k.clone())
            .take(limit)
            .collect();
        for key in &keys {
            inner.keys.remove(key);
        }
        Ok(old.len() + keys.len())
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keeps_the_contract() {
        crate::store::contract::check(async || {
            let store = MemoryStore::new();
            (store.clone(), store)
        })
        .await;
    }
}
