//! Charges in a SQLite file that the instances of the service share. What must never happen (two charges of an order,
//! two refunds of a charge) is forbidden by the tables themselves, in `migrations/`.

use std::path::PathBuf;

use async_trait::async_trait;
use chassis::sqlite::{Database, Migration, SqliteError, column};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::{Answer, Page, Query, Standing, Store, StoreError, to_micros};
use crate::charge::{Charge, Decline, Outcome, Request, Target};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "charges",
    sql: include_str!("../../migrations/sqlite/0001_charges.sql"),
    usable_from: 1,
}];

/// A charge with its refund; `charge_of` reads its columns.
const CHARGE: &str = "SELECT c.charge_id, c.order_id, c.amount_cents, c.currency, c.decline_reason, c.created_at,
    r.created_at, c.seq FROM charges c LEFT JOIN refunds r ON r.charge_id = c.charge_id";

/// Charges in a SQLite file.
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
    async fn charge(&self, request: Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError> {
        self.database
            .write("INSERT charges", move |connection| {
                charge(connection, request, outcome, now)
            })
            .await
    }

    async fn refund(&self, target: Target, key: String, now: Timestamp) -> Result<Answer, StoreError> {
        self.database
            .write("INSERT refunds", move |connection| {
                refund(connection, &target, &key, now)
            })
            .await
    }

    async fn list(&self, query: Query) -> Result<Page, StoreError> {
        self.database
            .read("SELECT charges", move |connection| {
                Ok(list(connection, &query).map_err(SqliteError::from)?)
            })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

fn charge(connection: &Connection, request: Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError> {
    let known = find(connection, "c.idempotency_key = ?1", &request.key)?;
    if let Some(charge) = known {
        return Answer::replay(&request, charge);
    }
    if outcome == Outcome::Charged
        && find(
            connection,
            "c.order_id = ?1 AND c.decline_reason IS NULL",
            &request.order_id,
        )?
        .is_some()
    {
        return Err(StoreError::OrderCharged);
    }
    let (key, charge) = request.decided(outcome, to_micros(now));
    let decline = match outcome {
        Outcome::Charged => None,
        Outcome::Declined(decline) => Some(decline.as_str()),
    };
    connection
        .prepare_cached(
            "INSERT INTO charges
                (charge_id, order_id, idempotency_key, amount_cents, currency, decline_reason, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .and_then(|mut insert| {
            insert.execute(params![
                charge.id.to_string(),
                charge.order_id,
                key,
                charge.amount_cents,
                charge.currency,
                decline,
                now.as_microsecond(),
            ])
        })
        .map_err(SqliteError::from)?;
    Ok(Answer {
        charge,
        replayed: false,
    })
}

fn refund(connection: &Connection, target: &Target, key: &str, now: Timestamp) -> Result<Answer, StoreError> {
    let known: Option<String> = connection
        .prepare_cached("SELECT charge_id FROM refund_keys WHERE idempotency_key = ?1")
        .and_then(|mut select| select.query_row([key], |row| row.get(0)).optional())
        .map_err(SqliteError::from)?;
    let charge = match target {
        Target::Charge(id) => find(connection, "c.charge_id = ?1", &id.to_string())?,
        Target::Order(order) => find(connection, "c.order_id = ?1 AND c.decline_reason IS NULL", order)?,
    };
    let Some(mut charge) = charge else {
        return Err(if known.is_some() {
            StoreError::KeyReused
        } else {
            StoreError::NotFound
        });
    };
    let id = charge.id.to_string();
    if known.as_ref().is_some_and(|known| *known != id) {
        return Err(StoreError::KeyReused);
    }
    if charge.outcome != Outcome::Charged {
        return Err(StoreError::NothingTaken);
    }
    let replayed = charge.refunded_at.is_some();
    if !replayed {
        connection
            .prepare_cached("INSERT INTO refunds (charge_id, created_at) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute(params![id, now.as_microsecond()]))
            .map_err(SqliteError::from)?;
        charge.refunded_at = Some(to_micros(now));
    }
    if known.is_none() {
        connection
            .prepare_cached("INSERT INTO refund_keys (idempotency_key, charge_id) VALUES (?1, ?2)")
            .and_then(|mut insert| insert.execute([key, &id]))
            .map_err(SqliteError::from)?;
    }
    Ok(Answer { charge, replayed })
}

fn list(connection: &Connection, query: &Query) -> rusqlite::Result<Page> {
    // The order's clause stands in the text only when it is wanted, so that its index is used.
    let order = if query.order_id.is_some() {
        "c.order_id = :order"
    } else {
        ":order IS NULL"
    };
    let standing = match query.standing {
        None => "TRUE",
        Some(Standing::Declined) => "c.decline_reason IS NOT NULL",
        Some(Standing::Charged) => "c.decline_reason IS NULL AND r.charge_id IS NULL",
        Some(Standing::Refunded) => "r.charge_id IS NOT NULL",
    };
    let sql = format!("{CHARGE} WHERE c.seq > :after AND {order} AND {standing} ORDER BY c.seq LIMIT :limit");
    let mut select = connection.prepare_cached(&sql)?;
    let rows = select.query_map(
        named_params! {
            ":after": i64::try_from(query.after).unwrap_or(i64::MAX),
            ":order": query.order_id,
            ":limit": i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1),
        },
        |row| Ok((charge_of(row)?, row.get::<_, i64>(7)?)),
    )?;
    let mut page = Page::default();
    for row in rows {
        let (charge, seq) = row?;
        if page.charges.len() == query.limit {
            page.more = true;
            break;
        }
        page.charges.push(charge);
        page.last = Some(seq.unsigned_abs());
    }
    Ok(page)
}

/// The one charge for which `condition` holds.
fn find(connection: &Connection, condition: &'static str, value: &str) -> Result<Option<Charge>, SqliteError> {
    let mut select = connection.prepare_cached(&format!("{CHARGE} WHERE {condition}"))?;
    Ok(select.query_row([value], charge_of).optional()?)
}

fn charge_of(row: &Row<'_>) -> rusqlite::Result<Charge> {
    let outcome = match row.get::<_, Option<String>>(4)? {
        None => Outcome::Charged,
        Some(word) => {
            Outcome::Declined(Decline::from_word(&word).ok_or_else(|| column::strange(4, format!("decline {word}")))?)
        }
    };
    Ok(Charge {
        id: column::uuid(row, 0)?,
        order_id: row.get(1)?,
        amount_cents: row.get(2)?,
        currency: row.get(3)?,
        outcome,
        created_at: column::timestamp(row, 5)?,
        refunded_at: column::optional_timestamp(row, 6)?,
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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
        let store = SqliteStore::open(folder.path().join("payments.db")).await.unwrap();
        store
            .database
            .write("INSERT charges", |connection| {
                connection.execute_batch(
                    "INSERT INTO charges VALUES (1, 'a', 'o1', 'k1', 5, 'EUR', NULL, 0), (2, 'b', 'o2', 'k2', 5, 'EUR', 'over_limit', 0);
                     INSERT INTO refunds VALUES ('a', 0)",
                )?;
                for (sql, why) in [
                    ("INSERT INTO charges VALUES (3, 'c', 'o1', 'k3', 5, 'EUR', NULL, 0)", "an order charged twice"),
                    ("INSERT INTO charges VALUES (3, 'c', 'o3', 'k1', 5, 'EUR', NULL, 0)", "a key used twice"),
                    ("INSERT INTO charges VALUES (3, 'c', 'o3', 'k3', 0, 'EUR', NULL, 0)", "nothing charged"),
                    ("INSERT INTO charges VALUES (3, 'c', 'o3', 'k3', 5, 'eur', NULL, 0)", "a strange currency"),
                    ("INSERT INTO refunds VALUES ('a', 1)", "a charge refunded twice"),
                    ("INSERT INTO refunds VALUES ('b', 1)", "a declined charge refunded"),
                    ("INSERT INTO refunds VALUES ('z', 1)", "nothing refunded"),
                    ("UPDATE charges SET amount_cents = 1", "a changed charge"),
                    ("DELETE FROM charges WHERE charge_id = 'b'", "a removed charge"),
                    ("DELETE FROM refunds", "a removed refund"),
                ] {
                    assert!(connection.execute(sql, []).is_err(), "{why} was allowed");
                }
                Ok::<_, SqliteError>(())
            })
            .await
            .unwrap();
    }
}
