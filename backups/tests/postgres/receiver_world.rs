//! What tests of the receiver share: an archive over a store that can be held up, receivers that run beside the test,
//! and the server's own log to hold the archive against.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backups::pitr::Datastore;
use backups::pitr::postgres::archive::{Archive, File};
use backups::pitr::postgres::contents::Held;
use backups::pitr::postgres::reach::{Base, Branch, Way, way};
use backups::pitr::postgres::receiver::{Ended, Flusher, Receiver, ReceiverError, ReceiverOptions, Status};
use backups::repo::{InitOptions, KdfParams};
use backups::store::{Entry, MemoryStore, Page};
use backups::{Repository, Store, StoreError, store::StoreKey};
use bytes::Bytes;
use jiff::Timestamp;
use peers::servers::Release;
use peers::servers::postgres::{Cluster, Postgres};
use replication::{Address, History, Lsn, SystemId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Where the server left the timelines that it was on before, if it did.
fn newest_history(cluster: &Cluster) -> Option<History> {
    let names = std::fs::read_dir(cluster.data().join("pg_wal")).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    let newest = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "history"))
        .max()?;
    Some(History::parse(&std::fs::read(newest).unwrap()).unwrap())
}

/// A store that fails or holds up what is put into it, when told to.
pub struct Gate {
    pub inner: MemoryStore,
    pub fails: AtomicBool,
    pub holds: watch::Sender<bool>,
    pub putting: AtomicUsize,
    pub most: AtomicUsize,
}

#[async_trait]
impl Store for Gate {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn put(&self, key: &StoreKey, body: Bytes) -> Result<(), StoreError> {
        if key.as_str().starts_with("wal/") {
            if self.fails.load(Ordering::SeqCst) {
                let location = self.location();
                let source = std::io::Error::other("held up by the test");
                return Err(StoreError::Unavailable { location, source });
            }
            let now = self.putting.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            let mut holds = self.holds.subscribe();
            let _ = holds.wait_for(|holds| !holds).await;
            self.putting.fetch_sub(1, Ordering::SeqCst);
        }
        self.inner.put(key, body).await
    }

    async fn get(&self, key: &StoreKey) -> Result<Bytes, StoreError> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, offset, length).await
    }

    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.inner.time().await
    }
}

pub struct World {
    pub gate: Arc<Gate>,
    pub archive: Archive,
}

