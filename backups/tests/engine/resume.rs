//! A restore that was cut goes on where it stopped: what is right is hashed and kept, the rest is fetched, and the end is
//! the same.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backups::store::{Entry, MemoryStore, Page, StoreKey};
use backups::{BackupReport, Error, Repository, RestoreOptions, RestoreReport, Store, StoreError};

use crate::world::*;

/// A store whose connection is cut after so many reads of packs.
struct Cut {
    inner: Arc<dyn Store>,
    left: AtomicU64,
}

#[async_trait::async_trait]
impl Store for Cut {
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn put(&self, key: &StoreKey, bytes: bytes::Bytes) -> Result<(), StoreError> {
        self.inner.put(key, bytes).await
    }
    async fn get(&self, key: &StoreKey) -> Result<bytes::Bytes, StoreError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<bytes::Bytes, StoreError> {
        // What lies in packs counts, not what is read to open the repository.
        let cut = key.as_str().starts_with("data/")
            && self
                .left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                .is_err();
        if cut {
            return Err(StoreError::Denied {
                key: key.to_string(),
                source: std::io::ErrorKind::ConnectionReset.into(),
            });
        }
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
    async fn time(&self) -> Result<jiff::Timestamp, StoreError> {
        self.inner.time().await
    }
}

struct Scene {
    folder: tempfile::TempDir,
    inner: Arc<dyn Store>,
    repository: Repository,
    saved: BackupReport,
    /// Bytes in all files, each hard link counted once.
    total: u64,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source");
        odd_tree(&source);
        std::fs::write(source.join("database"), noise(11, 60 << 20)).unwrap();
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let repository = init(&inner).await;
        let saved = save(&repository, &files(&source)).await.unwrap();
        let total = restore(&repository, &saved, &folder.path().join("measured"))
            .await
            .bytes;
        Self {
            folder,
            inner,
            repository,
            saved,
            total,
        }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    async fn cut_after(&self, reads: u64) -> Result<RestoreReport, Error> {
        let store: Arc<dyn Store> = Arc::new(Cut {
            inner: Arc::clone(&self.inner),
            left: AtomicU64::new(reads),
        });
        let repository = Repository::open(store, PASSWORD).await.unwrap();
        restore_with(&repository, &self.saved, &self.target(), &RestoreOptions::default()).await
    }

    /// Restores to the end; everything is as it was, and nothing else is left.
    async fn finish(&self) -> RestoreReport {
        let report = restore(&self.repository, &self.saved, &self.target()).await;
        assert!(!report.is_partial(), "{report:?}");
        assert_eq!(
            picture(&self.target().join("source")),
            picture(&self.folder.path().join("source"))
        );
        report
    }

