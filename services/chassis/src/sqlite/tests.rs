//! What a service relies on: one transaction for many, savepoints for each, two instances on one file, migrations.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "words",
        sql: "CREATE TABLE words (word TEXT PRIMARY KEY) STRICT",
        usable_from: 1,
    },
    Migration {
        version: 2,
        name: "counts",
        sql: "CREATE TABLE counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT;
              INSERT INTO counts VALUES ('all', 0)",
        usable_from: 1,
    },
];

async fn add(database: &Database, word: &'static str) -> Result<(), SqliteError> {
    database
        .write("INSERT things", move |connection| {
            connection.execute("UPDATE counts SET n = n + 1", [])?;
            connection.execute("INSERT INTO words VALUES (?1)", [word])?;
            Ok(())
        })
        .await
}

async fn count(database: &Database) -> (i64, i64) {
    database
        .read("SELECT things", |connection| {
            let words = connection.query_row("SELECT count(*) FROM words", [], |row| row.get(0))?;
            let n = connection.query_row("SELECT n FROM counts", [], |row| row.get(0))?;
            Ok::<_, SqliteError>((words, n))
        })
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_work_leaves_no_trace_and_spares_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("a.db"), MIGRATIONS).await.unwrap();
    // The thread is held up, so that all three share the next transaction.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let blocker = tokio::spawn({
        let database = database.clone();
        async move {
            database
                .write("INSERT things", move |_| held.recv().map_err(|_| SqliteError::Gone))
                .await
        }
    });
    tokio::task::yield_now().await;
    let (one, panicking, two, again) = tokio::join!(
        add(&database, "one"),
        async {
            let result: Result<(), SqliteError> = database
                .write("INSERT things", |connection| {
                    connection.execute("UPDATE counts SET n = 1000", [])?;
                    panic!("on purpose")
                })
                .await;
            result
        },
        add(&database, "two"),
        async {
            release.send(()).unwrap();
            add(&database, "one").await
        },
    );
    blocker.await.unwrap().unwrap();
    one.unwrap();
    two.unwrap();
    assert!(matches!(panicking, Err(SqliteError::Gone)), "{panicking:?}");
    assert!(matches!(again, Err(SqliteError::Statement(_))), "{again:?}");
    assert_eq!(count(&database).await, (2, 2));
}

#[tokio::test]
async fn work_whose_caller_has_gone_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("a.db"), MIGRATIONS).await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begun, wait) = std::sync::mpsc::channel::<()>();
    let blocker = tokio::spawn({
        let database = database.clone();
        async move {
            database
                .write("INSERT things", move |_| {
                    begun.send(()).unwrap();
                    held.recv().map_err(|_| SqliteError::Gone)
                })
                .await
        }
    });
    tokio::task::spawn_blocking(move || wait.recv()).await.unwrap().unwrap();
    let mut abandoned = Box::pin(add(&database, "abandoned"));
    assert!(
        futures_poll_once(abandoned.as_mut()).await,
        "it waits behind the blocker"
    );
    drop(abandoned);
    release.send(()).unwrap();
    blocker.await.unwrap().unwrap();
    add(&database, "kept").await.unwrap();
    assert_eq!(count(&database).await, (1, 1));
}

#[tokio::test]
async fn work_whose_deadline_is_over_is_not_begun() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("a.db"), MIGRATIONS).await.unwrap();
    let late = resilience::Deadline::after(Duration::ZERO)
        .scope(add(&database, "late"))
        .await;
    assert!(matches!(late, Err(SqliteError::Expired)), "{late:?}");
    resilience::Deadline::after(Duration::from_mins(1))
        .scope(add(&database, "early"))
        .await
        .unwrap();
    assert_eq!(count(&database).await, (1, 1));
}

/// Polls once; true when it is still pending.
async fn futures_poll_once<F: Future + Unpin>(mut future: F) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending()))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_open_and_write_one_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/a.db");
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            tokio::spawn(async move {
                let database = Database::open(path, MIGRATIONS).await.unwrap();
                for _ in 0..50 {
                    database
                        .write("INSERT things", |connection| {
                            connection.execute("UPDATE counts SET n = n + 1", [])?;
                            Ok::<_, SqliteError>(())
                        })
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let database = Database::open(&path, MIGRATIONS).await.unwrap();
    assert_eq!(count(&database).await, (0, 200));
    for (name, mode) in [("", 0o700), ("a.db", 0o600), ("a.db-wal", 0o600), ("a.db-shm", 0o600)] {
        let file = path.parent().unwrap().join(name);
        let found = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("a.db"), MIGRATIONS).await.unwrap();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let refused = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..3000)
        .map(|_| {
            let (database, held, refused) = (database.clone(), Arc::clone(&held), Arc::clone(&refused));
            tokio::spawn(async move {
                let result = database
                    .write("INSERT things", move |connection| {
                        // Ends when the sender is dropped, for everybody.
                        let _ = held.lock().unwrap().recv();
                        connection.execute("UPDATE counts SET n = n + 1", [])?;
                        Ok::<_, SqliteError>(())
                    })
                    .await;
                match result {
                    Ok(()) => true,
                    Err(error) => {
                        assert!(
                            matches!(error, SqliteError::Overloaded) && error.is_transient(),
                            "{error}"
                        );
                        refused.fetch_add(1, Ordering::SeqCst);
                        false
                    }
                }
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(20);
    while refused.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the queue never filled");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(release);
    let mut done = 0;
    for task in tasks {
        done += i64::from(task.await.unwrap());
    }
    assert_eq!(count(&database).await, (0, done));
    assert_eq!(done as usize + refused.load(Ordering::SeqCst), 3000);
}

#[tokio::test]
async fn an_older_release_uses_a_file_only_as_far_as_it_may() {
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
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(Database::open(&path, &MIGRATIONS[..1]).await.unwrap());
    drop(Database::open(&path, MIGRATIONS).await.unwrap());
    let older = Database::open(&path, &MIGRATIONS[..1]).await.unwrap();
    older.ping().await.unwrap();
    drop(Database::open(&path, BREAKING).await.unwrap());
    let error = Database::open(&path, MIGRATIONS).await.unwrap_err();
    assert!(matches!(error, SqliteError::TooNew { needs: 3, knows: 2 }), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_and_a_step_that_fails_are_told_apart() {
    const WRONG: &[Migration] = &[Migration {
        version: 1,
        name: "wrong",
        sql: "CREATE TABEL t (a)",
        usable_from: 1,
    }];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.db");
    std::fs::write(&path, "this is no database, and longer than a header: ".repeat(100)).unwrap();
    let error = Database::open(&path, MIGRATIONS).await.unwrap_err();
    assert!(matches!(error, SqliteError::Open { .. }), "{error:?}");
    let path = folder.path().join("wrong.db");
    let error = Database::open(&path, WRONG).await.unwrap_err();
    assert!(matches!(error, SqliteError::Migrate { version: 1, .. }), "{error:?}");
    drop(
        Database::open(&path, MIGRATIONS)
            .await
            .expect("the failed step left nothing"),
    );
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("a.db"), MIGRATIONS).await.unwrap();
    let result: Result<(), SqliteError> = database
        .read("SELECT things", |connection| {
            connection.execute("UPDATE counts SET n = 7", [])?;
            Ok(())
        })
        .await;
    assert!(result.is_err());
    assert_eq!(count(&database).await, (0, 0));
}
