//! The store of tests and of a service that need not remember: everything in memory, under one lock.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Answer, Page, Query, Standing, Store, StoreError};
use crate::charge::{Charge, Outcome, Request, Target};

/// Charges in memory. Clones share them, as instances share a database.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of their making; a place in the list is an index plus one.
    charges: Vec<Charge>,
    by_key: HashMap<String, usize>,
    charged_orders: HashSet<String>,
    refund_keys: HashMap<String, usize>,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn charge(&self, request: Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError> {
        let mut state = self.state();
        if let Some(&index) = state.by_key.get(&request.key) {
            let charge = state.charges[index].clone();
            return Answer::replay(&request, charge);
        }
        if outcome == Outcome::Charged && !state.charged_orders.insert(request.order_id.clone()) {
            return Err(StoreError::OrderCharged);
        }
        let (key, charge) = request.decided(outcome, now);
        let index = state.charges.len();
        state.by_key.insert(key, index);
        state.charges.push(charge.clone());
        Ok(Answer {
            charge,
            replayed: false,
        })
    }

    async fn refund(&self, target: Target, key: String, now: Timestamp) -> Result<Answer, StoreError> {
        let mut state = self.state();
        let known = state.refund_keys.get(&key).copied();
        let index = match &target {
            Target::Charge(id) => state.charges.iter().position(|charge| charge.id == *id),
            Target::Order(order) => state
                .charges
                .iter()
                .position(|charge| charge.order_id == *order && charge.outcome == Outcome::Charged),
        };
        let Some(index) = index else {
            return Err(if known.is_some() {
                StoreError::KeyReused
            } else {
                StoreError::NotFound
            });
        };
        if known.is_some_and(|known| known != index) {
            return Err(StoreError::KeyReused);
        }
        if state.charges[index].outcome != Outcome::Charged {
            return Err(StoreError::NothingTaken);
        }
        state.refund_keys.insert(key, index);
        let charge = &mut state.charges[index];
        let replayed = charge.refunded_at.is_some();
        charge.refunded_at.get_or_insert(now);
        Ok(Answer {
            charge: charge.clone(),
            replayed,
        })
    }

    async fn list(&self, query: Query) -> Result<Page, StoreError> {
        let state = self.state();
        let mut fitting = state
            .charges
            .iter()
            .enumerate()
            .skip(query.after as usize)
            .filter(|(_, charge)| {
                query.order_id.as_ref().is_none_or(|order| *order == charge.order_id)
                    && query.standing.is_none_or(|standing| standing == Standing::of(charge))
            });
        let mut page = Page::default();
        for (index, charge) in fitting.by_ref().take(query.limit) {
            page.last = Some(index as u64 + 1);
            page.charges.push(charge.clone());
        }
        page.more = fitting.next().is_some();
        Ok(page)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        super::super::contract::check(|| async {
            let store = MemoryStore::default();
            (store.clone(), store)
        })
        .await;
    }
}
