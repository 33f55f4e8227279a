//! A shop with a database: accounts whose sum never changes, and sales that are numbered in the order of their commits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use backups::pitr::sqlite::{self, Applied, Datastore, Plan, RestoreTo, ShipOptions, Shipper};
use backups::source::{Source, SqliteSource};
use backups::store::{MemoryStore, list_all};
use backups::{Error, Repository, Silent, Store};
use jiff::Timestamp;
use rand::{Rng, SeedableRng};
use rusqlite::Connection;
use tokio_util::sync::CancellationToken;

use crate::world::init;

const ACCOUNTS: i64 = 50;
const CENTS: i64 = 1000;

pub fn datastore() -> Datastore {
    Datastore::new("local.shop").unwrap()
}

/// One sale, when its transaction began and when its commit was acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    id: i64,
    began: Timestamp,
    acknowledged: Timestamp,
}

pub struct Shop {
    pub folder: tempfile::TempDir,
    pub path: PathBuf,
    pub memory: Arc<MemoryStore>,
    pub repository: Repository,
}

pub fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_mins(1)).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF").unwrap();
    connection
}

impl Shop {
    pub async fn new(journal: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = Arc::clone(&memory) as _;
        let shop = Self {
            path: folder.path().join("shop.db"),
            folder,
            repository: init(&store).await,
            memory,
        };
        shop.make(journal);
        shop
    }

    pub fn make(&self, journal: &str) {
        let connection = connect(&self.path);
        connection.pragma_update(None, "journal_mode", journal).unwrap();
        connection
            .execute_batch(&format!(
                "CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ACCOUNTS})
                 INSERT INTO account SELECT i, {CENTS} FROM n;
                 CREATE TABLE sale (id INTEGER PRIMARY KEY, account INTEGER REFERENCES account, item BLOB);"
            ))
            .unwrap();
    }

    pub fn options(&self) -> ShipOptions {
        ShipOptions::new(self.folder.path().join("staging"))
    }

    pub fn shipper(&self, options: ShipOptions) -> Shipper {
        Shipper::new(self.repository.clone(), datastore(), &self.path, options)
    }

    pub fn connection(&self) -> Connection {
        connect(&self.path)
    }

    pub fn sell(&self, sales: usize) {
        let connection = self.connection();
        for _ in 0..sales {
            connection
                .execute("INSERT INTO sale (account, item) VALUES (1, randomblob(100))", [])
                .unwrap();
        }
    }

    /// Sales that fill a page each, nearly.
    pub fn fill(&self, sales: u32) {
        let sql = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {sales}) INSERT INTO sale (account, item) SELECT 1, randomblob(3000) FROM n"
        );
        self.connection().execute_batch(&sql).unwrap();
    }

    pub fn rows(&self) -> BTreeMap<String, String> {
        rows(&self.connection())
    }

    pub async fn objects(&self) -> usize {
        list_all(&*self.memory, "ship/").await.unwrap().len()
    }

    pub async fn apply(&self, plan: &Plan, target: &Path) -> Result<Applied, Error> {
        plan.apply(
            &self.repository,
            &self.path,
            target,
            false,
            &Silent,
            &CancellationToken::new(),
        )
        .await
    }

    /// Restores into a folder of its own and proves it.
    pub async fn restored(&self, plan: &Plan) -> Restored {
        let target = tempfile::tempdir_in(self.folder.path()).unwrap();
        let applied = self.apply(plan, target.path()).await.unwrap();
        assert_eq!(applied.sets, plan.sets());
        let source = SqliteSource::new(&self.path, self.folder.path().join("staging"));
        let verified = source.verify(target.path()).await.unwrap();
        assert!(verified.is_sound(), "{verified:?}");
        let left: Vec<_> = std::fs::read_dir(target.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        Restored { target }
    }

    /// Nobody writes now.
    pub async fn last_is_the_database(&self, shipper: &mut Shipper) {
        let last = shipper.ship_last(&CancellationToken::new()).await.unwrap();
        let to = RestoreTo {
            time: last.latest,
            allow_older: false,
        };
        let plan = sqlite::plan(&self.repository, &datastore(), &to).await.unwrap();
        assert_eq!(self.restored(&plan).await.rows(), self.rows());
    }

    pub fn writers(&self, count: usize) -> Threads<Vec<Commit>> {
        Threads::start(count, |at, stop| {
            let path = self.path.clone();
            std::thread::spawn(move || write(&path, at as u64, &stop))
        })
    }

    /// Whatever else happens to a database: checkpoints, VACUUM, new tables, deletions.
    pub fn others(&self, seed: u64) -> Threads<()> {
        Threads::start(1, |_, stop| {
            let path = self.path.clone();
            std::thread::spawn(move || disturb(&path, seed, &stop))
        })
    }
}

