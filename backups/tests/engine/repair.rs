//! Repair: what can be saved is saved, what is lost is listed, nothing is worse than before, and restic is content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::copy::{self, Selection};
use backups::repair::{self, Plan, RepairOptions, Report, Scope};
use backups::repo::Repository;
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, StoreKey, list_all};
use backups::{Damage, Error, Id, Object, RestoreOptions, Silent, SnapshotFilter, Store, snapshots};
use tokio_util::sync::CancellationToken;

use crate::world::*;

const OTHER: &str = "battery staple";

/// A repository with two snapshots, and a copy of it with another key and another password.
struct Lab {
    folder: tempfile::TempDir,
    memory: Arc<MemoryStore>,
    store: Arc<dyn Store>,
    second: Repository,
    saved: Vec<Id>,
    /// What each snapshot holds.
    pictures: Vec<std::collections::BTreeMap<PathBuf, String>>,
}

async fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    for number in 0..5 {
        std::fs::write(source.join(format!("deep/small{number}")), format!("small {number}")).unwrap();
    }
    std::fs::write(source.join("deep/er/one"), noise(1, 900_000)).unwrap();
    std::fs::write(source.join("text"), "the same line again\n".repeat(20_000)).unwrap();
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let repository = init(&store).await;
    let (mut saved, mut pictures) = (Vec::new(), Vec::new());
    for number in 0..2 {
        std::fs::write(source.join(format!("new{number}")), noise(20 + number, 400_000)).unwrap();
        let (options, cancel) = (options(number.cast_signed()), CancellationToken::new());
        let report = backups::backup(&repository, &files(&source), &options, &Silent, &cancel)
            .await
            .unwrap();
        saved.push(report.snapshot);
        pictures.push(picture(&source));
    }
    let other: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let second = Repository::init(other, OTHER, &CHEAP).await.unwrap();
    let copied = copy::copy(
        &repository,
        &second,
        &Selection::default(),
        &Silent,
        &CancellationToken::new(),
    )
    .await;
    assert_eq!(copied.unwrap().copied.len(), 2);
    Lab {
        folder,
        memory,
        store,
        second,
        saved,
        pictures,
    }
}

impl Lab {
    async fn open(&self) -> Repository {
        Repository::open(Arc::clone(&self.store), PASSWORD).await.unwrap()
    }

    async fn keys(&self, prefix: &str) -> Vec<StoreKey> {
        let mut entries = list_all(&*self.store, prefix).await.unwrap();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.size));
        entries.into_iter().map(|entry| entry.key).collect()
    }

    async fn flip(&self, key: &StoreKey, at: usize) {
        let mut body = self.store.get(key).await.unwrap().to_vec();
        body[at] ^= 1;
        self.memory.overwrite(key.clone(), body);
    }

    async fn plan(&self, scope: Scope, second: bool, forget: bool) -> Plan {
        plan(&self.open().await, second.then_some(&self.second), scope, forget)
            .await
            .unwrap()
    }

    async fn repair(&self, scope: Scope, second: bool, forget: bool) -> Report {
        let plan = self.plan(scope, second, forget).await;
        let second = second.then_some(&self.second);
        repair::apply(&self.open().await, second, plan, &Silent, &CancellationToken::new())
            .await
            .unwrap()
    }

    /// Restic's and rustic's word on the repository as it is now, and ours.
    async fn is_clean(&self, test: &str) {
        let found = check(&self.open().await).await;
        assert!(found.is_sound(), "{:?}", found.findings);
        let repo = self.folder.path().join("judged");
        let _ = std::fs::remove_dir_all(&repo);
        let to = LocalStore::new(&repo);
        for entry in list_all(&*self.store, "").await.unwrap() {
            to.put(&entry.key, self.store.get(&entry.key).await.unwrap())
                .await
                .unwrap();
        }
        if let Some(restic) = Restic::find(test) {
            restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
        }
        tokio::task::spawn_blocking(move || crate::rustic::is_content(&repo))
            .await
            .unwrap();
    }

    /// What of a snapshot comes back: damaged paths, and everything else as it was.
    async fn damage_of(&self, snapshot: &Id, number: usize) -> Vec<PathBuf> {
        let target = tempfile::tempdir().unwrap();
        let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
        let repository = self.open().await;
        let restored = backups::restore(&repository, snapshot, target.path(), &options, &Silent, &cancel).await;
        let restored = restored.unwrap();
        let found = picture(&target.path().join("source"));
        for (path, said) in &found {
            assert_eq!(Some(said), self.pictures[number].get(path), "{path:?}");
        }
        let lost: Vec<PathBuf> = restored.damaged.into_iter().map(|damaged| damaged.path).collect();
        if lost.is_empty() {
            assert_eq!(
                found.len(),
                self.pictures[number].len(),
                "nothing is missing in silence"
            );
        }
        lost
    }

    async fn everything_is_back(&self) {
        let list = snapshots::list(&self.open().await, &SnapshotFilter::default())
            .await
            .unwrap();
        assert_eq!((list.snapshots.len(), list.damaged.len()), (2, 0));
        for (number, record) in list.snapshots.iter().enumerate() {
            assert_eq!(self.damage_of(&record.id, number).await, Vec::<PathBuf>::new());
        }
    }
}

