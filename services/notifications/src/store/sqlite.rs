//! Events and notifications in a SQLite file that the instances of the service share. An event's new state and its effect
//! are written in one transaction, which holds the file's only write lock: two instances cannot both give it an effect.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chassis::sqlite::{Database, Migration, SqliteError, column};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{Accepted, DeadLetter, EventState, Notification, Page, Processed, Stats, Store, StoreError, one_line};
use crate::event::{Event, Failure, Handler, Reason, Retry};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "events",
    sql: include_str!("../../migrations/sqlite/0001_events.sql"),
    usable_from: 1,
}];

/// The columns that `event_of` reads, then the place.
const EVENT: &str = "event_id, type, version, subject, source, occurred_at, payload, seq";

/// Events in a SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    pub(super) database: Database,
}

impl SqliteStore {
    /// Opens the file, made and migrated as needed.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, SqliteError> {
        Ok(Self {
            database: Database::open(path, MIGRATIONS).await?,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn accept(
        &self,
        event: Event,
        dead: Option<(Reason, String)>,
        now: Timestamp,
    ) -> Result<Accepted, StoreError> {
        self.database
            .write("INSERT events", move |connection| accept(connection, &event, dead, now))
            .await
    }

    async fn process(
        &self,
        limit: usize,
        handler: Arc<dyn Handler>,
        retry: Retry,
        now: Timestamp,
    ) -> Result<Processed, StoreError> {
        // Asked without a lock: an idle service must not keep writers of other instances waiting.
        let next_due = self
            .database
            .read("SELECT events", |connection| {
                Ok::<_, SqliteError>(next_due(connection)?)
            })
            .await?;
        if next_due.is_none_or(|due| due > now) {
            return Ok(Processed {
                next_due,
                ..Processed::default()
            });
        }
        let work =
            move |connection: &Connection| Ok::<_, SqliteError>(process(connection, limit, &*handler, retry, now)?);
        Ok(self.database.write("UPDATE events", work).await?)
    }

    async fn replay(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
        self.database
            .write("UPDATE events", move |connection| replay(connection, id, now))
            .await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Page<DeadLetter>, StoreError> {
        let work = move |connection: &Connection| Ok::<_, SqliteError>(dead_letters(connection, after, limit)?);
        Ok(self.database.read("SELECT events", work).await?)
    }

    async fn notifications(
        &self,
        after: u64,
        limit: usize,
        subject: Option<String>,
    ) -> Result<Page<Notification>, StoreError> {
        let work = move |connection: &Connection| {
            Ok::<_, SqliteError>(notifications(connection, after, limit, subject.as_deref())?)
        };
        Ok(self.database.read("SELECT notifications", work).await?)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self
            .database
            .read("SELECT events", |connection| Ok::<_, SqliteError>(stats(connection)?))
            .await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

fn accept(
    connection: &Connection,
    event: &Event,
    dead: Option<(Reason, String)>,
    now: Timestamp,
) -> Result<Accepted, StoreError> {
    let known = connection
        .prepare_cached(&format!("SELECT {EVENT}, state FROM events WHERE event_id = ?1"))
        .and_then(|mut select| {
            select
                .query_row([event.id.to_string()], |row| Ok((event_of(row)?, state_of(row, 8)?)))
                .optional()
        })
        .map_err(SqliteError::from)?;
    if let Some((stored, state)) = known {
        if !stored.is_same(event) {
            return Err(StoreError::IdReused);
        }
        connection
            .prepare_cached("UPDATE events SET duplicates = duplicates + 1 WHERE event_id = ?1")
            .and_then(|mut update| update.execute([event.id.to_string()]))
            .map_err(SqliteError::from)?;
        return Ok(Accepted { duplicate: true, state });
    }
    let state = if dead.is_some() {
        EventState::Dead
    } else {
        EventState::Pending
    };
    let (reason, detail) = dead.unzip();
    let micros = now.as_microsecond();
    connection
        .prepare_cached(
            "INSERT INTO events
                (event_id, type, version, subject, source, occurred_at, payload, state, due_at, reason, detail, dead_since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                event.id.to_string(),
                event.kind,
                event.version,
                event.subject,
                event.source,
                event.occurred_at.to_string(),
                event.payload,
                state.word(),
                (state == EventState::Pending).then_some(micros),
                reason.map(Reason::as_str),
                detail.as_deref().map(one_line),
                (state == EventState::Dead).then_some(micros),
            ])
        })
        .map_err(SqliteError::from)?;
    Ok(Accepted {
        duplicate: false,
        state,
    })
}

fn process(
    connection: &Connection,
    limit: usize,
    handler: &dyn Handler,
    retry: Retry,
    now: Timestamp,
) -> rusqlite::Result<Processed> {
    let micros = now.as_microsecond();
    let due: Vec<(Event, i64, u32)> = connection
        .prepare_cached(&format!(
            "SELECT {EVENT}, attempts FROM events WHERE state = 'pending' AND due_at <= ?1 ORDER BY due_at, seq LIMIT ?2"
        ))?
        .query_map(params![micros, i64::try_from(limit).unwrap_or(i64::MAX)], |row| Ok((event_of(row)?, row.get(7)?, row.get(8)?)))?
        .collect::<Result<_, _>>()?;
    let mut processed = Processed::default();
    for (event, seq, attempts) in due {
        let attempts = attempts.saturating_add(1);
        match handler.handle(&event) {
            Ok(text) => {
                take_effect(connection, &event, seq, attempts, &text, micros)?;
                processed.sent += 1;
            }
            Err(Failure::Lasting(reason, detail)) => {
                die(connection, seq, attempts, reason, &detail, micros)?;
                processed.dead += 1;
            }
            Err(Failure::Passing(detail)) => {
                if let Some(wait) = retry.wait(attempts) {
                    let due = now.saturating_add(wait).unwrap_or(Timestamp::MAX).as_microsecond();
                    connection
                        .prepare_cached("UPDATE events SET attempts = ?2, due_at = ?3, detail = ?4 WHERE seq = ?1")?
                        .execute(params![seq, attempts, due, one_line(&detail)])?;
                    processed.retried += 1;
                } else {
                    die(connection, seq, attempts, Reason::AttemptsExhausted, &detail, micros)?;
                    processed.dead += 1;
                }
            }
        }
    }
    processed.next_due = next_due(connection)?;
    Ok(processed)
}

fn take_effect(
    connection: &Connection,
    event: &Event,
    seq: i64,
    attempts: u32,
    text: &str,
    micros: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO notifications (notification_id, event_id, type, subject, text, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            Uuid::now_v7().to_string(),
            event.id.to_string(),
            event.kind,
            event.subject,
            text,
            micros
        ])?;
    connection
        .prepare_cached(
            "UPDATE events SET state = 'processed', attempts = ?2, due_at = NULL, reason = NULL, detail = NULL
             WHERE seq = ?1",
        )?
        .execute(params![seq, attempts])?;
    Ok(())
}

fn die(
    connection: &Connection,
    seq: i64,
    attempts: u32,
    reason: Reason,
    detail: &str,
    micros: i64,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE events SET state = 'dead', attempts = ?2, due_at = NULL, reason = ?3, detail = ?4, dead_since = ?5
             WHERE seq = ?1",
        )?
        .execute(params![seq, attempts, reason.as_str(), one_line(detail), micros])?;
    Ok(())
}

fn replay(connection: &Connection, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
    let changed = connection
        .prepare_cached(
            "UPDATE events SET state = 'pending', attempts = 0, due_at = ?2, reason = NULL, detail = NULL, dead_since = NULL
             WHERE event_id = ?1 AND state = 'dead'",
        )
        .and_then(|mut update| update.execute(params![id.to_string(), now.as_microsecond()]))
        .map_err(SqliteError::from)?;
    if changed == 1 {
        return Ok(());
    }
    let known = connection
        .prepare_cached("SELECT 1 FROM events WHERE event_id = ?1")
        .and_then(|mut select| select.exists([id.to_string()]))
        .map_err(SqliteError::from)?;
    Err(if known {
        StoreError::NotDead
    } else {
        StoreError::NotFound
    })
}

fn dead_letters(connection: &Connection, after: u64, limit: usize) -> rusqlite::Result<Page<DeadLetter>> {
    let mut select = connection.prepare_cached(&format!(
        "SELECT {EVENT}, reason, coalesce(detail, ''), attempts, dead_since FROM events
         WHERE state = 'dead' AND seq > ?1 ORDER BY seq LIMIT ?2"
    ))?;
    let rows = select.query_map(bounds(after, limit), |row| {
        let letter = DeadLetter {
            event: event_of(row)?,
            reason: row.get(8)?,
            detail: row.get(9)?,
            attempts: row.get(10)?,
            dead_since: column::timestamp(row, 11)?,
        };
        Ok((row.get(7)?, letter))
    })?;
    page(rows, limit)
}

fn notifications(
    connection: &Connection,
    after: u64,
    limit: usize,
    subject: Option<&str>,
) -> rusqlite::Result<Page<Notification>> {
    let (after, beyond) = bounds(after, limit);
    // The subject's clause stands in the text only when it is wanted, so that its index is used.
    let clause = if subject.is_some() {
        "subject = ?3"
    } else {
        "?3 IS NULL"
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT seq, notification_id, event_id, type, subject, text, created_at FROM notifications
         WHERE seq > ?1 AND {clause} ORDER BY seq LIMIT ?2"
    ))?;
    let rows = select.query_map(params![after, beyond, subject], |row| {
        let notification = Notification {
            id: column::uuid(row, 1)?,
            event_id: column::uuid(row, 2)?,
            kind: row.get(3)?,
            subject: row.get(4)?,
            text: row.get(5)?,
            created_at: column::timestamp(row, 6)?,
        };
        Ok((row.get(0)?, notification))
    })?;
    page(rows, limit)
}

