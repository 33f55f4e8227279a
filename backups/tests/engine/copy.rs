//! Copies between repositories: whole, sent once, agreed upon with restic, taken up again wherever they were cut.

use std::path::Path;
use std::sync::Arc;

use backups::copy::{self, Report, Selection};
use backups::repo::Repository;
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, StoreKey, list_all};
use backups::{BackupReport, Error, Id, RestoreOptions, Silent, SnapshotFilter, Store, snapshots};
use tokio_util::sync::CancellationToken;

use crate::world::*;

const OTHER: &str = "battery staple";

fn local(path: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::new(path))
}

async fn run(from: &Repository, to: &Repository, selection: &Selection) -> Result<Report, Error> {
    copy::copy(from, to, selection, &Silent, &CancellationToken::new()).await
}

async fn restored_is(repository: &Repository, snapshot: &Id, source: &Path) {
    let target = tempfile::tempdir().unwrap();
    let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
    let report = backups::restore(repository, snapshot, target.path(), &options, &Silent, &cancel).await;
    assert!(!report.unwrap().is_partial());
    let name = source.file_name().unwrap();
    assert_eq!(picture(&target.path().join(name)), picture(source));
}

/// Three backups of a tree that grows.
async fn three(repository: &Repository, source: &Path) -> Vec<BackupReport> {
    odd_tree(source);
    let mut saved = Vec::new();
    for number in 0..3 {
        std::fs::write(source.join(format!("new{number}")), noise(50 + number, 300_000)).unwrap();
        let (options, cancel) = (options(number.cast_signed()), CancellationToken::new());
        saved.push(
            backups::backup(repository, &files(source), &options, &Silent, &cancel)
                .await
                .unwrap(),
        );
    }
    saved
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_whole_and_sent_once_and_restic_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    let source = folder.path().join("source");
    let from = init(&local(&ours)).await;
    let saved = three(&from, &source).await;
    let to = Repository::init_like(local(&theirs), OTHER, &CHEAP, &from)
        .await
        .unwrap();
    assert!(from.chunks_like(&to) && from.id() != to.id());

    let latest = Selection {
        latest: true,
        ..Selection::default()
    };
    let first = run(&from, &to, &latest).await.unwrap();
    assert_eq!(first.copied.len(), 1);
    assert_eq!(first.copied[0].0, saved[2].snapshot);
    restored_is(&to, &first.copied[0].1, &source).await;

    let all = run(&from, &to, &Selection::default()).await.unwrap();
    assert_eq!((all.copied.len(), all.present.clone()), (2, first.copied.clone()));
    assert!(all.blobs < 20, "what was there is not sent again: {all:?}");
    let again = run(&from, &to, &Selection::default()).await.unwrap();
    assert_eq!((again.copied.len(), again.present.len(), again.blobs), (0, 3, 0));
    assert!(check(&to).await.findings.is_empty());

    // A backup into the copy recognizes what was copied.
    let next = save(&to, &files(&source)).await.unwrap();
    assert_eq!(next.summary.data_blobs, 0, "{:?}", next.summary);

    // And back: what came from here is not taken for something new.
    let back = run(&to, &from, &Selection::default()).await.unwrap();
    assert_eq!((back.copied.len(), back.present.len()), (1, 3), "{back:?}");

    let Some(restic) = Restic::find("copies_are_whole_and_sent_once_and_restic_agrees") else {
        return;
    };
    restic.ok(&theirs, OTHER, &["check", "--read-data"]);
    let (password, repo) = (folder.path().join("password"), theirs.to_str().unwrap());
    std::fs::write(&password, OTHER).unwrap();
    let back = ["--repo2", repo, "--password-file2", password.to_str().unwrap()];
    // Restic's copy, with the second repository as destination: it finds that everything is there.
    let said = restic.ok(&ours, PASSWORD, &[&["copy"], &back[..]].concat());
    assert!(!said.contains("saved"), "{said}");
    // What restic copies, we find.
    let third = folder.path().join("third");
    restic.ok(&third, OTHER, &["init"]);
    let into = [
        "copy",
        "--repo2",
        third.to_str().unwrap(),
        "--password-file2",
        password.to_str().unwrap(),
    ];
    let said = restic.ok(&ours, PASSWORD, &into);
    assert!(said.contains("saved"), "{said}");
    let third = Repository::open(local(&third), OTHER).await.unwrap();
    let found = run(&from, &third, &Selection::default()).await.unwrap();
    assert_eq!((found.copied.len(), found.present.len()), (0, 4), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_chosen_by_name_tag_host_and_age() {
    let folder = tempfile::tempdir().unwrap();
    let from = init(&local(&folder.path().join("from"))).await;
    let saved = three(&from, &folder.path().join("source")).await;
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let mut elsewhere = options(9);
    (elsewhere.host, elsewhere.tags) = ("elsewhere".to_owned(), vec!["datastore:a".to_owned()]);
    let cancel = CancellationToken::new();
    let fourth = backups::backup(&from, &files(&other), &elsewhere, &Silent, &cancel)
        .await
        .unwrap();
    let wanted = async |selection: Selection| {
        let to = init(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>)).await;
        let plan = copy::plan(&from, &to, &selection, &Silent, &cancel).await.unwrap();
        assert!(!plan.same_chunks);
        plan.snapshots.iter().map(|planned| planned.id).collect::<Vec<_>>()
    };
    let none = Selection::default();
    assert_eq!(wanted(none.clone()).await.len(), 4);
    let ids = vec![saved[1].snapshot];
    assert_eq!(
        wanted(Selection {
            ids: ids.clone(),
            ..none.clone()
        })
        .await,
        ids
    );
    let filter = SnapshotFilter {
        host: Some("elsewhere".to_owned()),
        ..SnapshotFilter::default()
    };
    assert_eq!(wanted(Selection { filter, ..none.clone() }).await, [fourth.snapshot]);
    let any_tag = vec!["datastore:a".to_owned(), "datastore:b".to_owned()];
    assert_eq!(
        wanted(Selection {
            any_tag,
            ..none.clone()
        })
        .await,
        [fourth.snapshot]
    );
    assert_eq!(
        wanted(Selection { latest: true, ..none }).await,
        [saved[2].snapshot, fourth.snapshot]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_the_source_costs_the_snapshots_that_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, source) = (folder.path().join("ours"), folder.path().join("source"));
    let from = init(&local(&ours)).await;
    let saved = three(&from, &source).await;
    // What the third backup added for its one new file.
    let packs = list_all(&*local(&ours), "data/").await.unwrap();
    let newest: Vec<_> = packs
        .iter()
        .filter(|entry| (300_000..400_000).contains(&entry.size))
        .collect();
    assert!(
        newest.len() >= 2,
        "each later backup has a pack of its own for the new file: {packs:?}"
    );
    let last = newest.iter().max_by_key(|entry| entry.modified).unwrap();
    for damage in ["flipped", "missing"] {
        let path = ours.join(last.key.as_str());
        if damage == "missing" {
            std::fs::remove_file(&path).unwrap();
        } else {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[1000] ^= 1;
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let theirs = folder.path().join(damage);
        let to = init(&local(&theirs)).await;
        let report = run(&from, &to, &Selection::default()).await.unwrap();
        let copied: Vec<Id> = report.copied.iter().map(|(id, _)| *id).collect();
        assert_eq!(copied, [saved[0].snapshot, saved[1].snapshot], "{report:?}");
        assert_eq!(report.damaged.len(), 1);
        assert_eq!(report.damaged[0].id, saved[2].snapshot);
        assert_eq!(report.damaged[0].damaged.len(), 1);
        assert_eq!(
            report.damaged[0].damaged[0].path,
            Path::new("source/new2"),
            "{report:?}"
        );
        let found = check(&to).await;
        assert!(found.is_sound(), "{:?}", found.findings);
        if let Some(restic) = Restic::find("damage_in_the_source_costs_the_snapshots_that_need_it") {
            restic.ok(&theirs, PASSWORD, &["check", "--read-data"]);
        }
    }
    // A snapshot file and a directory.
    let snapshot = ours.join("snapshots").join(saved[0].snapshot.to_string());
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&snapshot, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&snapshot, b"nothing").unwrap();
    let to = init(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>)).await;
    let report = run(&from, &to, &Selection::default()).await.unwrap();
    assert_eq!((report.copied.len(), report.damaged.len()), (1, 2), "{report:?}");
}

