//! Orders and sagas in SQL. Every function that changes something runs inside a transaction that its caller opened; the
//! deciding is done by [`crate::saga`].

use std::time::Duration;

use chassis::postgres::{Row, Session, column};
use jiff::Timestamp;
use uuid::Uuid;

use super::{StoreError, corrupt, count, events, id, millis, rows_of};
use crate::domain::{EventKind, Order, OrderId};
use crate::origin::Origin;
use crate::saga::{Cancel, Next, Outcome, Reason, Saga};
use crate::store::{Cancelled, Claim, Claimed, Create, Created, Lease, Recorded, StepRecord, later};

const COLUMNS: &str = "id, customer, items, currency, address, total_cents, status, step, attempts, cancel_requested, \
                       charge_id, reason, detail, created_at, updated_at, origin";

pub(super) const ANY_DUE: &str = "SELECT 1 FROM orders WHERE step <> 'done' AND due_at <= $1 LIMIT 1";

pub(super) async fn create(db: Session, create: &Create) -> Result<Created, StoreError> {
    if let Some(key) = &create.idempotency_key
        && let Some(known) = reserve(&db, create, key).await?
    {
        return Ok(known);
    }
    let saga = Saga::default();
    let order = Order {
        id: create.id,
        customer: create.customer.clone(),
        items: create.order.items.clone(),
        currency: create.order.currency.clone(),
        address: create.order.address.clone(),
        total_cents: create.order.total_cents,
        saga: if create.lease.is_some() { saga.begin() } else { saga },
        created_at: millis(create.now),
        updated_at: millis(create.now),
        origin: create.origin.clone(),
    };
    let (due_at, number, owner) = match &create.lease {
        Some(lease) => (lease.until(), 1i64, Some(&lease.owner)),
        None => (order.created_at, 0, None),
    };
    db.execute(
        "INSERT INTO orders (id, customer, items, currency, address, total_cents, status, step, attempts,
                             cancel_requested, created_at, updated_at, due_at, claim, owner, origin)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, $12, $13, $14, $15)",
        &[
            &order.id.uuid(),
            &order.customer,
            &serde_json::to_string(&order.items).map_err(corrupt)?,
            &order.currency,
            &order.address,
            &i64::try_from(order.total_cents).map_err(corrupt)?,
            &order.saga.status.as_str(),
            &order.saga.step.as_str(),
            &i64::from(order.saga.attempts),
            &order.saga.cancel_requested,
            &order.created_at,
            &due_at,
            &number,
            &owner,
            &order.origin.to_json(),
        ],
    )
    .await?;
    events::emit(&db, &order, &[EventKind::Created], create.now).await?;
    let claim = match &create.lease {
        Some(lease) => {
            log_begin(&db, &order, lease.now).await?;
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

/// Takes the customer's key for this order, or says what it stands for. Of two replicas that take a key at once, the
/// second one waits for the first one's commit.
async fn reserve(db: &Session, create: &Create, key: &str) -> Result<Option<Created>, StoreError> {
    let fingerprint = create.order.fingerprint();
    // The update changes nothing: it answers the row that is there, and keeps it from being forgotten meanwhile.
    let known = db
        .first(
            "INSERT INTO idempotency (customer, key, order_id, fingerprint, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (customer, key) DO UPDATE SET key = excluded.key RETURNING order_id, fingerprint",
            &[
                &create.customer,
                &key,
                &create.id.uuid(),
                &&fingerprint.0[..],
                &millis(create.now),
            ],
        )
        .await?
        .ok_or_else(|| corrupt("an idempotency key without a row"))?;
    if id(&known, 0)? == create.id {
        return Ok(None);
    }
    if column::get::<&[u8]>(&known, 1)? != fingerprint.0 {
        return Ok(Some(Created::KeyReused));
    }
    let order = order(db, id(&known, 0)?).await?;
    let order = order.ok_or_else(|| corrupt("an idempotency key without its order"))?;
    Ok(Some(Created::Replayed(order)))
}

pub(super) async fn order(db: &Session, id: OrderId) -> Result<Option<Order>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1");
    db.first(&sql, &[&id.uuid()]).await?.as_ref().map(read).transpose()
}

pub(super) async fn orders(
    db: Session,
    customer: &str,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<Order>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE customer = $1 AND id > $2 ORDER BY id LIMIT $3");
    let after = after.map_or(Uuid::nil(), OrderId::uuid);
    let rows = db.query(&sql, &[&customer, &after, &rows_of(limit)]).await?;
    rows.iter().map(read).collect()
}

pub(super) async fn steps(db: Session, id: OrderId) -> Result<Vec<StepRecord>, StoreError> {
    // The steps' order of time is that of their words: charge, deliver, refund.
    let rows = db
        .query(
            "SELECT step, attempts, begun_at, ended_at, outcome FROM steps WHERE order_id = $1 ORDER BY begun_at, step",
            &[&id.uuid()],
        )
        .await?;
    let step = |row: &Row| {
        Ok(StepRecord {
            step: column::get::<&str>(row, 0)?.parse().map_err(corrupt)?,
            attempts: count(row, 1)?,
            begun_at: column::get(row, 2)?,
            ended_at: column::get(row, 3)?,
            outcome: column::get(row, 4)?,
        })
    };
    rows.iter().map(step).collect()
}

pub(super) async fn cancel(db: Session, id: OrderId, customer: &str, now: Timestamp) -> Result<Cancelled, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1 AND customer = $2 FOR UPDATE");
    let Some(row) = db.first(&sql, &[&id.uuid(), &customer]).await? else {
        return Ok(Cancelled::Unknown);
    };
    let mut order = read(&row)?;
    match order.saga.cancel() {
        Cancel::Already => Ok(Cancelled::Accepted(Box::new(order))),
        Cancel::TooLate => Ok(Cancelled::TooLate(Box::new(order))),
        Cancel::Accepted(change) => {
            order.saga = change.saga;
            order.updated_at = millis(now);
            // Neither lease nor back-off change: whoever has the saga sees the wish with the next record.
            write_saga(&db, &order).await?;
            events::emit(&db, &order, &change.events, now).await?;
            Ok(Cancelled::Accepted(Box::new(order)))
        }
    }
}