async fn plan(repository: &Repository, second: Option<&Repository>, scope: Scope, forget: bool) -> Result<Plan, Error> {
    let options = RepairOptions { scope, forget };
    repair::plan(repository, second, &options, &Silent, &CancellationToken::new()).await
}

fn id(key: &StoreKey) -> Id {
    key.file_name().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_repository_needs_nothing() {
    let lab = lab().await;
    let before = list_all(&*lab.store, "").await.unwrap();
    for scope in [Scope::All, Scope::Index, Scope::Packs(Vec::new()), Scope::Snapshots] {
        let plan = lab.plan(scope, true, true).await;
        assert!(plan.is_empty() && !plan.leaves_damage(), "{plan:?}");
    }
    assert_eq!(
        list_all(&*lab.store, "").await.unwrap(),
        before,
        "planning changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_damaged_or_gone_is_rebuilt_from_the_packs() {
    for damage in ["flipped", "gone", "all gone", "empty", "all flipped"] {
        let lab = lab().await;
        let indexes = lab.keys("index/").await;
        for (number, key) in indexes.iter().enumerate() {
            match damage {
                "flipped" | "empty" | "gone" if number > 0 => {}
                "flipped" | "all flipped" => lab.flip(key, 40).await,
                "empty" => lab.memory.overwrite(key.clone(), Vec::new()),
                _ => lab.store.delete(key).await.unwrap(),
            }
        }
        assert!(!check(&lab.open().await).await.is_sound());
        let plan = lab.plan(Scope::Index, false, false).await;
        assert_eq!(plan.bytes_read, 0, "headers are enough");
        assert!(
            !plan.found_packs.is_empty() && !plan.leaves_damage(),
            "{damage}: {plan:?}"
        );
        let report = lab.repair(Scope::Index, false, false).await;
        assert!(report.indexes_written > 0 && report.isolated.is_empty(), "{report:?}");
        assert!(lab.plan(Scope::All, false, false).await.is_empty());
        lab.is_clean("an_index_that_is_damaged_or_gone_is_rebuilt_from_the_packs")
            .await;
        lab.everything_is_back().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_comes_from_the_second_repository_byte_by_byte() {
    let test = "lost_data_comes_from_the_second_repository_byte_by_byte";
    let lab = lab().await;
    let packs = lab.keys("data/").await;
    // One damaged in several blobs, one truncated, one gone, and every directory damaged.
    lab.flip(&packs[0], 1000).await;
    let damaged = lab.store.get(&packs[0]).await.unwrap();
    let cut = lab.store.get(&packs[1]).await.unwrap();
    lab.memory.overwrite(packs[1].clone(), cut.slice(..cut.len() - 9));
    for key in &packs[2..] {
        lab.flip(key, 40).await;
    }
    lab.store.delete(&packs[2]).await.unwrap();

    let plan = lab.plan(Scope::All, true, false).await;
    assert!(
        !plan.leaves_damage() && plan.fetched > 0 && plan.rescued > 0,
        "{plan:?}"
    );
    assert_eq!(plan.missing_packs, [id(&packs[2])]);
    assert_eq!(plan.damaged_packs.len(), packs.len() - 1);
    let report = lab.repair(Scope::All, true, false).await;
    assert_eq!((report.rescued, report.fetched), (plan.rescued, plan.fetched));
    assert_eq!(
        (report.lost.clone(), report.rewritten.clone(), report.unsettled.clone()),
        (vec![], vec![], vec![])
    );
    lab.is_clean(test).await;
    lab.everything_is_back().await;
    assert!(lab.plan(Scope::All, true, true).await.is_empty());
    // The damaged bytes are kept, out of everybody's way.
    let kept = StoreKey::new(format!("damaged/{}", packs[0].file_name())).unwrap();
    assert_eq!(lab.store.get(&kept).await.unwrap(), damaged);
    assert_eq!(lab.keys("damaged/").await.len(), packs.len() - 1);
    assert!(
        report
            .isolated
            .contains(&(Object::Pack(id(&packs[0])), kept.to_string()))
    );
    // The second repository was only read.
    assert!(check(&lab.second).await.findings.is_empty());
    assert_eq!(list_all(&*lab.second.store(), "locks/").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn named_packs_alone_are_read_and_repaired() {
    let lab = lab().await;
    let packs = lab.keys("data/").await;
    for key in &packs[..2] {
        lab.flip(key, 1000).await;
    }
    let report = lab.repair(Scope::Packs(vec![id(&packs[1])]), true, false).await;
    assert_eq!(report.isolated.len(), 1, "{report:?}");
    let plan = lab.plan(Scope::Packs(Vec::new()), true, false).await;
    assert_eq!(plan.damaged_packs.len(), 1);
    assert_eq!(plan.damaged_packs[0].id, id(&packs[0]));
    assert_eq!(plan.damaged_packs[0].damage, Damage::WrongHash);
    lab.repair(Scope::Packs(Vec::new()), true, false).await;
    lab.is_clean("named_packs_alone_are_read_and_repaired").await;
    lab.everything_is_back().await;
}

/// Without a second repository the snapshots go on without what is lost, and say so.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_left_out_and_listed() {
    let test = "what_nobody_has_is_left_out_and_listed";
    for forget in [false, true] {
        let lab = lab().await;
        let packs = lab.keys("data/").await;
        lab.flip(&packs[0], 1000).await;
        let damage: Vec<PathBuf> = lab.damage_of(&lab.saved[1], 1).await;
        assert!(!damage.is_empty());
        let plan = lab.plan(Scope::All, false, forget).await;
        assert!(plan.leaves_damage() && plan.damaged_packs.len() == 1);
        let told: Vec<_> = plan
            .snapshots
            .iter()
            .map(|snapshot| (snapshot.id, snapshot.removed))
            .collect();
        let mut both = vec![(lab.saved[0], forget), (lab.saved[1], forget)];
        both.sort_unstable();
        assert_eq!(told, both);
        for snapshot in &plan.snapshots {
            let lost: Vec<_> = snapshot.lost.iter().map(|lost| lost.path.clone()).collect();
            assert_eq!(lost, damage, "{plan:?}");
        }
        let report = lab.repair(Scope::All, false, forget).await;
        assert_eq!(
            (report.rewritten.len(), report.removed.len()),
            (2, if forget { 2 } else { 0 })
        );
        assert_eq!(report.isolated.len(), 1);
        let list = snapshots::list(&lab.open().await, &SnapshotFilter::default())
            .await
            .unwrap();
        assert_eq!(list.snapshots.len(), if forget { 2 } else { 4 });
        for (number, old) in lab.saved.iter().enumerate() {
            let (_, new) = report.rewritten.iter().find(|(id, _)| id == old).unwrap();
            let snapshot = lab.open().await.snapshot(new).await.unwrap();
            assert_eq!(snapshot.original, Some(*old));
            assert_eq!(snapshot.tags, ["tag", "repaired"]);
            assert_eq!(snapshot.summary, None);
            let target = tempfile::tempdir().unwrap();
            let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
            let repository = lab.open().await;
            let restored = backups::restore(&repository, new, target.path(), &options, &Silent, &cancel).await;
            assert!(!restored.unwrap().is_partial());
            let found = picture(&target.path().join("source"));
            assert_eq!(found.len() + damage.len(), lab.pictures[number].len());
            assert!(
                found
                    .iter()
                    .all(|(path, said)| lab.pictures[number].get(path) == Some(said))
            );
        }
        if forget {
            lab.is_clean(test).await;
        } else {
            assert!(
                !check(&lab.open().await).await.is_sound(),
                "the damaged snapshots are still there"
            );
            // Once more changes nothing: they are repaired already.
            let again = lab.plan(Scope::All, false, false).await;
            assert!(again.is_empty() && again.leaves_damage(), "{again:?}");
            lab.repair(Scope::All, false, true).await;
            lab.is_clean(test).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_directory_becomes_empty_and_a_lost_root_costs_the_snapshot() {
    let lab = lab().await;
    // Directories lie in packs of their own, all of them small; each bit costs another one.
    let (mut directories, mut roots) = (0, 0);
    for key in lab.keys("data/").await {
        let body = lab.store.get(&key).await.unwrap();
        if body.len() > 16 << 10 {
            continue;
        }
        for at in (0..body.len().saturating_sub(200)).step_by(150) {
            let case = Lab {
                folder: tempfile::tempdir().unwrap(),
                memory: Arc::new(MemoryStore::new()),
                store: Arc::new(MemoryStore::new()),
                second: lab.second.clone(),
                saved: lab.saved.clone(),
                pictures: lab.pictures.clone(),
            };
            let case = Lab {
                store: Arc::<MemoryStore>::clone(&case.memory),
                ..case
            };
            for entry in list_all(&*lab.store, "").await.unwrap() {
                case.memory
                    .overwrite(entry.key.clone(), lab.store.get(&entry.key).await.unwrap());
            }
            case.flip(&key, at).await;
            let plan = case.plan(Scope::All, false, true).await;
            for snapshot in &plan.snapshots {
                if snapshot.rewritten {
                    directories += snapshot.lost.iter().filter(|lost| lost.directory).count();
                } else {
                    roots += 1;
                    assert!(snapshot.lost[0].path == Path::new("") && snapshot.removed);
                }
            }
            case.repair(Scope::All, false, true).await;
            let found = check(&case.open().await).await;
            assert!(found.is_sound(), "byte {at}: {:?}", found.findings);
        }
    }
    assert!(directories > 0 && roots > 0, "{directories} {roots}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_read_comes_from_the_second_repository() {
    let test = "a_snapshot_that_cannot_be_read_comes_from_the_second_repository";
    let lab = lab().await;
    let key = StoreKey::new(format!("snapshots/{}", lab.saved[0])).unwrap();
    lab.flip(&key, 30).await;
    // And some of its data, which no other snapshot leads to.
    for pack in lab.keys("data/").await {
        lab.flip(&pack, 50).await;
    }
    let without = lab.plan(Scope::All, false, false).await;
    assert_eq!(without.unreadable_snapshots[0].copy, None);
    assert!(without.leaves_damage());
    let plan = lab.plan(Scope::All, true, false).await;
    assert!(!plan.leaves_damage(), "{plan:?}");
    let report = lab.repair(Scope::All, true, false).await;
    assert_eq!(report.restored.len(), 1, "{report:?}");
    assert_eq!(report.restored[0].0, lab.saved[0]);
    let kept = format!("damaged/snapshot-{}", lab.saved[0]);
    assert!(
        report.isolated.contains(&(Object::Snapshot(lab.saved[0]), kept)),
        "{report:?}"
    );
    lab.is_clean(test).await;
    lab.everything_is_back().await;
    // The second repository still takes it for the same snapshot.
    let (repaired, cancel) = (lab.open().await, CancellationToken::new());
    let again = copy::copy(&repaired, &lab.second, &Selection::default(), &Silent, &cancel).await;
    assert_eq!(again.unwrap().present.len(), 2);
}

/// Restic, too, takes what was repaired for sound after each cut, and nothing that could be read before is lost by one.
#[tokio::test(flavor = "multi_thread")]
async fn a_repair_that_is_cut_anywhere_leaves_nothing_worse_and_is_taken_up_again() {
    let lab = lab().await;
    let packs = lab.keys("data/").await;
    lab.flip(&packs[0], 1000).await;
    lab.flip(packs.last().unwrap(), 40).await;
    lab.store.delete(&packs[1]).await.unwrap();
    lab.flip(&lab.keys("index/").await[0], 50).await;
    lab.flip(&StoreKey::new(format!("snapshots/{}", lab.saved[1])).unwrap(), 30)
        .await;
    let damaged: Vec<_> = {
        let mut objects = Vec::new();
        for entry in list_all(&*lab.store, "").await.unwrap() {
            objects.push((entry.key.clone(), lab.store.get(&entry.key).await.unwrap()));
        }
        objects
    };
    for fault in [Fault::Refuse, Fault::LoseAnswer, Fault::Full] {
        for allowed in 0.. {
            let memory = Arc::new(MemoryStore::new());
            for (key, body) in &damaged {
                memory.overwrite(key.clone(), body.clone());
            }
            let inner: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&inner), allowed, fault));
            let repository = Repository::open(faulty, PASSWORD).await.unwrap();
            // The lock of the plan is a write of its own.
            let outcome = match plan(&repository, Some(&lab.second), Scope::All, false).await {
                Ok(plan) => {
                    let cancel = CancellationToken::new();
                    repair::apply(&repository, Some(&lab.second), plan, &Silent, &cancel)
                        .await
                        .map(drop)
                }
                Err(error) => Err(error),
            };
            // A process that is gone holds no lock.
            for lock in list_all(&*inner, "locks/").await.unwrap() {
                inner.delete(&lock.key).await.unwrap();
            }
            // Every file of the damaged repository is there, or in `damaged/`, or an index that was written anew.
            for (key, body) in damaged.iter().filter(|(key, _)| !key.as_str().starts_with("index/")) {
                let name = key.as_str().split('/').next_back().unwrap();
                let moved = if key.as_str().starts_with("snapshots/") {
                    format!("damaged/snapshot-{name}")
                } else {
                    format!("damaged/{name}")
                };
                let kept = match inner.get(key).await {
                    Ok(there) => Ok(there),
                    Err(_) => inner.get(&StoreKey::new(moved).unwrap()).await,
                };
                assert_eq!(&kept.unwrap(), body, "{fault:?} at {allowed}: {key}");
            }
            let case = Lab {
                folder: tempfile::tempdir().unwrap(),
                memory,
                store: inner,
                second: lab.second.clone(),
                saved: lab.saved.clone(),
                pictures: lab.pictures.clone(),
            };
            let report = case.plan(Scope::All, true, false).await;
            assert!(!report.leaves_damage(), "{fault:?} at {allowed}: {report:?}");
            assert!(
                report.is_empty() || outcome.is_err(),
                "{fault:?} at {allowed}: {report:?}"
            );
            case.repair(Scope::All, true, false).await;
            let found = check(&case.open().await).await;
            assert!(found.is_sound(), "{fault:?} at {allowed}: {:?}", found.findings);
            let list = snapshots::list(&case.open().await, &SnapshotFilter::default())
                .await
                .unwrap();
            assert!(list.damaged.is_empty(), "{fault:?} at {allowed}");
            for record in &list.snapshots {
                let number = usize::from(record.snapshot.time > list.snapshots[0].snapshot.time);
                assert_eq!(case.damage_of(&record.id, number).await, Vec::<PathBuf>::new());
            }
            if outcome.is_ok() {
                assert!(allowed > 8, "a repair has that many writes");
                break;
            }
            assert!(allowed < 60, "the repair ends at some time");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_void_once_anything_changed() {
    let lab = lab().await;
    let packs = lab.keys("data/").await;
    lab.flip(&packs[0], 1000).await;
    let plan = lab.plan(Scope::All, true, false).await;
    let source = lab.folder.path().join("other");
    std::fs::create_dir(&source).unwrap();
    save(&lab.open().await, &files(&source)).await.unwrap();
    let before = list_all(&*lab.store, "").await.unwrap();
    let cancel = CancellationToken::new();
    let outcome = repair::apply(&lab.open().await, Some(&lab.second), plan, &Silent, &cancel).await;
    assert!(matches!(outcome, Err(Error::PlanOutdated { .. })), "{outcome:?}");
    assert_eq!(list_all(&*lab.store, "").await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_repairs_while_others_write() {
    let lab = lab().await;
    lab.flip(&lab.keys("data/").await[0], 1000).await;
    let repository = lab.open().await;
    let plan = lab.plan(Scope::All, true, false).await;
    let lock = backups::repo::Lock::acquire(&repository, backups::repo::LockMode::Shared, backups::now())
        .await
        .unwrap();
    let cancel = CancellationToken::new();
    let outcome = repair::apply(&repository, Some(&lab.second), plan, &Silent, &cancel).await;
    assert!(matches!(outcome, Err(Error::Locked(_))), "{outcome:?}");
    lock.release().await;
}

/// Version 1 is never written.
#[tokio::test(flavor = "multi_thread")]
async fn version_1_is_not_repaired() {
    let Some(tarballs) = peers::shared_data("restic-repositories", "version_1_is_not_repaired") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    unpack(&tarballs.join("repo-data-missing.tar.gz"), folder.path());
    let repo = std::fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(repo));
    let repository = Repository::open(store, "geheim").await.unwrap();
    let outcome = plan(&repository, None, Scope::All, false).await;
    assert!(matches!(outcome, Err(Error::ReadOnlyVersion)), "{outcome:?}");
}
