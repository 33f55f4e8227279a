//! Orders and sagas in SQL. Every function runs inside a transaction that its caller opened; the deciding is done by
//! [`crate::saga`].

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StoreError, corrupt, events, timestamp};
use crate::domain::{EventKind, Order, OrderId};
use crate::origin::Origin;
use crate::saga::{Cancel, Next, Outcome, Saga};
use crate::store::{Cancelled, Claim, Claimed, Create, Created, Lease, Recorded, StepRecord, later};

const COLUMNS: &str = "id, customer, items, currency, address, total_cents, status, step, attempts, cancel_requested, \
                       charge_id, reason, detail, created_at, updated_at, origin";

pub(super) fn create(db: &Connection, create: &Create) -> Result<Created, StoreError> {
    if let Some(key) = &create.idempotency_key {
        let fingerprint = create.order.fingerprint();
        let known: Option<(String, Vec<u8>)> = db
            .prepare_cached("SELECT order_id, fingerprint FROM idempotency WHERE customer = ? AND key = ?")?
            .query_row(params![create.customer, key], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some((id, known)) = known {
            if known != fingerprint.0 {
                return Ok(Created::KeyReused);
            }
            let id = id.parse().map_err(corrupt)?;
            let order = order(db, id)?.ok_or_else(|| corrupt("an idempotency key without its order"))?;
            return Ok(Created::Replayed(order));
        }
        db.prepare_cached(
            "INSERT INTO idempotency (customer, key, order_id, fingerprint, created_at) VALUES (?, ?, ?, ?, ?)",
        )?
        .execute(params![
            create.customer,
            key,
            create.id.to_string(),
            fingerprint.0,
            create.now.as_millisecond()
        ])?;
    }
    let saga = Saga::default();
    let mut order = Order {
        id: create.id,
        customer: create.customer.clone(),
        items: create.order.items.clone(),
        currency: create.order.currency.clone(),
        address: create.order.address.clone(),
        total_cents: create.order.total_cents,
        saga: if create.lease.is_some() { saga.begin() } else { saga },
        created_at: create.now,
        updated_at: create.now,
        origin: create.origin.clone(),
    };
    let items = serde_json::to_string(&order.items).map_err(corrupt)?;
    let (due_at, number, owner) = match &create.lease {
        Some(lease) => (lease.until(), 1, Some(&lease.owner)),
        None => (create.now, 0, None),
    };
    db.prepare_cached(
        "INSERT INTO orders (id, customer, items, currency, address, total_cents, status, step, attempts,
                             cancel_requested, created_at, updated_at, due_at, claim, owner, origin)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![
        order.id.to_string(),
        order.customer,
        items,
        order.currency,
        order.address,
        i64::try_from(order.total_cents).map_err(corrupt)?,
        order.saga.status.as_str(),
        order.saga.step.as_str(),
        order.saga.attempts,
        order.saga.cancel_requested,
        create.now.as_millisecond(),
        create.now.as_millisecond(),
        due_at.as_millisecond(),
        number,
        owner,
        order.origin.to_json(),
    ])?;
    events::emit(db, &order, &[EventKind::Created], create.now)?;
    // As it will be read again: milliseconds.
    order.created_at = timestamp(create.now.as_millisecond());
    order.updated_at = order.created_at;
    let claim = match &create.lease {
        Some(lease) => {
            log_begin(db, &order, lease.now)?;
            Some(Claim {
                order: order.id,
                number,
                step: order.saga.step,
            })
        }
        None => None,
    };
    Ok(Created::New(order, claim))
}

pub(super) fn order(db: &Connection, id: OrderId) -> Result<Option<Order>, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM orders WHERE id = ?"))?;
    let mut rows = statement.query([id.to_string()])?;
    rows.next()?.map(read).transpose()
}

pub(super) fn orders(
    db: &Connection,
    customer: &str,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<Order>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM orders WHERE customer = ? AND id > ? ORDER BY id LIMIT ?"
    ))?;
    let after = after.map(|id| id.to_string()).unwrap_or_default();
    let mut rows = statement.query(params![customer, after, limit.cast_signed()])?;
    let mut orders = Vec::new();
    while let Some(row) = rows.next()? {
        orders.push(read(row)?);
    }
    Ok(orders)
}