pub(super) async fn claim(db: Session, lease: &Lease, limit: usize) -> Result<Vec<Claimed>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, claim FROM orders WHERE step <> 'done' AND due_at <= $1 ORDER BY due_at, id LIMIT $2
         FOR UPDATE SKIP LOCKED"
    );
    let due = db.query(&sql, &[&millis(lease.now), &rows_of(limit)]).await?;
    let mut claimed = Vec::with_capacity(due.len());
    for row in &due {
        let (mut order, number) = (read(row)?, column::get::<i64>(row, 16)?);
        order.saga = order.saga.begin();
        claimed.push(begin(&db, order, number + 1, lease).await?);
    }
    Ok(claimed)
}

pub(super) async fn record(
    db: Session,
    claim: Claim,
    outcome: &Outcome,
    lease: &Lease,
    retry_after: Duration,
) -> Result<Recorded, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE id = $1 AND claim = $2 FOR UPDATE");
    let Some(row) = db.first(&sql, &[&claim.order.uuid(), &claim.number]).await? else {
        return Ok(Recorded::Lost);
    };
    let mut order = read(&row)?;
    let Some(change) = order.saga.after(claim.step, outcome) else {
        return Ok(Recorded::Lost);
    };
    let now = millis(lease.now);
    db.execute(
        "UPDATE steps SET ended_at = $1, outcome = $2 WHERE order_id = $3 AND step = $4",
        &[&now, &outcome.as_str(), &claim.order.uuid(), &claim.step.as_str()],
    )
    .await?;
    order.saga = change.saga;
    order.updated_at = now;
    events::emit(&db, &order, &change.events, lease.now).await?;
    let number = claim.number + 1;
    match change.next {
        Next::Run => {
            order.saga = order.saga.begin();
            Ok(Recorded::Continue(Box::new(begin(&db, order, number, lease).await?)))
        }
        Next::Retry => {
            write_claim(&db, &order, number, later(lease.now, retry_after), None).await?;
            Ok(Recorded::Later)
        }
        Next::Finished => {
            write_claim(&db, &order, number, now, None).await?;
            Ok(Recorded::Finished(Box::new(order)))
        }
    }
}

