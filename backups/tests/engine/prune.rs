//! Prune gives back what nothing needs, in two steps, and nothing else: also when it is cut, and when the repository is
//! damaged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use backups::prune::{Amount, MaxUnused, PruneFigures, PruneOptions, PruneReport};
use backups::store::{Entry, Fault, FaultyStore, LocalStore, MemoryStore, Page, StoreKey, list_all};
use backups::{BackupReport, Damage, Error, Id, Object, Repository, Silent, Store, StoreError, prune};
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// A repository in memory, whose clock goes as the test says, and folders to save.
pub struct Yard {
    pub memory: Arc<MemoryStore>,
    pub store: Arc<dyn Store>,
    pub repository: Repository,
    pub folder: tempfile::TempDir,
}

impl Yard {
    pub async fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
        Self {
            memory,
            repository: init(&store).await,
            store,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Writes a file of the folder that is saved.
    pub fn write(&self, name: &str, content: &[u8]) {
        let root = self.source();
        std::fs::create_dir_all(&root).unwrap();
        std::fs::write(root.join(name), content).unwrap();
    }

    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub async fn save(&self) -> BackupReport {
        save(&self.repository, &files(&self.source())).await.unwrap()
    }

    pub async fn forget(&self, snapshot: &Id) {
        let key = StoreKey::new(format!("snapshots/{snapshot}")).unwrap();
        self.store.delete(&key).await.unwrap();
    }

    pub async fn options(&self) -> PruneOptions {
        PruneOptions::new(self.store.time().await.unwrap())
    }

    pub async fn prune(&self) -> PruneReport {
        run(&self.repository, &self.options().await).await.unwrap()
    }

    pub fn pass(&self, hours: i64) {
        self.memory.advance(SignedDuration::from_hours(hours));
    }

    pub async fn packs(&self) -> Amount {
        let packs = list_all(&*self.store, "data/").await.unwrap();
        Amount {
            packs: packs.len() as u64,
            bytes: packs.iter().map(|entry| entry.size).sum(),
        }
    }

    /// What is saved now comes back from a snapshot.
    pub async fn restores(&self, saved: &BackupReport) {
        // A process of another machine knows nothing of what this one has read.
        let repository = Repository::open(Arc::clone(&self.store), PASSWORD).await.unwrap();
        let target = tempfile::tempdir().unwrap();
        let report = restore(&repository, saved, target.path()).await;
        assert!(!report.is_partial(), "{report:?}");
        assert_eq!(picture(&target.path().join("source")), picture(&self.source()));
    }

    /// Copies it for programs that read folders.
    pub async fn export(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        let to = LocalStore::new(&path);
        for entry in list_all(&*self.store, "").await.unwrap() {
            to.put(&entry.key, self.store.get(&entry.key).await.unwrap())
                .await
                .unwrap();
        }
        path
    }
}

pub async fn run(repository: &Repository, options: &PruneOptions) -> Result<PruneReport, Error> {
    let cancel = CancellationToken::new();
    let plan = prune::plan(repository, options, &Silent, &cancel).await?;
    plan.apply(&Silent, &cancel).await
}

/// Nothing was written anew, marked or deleted.
fn did_nothing(report: &PruneReport) -> bool {
    let PruneFigures {
        repacked,
        marked,
        deleted,
        recovered,
        index_files,
        ..
    } = &report.figures;
    [repacked, marked, deleted, recovered]
        .iter()
        .all(|amount| amount.packs == 0)
        && *index_files == 0
        && report.new_packs.packs == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_needs_is_marked_first_and_deleted_after_the_grace() {
    let yard = Yard::new().await;
    let judge = Restic::find("what_nothing_needs_is_marked_first_and_deleted_after_the_grace");
    yard.write("file", &noise(1, 9 << 20));
    let first = yard.save().await;
    let before = yard.packs().await;
    yard.write("file", &noise(2, 9 << 20));
    let second = yard.save().await;
    yard.forget(&first.snapshot).await;

    let planned = prune::preview(
        &yard.repository,
        &yard.options().await,
        &Silent,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    let report = yard.prune().await;
    assert_eq!(report.figures, planned, "the dry run says the same");
    assert_eq!(report.figures.marked, before);
    assert_eq!(
        (report.figures.deleted, report.figures.snapshots),
        (Amount::default(), 1)
    );
    yard.restores(&second).await;
    assert!(check(&yard.repository).await.is_sound());
    if let Some(restic) = &judge {
        restic.ok(&yard.export("marked").await, PASSWORD, &["check", "--read-data"]);
    }

    yard.pass(23);
    let report = yard.prune().await;
    assert!(did_nothing(&report), "{report:?}");
    assert_eq!(report.figures.waiting, before, "the grace is not over");
    yard.pass(2);
    let report = yard.prune().await;
    assert_eq!(report.figures.deleted, before);
    assert_eq!(yard.packs().await, report.figures.kept);
    yard.restores(&second).await;
    let checked = check(&yard.repository).await;
    assert_eq!(checked.findings, [], "nothing is left over");
    assert!(did_nothing(&yard.prune().await), "there is nothing more to do");
    if let Some(restic) = &judge {
        restic.ok(&yard.export("deleted").await, PASSWORD, &["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_with_waste_are_stored_anew_within_the_limits() {
    let yard = Yard::new().await;
    // Small files are packed in their order, many together: wherever packs begin and end, each has waste.
    for number in 0..64 {
        yard.write(&format!("file{number:02}"), &noise(number, 128 << 10));
    }
    let first = yard.save().await;
    for number in (0..64).filter(|number| number % 4 != 0) {
        std::fs::remove_file(yard.source().join(format!("file{number:02}"))).unwrap();
    }
    let second = yard.save().await;
    yard.forget(&first.snapshot).await;
    let limits = |max_unused, max_repack| PruneOptions {
        max_unused,
        max_repack,
        ..PruneOptions::new(Timestamp::UNIX_EPOCH)
    };
    for (options, limit) in [
        (limits(MaxUnused::Unlimited, None), 0),
        (limits(MaxUnused::Bytes(7 << 20), None), 0),
        (limits(MaxUnused::Share(0.05), Some(1 << 20)), 1 << 20),
        (limits(MaxUnused::Share(0.05), None), 3 << 20),
    ] {
        let options = PruneOptions {
            now: yard.store.time().await.unwrap(),
            ..options
        };
        let figures = prune::preview(&yard.repository, &options, &Silent, &CancellationToken::new())
            .await
            .unwrap();
        assert!(figures.rewritten <= limit, "{options:?}: {figures:?}");
        assert_eq!(figures.repacked.packs == 0, figures.rewritten == 0, "{figures:?}");
    }
    let report = yard.prune().await;
    assert!(
        report.figures.repacked.packs > 0 && report.figures.unused < 200_000,
        "{report:?}"
    );
    assert!(report.new_packs.bytes < 3 << 20);
    yard.restores(&second).await;
    yard.pass(25);
    yard.prune().await;
    let left = yard.packs().await;
    assert!(left.bytes < 3 << 20, "{left:?}");
    yard.restores(&second).await;
    assert_eq!(check(&yard.repository).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_packs_and_index_files_are_merged() {
    let yard = Yard::new().await;
    let mut saved = Vec::new();
    for number in 0..6 {
        yard.write(&format!("file{number}"), &noise(number, 50_000));
        saved.push(yard.save().await);
    }
    assert_eq!(yard.packs().await.packs, 12);
    let no_grace = PruneOptions {
        grace: SignedDuration::ZERO,
        ..yard.options().await
    };
    let report = run(&yard.repository, &no_grace).await.unwrap();
    assert_eq!((report.figures.repacked.packs, report.new_packs.packs), (12, 2));
    assert_eq!(
        yard.packs().await,
        report.new_packs,
        "without a grace they are gone at once"
    );
    assert_eq!(list_all(&*yard.store, "index/").await.unwrap().len(), 1);
    yard.restores(&saved[5]).await;
    assert_eq!(check(&yard.repository).await.findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_backups_left_goes_once_it_is_old() {
    let yard = Yard::new().await;
    yard.write("file", &noise(1, 1 << 20));
    let saved = yard.save().await;
    yard.write("other", &noise(2, 40 << 20));
    let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&yard.store), 3, Fault::Refuse));
    let failing = Repository::open(faulty, PASSWORD).await.unwrap();
    assert!(save(&failing, &files(&yard.source())).await.is_err());
    for lock in list_all(&*yard.store, "locks/").await.unwrap() {
        yard.store.delete(&lock.key).await.unwrap();
    }
    let report = yard.prune().await;
    assert!(report.figures.unindexed.packs >= 1, "{report:?}");
    assert_eq!(report.figures.deleted.packs, 0, "a backup may be about to name them");
    yard.pass(25);
    assert_eq!(yard.prune().await.figures.deleted, report.figures.unindexed);
    assert_eq!(check(&yard.repository).await.findings, []);
    std::fs::remove_file(yard.source().join("other")).unwrap();
    let target = yard.folder.path().join("target");
    assert!(!restore(&yard.repository, &saved, &target).await.is_partial());
}

/// A backup whose machine slept comes back after others took its lock for dead, and names what was marked meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_again_can_be_read_at_once_and_is_brought_back() {
    let yard = Yard::new().await;
    yard.write("file", &noise(1, 2 << 20));
    let away = yard.save().await;
    let key = StoreKey::new(format!("snapshots/{}", away.snapshot)).unwrap();
    let file = yard.store.get(&key).await.unwrap();
    yard.forget(&away.snapshot).await;
    let marked = yard.prune().await.figures.marked;
    assert!(marked.packs >= 2);
    yard.store.put(&key, file).await.unwrap();
    yard.restores(&away).await;
    assert!(check(&yard.repository).await.is_sound());
    // Nobody relies on what is marked: the next backup stores it again.
    let again = yard.save().await;
    yard.restores(&again).await;
    yard.forget(&again.snapshot).await;
    yard.pass(25);
    let report = yard.prune().await;
    yard.restores(&away).await;
    assert_eq!(report.figures.snapshots, 1);
    yard.pass(25);
    yard.prune().await;
    yard.restores(&away).await;
    assert_eq!(check(&yard.repository).await.findings, []);

    // And where nothing else has it, it goes back into the index.
    let file = yard.store.get(&key).await.unwrap();
    yard.forget(&away.snapshot).await;
    let marked = yard.prune().await.figures.marked;
    yard.store.put(&key, file).await.unwrap();
    yard.pass(25);
    let report = yard.prune().await;
    assert_eq!(
        (report.figures.recovered, report.figures.deleted),
        (marked, Amount::default())
    );
    yard.restores(&away).await;
    if let Some(restic) = Restic::find("what_is_needed_again_can_be_read_at_once_and_is_brought_back") {
        restic.ok(&yard.export("recovered").await, PASSWORD, &["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_delete_nothing() {
    let yard = Yard::new().await;
    yard.write("file", b"content");
    yard.save().await;
    for minutes in [-60, -6, 6, 60] {
        let options = PruneOptions::new(yard.store.time().await.unwrap() + SignedDuration::from_mins(minutes));
        let refused = run(&yard.repository, &options).await;
        assert!(
            matches!(refused, Err(Error::ClockSkew { .. })),
            "{minutes}: {refused:?}"
        );
    }
    assert_eq!(list_all(&*yard.store, "locks/").await.unwrap(), []);
    // Schedules prune in tasks of their own.
    let (repository, options) = (yard.repository.clone(), yard.options().await);
    let spawned = tokio::spawn(async move { run(&repository, &options).await });
    assert_eq!(spawned.await.unwrap().unwrap().figures.snapshots, 1);
}

/// Whatever is damaged, prune takes nothing away that somebody may need.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_is_left_alone() {
    for part in ["snapshots/", "index/", "data/"] {
        let yard = Yard::new().await;
        yard.write("file", &noise(1, 300_000));
        let old = yard.save().await;
        yard.write("file", &noise(2, 300_000));
        yard.save().await;
        yard.forget(&old.snapshot).await;
        let files = list_all(&*yard.store, part).await.unwrap();
        for file in &files {
            if part == "data/" {
                yard.store.delete(&file.key).await.unwrap();
            } else {
                let mut body = yard.store.get(&file.key).await.unwrap().to_vec();
                body[20] ^= 1;
                yard.memory.overwrite(file.key.clone(), body);
            }
        }
        let before = list_all(&*yard.store, "").await.unwrap();
        let refused = run(&yard.repository, &yard.options().await).await;
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{part}: {refused:?}");
        assert_eq!(list_all(&*yard.store, "").await.unwrap(), before, "{part}");
    }
    // An index file that is gone takes what snapshots need with it.
    let yard = Yard::new().await;
    yard.write("file", b"content");
    yard.save().await;
    for file in list_all(&*yard.store, "index/").await.unwrap() {
        yard.store.delete(&file.key).await.unwrap();
    }
    yard.pass(25);
    let refused = run(&yard.repository, &yard.options().await).await;
    assert!(
        matches!(
            refused,
            Err(Error::Damaged {
                object: Object::Tree(_),
                damage: Damage::Missing
            })
        ),
        "{refused:?}"
    );
    assert!(yard.packs().await.packs > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_gets_no_new_home() {
    let yard = Yard::new().await;
    let (first, _) = shortened(&yard).await;
    yard.forget(&first.snapshot).await;
    let mut sound = Vec::new();
    for pack in list_all(&*yard.store, "data/").await.unwrap() {
        if pack.size > 100_000 {
            let whole = yard.store.get(&pack.key).await.unwrap();
            let mut body = whole.to_vec();
            body.iter_mut().skip(1000).step_by(10_000).for_each(|byte| *byte ^= 1);
            yard.memory.overwrite(pack.key.clone(), body);
            sound.push((pack.key, whole));
        }
    }
    let report = yard.prune().await;
    let damaged = |id: &Id| sound.iter().any(|(key, _)| key.file_name() == id.to_string());
    assert!(
        !report.damaged.is_empty() && report.damaged.iter().all(damaged),
        "{report:?}"
    );
    assert_eq!((report.figures.repacked.packs, report.figures.rewritten), (0, 0));
    assert_eq!(report.new_packs, Amount::default());
    // What heals it is still of use.
    for (key, whole) in sound {
        yard.memory.overwrite(key, whole);
    }
    assert!(check(&yard.repository).await.is_sound());
    assert_eq!(yard.prune().await.damaged, [] as [Id; 0]);
}

/// Lets a process die in the middle of write number `at`: its answer never comes.
struct DyingAt {
    inner: Arc<dyn Store>,
    at: usize,
    writes: AtomicUsize,
}

impl DyingAt {
    async fn write(&self) {
        if self.writes.fetch_add(1, Ordering::SeqCst) == self.at {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait::async_trait]
impl Store for DyingAt {
    fn location(&self) -> String {
        self.inner.location()
    }
    async fn put(&self, key: &StoreKey, body: bytes::Bytes) -> Result<(), StoreError> {
        self.write().await;
        self.inner.put(key, body).await
    }
    async fn get(&self, key: &StoreKey) -> Result<bytes::Bytes, StoreError> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &StoreKey, offset: u64, length: u64) -> Result<bytes::Bytes, StoreError> {
        self.inner.get_range(key, offset, length).await
    }
    async fn stat(&self, key: &StoreKey) -> Result<Entry, StoreError> {
        self.inner.stat(key).await
    }
    async fn list(&self, prefix: &str, after: Option<&StoreKey>, limit: usize) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit).await
    }
    async fn delete(&self, key: &StoreKey) -> Result<(), StoreError> {
        self.write().await;
        self.inner.delete(key).await
    }
    async fn time(&self) -> Result<Timestamp, StoreError> {
        self.inner.time().await
    }
}

/// Saves a file, and again without its end: the pack that holds it is needed in part.
pub async fn shortened(yard: &Yard) -> (BackupReport, BackupReport) {
    let content = noise(1, 15 << 19);
    yard.write("file", &content);
    let first = yard.save().await;
    yard.write("file", &content[..6 << 20]);
    (first, yard.save().await)
}

/// A repository with everything that a prune may do: repack, merge, mark, delete what was marked, delete what a killed
/// backup left.
async fn busy() -> (Yard, BackupReport) {
    let yard = Yard::new().await;
    yard.write("kept", &noise(1, 1 << 20));
    yard.write("gone", &noise(2, 3 << 20));
    let mut old = vec![yard.save().await];
    yard.write("whole", &noise(3, 2 << 20));
    old.push(yard.save().await);
    std::fs::remove_file(yard.source().join("whole")).unwrap();
    yard.forget(&old[1].snapshot).await;
    run(
        &yard.repository,
        &PruneOptions {
            max_unused: MaxUnused::Unlimited,
            ..yard.options().await
        },
    )
    .await
    .unwrap();
    yard.pass(25);
    for number in 4..8 {
        yard.write(&format!("small{number}"), &noise(number, 40_000));
        old.push(yard.save().await);
    }
    std::fs::remove_file(yard.source().join("gone")).unwrap();
    let last = yard.save().await;
    for saved in [0, 2, 3, 4, 5] {
        yard.forget(&old[saved].snapshot).await;
    }
    yard.memory.overwrite(
        StoreKey::new(format!("data/ab/{}", "ab".repeat(32))).unwrap(),
        noise(9, 1000),
    );
    (yard, last)
}

/// Everything that lies in one store, in another.
async fn twin(yard: &Yard) -> Arc<MemoryStore> {
    let twin = Arc::new(MemoryStore::new());
    for entry in list_all(&*yard.store, "").await.unwrap() {
        twin.put(&entry.key, yard.store.get(&entry.key).await.unwrap())
            .await
            .unwrap();
    }
    // Marks are old, and so is what lies about.
    twin.advance(SignedDuration::from_hours(50));
    twin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_that_is_cut_at_any_write_costs_nothing_and_the_next_one_does_the_rest() {
    let test = "a_prune_that_is_cut_at_any_write_costs_nothing_and_the_next_one_does_the_rest";
    let judge = Restic::find(test);
    let (yard, last) = busy().await;
    for fault in [Some(Fault::Refuse), Some(Fault::LoseAnswer), Some(Fault::Full), None] {
        for at in 0.. {
            let memory = twin(&yard).await;
            let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
            let options = PruneOptions::new(store.time().await.unwrap());
            let (done, kind) = if let Some(fault) = fault {
                let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&store), at, fault));
                let repository = Repository::open(faulty, PASSWORD).await.unwrap();
                (run(&repository, &options).await.is_ok(), format!("{fault:?}"))
            } else {
                let dying = Arc::new(DyingAt {
                    inner: Arc::clone(&store),
                    at,
                    writes: AtomicUsize::default(),
                });
                let repository = Repository::open(Arc::<DyingAt>::clone(&dying), PASSWORD).await.unwrap();
                let struck = async {
                    while dying.writes.load(Ordering::SeqCst) <= at {
                        tokio::task::yield_now().await;
                    }
                };
                let done = tokio::select! {
                    biased;
                    done = run(&repository, &options) => { done.unwrap(); true }
                    () = struck => false,
                };
                (done, "death".to_owned())
            };
            // Whoever is dead holds no lock.
            for lock in list_all(&*store, "locks/").await.unwrap() {
                store.delete(&lock.key).await.unwrap();
            }
            let context = format!("{kind} at write {at}");
            let cut = Yard {
                memory,
                repository: Repository::open(Arc::clone(&store), PASSWORD).await.unwrap(),
                store,
                folder: tempfile::tempdir().unwrap(),
            };
            let found = check(&cut.repository).await;
            assert!(found.is_sound(), "{context}: {:?}", found.findings);
            let target = cut.folder.path().join("target");
            assert!(
                !restore(&cut.repository, &last, &target).await.is_partial(),
                "{context}"
            );
            assert_eq!(picture(&target.join("source")), picture(&yard.source()), "{context}");
            if let Some(restic) = judge.as_ref().filter(|_| at % 5 == 0) {
                restic.ok(&cut.export("cut").await, PASSWORD, &["check", "--read-data"]);
            }
            cut.prune().await;
            cut.pass(25);
            cut.prune().await;
            let found = check(&cut.repository).await;
            assert_eq!(found.findings, [], "{context}: everything is done");
            assert!(cut.packs().await.bytes < 2 << 20, "{context}: {:?}", cut.packs().await);
            if done && at > 0 {
                assert!(at > 8, "a prune has that many writes, this one {at}");
                break;
            }
            assert!(at < 100, "it ends at some time");
        }
    }
}

/// Restic and rustic prune what we marked, and we what they left.
#[tokio::test(flavor = "multi_thread")]
async fn restic_prunes_ours_and_we_prune_restics() {
    let Some(restic) = Restic::find("restic_prunes_ours_and_we_prune_restics") else {
        return;
    };
    let (yard, last) = busy().await;
    let report = yard.prune().await;
    assert!(report.figures.marked.packs > 0, "{report:?}");
    let ours = yard.export("ours").await;
    restic.ok(&ours, PASSWORD, &["prune", "--max-unused", "0"]);
    restic.ok(&ours, PASSWORD, &["check", "--read-data"]);
    let repository = Repository::open(Arc::new(LocalStore::new(&ours)), PASSWORD)
        .await
        .unwrap();
    assert!(check(&repository).await.is_sound());
    let pruned = run(&repository, &PruneOptions::new(backups::now())).await.unwrap();
    assert_eq!(pruned.figures.waiting.packs, 0, "what we had marked is gone");
    let target = yard.folder.path().join("target");
    assert!(!restore(&repository, &last, &target).await.is_partial());

    let theirs = yard.folder.path().join("theirs");
    restic.ok(&theirs, PASSWORD, &["init", "--repository-version", "2"]);
    let source = yard.source();
    let name = source.to_str().unwrap();
    for number in 20..24 {
        yard.write("changing", &noise(number, 3 << 20));
        restic.ok(&theirs, PASSWORD, &["backup", "--host", "there", name]);
    }
    restic.ok(&theirs, PASSWORD, &["forget", "--keep-last", "1"]);
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&theirs));
    let repository = Repository::open(store, PASSWORD).await.unwrap();
    let no_grace = PruneOptions {
        grace: SignedDuration::ZERO,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::new(backups::now())
    };
    for options in [PruneOptions::new(backups::now()), no_grace] {
        run(&repository, &options).await.unwrap();
        restic.ok(&theirs, PASSWORD, &["check", "--read-data"]);
        let target = tempfile::tempdir().unwrap();
        restic.ok(
            &theirs,
            PASSWORD,
            &["restore", "latest", "--target", target.path().to_str().unwrap()],
        );
        let restored = target.path().join(Path::new(name).strip_prefix("/").unwrap());
        assert_eq!(std::fs::read(restored.join("changing")).unwrap(), noise(23, 3 << 20));
    }
    let left: u64 = list_all(&LocalStore::new(&theirs), "data/")
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.size)
        .sum();
    assert!(left < 6 << 20, "{left} bytes are left");
}
