//! Which snapshots go, with restic's forget as a judge where both mean the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use backups::forget::{self, ForgetOptions, Which};
use backups::retention::{Policy, Slot};
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, StoreKey, list_all};
use backups::{BackupOptions, Error, Id, Repository, Silent, SnapshotFilter, Store, snapshots};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// A snapshot made at a time.
async fn save_at(repository: &Repository, root: &std::path::Path, now: Timestamp, tags: &[&str]) -> Id {
    let options = BackupOptions {
        now,
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..options(0)
    };
    let cancel = CancellationToken::new();
    backups::backup(repository, &files(root), &options, &Silent, &cancel)
        .await
        .unwrap()
        .snapshot
}

pub fn by_policy(policy: Policy) -> ForgetOptions {
    ForgetOptions {
        which: Which::Policies(vec![(SnapshotFilter::default(), policy)]),
        proved: BTreeSet::new(),
        zone: TimeZone::UTC,
    }
}

fn last(count: u32) -> Policy {
    Policy {
        counts: [(Slot::Last, count)].into(),
        ..Policy::default()
    }
}

async fn apply(repository: &Repository, options: &ForgetOptions) -> Result<Vec<Id>, Error> {
    let plan = forget::plan(repository, options).await?;
    forget::apply(repository, options, &plan, &Silent, &CancellationToken::new()).await
}