    /// The hidden file that an interrupted restore left of the database.
    fn leftover(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.target().join("source")).ok()?;
        let names = entries.map(|entry| entry.unwrap().path());
        names
            .filter(|path| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .is_some_and(|name| name.starts_with(".opsctl-restore-"))
            })
            .max_by_key(|path| path.metadata().unwrap().len())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_restore_fetches_only_what_is_missing() {
    let scene = Scene::new().await;
    let mut kept_something = 0;
    // The directories are read first; then the packs.
    for reads in 0.. {
        assert!(reads < 200, "it ends at some time");
        let cut = scene.cut_after(reads).await;
        if cut.is_ok() {
            break;
        }
        if !scene.target().join("source").exists() {
            continue;
        }
        let report = scene.finish().await;
        // `measured` found the zeros of the sparse file without fetching them, and so does this.
        assert_eq!(
            report.reused_bytes + report.fetched_bytes,
            scene.total,
            "cut after {reads}: {report:?}"
        );
        kept_something += u64::from(report.reused_bytes > 20 << 20 && report.fetched_bytes > 0);
        std::fs::remove_dir_all(scene.target()).unwrap();
    }
    assert!(kept_something > 1, "several cuts came in the middle");
}

/// What a power cut or a stranger makes of a half written file is not believed.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_half_written_is_hashed_before_it_is_kept() {
    let scene = Scene::new().await;
    for (number, spoil) in [
        (|file: &std::fs::File| file.write_all_at(&[9; 5000], 1 << 20).unwrap()) as fn(&std::fs::File),
        |file| file.set_len(1000).unwrap(),
        |file| file.set_len(100 << 20).unwrap(),
        |file| file.write_all_at(&noise(5, 60 << 20), 0).unwrap(),
    ]
    .into_iter()
    .enumerate()
    {
        let mut reads = 3;
        let left = loop {
            assert!(scene.cut_after(reads).await.is_err(), "it was cut");
            match scene
                .leftover()
                .filter(|left| left.metadata().unwrap().len() > 10 << 20)
            {
                Some(left) => break left,
                None => reads += 1,
            }
        };
        spoil(&std::fs::File::options().write(true).open(left).unwrap());
        let report = scene.finish().await;
        assert_eq!(
            report.reused_bytes + report.fetched_bytes,
            scene.total,
            "{number}: {report:?}"
        );
        std::fs::remove_dir_all(scene.target()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_ours_that_lead_elsewhere_are_not_written_to() {
    let scene = Scene::new().await;
    let stranger = scene.folder.path().join("stranger");
    std::fs::write(&stranger, b"mine").unwrap();
    let mut reads = 3;
    let left = loop {
        assert!(scene.cut_after(reads).await.is_err());
        match scene.leftover() {
            Some(left) => break left,
            None => reads += 1,
        }
    };
    for link in [
        (|to: &Path, name: &Path| std::fs::hard_link(to, name)) as fn(&Path, &Path) -> std::io::Result<()>,
        |to, name| std::os::unix::fs::symlink(to, name),
    ] {
        let _ = std::fs::remove_file(&left);
        link(&stranger, &left).unwrap();
        scene.finish().await;
        assert_eq!(std::fs::read(&stranger).unwrap(), b"mine");
        std::fs::remove_dir_all(scene.target().join("source")).unwrap();
        std::fs::create_dir(scene.target().join("source")).unwrap();
    }
}

/// An older version of a file in its place: blobs that are the same are copied from it.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_file_has_in_common_is_not_fetched() {
    let scene = Scene::new().await;
    scene.finish().await;
    let database = scene.target().join("source/database");
    for spoil in [
        (|file: &std::fs::File| file.write_all_at(&[9; 5000], 30 << 20).unwrap()) as fn(&std::fs::File),
        |file| file.set_len(40 << 20).unwrap(),
        |file| file.set_len(70 << 20).unwrap(),
    ] {
        spoil(&std::fs::File::options().write(true).open(&database).unwrap());
        let report = scene.finish().await;
        assert_eq!(report.reused_bytes + report.fetched_bytes, scene.total, "{report:?}");
        assert!(report.fetched_bytes <= 30 << 20, "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_given_up_is_taken_up_again() {
    let scene = Scene::new().await;
    for reads in [2, 6] {
        let cancel = tokio_util::sync::CancellationToken::new();
        struct After(AtomicU64, tokio_util::sync::CancellationToken);
        impl backups::Progress for After {
            fn bytes(&self, _: u64) {
                if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
                    self.1.cancel();
                }
            }
        }
        let progress = After(AtomicU64::new(reads), cancel.clone());
        let options = RestoreOptions::default();
        let (id, target) = (&scene.saved.snapshot, scene.target());
        let given_up = backups::restore(&scene.repository, id, &target, &options, &progress, &cancel).await;
        assert!(matches!(given_up, Err(Error::Cancelled)), "{given_up:?}");
        let report = scene.finish().await;
        assert_eq!(report.reused_bytes + report.fetched_bytes, scene.total, "{report:?}");
        std::fs::remove_dir_all(&target).unwrap();
    }
}
