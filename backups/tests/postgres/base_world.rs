//! A cluster whose log is archived, a repository, and folders that the server's user gets into.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backups::repo::{InitOptions, KdfParams};
use backups::source::BaseSource;
use backups::source::postgres::BaseOptions;
use backups::source::postgres::base::{BaseError, CorruptPages, KeepLog, LogOf, LogSpan, Owner};
use backups::store::MemoryStore;
use backups::{BackupOptions, BackupReport, Error, Parent, Repository, Silent, SnapshotFilter, Store, snapshots};
use peers::servers::postgres::Cluster;
use peers::servers::{Postgres, Release};
use replication::{Address, Checkpoint, Segment};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_mins(2);

/// A repository that takes no time to open.
pub async fn repository() -> Repository {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    repository_in(&store).await
}

pub async fn repository_in(store: &Arc<dyn Store>) -> Repository {
    let cheap = InitOptions {
        kdf: KdfParams { log_n: 10, r: 1, p: 1 },
    };
    Repository::init(Arc::clone(store), "correct horse", &cheap)
        .await
        .unwrap()
}

pub async fn save(repository: &Repository, source: &BaseSource) -> Result<BackupReport, Error> {
    let options = BackupOptions {
        now: backups::now(),
        host: "test".to_owned(),
        username: "tester".to_owned(),
        tags: Vec::new(),
        parent: Parent::Latest,
    };
    backups::backup(repository, source, &options, &Silent, &CancellationToken::new()).await
}

pub async fn snapshots_in(repository: &Repository) -> usize {
    let all = SnapshotFilter::default();
    snapshots::list(repository, &all).await.unwrap().snapshots.len()
}

/// A folder that every user gets into.
pub fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// A cluster with page checksums that archives its log into a folder.
pub struct Archived {
    pub cluster: Cluster,
    pub folder: tempfile::TempDir,
}

impl Archived {
    pub async fn start(release: Release, test: &str) -> Option<Self> {
        let folder = open_folder();
        let archive = folder.path().join("log");
        fs::create_dir(&archive).unwrap();
        fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).unwrap();
        let (log, whole) = (archive.display(), "%f");
        let command = format!("cp %p {log}/.{whole} && mv {log}/.{whole} {log}/{whole}");
        let recipe = Postgres::of(release)
            .made_with("--data-checksums")
            // What a test does is all that happens.
            .setting("autovacuum", "off")
            .setting("archive_mode", "on")
            .setting("archive_command", &command);
        let cluster = Cluster::start(recipe, test).await?;
        Some(Self { cluster, folder })
    }

    /// Where the log goes.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Who the server runs as.
    pub fn owner(&self) -> Owner {
        let metadata = fs::metadata(self.cluster.data()).unwrap();
        let (uid, gid) = (metadata.uid(), metadata.gid());
        Owner::User { uid, gid }
    }

    /// A folder of the server's user.
    pub fn folder_of_its_own(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).unwrap();
        let Owner::User { uid, gid } = self.owner() else {
            unreachable!("a user")
        };
        chown(&folder, Some(uid), Some(gid)).unwrap();
        folder
    }

    pub fn options(&self) -> BaseOptions {
        options_of(&self.cluster.url())
    }

    pub fn source(&self) -> BaseSource {
        BaseSource::new(self.options(), Arc::new(InFolder(self.log())))
    }

    /// Ends the segment that is written, and waits until it is archived.
    pub async fn archive_all(&self) {
        let at = self.cluster.run("select pg_walfile_name(pg_switch_wal())").await;
        arrives(&self.log().join(at)).await.expect("the log is archived");
    }
}

pub fn options_of(url: &str) -> BaseOptions {
    BaseOptions {
        address: Address::parse(url).unwrap(),
        name: "pg-main".to_owned(),
        checkpoint: Checkpoint::Fast,
        corrupt_pages: CorruptPages::Refuse,
    }
}

/// Log that the server's own command puts into a folder.
pub struct InFolder(pub PathBuf);

#[async_trait]
impl KeepLog for InFolder {
    async fn begin(&self, _: &LogOf) -> Result<(), Error> {
        Ok(())
    }

    async fn held(&self, span: &LogSpan) -> Result<(), Error> {
        let mut segment = Segment::containing(span.timeline, span.start, span.segment_size);
        while segment.start(span.segment_size) < span.end {
            let file = segment.file_name(span.segment_size);
            arrives(&self.0.join(&file)).await.map_err(|()| no_log(&file))?;
            segment = segment.next();
        }
        Ok(())
    }
}

/// Log that nobody keeps.
pub struct Nowhere;

#[async_trait]
impl KeepLog for Nowhere {
    async fn begin(&self, _: &LogOf) -> Result<(), Error> {
        Ok(())
    }

    async fn held(&self, span: &LogSpan) -> Result<(), Error> {
        Err(no_log(
            &Segment::containing(span.timeline, span.end, span.segment_size).file_name(span.segment_size),
        ))
    }
}

fn no_log(file: &str) -> Error {
    BaseError::NoLog(format!("{file} is missing")).into()
}

async fn arrives(file: &Path) -> Result<(), ()> {
    let deadline = Instant::now() + PATIENCE;
    while !file.exists() {
        if Instant::now() > deadline {
            return Err(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Waits until a server is done with recovery.
pub async fn recovered(cluster: &Cluster) {
    let deadline = Instant::now() + PATIENCE;
    while cluster.run("select pg_is_in_recovery()").await != "f" {
        assert!(
            Instant::now() < deadline,
            "still in recovery: {}",
            cluster.server().log_tail()
        );
        sleep(Duration::from_millis(50)).await;
    }
}
