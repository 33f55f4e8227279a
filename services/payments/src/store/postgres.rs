//! Charges in a PostgreSQL database that the replicas of the service share. What must never happen (two charges of an
//! order, two refunds of a charge) is forbidden by the tables themselves, in `migrations/`; of two replicas that try, the
//! second one waits for the first one's commit at the same unique index, and then finds what was stored.

use async_trait::async_trait;
use chassis::postgres::{Database, Migration, PostgresError, Row, Session, Settings, ToSql, column};
use jiff::Timestamp;
use uuid::Uuid;

use super::{Answer, Page, Query, Standing, Store, StoreError, to_micros};
use crate::charge::{Charge, Decline, Outcome, Request, Target};

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "charges",
    sql: include_str!("../../migrations/postgres/0001_charges.sql"),
    usable_from: 1,
}];

/// A charge with its refund; `charge_of` reads its columns.
const CHARGE: &str = "SELECT c.charge_id, c.order_id, c.amount_cents, c.currency, c.decline_reason, c.created_at,
    r.created_at, c.seq FROM charges c LEFT JOIN refunds r USING (charge_id)";

/// Charges in a PostgreSQL database.
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
    async fn charge(&self, request: Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError> {
        self.database
            .write("INSERT charges", |db| charge(db, &request, outcome, now))
            .await
    }

    async fn refund(&self, target: Target, key: String, now: Timestamp) -> Result<Answer, StoreError> {
        self.database
            .write("INSERT refunds", |db| refund(db, &target, &key, now))
            .await
    }

    async fn list(&self, query: Query) -> Result<Page, StoreError> {
        self.database.write("SELECT charges", |db| list(db, &query)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

async fn charge(db: Session, request: &Request, outcome: Outcome, now: Timestamp) -> Result<Answer, StoreError> {
    let (key, charge) = request.clone().decided(outcome, to_micros(now));
    let decline = match outcome {
        Outcome::Charged => None,
        Outcome::Declined(decline) => Some(decline.as_str()),
    };
    let inserted = db
        .execute(
            "INSERT INTO charges (charge_id, order_id, idempotency_key, amount_cents, currency, decline_reason, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            &[
                &charge.id,
                &charge.order_id,
                &key,
                &charge.amount_cents,
                &charge.currency,
                &decline,
                &charge.created_at,
            ],
        )
        .await?;
    if inserted == 1 {
        return Ok(Answer {
            charge,
            replayed: false,
        });
    }
    // A later statement sees what the conflict was with.
    match find(&db, "c.idempotency_key = $1", &key).await? {
        Some(known) => Answer::replay(request, known),
        None => Err(StoreError::OrderCharged),
    }
}

async fn refund(db: Session, target: &Target, key: &str, now: Timestamp) -> Result<Answer, StoreError> {
    let charge = match target {
        Target::Charge(id) => find(&db, "c.charge_id = $1", id).await?,
        Target::Order(order) => find(&db, "c.order_id = $1 AND c.decline_reason IS NULL", order).await?,
    };
    let Some(mut charge) = charge else {
        return Err(match of_key(&db, key).await? {
            Some(_) => StoreError::KeyReused,
            None => StoreError::NotFound,
        });
    };
    if charge.outcome != Outcome::Charged {
        return Err(match of_key(&db, key).await? {
            Some(known) if known != charge.id => StoreError::KeyReused,
            _ => StoreError::NothingTaken,
        });
    }
    let inserted = db
        .execute(
            "INSERT INTO refunds (charge_id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&charge.id, &to_micros(now)],
        )
        .await?;
    let keyed = db
        .execute(
            "INSERT INTO refund_keys (idempotency_key, charge_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&key, &charge.id],
        )
        .await?;
    // The error undoes the refund.
    if keyed == 0 && of_key(&db, key).await? != Some(charge.id) {
        return Err(StoreError::KeyReused);
    }
    if inserted == 1 {
        charge.refunded_at = Some(to_micros(now));
    } else if let Some(refunded) = find(&db, "c.charge_id = $1", &charge.id).await? {
        charge = refunded;
    }
    Ok(Answer {
        charge,
        replayed: inserted == 0,
    })
}

async fn list(db: Session, query: &Query) -> Result<Page, StoreError> {
    // See the migration: a list has no gap that is filled later.
    db.query("SELECT pg_advisory_xact_lock('charges'::regclass::oid::bigint)", &[])
        .await?;
    // The order's clause stands in the text only when it is wanted, so that its index is used.
    let order = if query.order_id.is_some() {
        "c.order_id = $2"
    } else {
        "$2::text IS NULL"
    };
    let standing = match query.standing {
        None => "TRUE",
        Some(Standing::Declined) => "c.decline_reason IS NOT NULL",
        Some(Standing::Charged) => "c.decline_reason IS NULL AND r.charge_id IS NULL",
        Some(Standing::Refunded) => "r.charge_id IS NOT NULL",
    };
    let sql = format!("{CHARGE} WHERE c.seq > $1 AND {order} AND {standing} ORDER BY c.seq LIMIT $3");
    let after = i64::try_from(query.after).unwrap_or(i64::MAX);
    let limit = i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1);
    let rows = db.query(&sql, &[&after, &query.order_id, &limit]).await?;
    let mut page = Page {
        more: rows.len() > query.limit,
        ..Page::default()
    };
    for row in rows.iter().take(query.limit) {
        page.charges.push(charge_of(row)?);
        page.last = Some(column::get::<i64>(row, 7)?.unsigned_abs());
    }
    Ok(page)
}

/// The one charge for which `condition` holds.
async fn find(
    db: &Session,
    condition: &'static str,
    value: &(dyn ToSql + Sync),
) -> Result<Option<Charge>, PostgresError> {
    let row = db.first(&format!("{CHARGE} WHERE {condition}"), &[value]).await?;
    row.as_ref().map(charge_of).transpose()
}

/// The charge that a refund's key stands for.
async fn of_key(db: &Session, key: &str) -> Result<Option<Uuid>, PostgresError> {
    let row = db
        .first("SELECT charge_id FROM refund_keys WHERE idempotency_key = $1", &[&key])
        .await?;
    row.as_ref().map(|row| column::get(row, 0)).transpose()
}

fn charge_of(row: &Row) -> Result<Charge, PostgresError> {
    let outcome = match column::get::<Option<&str>>(row, 4)? {
        None => Outcome::Charged,
        Some(word) => Outcome::Declined(Decline::from_word(word).ok_or_else(|| column::strange(row, 4))?),
    };
    Ok(Charge {
        id: column::get(row, 0)?,
        order_id: column::get(row, 1)?,
        amount_cents: column::get(row, 2)?,
        currency: column::get(row, 3)?,
        outcome,
        created_at: column::get(row, 5)?,
        refunded_at: column::get(row, 6)?,
    })
}

#[cfg(test)]
mod tests {
    use chassis::trial::{database_settings, new_database};
    use peers::servers::Postgres;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let Some(server) = Postgres::shared("payments::store::postgres::keeps_the_contract").await else {
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
        let test = "payments::store::postgres::what_must_never_happen_is_forbidden_by_the_tables";
        let Some(server) = Postgres::shared(test).await else {
            return;
        };
        let url = new_database(&server.url("postgres")).await;
        let store = PostgresStore::open(database_settings(&url)).await.unwrap();
        const A: &str = "'00000000-0000-7000-8000-00000000000a'";
        const B: &str = "'00000000-0000-7000-8000-00000000000b'";
        const C: &str = "'00000000-0000-7000-8000-00000000000c'";
        let charge = |id: &str, rest: &str| format!("INSERT INTO charges VALUES (0, {id}, {rest}, now())");
        let run = async |sql: String| {
            store
                .database
                .write("INSERT charges", |db| {
                    let sql = sql.clone();
                    async move { db.batch(&sql).await }
                })
                .await
        };
        for sql in [
            charge(A, "'o1', 'k1', 5, 'EUR', NULL"),
            charge(B, "'o2', 'k2', 5, 'EUR', 'over_limit'"),
            format!("INSERT INTO refunds VALUES ({A}, now())"),
        ] {
            run(sql).await.unwrap();
        }
        for (sql, why) in [
            (charge(C, "'o1', 'k3', 5, 'EUR', NULL"), "an order charged twice"),
            (charge(C, "'o3', 'k1', 5, 'EUR', NULL"), "a key used twice"),
            (charge(C, "'o3', 'k3', 0, 'EUR', NULL"), "nothing charged"),
            (charge(C, "'o3', 'k3', 5, 'eur', NULL"), "a strange currency"),
            (
                format!("INSERT INTO refunds VALUES ({A}, now())"),
                "a charge refunded twice",
            ),
            (
                format!("INSERT INTO refunds VALUES ({B}, now())"),
                "a declined charge refunded",
            ),
            (format!("INSERT INTO refunds VALUES ({C}, now())"), "nothing refunded"),
            ("UPDATE charges SET amount_cents = 1".to_owned(), "a changed charge"),
            (format!("DELETE FROM charges WHERE charge_id = {B}"), "a removed charge"),
            ("DELETE FROM refunds".to_owned(), "a removed refund"),
        ] {
            let refused = run(sql).await;
            assert!(
                matches!(refused, Err(PostgresError::Statement(_))),
                "{why}: {refused:?}"
            );
        }
    }
}