/// The place to begin after, and one row more than wanted, which tells whether there is more.
fn bounds(after: u64, limit: usize) -> (i64, i64) {
    (
        i64::try_from(after).unwrap_or(i64::MAX),
        i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1),
    )
}

fn page<T>(rows: impl Iterator<Item = rusqlite::Result<(i64, T)>>, limit: usize) -> rusqlite::Result<Page<T>> {
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    let mut last = None;
    for row in rows {
        let (seq, item) = row?;
        if page.items.len() == limit {
            page.next = last;
            break;
        }
        page.items.push(item);
        last = Some(seq.unsigned_abs());
    }
    Ok(page)
}

fn stats(connection: &Connection) -> rusqlite::Result<Stats> {
    // One statement, so that all counts are of one moment.
    connection.query_row(
        "SELECT count(*), coalesce(sum(state = 'pending'), 0), coalesce(sum(state = 'processed'), 0),
            coalesce(sum(state = 'dead'), 0), (SELECT count(*) FROM notifications), coalesce(sum(duplicates), 0)
         FROM events",
        [],
        |row| {
            let count = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
            Ok(Stats {
                events: count(0)?,
                pending: count(1)?,
                processed: count(2)?,
                dead: count(3)?,
                notifications: count(4)?,
                duplicates: count(5)?,
            })
        },
    )
}

