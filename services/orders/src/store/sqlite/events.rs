//! The outbox in SQL. Every function runs inside a transaction that its caller opened.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::{StoreError, corrupt, timestamp};
use crate::domain::{EventKind, Order};
use crate::origin::Origin;
use crate::store::{Backlog, ClaimedEvent, DeadEvent, Event, Fate, Lease, Settled, age, later};

const COLUMNS: &str = "seq, event_id, order_id, kind, version, occurred_at, payload, claim, refusals, \
                       (SELECT origin FROM orders WHERE orders.id = outbox.order_id)";

/// Adds events to the outbox.
pub(super) fn emit(db: &Connection, order: &Order, kinds: &[EventKind], now: Timestamp) -> Result<(), StoreError> {
    for kind in kinds {
        let event = Event::new(*kind, order, now);
        db.prepare_cached(
            "INSERT INTO outbox (event_id, order_id, kind, version, occurred_at, payload, state, due_at, claim, refusals)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, ?5, 0, 0)",
        )?
        .execute(params![
            event.id.to_string(),
            event.order.to_string(),
            event.kind.as_str(),
            event.version,
            now.as_millisecond(),
            event.payload,
        ])?;
    }
    Ok(())
}

pub(super) fn any_due(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM outbox WHERE state = 0 AND due_at <= ? LIMIT 1")?;
    Ok(statement.exists([now.as_millisecond()])?)
}

/// An order's first pending event decides for all of them: when it may be claimed, all that follow go with it.
pub(super) fn claim(db: &Connection, lease: &Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
    let now = lease.now.as_millisecond();
    let mut heads: Vec<String> = Vec::new();
    {
        let mut statement = db.prepare_cached(
            "SELECT order_id FROM outbox AS event WHERE state = 0 AND due_at <= ?1 AND NOT EXISTS (
                 SELECT 1 FROM outbox AS earlier
                 WHERE earlier.state = 0 AND earlier.order_id = event.order_id AND earlier.seq < event.seq)
             ORDER BY due_at LIMIT ?2",
        )?;
        let mut rows = statement.query(params![now, limit.cast_signed()])?;
        while let Some(row) = rows.next()? {
            heads.push(row.get(0)?);
        }
    }
    let mut claimed = Vec::with_capacity(heads.len());
    let mut follow = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM outbox WHERE state = 0 AND order_id = ? ORDER BY seq LIMIT ?"
    ))?;
    let mut take = db.prepare_cached("UPDATE outbox SET due_at = ?, claim = ? WHERE seq = ?")?;
    for head in heads {
        let room = limit - claimed.len();
        if room == 0 {
            break;
        }
        let mut rows = follow.query(params![head, room.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let (seq, event) = read(row)?;
            let number = row.get::<_, i64>(7)? + 1;
            take.execute(params![lease.until().as_millisecond(), number, seq])?;
            claimed.push(ClaimedEvent {
                seq,
                number,
                refusals: row.get(8)?,
                event,
            });
        }
    }
    claimed.sort_unstable_by_key(|event| event.seq);
    Ok(claimed)
}

pub(super) fn settle(db: &Connection, settled: &[Settled], now: Timestamp) -> Result<(), StoreError> {
    let mut done = db.prepare_cached(
        "UPDATE outbox SET state = ?1, settled_at = ?2, error = ?3, refusals = refusals + ?4
         WHERE seq = ?5 AND claim = ?6 AND state = 0",
    )?;
    let mut again = db.prepare_cached(
        "UPDATE outbox SET due_at = ?1, refusals = refusals + ?2, error = ?3 WHERE seq = ?4 AND claim = ?5 AND state = 0",
    )?;
    for item in settled {
        match &item.fate {
            Fate::Published => {
                done.execute(params![1, now.as_millisecond(), None::<&str>, 0, item.seq, item.number])?;
            }
            Fate::Dead { error } => {
                done.execute(params![2, now.as_millisecond(), error, 1, item.seq, item.number])?;
            }
            Fate::Retry { after, refused, error } => {
                again.execute(params![
                    later(now, *after).as_millisecond(),
                    u32::from(*refused),
                    error,
                    item.seq,
                    item.number
                ])?;
            }
        }
    }
    Ok(())
}

pub(super) fn dead(db: &Connection, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS}, error FROM outbox WHERE state = 2 ORDER BY seq LIMIT ?"
    ))?;
    let mut rows = statement.query([limit.cast_signed()])?;
    let mut dead = Vec::new();
    while let Some(row) = rows.next()? {
        let (_, event) = read(row)?;
        dead.push(DeadEvent {
            event,
            refusals: row.get(8)?,
            error: row.get::<_, Option<String>>(10)?.unwrap_or_default(),
        });
    }
    Ok(dead)
}

pub(super) fn backlog(db: &Connection, now: Timestamp) -> Result<Backlog, StoreError> {
    let (events, oldest): (i64, Option<i64>) = db
        .prepare_cached("SELECT count(*), min(occurred_at) FROM outbox WHERE state = 0")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let dead: i64 = db
        .prepare_cached("SELECT count(*) FROM outbox WHERE state = 2")?
        .query_row([], |row| row.get(0))?;
    Ok(Backlog {
        events: events.cast_unsigned(),
        oldest_event: oldest.map(|at| age(timestamp(at), now)).unwrap_or_default(),
        dead_events: dead.cast_unsigned(),
        open_sagas: 0,
    })
}

/// Deletes old published events; looks only at the oldest rows, so that it stays cheap however long the table is.
pub(super) fn forget(db: &Connection, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    let deleted = db
        .prepare_cached(
            "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY seq LIMIT ?2)
             AND state = 1 AND settled_at < ?1",
        )?
        .execute(params![before.as_millisecond(), limit.cast_signed()])?;
    Ok(deleted)
}

fn read(row: &Row<'_>) -> Result<(i64, Event), StoreError> {
    let text = |index: usize| row.get_ref(index)?.as_str().map_err(corrupt);
    let event = Event {
        id: text(1)?.parse().map_err(corrupt)?,
        kind: text(3)?.parse().map_err(corrupt)?,
        version: row.get(4)?,
        order: text(2)?.parse().map_err(corrupt)?,
        occurred_at: timestamp(row.get(5)?),
        payload: row.get(6)?,
        origin: Origin::from_json(row.get_ref(9)?.as_str_or_null().map_err(corrupt)?),
    };
    Ok((row.get(0)?, event))
}