async fn listed(repository: &Repository) -> BTreeSet<Id> {
    let list = snapshots::list(repository, &SnapshotFilter::default()).await.unwrap();
    list.snapshots.iter().map(|record| record.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_keep_what_restic_keeps() {
    let Some(restic) = Restic::find("policies_keep_what_restic_keeps") else {
        return;
    };
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (repo, source) = (folder.path().join("repo"), folder.path().join("source"));
    std::fs::create_dir(&source).unwrap();
    let repository = init(&(Arc::new(LocalStore::new(&repo)) as Arc<dyn Store>)).await;
    let mut times = BTreeSet::new();
    while times.len() < 45 {
        // Close together lately, far apart long ago; whole seconds, no two alike: whichever is first of two at one time
        // is chance.
        let back = 10_f64.powf(random.random_range(2.0..8.2)) as i64;
        times.insert(backups::now().as_second() - back);
    }
    for time in &times {
        let tags: &[&str] = if random.random_ratio(1, 8) { &["audit"] } else { &[] };
        save_at(&repository, &source, Timestamp::from_second(*time).unwrap(), tags).await;
    }
    for round in 0..12 {
        let (mut policy, mut arguments) = (Policy::default(), Vec::new());
        while policy.is_empty() {
            for slot in Slot::ALL {
                if random.random_ratio(1, 3) {
                    let count = random.random_range(1..8_u32);
                    policy.counts.insert(slot, count);
                    arguments.extend([format!("--keep-{}", slot.word()), count.to_string()]);
                }
                if slot != Slot::Last && random.random_ratio(1, 6) {
                    let days = random.random_range(1..900_i64);
                    policy.slots_within.insert(slot, SignedDuration::from_hours(24 * days));
                    arguments.extend([format!("--keep-within-{}", slot.word()), format!("{days}d")]);
                }
            }
            if random.random_ratio(1, 3) {
                let hours = random.random_range(1..2000_i64);
                policy.within = Some(SignedDuration::from_hours(hours));
                arguments.extend(["--keep-within".to_owned(), format!("{hours}h")]);
            }
            if random.random_ratio(1, 3) {
                policy.tags.push("audit".to_owned());
                arguments.extend(["--keep-tag".to_owned(), "audit".to_owned()]);
            }
        }
        let mut command: Vec<&str> = vec!["forget", "--dry-run", "--json"];
        command.extend(arguments.iter().map(String::as_str));
        let judged = restic.run(&repo, PASSWORD, &command);
        let text = String::from_utf8_lossy(&judged.stdout).into_owned();
        let line = text
            .lines()
            .find(|line| line.starts_with('['))
            .unwrap_or_else(|| panic!("{text}"));
        let groups: serde_json::Value = serde_json::from_str(line).unwrap();
        let keeps = groups
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|group| group["keep"].as_array().unwrap().clone());
        let theirs: BTreeSet<String> = keeps
            .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
            .collect();
        let plan = forget::plan(&repository, &by_policy(policy)).await.unwrap();
        let ours: BTreeSet<String> = plan
            .kept()
            // Restic has no such rule.
            .filter(|decision| {
                decision
                    .reasons
                    .iter()
                    .any(|reason| reason.to_string() != "newest of the whole ones")
            })
            .map(|decision| decision.candidate.id.to_string())
            .collect();
        assert_eq!(ours, theirs, "round {round}: {arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_removes_snapshots_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let mut ids = Vec::new();
    for hour in 0..5 {
        std::fs::write(folder.path().join("file"), format!("{hour}")).unwrap();
        let then = backups::now() - SignedDuration::from_hours(10 - hour);
        ids.push(save_at(&repository, folder.path(), then, &[]).await);
    }
    let packs = list_all(&*store, "data/").await.unwrap();
    let options = by_policy(last(2));
    let plan = forget::plan(&repository, &options).await.unwrap();
    assert_eq!(listed(&repository).await.len(), 5, "a plan changes nothing");
    let planned: BTreeSet<Id> = plan.removed().map(|decision| decision.candidate.id).collect();
    assert_eq!(planned, ids[..3].iter().copied().collect());
    // Somebody makes another meanwhile: what the plan kept stays all the same.
    let newest = save_at(&repository, folder.path(), backups::now(), &[]).await;
    let cancel = CancellationToken::new();
    let removed = forget::apply(&repository, &options, &plan, &Silent, &cancel)
        .await
        .unwrap();
    assert_eq!(removed.into_iter().collect::<BTreeSet<_>>(), planned);
    assert_eq!(listed(&repository).await, BTreeSet::from([ids[3], ids[4], newest]));
    assert_eq!(
        list_all(&*store, "data/").await.unwrap()[..],
        packs[..],
        "prune deletes data, not forget"
    );
    assert_eq!(list_all(&*store, "locks/").await.unwrap(), []);
    assert!(check(&repository).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_and_the_last_proved_one_stay_also_when_they_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let mut ids = Vec::new();
    for hour in 0..4 {
        let then = backups::now() - SignedDuration::from_hours(10 - hour);
        ids.push(save_at(&repository, folder.path(), then, &["datastore:db"]).await);
    }
    let named = |ids: &[Id]| ForgetOptions {
        which: Which::Snapshots(ids.to_vec()),
        ..by_policy(Policy::default())
    };
    let proved = |ids: &[Id], proved: Id| ForgetOptions {
        proved: BTreeSet::from([proved]),
        ..named(ids)
    };
    let refused = apply(&repository, &named(&ids)).await;
    assert!(
        matches!(&refused, Err(Error::LastSnapshot { id, what: "whole", group }) if *id == ids[3] && group == "db"),
        "{refused:?}"
    );
    let refused = apply(&repository, &proved(&ids[..2], ids[1])).await;
    assert!(
        matches!(&refused, Err(Error::LastSnapshot { id, what: "proved", .. }) if *id == ids[1]),
        "{refused:?}"
    );
    let refused = apply(&repository, &named(&[ids[0], Id::of(b"none")])).await;
    assert!(matches!(refused, Err(Error::SnapshotNotFound { .. })), "{refused:?}");
    let refused = apply(&repository, &by_policy(Policy::default())).await;
    assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
    assert_eq!(listed(&repository).await.len(), 4);
    assert_eq!(apply(&repository, &named(&ids[..1])).await.unwrap(), [ids[0]]);
    let by_policy = ForgetOptions {
        proved: BTreeSet::from([ids[1]]),
        ..by_policy(last(1))
    };
    assert_eq!(apply(&repository, &by_policy).await.unwrap(), [ids[2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_snapshot_says_so_and_pushes_out_no_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    std::fs::write(folder.path().join("file"), "here").unwrap();
    // What nobody can read to its end, root neither.
    let paths = vec![folder.path().to_owned(), "/proc/self/mem".into()];
    let source = backups::source::FilesSource::new(paths, backups::source::Excludes::default());
    let tags = vec!["datastore:files".to_owned()];
    let mut saved = Vec::new();
    for (hours, partial) in [(3, false), (2, true), (1, true)] {
        let options = BackupOptions {
            now: backups::now() - SignedDuration::from_hours(hours),
            tags: tags.clone(),
            ..options(0)
        };
        let whole = files(folder.path());
        let which: &dyn backups::source::Source = if partial { &source } else { &whole };
        let cancel = CancellationToken::new();
        let report = backups::backup(&repository, which, &options, &Silent, &cancel)
            .await
            .unwrap();
        assert_eq!(report.is_partial(), partial);
        assert_eq!(
            repository.snapshot(&report.snapshot).await.unwrap().is_partial(),
            partial
        );
        saved.push(report.snapshot);
    }
    assert_eq!(apply(&repository, &by_policy(last(1))).await.unwrap(), [saved[1]]);
    assert_eq!(listed(&repository).await, BTreeSet::from([saved[0], saved[2]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forget_that_fails_at_any_write_is_done_by_the_next() {
    for fault in [Fault::Refuse, Fault::LoseAnswer] {
        for allowed in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let memory = Arc::new(MemoryStore::new());
            let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
            let repository = init(&store).await;
            for hour in 0..4 {
                let then = backups::now() - SignedDuration::from_hours(10 - hour);
                save_at(&repository, folder.path(), then, &[]).await;
            }
            // What cannot be read is left alone.
            let damaged = StoreKey::new(format!("snapshots/{}", "ab".repeat(32))).unwrap();
            memory.overwrite(damaged.clone(), "damaged");
            let faulty: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&store), allowed, fault));
            let failing = Repository::open(faulty, PASSWORD).await.unwrap();
            let outcome = apply(&failing, &by_policy(last(1))).await;
            for lock in list_all(&*store, "locks/").await.unwrap() {
                store.delete(&lock.key).await.unwrap();
            }
            apply(&repository, &by_policy(last(1))).await.unwrap();
            assert_eq!(listed(&repository).await.len(), 1);
            assert!(store.stat(&damaged).await.is_ok());
            if outcome.is_ok() {
                assert!(allowed >= 4, "a lock and three snapshots");
                break;
            }
            assert!(allowed < 20, "it ends at some time");
        }
    }
}