/// A store that fails at any write, or whose answer is lost, leaves a sound destination that holds whole snapshots only;
/// the same copy once more finishes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cut_anywhere_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let from = init(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>)).await;
    three(&from, &source).await;
    for fault in [Fault::Refuse, Fault::Full, Fault::LoseAnswer] {
        for allowed in 0.. {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
            init(&inner).await;
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&inner), allowed, fault));
            let outcome = run(
                &from,
                &Repository::open(faulty, PASSWORD).await.unwrap(),
                &Selection::default(),
            )
            .await;
            if fault == Fault::Full && outcome.is_err() {
                assert!(outcome.as_ref().is_err_and(Error::is_disk_full), "{outcome:?}");
            }
            let to = Repository::open(Arc::clone(&inner), PASSWORD).await.unwrap();
            let found = check(&to).await;
            assert!(found.is_sound(), "{fault:?} at {allowed}: {:?}", found.findings);
            let before = snapshots::list(&to, &SnapshotFilter::default())
                .await
                .unwrap()
                .snapshots
                .len();
            let report = run(&from, &to, &Selection::default()).await.unwrap();
            assert_eq!(report.copied.len() + before, 3, "{fault:?} at {allowed}: {report:?}");
            let latest = snapshots::find(&to, "latest", &SnapshotFilter::default())
                .await
                .unwrap();
            restored_is(&to, &latest.id, &source).await;
            if outcome.is_ok() {
                assert!(allowed > 5, "a copy has that many writes");
                break;
            }
            assert!(allowed < 60, "the copy ends at some time");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_void_once_data_was_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to): (Arc<dyn Store>, Arc<dyn Store>) = (Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new()));
    let (source, target) = (init(&from).await, init(&to).await);
    three(&source, &folder.path().join("source")).await;
    run(
        &source,
        &target,
        &Selection {
            latest: true,
            ..Selection::default()
        },
    )
    .await
    .unwrap();
    let cancel = CancellationToken::new();
    let plan = copy::plan(&source, &target, &Selection::default(), &Silent, &cancel)
        .await
        .unwrap();
    let index = list_all(&*to, "index/").await.unwrap().remove(0).key;
    to.delete(&index).await.unwrap();
    let outcome = copy::apply(&source, &target, plan, &Silent, &cancel).await;
    assert!(matches!(outcome, Err(Error::PlanOutdated { .. })), "{outcome:?}");
    assert!(list_all(&*to, "locks/").await.unwrap().is_empty());
}

