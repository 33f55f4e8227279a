//! Migrations as sqlx and refinery write them down, in a real PostgreSQL.

use std::sync::Arc;

use deadpool_postgres::Pool;
use health::{Migration, MigrationCheck, Outcome, Reason, Table};
use peers::{Server, servers};

use crate::contract::{AnyCheck, ask, until};
use crate::postgres::pool;

/// The tables as sqlx 0.8 and refinery 0.8 make them.
const SQLX: &str = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(), success BOOLEAN NOT NULL, checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL)";
const REFINERY: &str = "CREATE TABLE refinery_schema_history (version INT4 PRIMARY KEY, name VARCHAR(255),
    applied_on VARCHAR(255), checksum VARCHAR(255))";

fn embedded(checksums: &[&[u8]]) -> Vec<Migration> {
    let numbered = (1..).zip(checksums);
    numbered
        .map(|(version, checksum)| Migration {
            version,
            checksum: checksum.to_vec(),
        })
        .collect()
}

async fn detail(check: &AnyCheck) -> String {
    match ask(check).await {
        Outcome::Pass => "pass".to_owned(),
        Outcome::Warn(failure) => format!("warn: {}", failure.detail),
        Outcome::Fail(failure) => format!("fail: {}", failure.detail),
    }
}

async fn execute(pool: &Pool, sql: &str) {
    pool.get().await.unwrap().batch_execute(sql).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_are_compared_with_what_the_tools_wrote_down() {
    let test = "migrations_are_compared_with_what_the_tools_wrote_down";
    let Some(server) = Server::start(servers::Postgres::default(), test).await else {
        return;
    };
    let pool = pool(server.address("postgres"), "postgres", "", 2);
    let program = embedded(&[b"\x01\xab", b"\x02"]);
    let sqlx: AnyCheck = Arc::new(MigrationCheck::postgres(program.clone(), &pool, Table::Sqlx));
    let strict: AnyCheck = Arc::new(MigrationCheck::postgres(program, &pool, Table::Sqlx).refuse_newer());
    assert_eq!(
        detail(&sqlx).await,
        "fail: migrations: 1 is missing, 2 is missing",
        "no table"
    );
    execute(&pool, SQLX).await;
    let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)";
    execute(&pool, &format!(r"{insert} VALUES (1, 'orders', true, '\x01ab', 1)")).await;
    assert_eq!(detail(&sqlx).await, "fail: migrations: 2 is missing");
    execute(&pool, &format!(r"{insert} VALUES (2, 'index', false, '\x02', 1)")).await;
    assert_eq!(detail(&sqlx).await, "fail: migrations: 2 failed");
    execute(&pool, "UPDATE _sqlx_migrations SET success = true").await;
    assert_eq!(detail(&sqlx).await, "pass");

    let held = [pool.get().await.unwrap(), pool.get().await.unwrap()];
    let outcome = ask(&sqlx).await;
    let full = matches!(&outcome, Outcome::Warn(full) if full.reason == Reason::Saturated);
    assert!(full, "a full pool changes no schema: {outcome:?}");
    assert!(
        matches!(ask(&strict).await, Outcome::Fail(_)),
        "this one has not seen it good yet"
    );
    drop(held);

    execute(&pool, &format!(r"{insert} VALUES (3, 'later', true, '\x03', 1)")).await;
    assert_eq!(detail(&sqlx).await, "warn: migrations: 3 is newer than this program");
    assert_eq!(detail(&strict).await, "fail: migrations: 3 is newer than this program");
    execute(
        &pool,
        r"UPDATE _sqlx_migrations SET checksum = '\xff' WHERE version = 1",
    )
    .await;
    let changed = "fail: migrations: 1 was applied with another text, 3 is newer than this program";
    assert_eq!(detail(&sqlx).await, changed);

    let refinery = MigrationCheck::postgres(embedded(&[b"17893"]), &pool, Table::Refinery);
    let refinery: AnyCheck = Arc::new(refinery);
    execute(&pool, REFINERY).await;
    assert_eq!(detail(&refinery).await, "fail: migrations: 1 is missing");
    execute(
        &pool,
        "INSERT INTO refinery_schema_history VALUES (1, 'orders', 'now', '17893')",
    )
    .await;
    until(&refinery, test, None).await;
}