pub(super) fn steps(db: &Connection, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
    // The steps' order of time is that of their words: charge, deliver, refund.
    let mut statement = db.prepare_cached(
        "SELECT step, attempts, begun_at, ended_at, outcome FROM steps WHERE order_id = ? ORDER BY begun_at, step",
    )?;
    let mut rows = statement.query([id.to_string()])?;
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        steps.push(StepRecord {
            step: row.get_ref(0)?.as_str().map_err(corrupt)?.parse().map_err(corrupt)?,
            attempts: row.get(1)?,
            begun_at: timestamp(row.get(2)?),
            ended_at: row.get::<_, Option<i64>>(3)?.map(timestamp),
            outcome: row.get(4)?,
        });
    }
    Ok(steps)
}

pub(super) fn cancel(db: &Connection, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
    let Some(mut order) = order(db, id)?.filter(|order| order.customer == customer) else {
        return Ok(Cancelled::Unknown);
    };
    match order.saga.cancel() {
        Cancel::Already => Ok(Cancelled::Accepted(Box::new(order))),
        Cancel::TooLate => Ok(Cancelled::TooLate(Box::new(order))),
        Cancel::Accepted(change) => {
            order.saga = change.saga;
            order.updated_at = timestamp(now.as_millisecond());
            // Neither lease nor back-off change: whoever has the saga sees the wish with the next record.
            write_saga(db, &order)?;
            events::emit(db, &order, &change.events, now)?;
            Ok(Cancelled::Accepted(Box::new(order)))
        }
    }
}

pub(super) fn any_due(db: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let mut statement = db.prepare_cached("SELECT 1 FROM orders WHERE step <> 'done' AND due_at <= ? LIMIT 1")?;
    Ok(statement.exists([now.as_millisecond()])?)
}

pub(super) fn claim(db: &Connection, lease: &Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS}, claim FROM orders WHERE step <> 'done' AND due_at <= ? ORDER BY due_at, id LIMIT ?"
    ))?;
    let mut rows = statement.query(params![lease.now.as_millisecond(), limit.cast_signed()])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push((read(row)?, row.get::<_, i64>(16)?));
    }
    drop(rows);
    due.into_iter()
        .map(|(mut order, number)| {
            order.saga = order.saga.begin();
            begin(db, order, number + 1, lease)
        })
        .collect()
}

pub(super) fn record(
    db: &Connection,
    claim: Claim,
    outcome: &Outcome,
    lease: &Lease,
    retry_after: Duration,
) -> Result<Recorded, StoreError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM orders WHERE id = ? AND claim = ?"))?;
    let mut rows = statement.query(params![claim.order.to_string(), claim.number])?;
    let Some(mut order) = rows.next()?.map(read).transpose()? else {
        return Ok(Recorded::Lost);
    };
    drop(rows);
    let Some(change) = order.saga.after(claim.step, outcome) else {
        return Ok(Recorded::Lost);
    };
    let now = lease.now.as_millisecond();
    db.prepare_cached("UPDATE steps SET ended_at = ?, outcome = ? WHERE order_id = ? AND step = ?")?
        .execute(params![
            now,
            outcome.as_str(),
            claim.order.to_string(),
            claim.step.as_str()
        ])?;
    order.saga = change.saga;
    order.updated_at = timestamp(now);
    events::emit(db, &order, &change.events, lease.now)?;
    match change.next {
        Next::Run => {
            order.saga = order.saga.begin();
            Ok(Recorded::Continue(Box::new(begin(db, order, claim.number + 1, lease)?)))
        }
        Next::Retry => {
            write_claim(db, &order, claim.number + 1, later(lease.now, retry_after), None)?;
            Ok(Recorded::Later)
        }
        Next::Finished => {
            write_claim(db, &order, claim.number + 1, lease.now, None)?;
            Ok(Recorded::Finished(Box::new(order)))
        }
    }
}

