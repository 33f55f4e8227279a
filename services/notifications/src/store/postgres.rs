//! Events and notifications in a PostgreSQL database that the replicas of the service share. An event's new state and its
//! effect are written in one transaction that holds the event's row: another replica passes the row over and takes others,
//! and that an event has no second effect is the tables' own rule.
//!
//! A list shows what was committed. Who pages through it while others write may miss what came meanwhile, and finds it
//! when he begins again; nobody keeps a place in these lists.

use std::sync::Arc;

use async_trait::async_trait;
use chassis::postgres::{Database, Migration, PostgresError, Row, Session, Settings, column};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Accepted, DeadLetter, EventState, Notification, Page, Processed, Stats, Store, StoreError, one_line};
use crate::event::{Event, Failure, Handler, Reason, Retry};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "events",
    sql: include_str!("../../migrations/postgres/0001_events.sql"),
    usable_from: 1,
}];

/// The columns that `event_of` reads, then the place.
const EVENT: &str = "event_id, type, version, subject, source, occurred_at, payload, seq";

/// Events in a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pub(super) database: Database,
}

impl PostgresStore {
    /// Opens the database, migrated as needed.
    pub async fn open(settings: Settings) -> Result<Self, PostgresError> {
        Ok(Self {
            database: Database::open(settings, MIGRATIONS).await?,
        })
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn accept(
        &self,
        event: Event,
        dead: Option<(Reason, String)>,
        now: Timestamp,
    ) -> Result<Accepted, StoreError> {
        self.database
            .write("INSERT events", |db| accept(db, &event, dead.as_ref(), now))
            .await
    }

    async fn process(
        &self,
        limit: usize,
        handler: Arc<dyn Handler>,
        retry: Retry,
        now: Timestamp,
    ) -> Result<Processed, StoreError> {
        // Mostly nothing is due: a look is cheaper than a transaction.
        let next_due = self.database.read("SELECT events", next_due).await?;
        if next_due.is_none_or(|due| due > now) {
            return Ok(Processed {
                next_due,
                ..Processed::default()
            });
        }
        Ok(self
            .database
            .write("UPDATE events", |db| process(db, limit, &*handler, retry, now))
            .await?)
    }

    async fn replay(&self, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
        self.database.write("UPDATE events", |db| replay(db, id, now)).await
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Page<DeadLetter>, StoreError> {
        let work = |db| dead_letters(db, after, limit);
        Ok(self.database.read("SELECT events", work).await?)
    }

    async fn notifications(
        &self,
        after: u64,
        limit: usize,
        subject: Option<String>,
    ) -> Result<Page<Notification>, StoreError> {
        let work = |db| notifications(db, after, limit, subject.as_deref());
        Ok(self.database.read("SELECT notifications", work).await?)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.database.read("SELECT events", stats).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

async fn accept(
    db: Session,
    event: &Event,
    dead: Option<&(Reason, String)>,
    now: Timestamp,
) -> Result<Accepted, StoreError> {
    let state = if dead.is_some() {
        EventState::Dead
    } else {
        EventState::Pending
    };
    let inserted = db
        .execute(
            "INSERT INTO events
                (event_id, type, version, subject, source, occurred_at, payload, state, due_at, reason, detail, dead_since)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (event_id) DO NOTHING",
            &[
                &event.id,
                &event.kind,
                &i64::from(event.version),
                &event.subject,
                &event.source,
                &event.occurred_at.to_string(),
                &event.payload,
                &state.word(),
                &(state == EventState::Pending).then_some(now),
                &dead.map(|(reason, _)| reason.as_str()),
                &dead.map(|(_, detail)| one_line(detail)),
                &(state == EventState::Dead).then_some(now),
            ],
        )
        .await?;
    if inserted == 1 {
        return Ok(Accepted {
            duplicate: false,
            state,
        });
    }
    // A later statement sees the event with which the conflict was.
    let known = db
        .first(&format!("SELECT {EVENT} FROM events WHERE event_id = $1"), &[&event.id])
        .await?;
    if !known
        .as_ref()
        .map(event_of)
        .transpose()?
        .is_some_and(|known| known.is_same(event))
    {
        return Err(StoreError::IdReused);
    }
    let counted = db
        .first(
            "UPDATE events SET duplicates = duplicates + 1 WHERE event_id = $1 RETURNING state",
            &[&event.id],
        )
        .await?;
    let state = counted.as_ref().map(|row| state_of(row, 0)).transpose()?;
    Ok(Accepted {
        duplicate: true,
        state: state.ok_or(StoreError::NotFound)?,
    })
}

async fn process(
    db: Session,
    limit: usize,
    handler: &dyn Handler,
    retry: Retry,
    now: Timestamp,
) -> Result<Processed, PostgresError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let due = db
        .query(
            &format!(
                "SELECT {EVENT}, attempts FROM events WHERE state = 'pending' AND due_at <= $1
                 ORDER BY due_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED"
            ),
            &[&now, &limit],
        )
        .await?;
    let mut processed = Processed::default();
    for row in &due {
        let (event, seq) = (event_of(row)?, column::get::<i64>(row, 7)?);
        let attempts = count(row, 8)?.saturating_add(1);
        match handler.handle(&event) {
            Ok(text) => {
                take_effect(&db, &event, seq, attempts, &text, now).await?;
                processed.sent += 1;
            }
            Err(Failure::Lasting(reason, detail)) => {
                die(&db, seq, attempts, reason, &detail, now).await?;
                processed.dead += 1;
            }
            Err(Failure::Passing(detail)) => {
                if let Some(wait) = retry.wait(attempts) {
                    let due = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
                    db.execute(
                        "UPDATE events SET attempts = $2, due_at = $3, detail = $4 WHERE seq = $1",
                        &[&seq, &i64::from(attempts), &due, &one_line(&detail)],
                    )
                    .await?;
                    processed.retried += 1;
                } else {
                    die(&db, seq, attempts, Reason::AttemptsExhausted, &detail, now).await?;
                    processed.dead += 1;
                }
            }
        }
    }
    // What another replica holds is its business: waiting for it would be asking again and again.
    let free = db
        .first(
            "SELECT due_at FROM events WHERE state = 'pending' ORDER BY due_at, seq LIMIT 1 FOR UPDATE SKIP LOCKED",
            &[],
        )
        .await?;
    processed.next_due = free.map(|row| column::get(&row, 0)).transpose()?;
    Ok(processed)
}

async fn take_effect(
    db: &Session,
    event: &Event,
    seq: i64,
    attempts: u32,
    text: &str,
    now: Timestamp,
) -> Result<(), PostgresError> {
    db.execute(
        "INSERT INTO notifications (notification_id, event_id, type, subject, text, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            &Uuid::now_v7(),
            &event.id,
            &event.kind,
            &event.subject,
            &column::text(text),
            &now,
        ],
    )
    .await?;
    db.execute(
        "UPDATE events SET state = 'processed', attempts = $2, due_at = NULL, reason = NULL, detail = NULL WHERE seq = $1",
        &[&seq, &i64::from(attempts)],
    )
    .await?;
    Ok(())
}

async fn die(
    db: &Session,
    seq: i64,
    attempts: u32,
    reason: Reason,
    detail: &str,
    now: Timestamp,
) -> Result<(), PostgresError> {
    db.execute(
        "UPDATE events SET state = 'dead', attempts = $2, due_at = NULL, reason = $3, detail = $4, dead_since = $5
         WHERE seq = $1",
        &[&seq, &i64::from(attempts), &reason.as_str(), &one_line(detail), &now],
    )
    .await?;
    Ok(())
}

async fn replay(db: Session, id: Uuid, now: Timestamp) -> Result<(), StoreError> {
    let changed = db
        .execute(
            "UPDATE events SET state = 'pending', attempts = 0, due_at = $2, reason = NULL, detail = NULL, dead_since = NULL
             WHERE event_id = $1 AND state = 'dead'",
            &[&id, &now],
        )
        .await?;
    if changed == 1 {
        return Ok(());
    }
    let known = db.first("SELECT 1 FROM events WHERE event_id = $1", &[&id]).await?;
    Err(if known.is_some() {
        StoreError::NotDead
    } else {
        StoreError::NotFound
    })
}

async fn dead_letters(db: Session, after: u64, limit: usize) -> Result<Page<DeadLetter>, PostgresError> {
    let (after, beyond) = bounds(after, limit);
    let rows = db
        .query(
            &format!(
                "SELECT {EVENT}, reason, coalesce(detail, ''), attempts, dead_since FROM events
                 WHERE state = 'dead' AND seq > $1 ORDER BY seq LIMIT $2"
            ),
            &[&after, &beyond],
        )
        .await?;
    page(&rows, limit, 7, |row| {
        Ok(DeadLetter {
            event: event_of(row)?,
            reason: column::get(row, 8)?,
            detail: column::get(row, 9)?,
            attempts: count(row, 10)?,
            dead_since: column::get(row, 11)?,
        })
    })
}

async fn notifications(
    db: Session,
    after: u64,
    limit: usize,
    subject: Option<&str>,
) -> Result<Page<Notification>, PostgresError> {
    let (after, beyond) = bounds(after, limit);
    // The subject's clause stands in the text only when it is wanted, so that its index is used.
    let clause = if subject.is_some() {
        "subject = $3"
    } else {
        "$3::text IS NULL"
    };
    let rows = db
        .query(
            &format!(
                "SELECT seq, notification_id, event_id, type, subject, text, created_at FROM notifications
                 WHERE seq > $1 AND {clause} ORDER BY seq LIMIT $2"
            ),
            &[&after, &beyond, &subject],
        )
        .await?;
    page(&rows, limit, 0, |row| {
        Ok(Notification {
            id: column::get(row, 1)?,
            event_id: column::get(row, 2)?,
            kind: column::get(row, 3)?,
            subject: column::get(row, 4)?,
            text: column::get(row, 5)?,
            created_at: column::get(row, 6)?,
        })
    })
}

/// The place to begin after, and one row more than wanted, which tells whether there is more.
fn bounds(after: u64, limit: usize) -> (i64, i64) {
    (
        i64::try_from(after).unwrap_or(i64::MAX),
        i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1),
    )
}

fn page<T>(
    rows: &[Row],
    limit: usize,
    place: usize,
    read: impl Fn(&Row) -> Result<T, PostgresError>,
) -> Result<Page<T>, PostgresError> {
    let wanted = &rows[..rows.len().min(limit)];
    let last = wanted.last().filter(|_| rows.len() > limit);
    Ok(Page {
        items: wanted.iter().map(read).collect::<Result<_, _>>()?,
        next: last
            .map(|row| column::get::<i64>(row, place).map(i64::unsigned_abs))
            .transpose()?,
    })
}

async fn stats(db: Session) -> Result<Stats, PostgresError> {
    // One statement, so that all counts are of one moment.
    let row = db
        .first(
            "SELECT count(*), count(*) FILTER (WHERE state = 'pending'), count(*) FILTER (WHERE state = 'processed'),
                count(*) FILTER (WHERE state = 'dead'), (SELECT count(*) FROM notifications),
                coalesce(sum(duplicates), 0)::bigint
             FROM events",
            &[],
        )
        .await?;
    let Some(row) = row else { return Ok(Stats::default()) };
    let count = |column| column::get::<i64>(&row, column).map(i64::unsigned_abs);
    Ok(Stats {
        events: count(0)?,
        pending: count(1)?,
        processed: count(2)?,
        dead: count(3)?,
        notifications: count(4)?,
        duplicates: count(5)?,
    })
}

async fn next_due(db: Session) -> Result<Option<Timestamp>, PostgresError> {
    let row = db
        .first("SELECT min(due_at) FROM events WHERE state = 'pending'", &[])
        .await?;
    row.map_or(Ok(None), |row| column::get(&row, 0))
}

fn event_of(row: &Row) -> Result<Event, PostgresError> {
    Ok(Event {
        id: column::get(row, 0)?,
        kind: column::get(row, 1)?,
        version: count(row, 2)?,
        subject: column::get(row, 3)?,
        source: column::get(row, 4)?,
        occurred_at: column::get::<&str>(row, 5)?
            .parse()
            .map_err(|_| column::strange(row, 5))?,
        payload: column::get(row, 6)?,
    })
}

fn count(row: &Row, column: usize) -> Result<u32, PostgresError> {
    u32::try_from(column::get::<i64>(row, column)?).map_err(|_| column::strange(row, column))
}

fn state_of(row: &Row, column: usize) -> Result<EventState, PostgresError> {
    EventState::from_word(column::get(row, column)?).ok_or_else(|| column::strange(row, column))
}

#[cfg(test)]
mod tests {
    use chassis::trial::{database_settings, new_database};
    use peers::servers::Postgres;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let Some(server) = Postgres::shared("notifications::store::postgres::keeps_the_contract").await else {
            return;
        };
        super::super::contract::check(|| async {
            let url = new_database(&server.url("postgres")).await;
            let open = || PostgresStore::open(database_settings(&url));
            let (one, two) = tokio::join!(open(), open());
            (one.unwrap(), two.unwrap())
        })
        .await;
    }

