//! A SQLite database is saved while others write to it, and what comes back is one moment of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use backups::source::sqlite::{MANIFEST, Manifest};
use backups::source::{Source, SqliteSource};
use backups::store::MemoryStore;
use backups::{Error, SnapshotFilter, Store, snapshots};
use rusqlite::Connection;

use crate::world::*;

fn database(path: &Path, journal: &str, rows: i64) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
    connection.pragma_update(None, "journal_mode", journal).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    connection.execute_batch("CREATE TABLE pair (id INTEGER PRIMARY KEY, a BLOB); CREATE TABLE other (id INTEGER PRIMARY KEY REFERENCES pair);").unwrap();
    for id in 1..=rows {
        insert(&connection, id);
    }
    connection
}

/// Both tables always have the same rows.
fn insert(connection: &Connection, id: i64) {
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
        .execute("INSERT INTO pair VALUES (?1, randomblob(2000))", [id])
        .unwrap();
    connection.execute("INSERT INTO other VALUES (?1)", [id]).unwrap();
    connection.execute_batch("COMMIT").unwrap();
}

async fn under_writers(journal: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.db");
    drop(database(&path, journal, 2000));
    let source = SqliteSource::new(&path, folder.path().join("staging"));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;

    let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(2000)));
    let (path_of_writer, stop_writer, last_written) = (path.clone(), Arc::clone(&stop), Arc::clone(&last));
    let writer = std::thread::spawn(move || {
        let connection = Connection::open(path_of_writer).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        connection.pragma_update(None, "synchronous", "OFF").unwrap();
        while !stop_writer.load(Ordering::Relaxed) {
            let next = last_written.load(Ordering::SeqCst) + 1;
            insert(&connection, next);
            last_written.store(next, Ordering::SeqCst);
        }
    });
    for round in 0..3 {
        let before = last.load(Ordering::SeqCst);
        let saved = save(&repository, &source).await.unwrap();
        let after = last.load(Ordering::SeqCst) + 1;
        let target = folder.path().join(format!("target{round}"));
        restore(&repository, &saved, &target).await;
        let verified = source.verify(&target).await.unwrap();
        assert!(verified.is_sound() && verified.checks.len() == 3, "{verified:?}");
        let copy = Connection::open(target.join("orders.db")).unwrap();
        let ask = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let (rows, others, highest) = (
            ask("SELECT count(*) FROM pair"),
            ask("SELECT count(*) FROM other"),
            ask("SELECT max(id) FROM pair"),
        );
        assert_eq!((rows, others), (highest, highest), "a prefix, whole in both tables");
        assert!((before..=after).contains(&highest), "{before} <= {highest} <= {after}");
        let names: Vec<_> = std::fs::read_dir(folder.path().join("staging")).unwrap().collect();
        assert!(names.is_empty(), "no temporary copy stays: {names:?}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(check(&repository).await.findings.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_wal_mode_is_saved_under_writers() {
    under_writers("WAL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_with_a_rollback_journal_is_saved_under_writers() {
    under_writers("DELETE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_a_database_is_the_file_and_its_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("orders.db");
    let connection = database(&path, "WAL", 10);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let source = SqliteSource::new(&path, folder.path().join("staging"));
    let saved = save(&repository, &source).await.unwrap();
    let record = snapshots::find(&repository, "latest", &SnapshotFilter::default())
        .await
        .unwrap();
    let listed = snapshots::ls(&repository, &record.snapshot, Path::new(""), true)
        .await
        .unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|entry| (entry.path.to_str().unwrap(), entry.node.permissions()))
        .collect();
    assert_eq!(names, [(MANIFEST, 0o600), ("orders.db", 0o600)]);
    let mut json = Vec::new();
    snapshots::dump(&repository, &record.snapshot, Path::new(MANIFEST), &mut json)
        .await
        .unwrap();
    let manifest: Manifest = serde_json::from_slice(&json).unwrap();
    assert_eq!(
        (manifest.schema.as_str(), manifest.kind.as_str(), manifest.length_bytes),
        ("opsctl.source/v1", "sqlite", listed[1].node.size)
    );

    // What does not verify says why.
    let target = folder.path().join("target");
    restore(&repository, &saved, &target).await;
    let mut bytes = std::fs::read(target.join("orders.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 600].fill(0xff);
    std::fs::write(target.join("orders.db"), bytes).unwrap();
    let verified = source.verify(&target).await.unwrap();
    assert!(!verified.is_sound(), "{verified:?}");
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_sound_database_makes_no_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let (absent, text, broken) = (
        folder.path().join("absent.db"),
        folder.path().join("text.db"),
        folder.path().join("broken.db"),
    );
    std::fs::write(
        &text,
        "certainly no database, however long one looks at it ".repeat(100),
    )
    .unwrap();
    drop(database(&broken, "DELETE", 500));
    let mut bytes = std::fs::read(&broken).unwrap();
    for page in 20..40 {
        bytes[page * 4096..page * 4096 + 64].fill(0xee);
    }
    std::fs::write(&broken, bytes).unwrap();
    for path in [&absent, &text, &broken] {
        let outcome = save(&repository, &SqliteSource::new(path, folder.path().join("staging"))).await;
        assert!(matches!(outcome, Err(Error::Source(_))), "{path:?}: {outcome:?}");
    }
    assert!(!absent.exists(), "a database that is missing is not made");
    assert!(
        snapshots::list(&repository, &SnapshotFilter::default())
            .await
            .unwrap()
            .snapshots
            .is_empty()
    );
    assert!(std::fs::read_dir(folder.path().join("staging")).is_ok_and(|mut left| left.next().is_none()));
}
