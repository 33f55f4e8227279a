//! What a service relies on: migrations that are applied once, transactions that leave no trace when they fail, limits on
//! everything that can make a call wait.

use std::sync::atomic::AtomicUsize;

use peers::servers::Postgres;

use super::*;
use crate::database::DatabaseError;
use crate::trial::new_database;

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "words",
        sql: "CREATE TABLE words (word text PRIMARY KEY)",
        usable_from: 1,
    },
    Migration {
        version: 2,
        name: "counts",
        sql: "CREATE TABLE counts (name text PRIMARY KEY, n bigint NOT NULL); INSERT INTO counts VALUES ('a', 0), ('b', 0)",
        usable_from: 1,
    },
];

/// The settings of a new database of the server that all tests share.
async fn fresh(test: &str, variables: &[(&str, &str)]) -> Option<Settings> {
    let server = Postgres::shared(test).await?;
    Some(settings(&new_database(&server.url("postgres")).await, variables))
}

fn settings(url: &str, variables: &[(&str, &str)]) -> Settings {
    let read = |name: &str| match name {
        "DATABASE_URL" => Some(url.into()),
        _ => variables
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).into()),
    };
    Settings::read("test", read).unwrap().unwrap()
}

async fn count(database: &Database, table: &'static str) -> i64 {
    let ask = |db: Session| async move {
        let row = db.first(&format!("SELECT count(*) FROM {table}"), &[]).await?;
        column::get::<i64>(&row.unwrap(), 0)
    };
    database.read("SELECT things", ask).await.unwrap()
}

