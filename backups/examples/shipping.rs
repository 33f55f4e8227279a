//! Measures what shipping costs: a look at an idle database, a look that finds one page in a hundred changed, a look after
//! the log was lost, what is stored, and how much longer commits take meanwhile. `shipping [MEGABYTES]`, in a temporary folder.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a measurement"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use backups::pitr::sqlite::{Datastore, ShipOptions, Shipped, Shipper};
use backups::store::LocalStore;
use backups::{InitOptions, Repository};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

fn cpu() -> Duration {
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(usage.tv_sec as u64, usage.tv_nsec as u32)
}

async fn timed(what: &str, shipper: &mut Shipper) -> Shipped {
    let (wall, busy) = (Instant::now(), cpu());
    let shipped = shipper.ship_once(&CancellationToken::new()).await.unwrap();
    println!(
        "{what}: {:?} wall, {:?} CPU, {:?}",
        wall.elapsed(),
        cpu().checked_sub(busy).unwrap(),
        shipped.outcome
    );
    shipped
}

fn connect(path: &std::path::Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection
}

/// How long commits take, in the middle and at worst.
fn commits(path: &std::path::Path, rows: i64, count: usize) -> (Duration, Duration, Duration) {
    let connection = connect(path);
    let mut times: Vec<Duration> = (0..)
        .take(count)
        .map(|at| {
            let started = Instant::now();
            connection
                .execute("UPDATE t SET a = randomblob(900) WHERE id = ?1", [at * 7919 % rows])
                .unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    (times[count / 2], times[count * 99 / 100], times[count - 1])
}

#[tokio::main]
async fn main() {
    let megabytes: i64 = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1024);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.db");
    let rows = megabytes << 10;
    let database = connect(&path);
    database
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB)")
        .unwrap();
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t SELECT i, randomblob(900) FROM n; PRAGMA wal_checkpoint(TRUNCATE)"
    );
    database.execute_batch(&fill).unwrap();
    println!("{} bytes", std::fs::metadata(&path).unwrap().len());
    let store = Arc::new(LocalStore::new(folder.path().join("repo")));
    let repository = Repository::init(store, "password", &InitOptions::default())
        .await
        .unwrap();
    let options = ShipOptions {
        interval: Duration::from_millis(200),
        ..ShipOptions::new(folder.path().join("staging"))
    };
    let mut shipper = Shipper::new(repository, Datastore::new("large").unwrap(), &path, options);
    timed("snapshot and first look", &mut shipper).await;
    database
        .execute("UPDATE t SET a = randomblob(900) WHERE id = 5", [])
        .unwrap();
    timed("one row, log not known yet", &mut shipper).await;
    database
        .execute("UPDATE t SET a = randomblob(900) WHERE id = 6", [])
        .unwrap();
    timed("one row", &mut shipper).await;
    for _ in 0..3 {
        timed("idle", &mut shipper).await;
    }
    // Four rows share a page.
    database
        .execute_batch("PRAGMA wal_autocheckpoint = 0; UPDATE t SET a = randomblob(900) WHERE id % 400 = 0")
        .unwrap();
    timed("one page in a hundred", &mut shipper).await;
    database
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET a = randomblob(900) WHERE id = 7")
        .unwrap();
    timed("one row, log lost: every page", &mut shipper).await;
    drop(database);

    println!("commits alone: {:?} (median, p99, worst)", commits(&path, rows, 4000));
    let cancel = CancellationToken::new();
    let running = {
        let cancel = cancel.clone();
        tokio::spawn(async move { shipper.run(&cancel, &|_| {}).await })
    };
    let beside = path.clone();
    let times = tokio::task::spawn_blocking(move || commits(&beside, rows, 4000))
        .await
        .unwrap();
    println!("commits while shipping every 200 ms: {times:?}");
    cancel.cancel();
    running.await.unwrap();
}
