//! Locks over hours, on a clock that stands still until it is told to go on; and whose locks count.

use super::*;
use crate::error::LockHolder;
use crate::repo::{InitOptions, KdfParams};
use crate::store::{Fault, FaultyStore, MemoryStore};

const CHEAP: InitOptions = InitOptions {
    kdf: KdfParams { log_n: 4, r: 1, p: 1 },
};

async fn repository() -> (Arc<dyn Store>, Repository) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = Repository::init(Arc::clone(&store), "password", &CHEAP).await.unwrap();
    (store, repository)
}

/// The time of day, as tokio's clock counts it.
fn paused_clock() -> Clock {
    let (base, start) = (clock::now(), tokio::time::Instant::now());
    Arc::new(move || base + SignedDuration::try_from(start.elapsed()).unwrap())
}

async fn minutes(count: u64) {
    tokio::time::sleep(Duration::from_mins(count)).await;
}

/// All lock files.
async fn stored(repository: &Repository) -> Vec<LockFile> {
    let mut files = Vec::new();
    for (id, _) in repository.list(FileKind::Lock).await.unwrap() {
        files.push(repository.load_file(FileKind::Lock, &id).await.unwrap());
    }
    files
}

/// Whether somebody on another machine may take the lock for dead.
fn dead_elsewhere(file: &LockFile, now: Timestamp) -> bool {
    now.duration_since(file.time) > STALE_AFTER
}

/// Puts the lock of somebody else there.
async fn put(repository: &Repository, edit: impl FnOnce(&mut LockFile)) -> Id {
    let mut file = LockFile {
        time: clock::now(),
        exclusive: true,
        hostname: host::name(),
        username: "somebody".to_owned(),
        pid: host::pid(),
        uid: 0,
        gid: 0,
        opsctl_process: None,
    };
    edit(&mut file);
    repository.save_file(FileKind::Lock, &file).await.unwrap()
}