async fn execute(database: &Database, sql: &str) -> Result<u64, PostgresError> {
    database
        .write("UPDATE things", |db| async move { db.execute(sql, &[]).await })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_start_at_once_migrate_once() {
    let Some(settings) = fresh("replicas_that_start_at_once_migrate_once", &[]).await else {
        return;
    };
    let tasks: Vec<_> = (0..12)
        .map(|_| tokio::spawn(Database::open(settings.clone(), MIGRATIONS)))
        .collect();
    let mut last = None;
    for task in tasks {
        last = Some(task.await.unwrap().unwrap());
    }
    let database = last.unwrap();
    assert_eq!(count(&database, "schema_migrations").await, 2);
    assert_eq!(count(&database, "counts").await, 2);
}

#[tokio::test]
async fn a_release_uses_a_database_only_as_far_as_it_may() {
    const BREAKING: &[Migration] = &[
        MIGRATIONS[0],
        MIGRATIONS[1],
        Migration {
            version: 3,
            name: "break",
            sql: "DROP TABLE words",
            usable_from: 3,
        },
    ];
    const FOREIGN: &[Migration] = &[Migration {
        sql: "CREATE TABLE other (a int)",
        ..MIGRATIONS[0]
    }];
    const WRONG: &[Migration] = &[
        MIGRATIONS[0],
        MIGRATIONS[1],
        Migration {
            version: 3,
            name: "wrong",
            sql: "DROP TABLE words; CREATE TABEL t (a)",
            usable_from: 3,
        },
    ];
    let Some(settings) = fresh("a_release_uses_a_database_only_as_far_as_it_may", &[]).await else {
        return;
    };
    let open = |migrations| Database::open(settings.clone(), migrations);
    drop(open(&MIGRATIONS[..1]).await.unwrap());
    let error = open(FOREIGN).await.unwrap_err();
    assert!(matches!(error, PostgresError::Foreign { version: 1 }), "{error}");
    drop(open(MIGRATIONS).await.unwrap());
    open(&MIGRATIONS[..1]).await.unwrap().ping().await.unwrap();
    let error = open(WRONG).await.unwrap_err();
    assert!(matches!(error, PostgresError::Migrate { version: 3, .. }), "{error}");
    assert_eq!(
        count(&open(MIGRATIONS).await.unwrap(), "words").await,
        0,
        "the failed step is undone"
    );
    drop(open(BREAKING).await.unwrap());
    let error = open(MIGRATIONS).await.unwrap_err();
    assert!(matches!(error, PostgresError::TooNew { needs: 3, knows: 2 }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_and_abandoned_work_leaves_no_trace_and_a_usable_pool() {
    let test = "failed_and_abandoned_work_leaves_no_trace_and_a_usable_pool";
    let Some(settings) = fresh(test, &[("DATABASE_CONNECTIONS", "1")]).await else {
        return;
    };
    let database = Database::open(settings, MIGRATIONS).await.unwrap();
    let fails = |db: Session| async move {
        db.execute("INSERT INTO words VALUES ('failed')", &[]).await?;
        db.execute("INSERT INTO words VALUES ('failed')", &[]).await
    };
    let error = database.write("INSERT words", fails).await.unwrap_err();
    assert!(matches!(error, PostgresError::Statement(_)) && !error.is_transient());
    let text = crate::database::causes(&error)
        .map(ToString::to_string)
        .collect::<String>();
    assert!(
        text.contains("words_pkey") && !text.contains("(failed)"),
        "no values of rows: {text}"
    );

    // Dropped in the middle of a statement that would last.
    let sleeps = |db: Session| async move {
        db.execute("INSERT INTO words VALUES ('abandoned')", &[]).await?;
        db.execute("SELECT pg_sleep(60)", &[]).await
    };
    let abandoned = tokio::time::timeout(Duration::from_millis(200), database.write("INSERT words", sleeps)).await;
    assert!(abandoned.is_err());
    // The one connection is not blocked by it.
    execute(&database, "INSERT INTO words VALUES ('kept')").await.unwrap();
    assert_eq!(count(&database, "words").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_ever() {
    let Some(settings) = fresh("nothing_waits_for_ever", &[("DATABASE_CONNECTIONS", "1")]).await else {
        return;
    };
    let database = Database::open(settings, MIGRATIONS).await.unwrap();
    let late = resilience::Deadline::after(Duration::ZERO);
    let error = late
        .scope(execute(&database, "INSERT INTO words VALUES ('late')"))
        .await;
    assert!(matches!(error, Err(PostgresError::Expired)), "{error:?}");

    let slow = |db: Session| async move {
        db.batch("SET LOCAL statement_timeout = '100ms'").await?;
        db.execute("SELECT pg_sleep(60)", &[]).await
    };
    let error = database.write("SELECT things", slow).await.unwrap_err();
    assert!(
        matches!(error, PostgresError::Slow(_)) && error.is_transient(),
        "{error}"
    );

    // All connections are in use for longer than the caller has.
    let holds = |db: Session| async move { db.execute("SELECT pg_sleep(60)", &[]).await };
    let held = database.write("SELECT things", holds);
    let second = async {
        tokio::task::yield_now().await;
        let soon = resilience::Deadline::after(Duration::from_millis(300));
        soon.scope(execute(&database, "INSERT INTO words VALUES ('second')"))
            .await
    };
    tokio::select! {
        _ = held => panic!("it sleeps"),
        error = second => {
            let error = error.unwrap_err();
            assert!(matches!(error, PostgresError::Overloaded | PostgresError::Slow(_)), "{error}");
            let status = tonic::Status::from(DatabaseError::from(error));
            assert!(matches!(status.code(), tonic::Code::ResourceExhausted | tonic::Code::Unavailable), "{status}");
        }
    }
    assert_eq!(count(&database, "words").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_victim_of_a_deadlock_is_begun_anew() {
    let Some(settings) = fresh("the_victim_of_a_deadlock_is_begun_anew", &[]).await else {
        return;
    };
    let database = Database::open(settings, MIGRATIONS).await.unwrap();
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let begun = Arc::new(AtomicUsize::new(0));
    let cross = |first: &'static str, second: &'static str| {
        let (database, both, begun) = (database.clone(), Arc::clone(&both), Arc::clone(&begun));
        tokio::spawn(async move {
            let add = |db: Session| {
                let (both, begun) = (Arc::clone(&both), Arc::clone(&begun));
                async move {
                    db.batch("SET LOCAL deadlock_timeout = '50ms'").await?;
                    db.execute("UPDATE counts SET n = n + 1 WHERE name = $1", &[&first])
                        .await?;
                    // Only the first two wait for each other.
                    if begun.fetch_add(1, Ordering::SeqCst) < 2 {
                        both.wait().await;
                    }
                    db.execute("UPDATE counts SET n = n + 1 WHERE name = $1", &[&second])
                        .await
                }
            };
            database.write("UPDATE counts", add).await
        })
    };
    let (one, two) = (cross("a", "b"), cross("b", "a"));
    one.await.unwrap().unwrap();
    two.await.unwrap().unwrap();
    // One of them twice; and who is begun anew may meet the other once more.
    let begun = begun.load(Ordering::SeqCst);
    assert!(begun >= 3, "nobody was begun twice: {begun}");
    let sum = |db: Session| async move { db.first("SELECT sum(n)::bigint FROM counts", &[]).await };
    let row = database.read("SELECT counts", sum).await.unwrap().unwrap();
    assert_eq!(row.get::<_, i64>(0), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_grows_old_and_a_dead_one_is_replaced_unseen() {
    let test = "a_connection_grows_old_and_a_dead_one_is_replaced_unseen";
    let variables = [("DATABASE_CONNECTIONS", "3"), ("DATABASE_CONNECTION_AGE", "1s")];
    let Some(settings) = fresh(test, &variables).await else {
        return;
    };
    let database = Database::open(settings, MIGRATIONS).await.unwrap();
    let pid = async || {
        let ask = |db: Session| async move { db.first("SELECT pg_backend_pid()", &[]).await };
        let row = database.read("SELECT things", ask).await.unwrap().unwrap();
        row.get::<_, i32>(0)
    };
    let first = pid().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while pid().await == first {
        assert!(Instant::now() < deadline, "it never grew old");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // As a drill does: every session of this database is ended at once, and the next call knows nothing of it.
    let server = Postgres::shared(test).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&server.url("postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    let ended = client
        .query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'test' AND pid = $1",
            &[&pid().await],
        )
        .await
        .unwrap();
    assert_eq!(ended.len(), 1);
    execute(&database, "INSERT INTO words VALUES ('kept')").await.unwrap();
}
