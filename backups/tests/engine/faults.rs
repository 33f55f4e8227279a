//! A store that fails at any one write leaves a sound repository, and no snapshot without its data.

use std::path::Path;
use std::sync::Arc;

use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, StoreKey, list_all};
use backups::{Repository, SnapshotFilter, Store, StoreError, snapshots};

use crate::world::*;

async fn copy(from: &dyn Store, to: &Path) {
    let to = LocalStore::new(to);
    // Locks stay behind: a store that fails keeps ours, and restic's way to ask whether we live is to send us SIGHUP.
    for entry in list_all(from, "")
        .await
        .unwrap()
        .into_iter()
        .filter(|entry| !entry.key.as_str().starts_with("locks/"))
    {
        to.put(&entry.key, from.get(&entry.key).await.unwrap()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_at_any_write_leaves_a_sound_repository() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    std::fs::write(source.join("larger"), noise(3, 40 << 20)).unwrap();
    let judge = Restic::find("a_store_that_fails_at_any_write_leaves_a_sound_repository");
    for fault in [Fault::Refuse, Fault::Full, Fault::LoseAnswer] {
        for allowed in 0.. {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
            init(&inner).await;
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&inner), allowed, fault));
            let repository = Repository::open(faulty, PASSWORD).await.unwrap();
            let outcome = save(&repository, &files(&source)).await;
            if fault == Fault::Full && outcome.is_err() {
                assert!(outcome.as_ref().is_err_and(backups::Error::is_disk_full), "{outcome:?}");
            }
            let repository = Repository::open(Arc::clone(&inner), PASSWORD).await.unwrap();
            let report = check(&repository).await;
            assert!(
                report.is_sound(),
                "{fault:?} from write {allowed} on: {:?}",
                report.findings
            );
            let saved = snapshots::list(&repository, &SnapshotFilter::default()).await.unwrap();
            assert!(saved.snapshots.len() <= 1);
            if let Some(restic) = judge.as_ref().filter(|_| allowed % 2 == 0) {
                let repo = folder.path().join(format!("repo-{fault:?}-{allowed}"));
                copy(&*inner, &repo).await;
                restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
            }
            // The next backup goes on from there.
            let again = save(&repository, &files(&source)).await.unwrap();
            let target = folder.path().join(format!("target-{fault:?}-{allowed}"));
            restore(&repository, &again, &target).await;
            assert_eq!(picture(&target.join("source")), picture(&source));
            if outcome.is_ok() {
                assert!(allowed > 5, "a backup has that many writes");
                break;
            }
            assert!(allowed < 100, "the backup ends at some time");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_at_once_are_both_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().join("repo")));
    let repository = init(&store).await;
    let sources = ["one", "two"].map(|name| folder.path().join(name));
    for source in &sources {
        odd_tree(source);
    }
    let (first, second) = (files(&sources[0]), files(&sources[1]));
    let (one, two) = tokio::join!(save(&repository, &first), save(&repository, &second));
    for (saved, source, name) in [(one.unwrap(), &sources[0], "one"), (two.unwrap(), &sources[1], "two")] {
        let target = folder.path().join(format!("target-{name}"));
        assert!(!restore(&repository, &saved, &target).await.is_partial());
        assert_eq!(picture(&target.join(name)), picture(source));
    }
    assert!(check(&repository).await.is_sound());
    assert_eq!(list_all(&*store, "locks/").await.unwrap(), []);
    if let Some(restic) = Restic::find("two_backups_at_once_are_both_whole") {
        restic.ok(&folder.path().join("repo"), PASSWORD, &["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lets_us_only_read_can_be_restored_from() {
    struct ReadOnly(Arc<dyn Store>);
    fn denied(key: &StoreKey) -> StoreError {
        StoreError::Denied {
            key: key.to_string(),
            source: std::io::ErrorKind::ReadOnlyFilesystem.into(),
        }
    }
    #[async_trait::async_trait]
    impl Store for ReadOnly {
        fn location(&self) -> String {
            self.0.location()
        }
        async fn put(&self, key: &StoreKey, _: bytes::Bytes) -> Result<(), StoreError> {
            Err(denied(key))
        }
        async fn get(&self, key: &StoreKey) -> Result<bytes::Bytes, StoreError> {
            self.0.get(key).await
        }
        async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<bytes::Bytes, StoreError> {
            self.0.get_range(key, offset, length).await
        }
        async fn stat(&self, key: &StoreKey) -> Result<backups::store::Entry, StoreError> {
            self.0.stat(key).await
        }
        async fn list(
            &self,
            prefix: &str,
            after: Option<&StoreKey>,
            limit: usize,
        ) -> Result<backups::store::Page, StoreError> {
            self.0.list(prefix, after, limit).await
        }
        async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
            Err(denied(key))
        }
        async fn time(&self) -> Result<jiff::Timestamp, StoreError> {
            self.0.time().await
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let saved = save(&init(&inner).await, &files(&source)).await.unwrap();
    let repository = Repository::open(Arc::new(ReadOnly(inner)), PASSWORD).await.unwrap();
    let target = folder.path().join("target");
    assert!(!restore(&repository, &saved, &target).await.is_partial());
    assert_eq!(picture(&target.join("source")), picture(&source));
    assert!(check(&repository).await.is_sound());
    assert!(matches!(
        save(&repository, &files(&source)).await,
        Err(backups::Error::Store(StoreError::Denied { .. }))
    ));
}
