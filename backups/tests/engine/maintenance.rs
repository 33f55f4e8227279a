//! Random sequences of backups, forgetting, pruning and hours that pass, against a model: what is listed comes back byte
//! for byte, and once every grace is over nothing is kept that nobody needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use backups::forget;
use backups::prune::{MaxUnused, PruneOptions};
use backups::retention::{Policy, Slot};
use backups::{Id, Repository, Silent, SnapshotFilter, snapshots};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::prune::{Yard, run};
use crate::world::*;

/// What the files held, by name.
type Content = BTreeMap<String, Vec<u8>>;

async fn listed(repository: &Repository) -> Vec<Id> {
    let list = snapshots::list(repository, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(list.damaged, []);
    list.snapshots.iter().map(|record| record.id).collect()
}

async fn comes_back(repository: &Repository, id: &Id, expected: &Content) {
    let record = snapshots::find(repository, &id.to_string(), &SnapshotFilter::default())
        .await
        .unwrap();
    for (name, content) in expected {
        let mut out = Vec::new();
        let path = std::path::Path::new("source").join(name);
        snapshots::dump(repository, &record.snapshot, &path, &mut out)
            .await
            .unwrap();
        assert!(out == *content, "{name} of {id}");
    }
}

async fn sequence(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let yard = Yard::new().await;
    let (mut now, mut model) = (Content::new(), BTreeMap::<Id, Content>::new());
    for _ in 0..random.random_range(8..24) {
        match random.random_range(0..10) {
            0..=3 => {
                for name in ["a", "b", "c", "d"] {
                    if random.random_ratio(1, 2) {
                        // The same content comes back now and then.
                        let content = noise(random.random_range(0..6), 60_000);
                        yard.write(name, &content);
                        now.insert(name.to_owned(), content);
                    }
                }
                std::fs::create_dir_all(yard.source()).unwrap();
                model.insert(yard.save().await.snapshot, now.clone());
            }
            4..=5 => {
                let options = crate::forget::by_policy(Policy {
                    counts: [(Slot::Last, random.random_range(1..4))].into(),
                    ..Policy::default()
                });
                let plan = forget::plan(&yard.repository, &options).await.unwrap();
                let cancel = CancellationToken::new();
                for id in forget::apply(&yard.repository, &options, &plan, &Silent, &cancel)
                    .await
                    .unwrap()
                {
                    model.remove(&id).expect("it was there");
                }
            }
            6..=7 => {
                let options = PruneOptions {
                    max_unused: MaxUnused::Share(random.random_range(0.0..0.6)),
                    max_repack: random.random_ratio(1, 3).then(|| random.random_range(0..200_000)),
                    ..yard.options().await
                };
                run(&yard.repository, &options).await.unwrap();
            }
            _ => yard.pass(random.random_range(1..30)),
        }
        let repository = Repository::open(Arc::clone(&yard.store), PASSWORD).await.unwrap();
        let ids = listed(&repository).await;
        let mut expected: Vec<&Id> = model.keys().collect();
        expected.sort_by_key(|id| ids.iter().position(|other| other == *id));
        assert_eq!(ids.iter().collect::<Vec<_>>(), expected);
        for (id, content) in &model {
            comes_back(&repository, id, content).await;
        }
    }
    assert!(check(&yard.repository).await.is_sound());
    for _ in 0..2 {
        let options = PruneOptions {
            max_unused: MaxUnused::Bytes(0),
            ..yard.options().await
        };
        run(&yard.repository, &options).await.unwrap();
        yard.pass(25);
    }
    let last = yard.prune().await;
    assert_eq!(last.figures.unused, 0);
    assert_eq!(last.figures.kept, yard.packs().await, "nothing else is there: {last:?}");
    assert_eq!(check(&yard.repository).await.findings, []);
    for (id, content) in &model {
        comes_back(&yard.repository, id, content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_what_is_listed_comes_back_and_nothing_else_is_kept() {
    let first: u64 = rand::random();
    for seed in (0..25).map(|number| first.wrapping_add(number)) {
        println!("seed {seed}");
        sequence(seed).await;
    }
}