pub(super) fn hand_back(db: &Connection, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
    let now = now.as_millisecond();
    // Leases that have ended are anybody's already; the others are found by the index of what is due.
    let mut statement = db.prepare_cached(
        "UPDATE orders SET due_at = ?1, claim = claim + 1, owner = NULL
         WHERE step <> 'done' AND due_at > ?1 AND owner = ?2",
    )?;
    Ok(statement.execute(params![now, owner])?)
}

/// Writes a begun saga with its new lease, and logs that its step begins.
fn begin(db: &Connection, mut order: Order, number: i64, lease: &Lease) -> Result<Claimed, StoreError> {
    order.updated_at = timestamp(lease.now.as_millisecond());
    write_claim(db, &order, number, lease.until(), Some(&lease.owner))?;
    log_begin(db, &order, lease.now)?;
    Ok(Claimed {
        claim: Claim {
            order: order.id,
            number,
            step: order.saga.step,
        },
        order,
    })
}

fn log_begin(db: &Connection, order: &Order, now: Timestamp) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO steps (order_id, step, attempts, begun_at) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (order_id, step) DO UPDATE SET attempts = excluded.attempts",
    )?
    .execute(params![
        order.id.to_string(),
        order.saga.step.as_str(),
        order.saga.attempts,
        now.as_millisecond()
    ])?;
    Ok(())
}

fn write_claim(
    db: &Connection,
    order: &Order,
    number: i64,
    due_at: Timestamp,
    owner: Option<&str>,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE orders SET status = ?, step = ?, attempts = ?, cancel_requested = ?, charge_id = ?, reason = ?, \
         detail = ?, updated_at = ?, due_at = ?, claim = ?, owner = ? WHERE id = ?",
    )?
    .execute(params![
        order.saga.status.as_str(),
        order.saga.step.as_str(),
        order.saga.attempts,
        order.saga.cancel_requested,
        order.saga.charge_id,
        order.saga.reason.map(crate::saga::Reason::as_str),
        order.saga.detail,
        order.updated_at.as_millisecond(),
        due_at.as_millisecond(),
        number,
        owner,
        order.id.to_string(),
    ])?;
    Ok(())
}

fn write_saga(db: &Connection, order: &Order) -> Result<(), StoreError> {
    db.prepare_cached(
        "UPDATE orders SET status = ?, step = ?, attempts = ?, cancel_requested = ?, reason = ?, detail = ?, \
         updated_at = ? WHERE id = ?",
    )?
    .execute(params![
        order.saga.status.as_str(),
        order.saga.step.as_str(),
        order.saga.attempts,
        order.saga.cancel_requested,
        order.saga.reason.map(crate::saga::Reason::as_str),
        order.saga.detail,
        order.updated_at.as_millisecond(),
        order.id.to_string(),
    ])?;
    Ok(())
}

/// Reads the first columns of a row, [`COLUMNS`].
fn read(row: &Row<'_>) -> Result<Order, StoreError> {
    let text = |index: usize| row.get_ref(index)?.as_str().map_err(corrupt);
    Ok(Order {
        id: text(0)?.parse().map_err(corrupt)?,
        customer: row.get(1)?,
        items: serde_json::from_str(text(2)?).map_err(corrupt)?,
        currency: row.get(3)?,
        address: row.get(4)?,
        total_cents: row.get::<_, i64>(5)?.cast_unsigned(),
        saga: Saga {
            status: text(6)?.parse().map_err(corrupt)?,
            step: text(7)?.parse().map_err(corrupt)?,
            attempts: row.get(8)?,
            cancel_requested: row.get(9)?,
            charge_id: row.get(10)?,
            reason: row
                .get_ref(11)?
                .as_str_or_null()
                .map_err(corrupt)?
                .map(str::parse)
                .transpose()
                .map_err(corrupt)?,
            detail: row.get(12)?,
        },
        created_at: timestamp(row.get(13)?),
        updated_at: timestamp(row.get(14)?),
        origin: Origin::from_json(row.get_ref(15)?.as_str_or_null().map_err(corrupt)?),
    })
}
