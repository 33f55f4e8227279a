//! Users in a SQLite file that the instances of the service share.

use std::path::PathBuf;

use async_trait::async_trait;
use chassis::sqlite::{Database, Migration, SqliteError, column};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Store, StoreError, User};
use crate::account::Email;

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    name: "users",
    sql: include_str!("../../migrations/sqlite/0001_users.sql"),
    usable_from: 1,
}];

/// Users in a SQLite file.
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
    async fn add(&self, user: User) -> Result<(), StoreError> {
        self.database
            .write("INSERT users", move |connection| {
                let added = connection
                    .prepare_cached(
                        "INSERT INTO users (user_id, email, password_hash, created_at) VALUES (?1, ?2, ?3, ?4)
                         ON CONFLICT (email) DO NOTHING",
                    )
                    .and_then(|mut insert| {
                        insert.execute(params![
                            user.id.to_string(),
                            user.email.as_str(),
                            user.password_hash,
                            user.created_at.as_microsecond()
                        ])
                    })
                    .map_err(SqliteError::from)?;
                if added == 1 { Ok(()) } else { Err(StoreError::Exists) }
            })
            .await
    }

    async fn find(&self, email: &Email) -> Result<Option<User>, StoreError> {
        let email = email.clone();
        let found = self.database.read("SELECT users", move |connection| {
            let mut select = connection
                .prepare_cached("SELECT user_id, email, password_hash, created_at FROM users WHERE email = ?1")?;
            Ok::<_, SqliteError>(select.query_row([email.as_str()], user_of).optional()?)
        });
        Ok(found.await?)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.database.ping().await?)
    }
}

fn user_of(row: &Row<'_>) -> rusqlite::Result<User> {
    let email: String = row.get(1)?;
    Ok(User {
        id: column::uuid(row, 0)?,
        email: Email::parse(&email).map_err(|error| column::strange(1, error))?,
        password_hash: row.get(2)?,
        created_at: column::timestamp(row, 3)?,
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
}
