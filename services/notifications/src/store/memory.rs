//! The store of tests and of a service that need not remember: everything in memory, under one lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Accepted, DeadLetter, EventState, Notification, Page, Processed, Stats, Store, StoreError, one_line};
use crate::event::{Event, Failure, Handler, Reason, Retry};

/// Events in memory. Clones share them, as instances share a database.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// In the order of their coming; a place in the list is an index plus one.
    events: Vec<Entry>,
    by_id: HashMap<Uuid, usize>,
    notifications: Vec<Notification>,
    duplicates: u64,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    attempts: u32,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    Pending {
        due: Timestamp,
    },
    Processed,
    Dead {
        reason: String,
        detail: String,
        since: Timestamp,
    },
}

impl Entry {
    fn state(&self) -> EventState {
        match self.standing {
            Standing::Pending { .. } => EventState::Pending,
            Standing::Processed => EventState::Processed,
            Standing::Dead { .. } => EventState::Dead,
        }
    }

    fn die(&mut self, reason: Reason, detail: &str, now: Timestamp) {
        let (reason, detail) = (reason.as_str().to_owned(), one_line(detail));
        self.standing = Standing::Dead {
            reason,
            detail,
            since: now,
        };
    }
}

impl MemoryStore {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn accept(
        &self,
        event: Event,
        dead: Option<(Reason, String)>,
        now: Timestamp,
    ) -> Result<Accepted, StoreError> {
        let mut inner = self.inner();
        if let Some(&index) = inner.by_id.get(&event.id) {
            if !inner.events[index].event.is_same(&event) {
                return Err(StoreError::IdReused);
            }
            inner.duplicates += 1;
            return Ok(Accepted {
                duplicate: true,
                state: inner.events[index].state(),
            });
        }
        let index = inner.events.len();
        inner.by_id.insert(event.id, index);
        let mut entry = Entry {
            event,
            attempts: 0,
            standing: Standing::Pending { due: now },
        };
        if let Some((reason, detail)) = dead {
            entry.die(reason, &detail, now);
        }
        let state = entry.state();
        inner.events.push(entry);
        Ok(Accepted {
            duplicate: false,
            state,
        })
    }

    async fn process(
        &self,
        limit: usize,
        handler: Arc<dyn Handler>,
        retry: Retry,
        now: Timestamp,
    ) -> Result<Processed, StoreError> {
        let mut inner = self.inner();
        let inner = &mut *inner;
        let mut processed = Processed::default();
        let mut due: Vec<(Timestamp, usize)> = inner
            .events
            .iter()
            .enumerate()
            .filter_map(|(index, entry)| match entry.standing {
                Standing::Pending { due } if due <= now => Some((due, index)),
                _ => None,
            })
            .collect();
        due.sort_unstable();
        for (_, index) in due.into_iter().take(limit) {
            let entry = &mut inner.events[index];
            entry.attempts += 1;
            match handler.handle(&entry.event) {
                Ok(text) => {
                    entry.standing = Standing::Processed;
                    inner.notifications.push(Notification {
                        id: Uuid::now_v7(),
                        event_id: entry.event.id,
                        kind: entry.event.kind.clone(),
                        subject: entry.event.subject.clone(),
                        text,
                        created_at: now,
                    });
                    processed.sent += 1;
                }
                Err(Failure::Lasting(reason, detail)) => {
                    entry.die(reason, &detail, now);
                    processed.dead += 1;
                }
                Err(Failure::Passing(detail)) => {
                    if let Some(wait) = retry.wait(entry.attempts) {
                        entry.standing = Standing::Pending {
                            due: now.saturating_add(wait).unwrap_or(Timestamp::MAX),
                        };
                        processed.retried += 1;
                    } else {
                        entry.die(Reason::AttemptsExhausted, &detail, now);
                        processed.dead += 1;
                    }
                }
            }
        }
        processed.next_due = inner
            .events
            .iter()
            .filter_map(|entry| match entry.standing {
                Standing::Pending { due } => Some(due),
                _ => None,
            })
            .min();
        Ok(processed)
    }

    async fn replay(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
        let mut inner = self.inner();
        let index = *inner.by_id.get(&id).ok_or(StoreError::NotFound)?;
        let entry = &mut inner.events[index];
        if entry.state() != EventState::Dead {
            return Err(StoreError::NotDead);
        }
        entry.standing = Standing::Pending { due: now };
        entry.attempts = 0;
        Ok(())
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Page<DeadLetter>, StoreError> {
        let inner = self.inner();
        let letters = inner
            .events
            .iter()
            .enumerate()
            .skip(after as usize)
            .filter_map(|(index, entry)| {
                let Standing::Dead { reason, detail, since } = &entry.standing else {
                    return None;
                };
                let letter = DeadLetter {
                    event: entry.event.clone(),
                    reason: reason.clone(),
                    detail: detail.clone(),
                    attempts: entry.attempts,
                    dead_since: *since,
                };
                Some((index as u64 + 1, letter))
            });
        Ok(page(letters, limit))
    }

    async fn notifications(
        &self,
        after: u64,
        limit: usize,
        subject: Option<String>,
    ) -> Result<Page<Notification>, StoreError> {
        let inner = self.inner();
        let fitting = inner
            .notifications
            .iter()
            .enumerate()
            .skip(after as usize)
            .filter(|(_, notification)| subject.as_ref().is_none_or(|subject| *subject == notification.subject))
            .map(|(index, notification)| (index as u64 + 1, notification.clone()));
        Ok(page(fitting, limit))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let inner = self.inner();
        let count = |state| inner.events.iter().filter(|entry| entry.state() == state).count() as u64;
        Ok(Stats {
            events: inner.events.len() as u64,
            pending: count(EventState::Pending),
            processed: count(EventState::Processed),
            dead: count(EventState::Dead),
            notifications: inner.notifications.len() as u64,
            duplicates: inner.duplicates,
        })
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The first `limit` of `rest`, and where to go on.
fn page<T>(mut rest: impl Iterator<Item = (u64, T)>, limit: usize) -> Page<T> {
    let mut last = None;
    let items = rest
        .by_ref()
        .take(limit)
        .map(|(place, item)| {
            last = Some(place);
            item
        })
        .collect();
    Page {
        items,
        next: rest.next().and(last),
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
