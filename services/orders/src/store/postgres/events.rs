//! The outbox in SQL. Every function that changes something runs inside a transaction that its caller opened.

use chassis::postgres::{Row, Session, column};
use jiff::Timestamp;

use super::{StoreError, corrupt, count, id, millis, rows_of};
use crate::domain::{EventKind, Order};
use crate::origin::Origin;
use crate::store::{Backlog, ClaimedEvent, DeadEvent, Event, Fate, Lease, Settled, age, later};

const COLUMNS: &str = "seq, event_id, order_id, kind, version, occurred_at, payload, claim, refusals, \
                       (SELECT origin FROM orders WHERE orders.id = outbox.order_id)";

pub(super) const ANY_DUE: &str = "SELECT 1 FROM outbox WHERE state = 0 AND due_at <= $1 LIMIT 1";

/// Adds events to the outbox.
pub(super) async fn emit(db: &Session, order: &Order, kinds: &[EventKind], now: Timestamp) -> Result<(), StoreError> {
    for kind in kinds {
        let event = Event::new(*kind, order, now);
        db.execute(
            "INSERT INTO outbox (event_id, order_id, kind, version, occurred_at, payload, state, due_at, claim, refusals)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $5, 0, 0)",
            &[
                &event.id,
                &event.order.uuid(),
                &event.kind.as_str(),
                &i64::from(event.version),
                &millis(now),
                &event.payload,
            ],
        )
        .await?;
    }
    Ok(())
}

/// An order's first pending event decides for all of them: whoever holds it has all that follow, and when it may be
/// claimed, they go with it. So a first one that another replica holds is passed over, and one that follows is waited for:
/// only an old claimant can hold it, who settles it late.
pub(super) async fn claim(db: Session, lease: &Lease, limit: usize) -> Result<Vec<ClaimedEvent>, StoreError> {
    let heads = db
        .query(
            "SELECT order_id FROM outbox AS event WHERE state = 0 AND due_at <= $1 AND NOT EXISTS (
                 SELECT 1 FROM outbox AS earlier
                 WHERE earlier.state = 0 AND earlier.order_id = event.order_id AND earlier.seq < event.seq)
             ORDER BY due_at, seq LIMIT $2 FOR UPDATE SKIP LOCKED",
            &[&millis(lease.now), &rows_of(limit)],
        )
        .await?;
    let follow =
        format!("SELECT {COLUMNS} FROM outbox WHERE state = 0 AND order_id = $1 ORDER BY seq LIMIT $2 FOR UPDATE");
    let mut claimed = Vec::with_capacity(heads.len());
    for head in &heads {
        let room = limit - claimed.len();
        if room == 0 {
            break;
        }
        for row in &db.query(&follow, &[&id(head, 0)?.uuid(), &rows_of(room)]).await? {
            let (seq, event) = read(row)?;
            let number = column::get::<i64>(row, 7)? + 1;
            db.execute(
                "UPDATE outbox SET due_at = $1, claim = $2 WHERE seq = $3",
                &[&lease.until(), &number, &seq],
            )
            .await?;
            claimed.push(ClaimedEvent {
                seq,
                number,
                refusals: count(row, 8)?,
                event,
            });
        }
    }
    claimed.sort_unstable_by_key(|event| event.seq);
    Ok(claimed)
}

pub(super) async fn settle(db: Session, settled: &[Settled], now: Timestamp) -> Result<(), StoreError> {
    const DONE: &str = "UPDATE outbox SET state = $1, settled_at = $2, error = $3, refusals = refusals + $4
         WHERE seq = $5 AND claim = $6 AND state = 0";
    const AGAIN: &str = "UPDATE outbox SET due_at = $1, refusals = refusals + $2, error = $3
         WHERE seq = $4 AND claim = $5 AND state = 0";
    for Settled { seq, number, fate } in settled {
        match fate {
            Fate::Published => {
                db.execute(DONE, &[&1i16, &millis(now), &None::<&str>, &0i64, seq, number])
                    .await?;
            }
            Fate::Dead { error } => {
                let error = column::text(error);
                db.execute(DONE, &[&2i16, &millis(now), &error, &1i64, seq, number])
                    .await?;
            }
            Fate::Retry { after, refused, error } => {
                let (due_at, error) = (later(now, *after), column::text(error));
                db.execute(AGAIN, &[&due_at, &i64::from(*refused), &error, seq, number])
                    .await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn dead(db: Session, limit: usize) -> Result<Vec<DeadEvent>, StoreError> {
    let sql = format!("SELECT {COLUMNS}, coalesce(error, '') FROM outbox WHERE state = 2 ORDER BY seq LIMIT $1");
    let dead = |row: &Row| {
        Ok(DeadEvent {
            event: read(row)?.1,
            refusals: count(row, 8)?,
            error: column::get(row, 10)?,
        })
    };
    db.query(&sql, &[&rows_of(limit)]).await?.iter().map(dead).collect()
}

pub(super) async fn backlog(db: Session, now: Timestamp) -> Result<Backlog, StoreError> {
    let row = db
        .first(
            "SELECT count(*), min(occurred_at), (SELECT count(*) FROM outbox WHERE state = 2),
                (SELECT count(*) FROM orders WHERE step <> 'done')
             FROM outbox WHERE state = 0",
            &[],
        )
        .await?
        .ok_or_else(|| corrupt("a count without a row"))?;
    let number = |column| column::get::<i64>(&row, column).map(i64::unsigned_abs);
    let oldest: Option<Timestamp> = column::get(&row, 1)?;
    Ok(Backlog {
        events: number(0)?,
        oldest_event: oldest.map(|at| age(at, now)).unwrap_or_default(),
        dead_events: number(2)?,
        open_sagas: number(3)?,
    })
}

/// Deletes old published events; looks only at the oldest rows, so that it stays cheap however long the table is.
pub(super) async fn forget(db: &Session, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
    let deleted = db
        .execute(
            "DELETE FROM outbox WHERE seq IN (SELECT seq FROM outbox ORDER BY seq LIMIT $2)
             AND state = 1 AND settled_at < $1",
            &[&millis(before), &rows_of(limit)],
        )
        .await?;
    Ok(deleted as usize)
}

fn read(row: &Row) -> Result<(i64, Event), StoreError> {
    let event = Event {
        id: column::get(row, 1)?,
        kind: column::get::<&str>(row, 3)?.parse().map_err(corrupt)?,
        version: count(row, 4)?,
        order: id(row, 2)?,
        occurred_at: column::get(row, 5)?,
        payload: column::get(row, 6)?,
        origin: Origin::from_json(column::get(row, 9)?),
    };
    Ok((column::get(row, 0)?, event))
}