fn next_due(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT min(due_at) FROM events WHERE state = 'pending'")?
        .query_row([], |row| column::optional_timestamp(row, 0))
}

fn event_of(row: &Row<'_>) -> rusqlite::Result<Event> {
    let occurred_at: String = row.get(5)?;
    Ok(Event {
        id: column::uuid(row, 0)?,
        kind: row.get(1)?,
        version: row.get(2)?,
        subject: row.get(3)?,
        source: row.get(4)?,
        occurred_at: occurred_at
            .parse()
            .map_err(|error: jiff::Error| column::strange(5, error))?,
        payload: row.get(6)?,
    })
}

fn state_of(row: &Row<'_>, column: usize) -> rusqlite::Result<EventState> {
    let word: String = row.get(column)?;
    EventState::from_word(&word).ok_or_else(|| column::strange(column, format!("state {word}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        super::super::contract::check(|| async {
            let path = folder.path().join(format!("{}.db", Uuid::new_v4()));
            (
                SqliteStore::open(&path).await.unwrap(),
                SqliteStore::open(&path).await.unwrap(),
            )
        })
        .await;
    }

    #[tokio::test]
    async fn what_must_never_happen_is_forbidden_by_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("notifications.db")).await.unwrap();
        store
            .database
            .write("INSERT events", |connection| {
                connection.execute_batch(
                    "INSERT INTO events (event_id, type, version, subject, source, occurred_at, payload, state, due_at)
                        VALUES ('e1', 't', 1, 's', 'o', '', x'', 'pending', 5);
                     INSERT INTO notifications VALUES (1, 'n1', 'e1', 't', 's', 'text', 0);
                     UPDATE events SET state = 'processed', due_at = NULL",
                )?;
                for (sql, why) in [
                    (
                        "INSERT INTO notifications VALUES (2, 'n2', 'e1', 't', 's', 'text', 0)",
                        "a second effect",
                    ),
                    (
                        "INSERT INTO notifications VALUES (2, 'n2', 'e9', 't', 's', 'text', 0)",
                        "an effect of nothing",
                    ),
                    (
                        "UPDATE events SET state = 'pending', due_at = 1",
                        "a processed event to be done again",
                    ),
                    ("UPDATE notifications SET text = 'other'", "a changed notification"),
                    ("DELETE FROM notifications", "a removed notification"),
                    ("DELETE FROM events", "a removed event"),
                ] {
                    assert!(connection.execute(sql, []).is_err(), "{why} was allowed");
                }
                Ok::<_, SqliteError>(())
            })
            .await
            .unwrap();
    }
}
