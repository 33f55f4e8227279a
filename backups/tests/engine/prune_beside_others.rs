//! Prune beside writers on other machines, and beside rustic, which keeps the same list of what is to be deleted.

use std::sync::Arc;

use backups::prune::{MaxUnused, PruneOptions};
use backups::repo::{Lock, LockMode, locks, remove_locks};
use backups::store::{LocalStore, MemoryStore, list_all};
use backups::{Error, Repository, Silent, Store};
use jiff::SignedDuration;
use rustic_backend::BackendOptions;
use rustic_core::{CheckOptions, Credentials, PruneOptions as RusticOptions, RepositoryOptions};
use tokio_util::sync::CancellationToken;

use crate::prune::{Yard, run, shortened};
use crate::world::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_and_a_prune_on_three_machines() {
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let open = || async {
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
        Repository::open(store, PASSWORD).await.unwrap()
    };
    init(&(Arc::new(LocalStore::new(&repo)) as Arc<dyn Store>)).await;
    let mut writers = Vec::new();
    for writer in 0..2_u64 {
        let repository = open().await;
        let root = folder.path().join(format!("writer{writer}"));
        std::fs::create_dir(&root).unwrap();
        writers.push(tokio::spawn(async move {
            let mut saved = Vec::new();
            while saved.len() < 6 {
                let round = saved.len() as u64;
                // A part that both have, and that comes back: the prune marks it in between.
                std::fs::write(root.join("shared"), noise(round % 3, 300_000)).unwrap();
                std::fs::write(root.join("own"), noise(100 * (writer + 1) + round, 100_000)).unwrap();
                match save(&repository, &files(&root)).await {
                    Ok(report) => saved.push((report, round)),
                    Err(Error::Locked(_) | Error::LockLost) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error:?}"),
                }
            }
            (writer, saved)
        }));
    }
    let pruner = open().await;
    let (mut pruned, mut refused) = (0, 0);
    while writers.iter().any(|writer| !writer.is_finished()) || pruned == 0 {
        let policy = backups::retention::Policy {
            counts: [(backups::retention::Slot::Last, 2)].into(),
            ..backups::retention::Policy::default()
        };
        let forget = crate::forget::by_policy(policy);
        let cancel = CancellationToken::new();
        let plan = backups::forget::plan(&pruner, &forget).await.unwrap();
        let forgotten = backups::forget::apply(&pruner, &forget, &plan, &Silent, &cancel).await;
        assert!(matches!(forgotten, Ok(_) | Err(Error::Locked(_))), "{forgotten:?}");
        let options = PruneOptions {
            grace: SignedDuration::from_millis(1),
            max_unused: MaxUnused::Bytes(0),
            ..PruneOptions::new(backups::now())
        };
        match run(&pruner, &options).await {
            Ok(_) => pruned += 1,
            Err(Error::Locked(_)) => refused += 1,
            Err(error) => panic!("{error:?}"),
        }
        tokio::task::yield_now().await;
    }
    println!("{pruned} prunes, {refused} refused");
    let repository = open().await;
    for writer in writers {
        let (writer, saved) = writer.await.unwrap();
        for (report, round) in saved.iter().rev().take(2) {
            let target = folder.path().join(format!("target{writer}-{round}"));
            assert!(!restore(&repository, report, &target).await.is_partial());
            let root = target.join(format!("writer{writer}"));
            assert_eq!(std::fs::read(root.join("shared")).unwrap(), noise(round % 3, 300_000));
            assert_eq!(
                std::fs::read(root.join("own")).unwrap(),
                noise(100 * (writer + 1) + round, 100_000)
            );
        }
    }
    assert!(check(&repository).await.is_sound());
    if let Some(restic) = Restic::find("two_writers_and_a_prune_on_three_machines") {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prune_waits_for_no_writer_and_a_writer_whose_lock_is_gone_concludes_nothing() {
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let repository = init(&store).await;
    let writer = Lock::acquire(&repository, LockMode::Shared, backups::now())
        .await
        .unwrap();
    let refused = run(&repository, &PruneOptions::new(backups::now())).await;
    assert!(matches!(refused, Err(Error::Locked(_))), "{refused:?}");
    let found = locks(&repository, backups::now()).await.unwrap();
    assert!(found.len() == 1 && !found[0].is_stale(), "{found:?}");
    writer.confirm().await.unwrap();
    remove_locks(&repository, &[found[0].id]).await.unwrap();
    writer.still_held().unwrap();
    assert!(
        matches!(writer.confirm().await, Err(Error::LockLost)),
        "it looks before it concludes"
    );
    run(&repository, &PruneOptions::new(backups::now())).await.unwrap();

    // The clock of the pruning machine is an hour early: the writer lives all the same.
    let writer = Lock::acquire(&repository, LockMode::Shared, backups::now())
        .await
        .unwrap();
    let early = backups::now() + SignedDuration::from_hours(1);
    let found = locks(&repository, early).await.unwrap();
    assert!(!found[0].is_stale(), "{found:?}");
    assert!(matches!(
        Lock::acquire(&repository, LockMode::Exclusive, early).await.err(),
        Some(Error::Locked(_))
    ));
    writer.release().await;
}

/// Rustic, opened on a folder.
fn rustic(path: &std::path::Path) -> rustic_core::Repository<rustic_core::OpenStatus> {
    let backends = BackendOptions::default()
        .repository(path.to_str().unwrap())
        .to_backends()
        .unwrap();
    let options = RepositoryOptions::default().no_cache(true);
    let repository = rustic_core::Repository::new(&options, &backends).unwrap();
    repository.open(&Credentials::password(PASSWORD)).unwrap()
}

fn rustic_is_content(path: &std::path::Path) {
    let checked = rustic(path).check(CheckOptions::default().read_data(true)).unwrap();
    checked.is_ok().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rustic_reads_checks_and_prunes_what_we_marked_and_we_what_rustic_marked() {
    let yard = Yard::new().await;
    let (first, last) = shortened(&yard).await;
    yard.forget(&first.snapshot).await;
    let before = yard.export("before").await;
    let marked = yard.prune().await;
    assert!(marked.figures.repacked.packs > 0, "{marked:?}");
    let ours = yard.export("ours").await;
    tokio::task::spawn_blocking(move || {
        rustic_is_content(&ours);
        let repository = rustic(&ours);
        // Not over for rustic either: it keeps what we marked, and deletes it when told that it is.
        let options = RusticOptions::default();
        let plan = repository.prune_plan(&options).unwrap();
        let stats = plan.stats.packs_to_delete;
        assert_eq!(
            (stats.keep, stats.remove),
            (marked.figures.repacked.packs + marked.figures.marked.packs, 0)
        );
        let options = RusticOptions::default()
            .keep_delete(jiff::Span::new())
            .keep_pack(jiff::Span::new());
        let plan = repository.prune_plan(&options).unwrap();
        repository.prune(&options, plan).unwrap();
        rustic_is_content(&ours);
        let left = std::fs::read_dir(ours.join("data")).unwrap().count();
        assert!(left > 0);
        // What rustic marks, we read, count and delete.
        let repository = rustic(&before);
        let options = RusticOptions::default().keep_pack(jiff::Span::new());
        let plan = repository.prune_plan(&options).unwrap();
        repository.prune(&options, plan).unwrap();
    })
    .await
    .unwrap();
    let path = yard.folder.path().join("before");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&path));
    let repository = Repository::open(Arc::clone(&store), PASSWORD).await.unwrap();
    let report = run(&repository, &PruneOptions::new(backups::now())).await.unwrap();
    assert!(report.figures.waiting.packs > 0, "{report:?}");
    let over = PruneOptions {
        grace: SignedDuration::from_nanos(1),
        ..PruneOptions::new(backups::now())
    };
    let report = run(&repository, &over).await.unwrap();
    assert!(report.figures.deleted.packs > 0, "{report:?}");
    let target = yard.folder.path().join("target");
    assert!(!restore(&repository, &last, &target).await.is_partial());
    assert!(check(&repository).await.is_sound());
    assert!(!list_all(&*store, "data/").await.unwrap().is_empty());
    tokio::task::spawn_blocking(move || rustic_is_content(&path))
        .await
        .unwrap();
}