    #[tokio::test]
    async fn what_must_never_happen_is_forbidden_by_the_tables() {
        let test = "notifications::store::postgres::what_must_never_happen_is_forbidden_by_the_tables";
        let Some(server) = Postgres::shared(test).await else {
            return;
        };
        let url = new_database(&server.url("postgres")).await;
        let store = PostgresStore::open(database_settings(&url)).await.unwrap();
        const E1: &str = "'00000000-0000-7000-8000-0000000000e1'";
        const E9: &str = "'00000000-0000-7000-8000-0000000000e9'";
        let notify = |event: &str| {
            format!(
                "INSERT INTO notifications (notification_id, event_id, type, subject, text, created_at)
                 VALUES (gen_random_uuid(), {event}, 't', 's', 'text', now())"
            )
        };
        let run = async |sql: String| {
            store
                .database
                .write("INSERT events", |db| {
                    let sql = sql.clone();
                    async move { db.batch(&sql).await }
                })
                .await
        };
        let event = format!(
            "INSERT INTO events (event_id, type, version, subject, source, occurred_at, payload, state, due_at)
             VALUES ({E1}, 't', 1, 's', 'o', '', '', 'pending', now())"
        );
        let done = "UPDATE events SET state = 'processed', due_at = NULL".to_owned();
        for sql in [event, notify(E1), done] {
            run(sql).await.unwrap();
        }
        for (sql, why) in [
            (notify(E1), "a second effect"),
            (notify(E9), "an effect of nothing"),
            (
                "UPDATE events SET state = 'pending', due_at = now()".to_owned(),
                "a processed event to be done again",
            ),
            (
                "UPDATE notifications SET text = 'other'".to_owned(),
                "a changed notification",
            ),
            ("DELETE FROM notifications".to_owned(), "a removed notification"),
            ("DELETE FROM events".to_owned(), "a removed event"),
        ] {
            let refused = run(sql).await;
            assert!(
                matches!(refused, Err(PostgresError::Statement(_))),
                "{why}: {refused:?}"
            );
        }
    }
}
