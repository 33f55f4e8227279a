//! Who may work beside whom, and whose lock does not count any more.

use std::sync::Arc;

use backups::repo::{Lock, LockMode};
use backups::store::{LocalStore, MemoryStore, StoreKey, list_all};
use backups::{Error, Id, Store};

use crate::world::*;

/// How many locks there are; restic writes a lock under a passing name first.
async fn locks(store: &dyn Store) -> usize {
    let listed = list_all(store, "locks/").await.unwrap();
    listed
        .iter()
        .filter(|entry| entry.key.file_name().parse::<Id>().is_ok())
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_locks_go_together_and_an_exclusive_one_alone() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let now = backups::now();
    let one = Lock::acquire(&repository, LockMode::Shared, now).await.unwrap();
    let two = Lock::acquire(&repository, LockMode::Shared, now).await.unwrap();
    let refused = Lock::acquire(&repository, LockMode::Exclusive, now).await.err();
    let Some(Error::Locked(holder)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((holder.pid, holder.exclusive), (std::process::id(), false));
    assert_eq!(locks(&*store).await, 2, "the one that was refused left nothing");
    one.release().await;
    drop(two);
    assert_eq!(locks(&*store).await, 0, "released or dropped, a lock is gone");
    let alone = Lock::acquire(&repository, LockMode::Exclusive, now).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert!(
        matches!(save(&repository, &files(folder.path())).await.err(), Some(Error::Locked(holder)) if holder.exclusive)
    );
    alone.release().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_a_dead_process_is_taken_away_and_restics_living_one_respected() {
    let Some(restic) = Restic::find("a_lock_of_a_dead_process_is_taken_away_and_restics_living_one_respected") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (repo, source) = (folder.path().join("repo"), folder.path().join("source"));
    std::fs::create_dir(&source).unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    // Restic keeps its lock while it waits for its standard input.
    let mut holder = restic
        .command(&repo, PASSWORD)
        .args(["backup", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    while locks(&*store).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "restic locks");
        tokio::task::yield_now().await;
    }
    let refused = Lock::acquire(&repository, LockMode::Exclusive, backups::now())
        .await
        .err();
    assert!(
        matches!(&refused, Some(Error::Locked(by)) if by.pid == holder.id()),
        "{refused:?}"
    );
    // A shared lock of the living process does not keep a backup away.
    save(&repository, &files(&source)).await.unwrap();
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(locks(&*store).await, 1, "restic was killed and left its lock");
    let lock = Lock::acquire(&repository, LockMode::Exclusive, backups::now())
        .await
        .unwrap();
    let listed = String::from_utf8(restic.run(&repo, PASSWORD, &["check"]).stderr).unwrap();
    assert!(
        listed.contains("locked exclusively"),
        "restic respects our lock: {listed}"
    );
    lock.release().await;
    restic.ok(&repo, PASSWORD, &["check"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_lock_of_elsewhere_is_taken_away() {
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let repository = init(&store).await;
    let now = backups::now();
    let held = Lock::acquire(
        &repository,
        LockMode::Exclusive,
        now - jiff::SignedDuration::from_mins(31),
    )
    .await
    .unwrap();
    let refused = Lock::acquire(&repository, LockMode::Exclusive, now).await.err();
    assert!(
        matches!(refused, Some(Error::Locked(_))),
        "written a moment ago, by a clock that is late"
    );
    memory.advance(jiff::SignedDuration::from_mins(31));
    let taken = Lock::acquire(&repository, LockMode::Exclusive, now).await.unwrap();
    assert_eq!(locks(&*store).await, 1);
    drop((held, taken));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_lock_is_named() {
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let repository = init(&store).await;
    memory.overwrite(StoreKey::new(format!("locks/{}", "ab".repeat(32))).unwrap(), "damaged");
    let refused = Lock::acquire(&repository, LockMode::Shared, backups::now()).await.err();
    assert!(
        matches!(
            refused,
            Some(Error::Damaged {
                object: backups::Object::Lock(_),
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_dropped_or_cancelled_leaves_no_lock_and_a_sound_repository() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("large"), noise(1, 40 << 20)).unwrap();
    for polls in [0, 1, 3, 10, 40, 100] {
        let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
        init(&inner).await;
        let repository = backups::Repository::open(Arc::clone(&inner), PASSWORD).await.unwrap();
        let cancel = tokio_util::sync::CancellationToken::new();
        let source = files(folder.path());
        let options = options(0);
        let mut saving = Box::pin(backups::backup(
            &repository,
            &source,
            &options,
            &backups::Silent,
            &cancel,
        ));
        let mut done = false;
        for _ in 0..polls {
            done = done || futures::poll!(&mut saving).is_ready();
            tokio::task::yield_now().await;
        }
        assert!(!done, "40 MiB take longer than {polls} polls");
        if polls % 2 == 0 {
            drop(saving);
        } else {
            cancel.cancel();
            assert!(matches!(saving.await, Err(Error::Cancelled)));
        }
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        while locks(&*inner).await > 0 {
            assert!(tokio::time::Instant::now() < deadline, "the lock goes");
            tokio::task::yield_now().await;
        }
        let repository = backups::Repository::open(Arc::clone(&inner), PASSWORD).await.unwrap();
        assert!(check(&repository).await.is_sound());
        save(&repository, &source).await.unwrap();
    }
}