fn write(path: &Path, seed: u64, stop: &AtomicBool) -> Vec<Commit> {
    let connection = connect(path);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let mut commits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (from, to, cents) = (
            random.random_range(1..=ACCOUNTS),
            random.random_range(1..=ACCOUNTS),
            random.random_range(0..50),
        );
        // Now and then one that spills the cache.
        let size = if random.random_ratio(1, 60) {
            400_000
        } else {
            random.random_range(10..3000)
        };
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let began = backups::now();
        connection
            .execute("UPDATE account SET cents = cents - ?1 WHERE id = ?2", [cents, from])
            .unwrap();
        connection
            .execute(
                "INSERT INTO sale (account, item) VALUES (?1, randomblob(?2))",
                [from, size],
            )
            .unwrap();
        let id = connection.last_insert_rowid();
        connection
            .execute("UPDATE account SET cents = cents + ?1 WHERE id = ?2", [cents, to])
            .unwrap();
        if random.random_ratio(1, 20) {
            connection.execute_batch("ROLLBACK").unwrap();
            continue;
        }
        connection.execute_batch("COMMIT").unwrap();
        let acknowledged = backups::now();
        commits.push(Commit {
            id,
            began,
            acknowledged,
        });
        // Every page is hashed at each look: a database without bounds is no better test.
        pass(random.random_range(0..8));
    }
    commits
}

fn disturb(path: &Path, seed: u64, stop: &AtomicBool) {
    let connection = connect(path);
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    while !stop.load(Ordering::Relaxed) {
        let act = match random.random_range(0..12) {
            0 => "VACUUM",
            1 => "PRAGMA wal_checkpoint(TRUNCATE)",
            2 | 3 => "PRAGMA wal_checkpoint(RESTART)",
            4 => "PRAGMA wal_checkpoint(PASSIVE)",
            5 => "CREATE TABLE IF NOT EXISTS more (a); INSERT INTO more SELECT randomblob(2000) FROM account",
            6 => "DROP TABLE IF EXISTS more",
            7 => "CREATE INDEX IF NOT EXISTS by_account ON sale (account)",
            8 => "DROP INDEX IF EXISTS by_account",
            9 => "UPDATE sale SET item = NULL WHERE length(item) > 100000",
            10 => "PRAGMA journal_size_limit = 100000",
            _ => "ANALYZE",
        };
        // A checkpoint or VACUUM that finds others at work says so.
        let _ = connection.execute_batch(act);
        pass(random.random_range(1..60));
    }
}

fn pass(milliseconds: u64) {
    // A channel that nobody sends on is a timer.
    let (_keep, timer) = std::sync::mpsc::channel::<()>();
    let _ = timer.recv_timeout(Duration::from_millis(milliseconds));
}

/// Threads that go on until they are stopped.
pub struct Threads<T> {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<T>>,
}

impl<T> Threads<T> {
    fn start(count: usize, thread: impl Fn(usize, Arc<AtomicBool>) -> JoinHandle<T>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..count).map(|at| thread(at, Arc::clone(&stop))).collect();
        Self { stop, threads }
    }

    fn join(self) -> Vec<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }
}

impl Threads<()> {
    pub fn stop(self) {
        self.join();
    }
}

impl Threads<Vec<Commit>> {
    /// All commits, in their order.
    pub fn stop(self) -> Vec<Commit> {
        let mut commits: Vec<_> = self.join().into_iter().flatten().collect();
        commits.sort_by_key(|commit| commit.id);
        commits
    }
}

/// A database that came back.
pub struct Restored {
    target: tempfile::TempDir,
}

impl Restored {
    fn connection(&self) -> Connection {
        Connection::open(self.target.path().join("shop.db")).unwrap()
    }

    pub fn rows(&self) -> BTreeMap<String, String> {
        rows(&self.connection())
    }

    /// One moment: every commit that was acknowledged before `reached`, none that began after `moment`, no half of one.
    pub fn holds(&self, commits: &[Commit], reached: Timestamp, moment: Timestamp) {
        let connection = self.connection();
        let ask = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(ask("SELECT sum(cents) FROM account"), ACCOUNTS * CENTS);
        let (count, highest) = (
            ask("SELECT count(*) FROM sale"),
            ask("SELECT coalesce(max(id), 0) FROM sale"),
        );
        assert_eq!(count, highest, "a prefix of the sales");
        let known = commits
            .iter()
            .filter(|commit| commit.acknowledged < reached)
            .map(|commit| commit.id)
            .max();
        assert!(
            known.unwrap_or(0) <= highest,
            "sale {known:?} was acknowledged before {reached}, and {highest} is the last"
        );
        let within = commits.iter().filter(|commit| commit.id <= highest);
        for commit in within {
            assert!(commit.began <= moment, "{commit:?} began after {moment}");
        }
    }
}

/// Everything that the database says, table by table.
fn rows(connection: &Connection) -> BTreeMap<String, String> {
    let names: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_stat%' ORDER BY name")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let mut all = BTreeMap::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = statement.column_count();
        let mut hash = String::new();
        let mut found = statement.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            for column in 0..columns {
                hash = format!("{hash}{:?}", row.get_ref(column).unwrap());
            }
            hash = backups::Id::of(hash.as_bytes()).to_string();
        }
        all.insert(name, hash);
    }
    all
}