pub(super) async fn hand_back(db: Session, owner: &str, now: Timestamp) -> Result<usize, StoreError> {
    // Leases that have ended are anybody's already; the others are found by the index of what is due.
    let given = db
        .execute(
            "UPDATE orders SET due_at = $1, claim = claim + 1, owner = NULL
             WHERE step <> 'done' AND due_at > $1 AND owner = $2",
            &[&millis(now), &owner],
        )
        .await?;
    Ok(given as usize)
}

/// Writes a begun saga with its new lease, and logs that its step begins.
async fn begin(db: &Session, mut order: Order, number: i64, lease: &Lease) -> Result<Claimed, StoreError> {
    order.updated_at = millis(lease.now);
    write_claim(db, &order, number, lease.until(), Some(&lease.owner)).await?;
    log_begin(db, &order, lease.now).await?;
    Ok(Claimed {
        claim: Claim {
            order: order.id,
            number,
            step: order.saga.step,
        },
        order,
    })
}

async fn log_begin(db: &Session, order: &Order, now: Timestamp) -> Result<(), StoreError> {
    db.execute(
        "INSERT INTO steps (order_id, step, attempts, begun_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT (order_id, step) DO UPDATE SET attempts = excluded.attempts",
        &[
            &order.id.uuid(),
            &order.saga.step.as_str(),
            &i64::from(order.saga.attempts),
            &millis(now),
        ],
    )
    .await?;
    Ok(())
}

async fn write_claim(
    db: &Session,
    order: &Order,
    number: i64,
    due_at: Timestamp,
    owner: Option<&str>,
) -> Result<(), StoreError> {
    write_saga(db, order).await?;
    db.execute(
        "UPDATE orders SET charge_id = $1, due_at = $2, claim = $3, owner = $4 WHERE id = $5",
        &[
            &order.saga.charge_id.as_deref().map(column::text),
            &due_at,
            &number,
            &owner,
            &order.id.uuid(),
        ],
    )
    .await?;
    Ok(())
}

async fn write_saga(db: &Session, order: &Order) -> Result<(), StoreError> {
    db.execute(
        "UPDATE orders SET status = $1, step = $2, attempts = $3, cancel_requested = $4, reason = $5, detail = $6, \
         updated_at = $7 WHERE id = $8",
        &[
            &order.saga.status.as_str(),
            &order.saga.step.as_str(),
            &i64::from(order.saga.attempts),
            &order.saga.cancel_requested,
            &order.saga.reason.map(Reason::as_str),
            &order.saga.detail.as_deref().map(column::text),
            &order.updated_at,
            &order.id.uuid(),
        ],
    )
    .await?;
    Ok(())
}

/// Reads the first columns of a row, [`COLUMNS`].
fn read(row: &Row) -> Result<Order, StoreError> {
    let text = |index: usize| column::get::<&str>(row, index);
    let reason: Option<&str> = column::get(row, 11)?;
    Ok(Order {
        id: id(row, 0)?,
        customer: column::get(row, 1)?,
        items: serde_json::from_str(text(2)?).map_err(corrupt)?,
        currency: column::get(row, 3)?,
        address: column::get(row, 4)?,
        total_cents: column::get::<i64>(row, 5)?.cast_unsigned(),
        saga: Saga {
            status: text(6)?.parse().map_err(corrupt)?,
            step: text(7)?.parse().map_err(corrupt)?,
            attempts: count(row, 8)?,
            cancel_requested: column::get(row, 9)?,
            charge_id: column::get(row, 10)?,
            reason: reason.map(str::parse).transpose().map_err(corrupt)?,
            detail: column::get(row, 12)?,
        },
        created_at: column::get(row, 13)?,
        updated_at: column::get(row, 14)?,
        origin: Origin::from_json(column::get(row, 15)?),
    })
}