/// Restic's repositories of version 1 are copied into ours; into version 1 nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn version_1_is_copied_from_and_not_into() {
    let test = "version_1_is_copied_from_and_not_into";
    let Some(tarballs) = peers::shared_data("restic-repositories", test) else {
        return;
    };
    for (name, whole) in [("small-repo", true), ("repo-mixed", true), ("repo-data-missing", false)] {
        let folder = tempfile::tempdir().unwrap();
        unpack(&tarballs.join(format!("{name}.tar.gz")), folder.path());
        let repo = std::fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let before = list_all(&*local(&repo), "").await.unwrap();
        let from = Repository::open(local(&repo), "geheim").await.unwrap();
        let theirs = folder.path().join("copy");
        let to = init(&local(&theirs)).await;
        let report = run(&from, &to, &Selection::default()).await.unwrap();
        assert_eq!(report.is_partial(), !whole, "{name}: {report:?}");
        assert!(check(&to).await.is_sound(), "{name}");
        if let Some(restic) = Restic::find(test) {
            restic.ok(&theirs, PASSWORD, &["check", "--read-data"]);
        }
        for (_, copy) in &report.copied {
            let target = folder.path().join(copy.short());
            let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
            let restored = backups::restore(&to, copy, &target, &options, &Silent, &cancel)
                .await
                .unwrap();
            assert!(restored.damaged.is_empty(), "{restored:?}");
        }
        let back = run(&to, &from, &Selection::default()).await;
        assert!(matches!(back, Err(Error::ReadOnlyVersion)), "{back:?}");
        let names = |entries: &[backups::store::Entry]| {
            entries.iter().map(|entry| entry.key.clone()).collect::<Vec<StoreKey>>()
        };
        assert_eq!(
            names(&list_all(&*local(&repo), "").await.unwrap()),
            names(&before),
            "{name} is as it was"
        );
    }
}