/// Who keeps us from a lock; `None` if nobody does.
async fn excluded_by(repository: &Repository) -> Option<LockHolder> {
    match Lock::acquire(repository, LockMode::Shared, clock::now()).await {
        Ok(lock) => {
            lock.release().await;
            None
        }
        Err(Error::Locked(holder)) => Some(holder),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_renewed_before_anybody_may_take_it_for_dead() {
    let (_, repository) = repository().await;
    let clock = paused_clock();
    let lock = Lock::acquire_by(&repository, LockMode::Exclusive, clock(), Arc::clone(&clock))
        .await
        .unwrap();
    let first = repository.list(FileKind::Lock).await.unwrap();
    for minute in 1..=180 {
        minutes(1).await;
        let files = stored(&repository).await;
        assert_eq!(files.len(), 1, "minute {minute}: old files go");
        let age = clock().duration_since(files[0].time);
        assert!(age <= SignedDuration::from_mins(6), "minute {minute}: {age} old");
        assert!(files[0].exclusive && !dead_elsewhere(&files[0], clock()));
        lock.still_held().unwrap();
    }
    assert_ne!(repository.list(FileKind::Lock).await.unwrap(), first);
    lock.release().await;
    minutes(30).await;
    assert_eq!(stored(&repository).await.len(), 0, "nothing renews what was given back");
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_cannot_be_renewed_is_given_up_before_others_take_it() {
    let (store, _) = repository().await;
    // The store takes one more object: the lock.
    let faulty = FaultyStore::new(store, 1, Fault::Refuse);
    let repository = Repository::open(Arc::new(faulty), "password").await.unwrap();
    let clock = paused_clock();
    let lock = Lock::acquire_by(&repository, LockMode::Shared, clock(), Arc::clone(&clock))
        .await
        .unwrap();
    let mut lost = None;
    for minute in 1..=40 {
        minutes(1).await;
        let dead = dead_elsewhere(&stored(&repository).await[0], clock());
        if lock.still_held().is_err() {
            lost.get_or_insert(minute);
        } else {
            assert!(!dead, "minute {minute}: others may take away what we trust");
        }
        assert_eq!(dead, minute > 30);
    }
    assert_eq!(lost, Some(26));
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_for_an_hour_trusts_its_lock_no_more() {
    let (_, repository) = repository().await;
    let slept = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let (base, hours) = (clock::now(), Arc::clone(&slept));
    // Tokio's clock stands still meanwhile, as the monotonic one does.
    let clock: Clock = Arc::new(move || base + SignedDuration::from_hours(hours.load(Ordering::Relaxed)));
    let lock = Lock::acquire_by(&repository, LockMode::Shared, base, clock)
        .await
        .unwrap();
    lock.still_held().unwrap();
    slept.store(1, Ordering::Relaxed);
    assert!(matches!(lock.still_held(), Err(Error::LockLost)));
    // Nobody took it away, so the next renewal makes it good again.
    minutes(6).await;
    lock.still_held().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_was_taken_away_is_not_written_again() {
    let (store, repository) = repository().await;
    let clock = paused_clock();
    let lock = Lock::acquire_by(&repository, LockMode::Shared, clock(), clock)
        .await
        .unwrap();
    for (id, _) in repository.list(FileKind::Lock).await.unwrap() {
        store.delete(&FileKind::Lock.key(&id)).await.unwrap();
    }
    lock.still_held().unwrap();
    minutes(6).await;
    assert!(matches!(lock.still_held(), Err(Error::LockLost)));
    assert!(matches!(lock.confirm().await, Err(Error::LockLost)));
    assert_eq!(stored(&repository).await.len(), 0);
}

#[tokio::test]
async fn a_fresh_lock_of_a_dead_process_of_this_machine_is_taken_over() {
    let (store, repository) = repository().await;
    let mut process = std::process::Command::new("true").spawn().unwrap();
    process.wait().unwrap();
    let dead = put(&repository, |file| file.pid = process.id()).await;
    assert_eq!(excluded_by(&repository).await, None);
    // Its number may belong to somebody else by now.
    let recycled = put(&repository, |file| {
        file.opsctl_process = Some("another boot/1".to_owned());
    })
    .await;
    assert_eq!(excluded_by(&repository).await, None);
    for id in [dead, recycled] {
        let gone = store.stat(&FileKind::Lock.key(&id)).await;
        assert!(gone.is_err_and(|error| error.is_not_found()), "it is deleted");
    }
}

#[tokio::test]
async fn a_lock_of_a_living_process_counts_with_and_without_the_mark_of_its_birth() {
    let (_, repository) = repository().await;
    for birth in [None, host::process_birth(host::pid())] {
        let id = put(&repository, |file| file.opsctl_process = birth).await;
        let holder = excluded_by(&repository).await.expect("the process lives");
        assert_eq!((holder.id, holder.pid), (id, host::pid()));
        repository.store().delete(&FileKind::Lock.key(&id)).await.unwrap();
    }
}

#[tokio::test]
async fn a_lock_of_another_machine_counts_until_it_is_stale_whatever_runs_here() {
    let memory = Arc::new(MemoryStore::new());
    let repository = Repository::init(Arc::<MemoryStore>::clone(&memory), "password", &CHEAP)
        .await
        .unwrap();
    // No process of this number can run here: the kernel's highest is four million.
    let elsewhere = |age| {
        move |file: &mut LockFile| {
            (file.hostname, file.pid) = ("elsewhere".to_owned(), 99_999_999);
            file.time = clock::now() - SignedDuration::from_mins(age);
        }
    };
    let fresh = put(&repository, elsewhere(29)).await;
    let holder = excluded_by(&repository).await.expect("it is fresh");
    assert_eq!((holder.id, holder.host.as_str()), (fresh, "elsewhere"));
    repository.store().delete(&FileKind::Lock.key(&fresh)).await.unwrap();
    put(&repository, elsewhere(31)).await;
    assert!(
        excluded_by(&repository).await.is_some(),
        "the store saw it a moment ago: that clock is late"
    );
    memory.advance(SignedDuration::from_mins(31));
    assert_eq!(excluded_by(&repository).await, None, "it is stale");
    assert_eq!(stored(&repository).await.len(), 0);
    // A clock that is an hour early keeps no dead lock alive.
    put(&repository, elsewhere(-60)).await;
    assert!(excluded_by(&repository).await.is_some());
    memory.advance(SignedDuration::from_mins(31));
    assert_eq!(excluded_by(&repository).await, None);
}