impl World {
    pub async fn new() -> Self {
        let gate = Arc::new(Gate {
            inner: MemoryStore::new(),
            fails: AtomicBool::new(false),
            holds: watch::Sender::new(false),
            putting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let cheap = InitOptions {
            kdf: KdfParams { log_n: 4, r: 1, p: 1 },
        };
        let repository = Repository::init(Arc::clone(&gate) as _, "right", &cheap).await.unwrap();
        let archive = Archive::new(&repository, Datastore::new("local.pg-main").unwrap());
        Self { gate, archive }
    }

    pub fn options(&self, address: &str) -> ReceiverOptions {
        let address = Address::parse(address).unwrap();
        ReceiverOptions {
            rpo: Duration::from_secs(1),
            slot_patience: Duration::from_millis(500),
            ..ReceiverOptions::new(address, self.archive.datastore())
        }
    }

    /// What is held of the cluster.
    pub async fn held(&self, system: SystemId) -> Held {
        let contents = self.archive.list().await.unwrap();
        contents.systems.get(&system).cloned().unwrap_or_default()
    }

    /// Every file that is held is what the server has in its own folder, as far as it still has it and came that far
    /// before it went over to another timeline; returns how many whole segments were compared.
    pub async fn is_the_log_of(&self, cluster: &Cluster, system: SystemId) -> usize {
        let held = self.held(system).await;
        let size = held.segment_size;
        let history = newest_history(cluster);
        let mut compared = 0;
        for (segment, until) in held.files() {
            let theirs = cluster.data().join("pg_wal").join(segment.file_name(size));
            let Ok(theirs) = std::fs::read(&theirs) else { continue };
            let file = match until {
                None => File::Segment(segment),
                Some(until) => File::Partial { segment, until },
            };
            let ours = self.archive.get(system, &file, size).await.unwrap();
            let left = history.as_ref().and_then(|history| history.left(segment.timeline));
            let known = left.map_or(u64::MAX, |left| left.0.saturating_sub(segment.start(size).0));
            let known = usize::try_from(known).unwrap().min(ours.len());
            assert!(
                theirs.starts_with(&ours[..known]),
                "{} is not what the server has",
                file.name(size)
            );
            compared += usize::from(until.is_none());
        }
        compared
    }

    /// The way from the first segment that is held to the newest timeline.
    pub async fn way(&self, system: SystemId) -> Way {
        let held = self.held(system).await;
        let first = held
            .segments
            .iter()
            .chain(held.partials.keys())
            .min_by_key(|segment| segment.number);
        let first = first.expect("something is held");
        let start = first.start(held.segment_size);
        let base = Base {
            start,
            timeline: first.timeline,
            end: start,
            end_timeline: first.timeline,
        };
        way(&held, &base, Branch::Newest).unwrap()
    }

    pub fn start(&self, options: ReceiverOptions) -> Running {
        let receiver = Receiver::new(self.archive.clone(), options);
        let (status, flusher, cancel) = (receiver.status(), receiver.flusher(), CancellationToken::new());
        let token = cancel.clone();
        let task = tokio::spawn(async move { receiver.run(&token).await });
        Running {
            task,
            status,
            flusher,
            cancel,
        }
    }
}

/// A receiver that runs. Dropping it is its kill.
pub struct Running {
    task: JoinHandle<Result<Ended, ReceiverError>>,
    pub status: watch::Receiver<Status>,
    flusher: Flusher,
    cancel: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub async fn until(&mut self, what: &str, there: impl FnMut(&Status) -> bool) -> Status {
        let seen = tokio::time::timeout(PATIENCE, self.status.wait_for(there)).await;
        match seen.map(|seen| seen.map(|status| status.clone()).ok()) {
            Ok(Some(status)) => status,
            Ok(None) => panic!("it ended before: {what}; {:?}", self.status.borrow()),
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("not within a minute: {what}; {:?}", self.status.borrow())
            }
        }
    }

    /// Waits until everything is durable that the server has now.
    pub async fn flush(&self) -> Lsn {
        let flushed = tokio::time::timeout(PATIENCE, self.flusher.flush()).await;
        let standing = flushed.unwrap_or_else(|_| panic!("not flushed: {:?}", self.status.borrow()));
        standing
            .unwrap_or_else(|| panic!("not flushed: {:?}", self.status.borrow()))
            .lsn
    }

    pub async fn ended(mut self) -> Result<Ended, ReceiverError> {
        let ended = tokio::time::timeout(PATIENCE, &mut self.task).await;
        ended
            .unwrap_or_else(|_| panic!("it goes on: {:?}", self.status.borrow()))
            .unwrap()
    }

    pub async fn stop(self) -> Ended {
        self.cancel.cancel();
        self.ended().await.unwrap()
    }
}

/// Small segments, so that many come by; the server keeps them for the test to look at.
pub fn recipe(release: Release) -> Postgres {
    Postgres::of(release)
        .made_with("--wal-segsize=1")
        .setting("wal_keep_size", "512MB")
        .setting("max_wal_size", "1GB")
}

pub async fn system(cluster: &Cluster) -> SystemId {
    SystemId(cluster.system_identifier().await)
}

pub async fn position(cluster: &Cluster) -> Lsn {
    cluster.position().await.parse().unwrap()
}

/// Some segments of log.
pub async fn write_much(cluster: &Cluster) {
    cluster.run("create table if not exists much (t text)").await;
    cluster
        .run("insert into much select repeat(md5(random()::text), 30) from generate_series(1, 5000)")
        .await;
}
