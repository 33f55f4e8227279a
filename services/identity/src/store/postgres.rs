//! Users in a PostgreSQL database that the replicas of the service share. That an address has one user is the table's own
//! rule: of two replicas that register it at once, the second one waits for the first one's commit.

use async_trait::async_trait;
use chassis::postgres::{Database, Migration, PostgresError, Row, Session, Settings, column};

use super::{Store, StoreError, User};
use crate::account::Email;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "users",
    sql: include_str!("../../migrations/postgres/0001_users.sql"),
    usable_from: 1,
}];

/// Users in a PostgreSQL database.
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
    async fn add(&self, user: User) -> Result<(), StoreError> {
        self.database.write("INSERT users", |db| add(db, &user)).await
    }

    async fn find(&self, email: &Email) -> Result<Option<User>, StoreError> {
        Ok(self.database.read("SELECT users", |db| find(db, email)).await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

async fn add(db: Session, user: &User) -> Result<(), StoreError> {
    let added = db
        .execute(
            "INSERT INTO users (user_id, email, password_hash, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (email) DO NOTHING",
            &[&user.id, &user.email.as_str(), &user.password_hash, &user.created_at],
        )
        .await?;
    if added == 1 { Ok(()) } else { Err(StoreError::Exists) }
}

async fn find(db: Session, email: &Email) -> Result<Option<User>, PostgresError> {
    let row = db
        .first(
            "SELECT user_id, email, password_hash, created_at FROM users WHERE email = $1",
            &[&email.as_str()],
        )
        .await?;
    row.as_ref().map(user_of).transpose()
}

fn user_of(row: &Row) -> Result<User, PostgresError> {
    Ok(User {
        id: column::get(row, 0)?,
        email: Email::parse(column::get(row, 1)?).map_err(|_| column::strange(row, 1))?,
        password_hash: column::get(row, 2)?,
        created_at: column::get(row, 3)?,
    })
}

#[cfg(test)]
mod tests {
    use chassis::trial::{database_settings, new_database};
    use peers::servers::Postgres;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn keeps_the_contract() {
        let Some(server) = Postgres::shared("identity::store::postgres::keeps_the_contract").await else {
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
}
