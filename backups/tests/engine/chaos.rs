//! Random damage to a small repository: the check never panics; what it calls sound restores byte by byte; what a repair
//! from a whole copy leaves behind restores, too. The seed of each case is printed when it fails.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use backups::copy::{self, Selection};
use backups::repair::{self, RepairOptions};
use backups::repo::Repository;
use backups::store::{MemoryStore, StoreKey, list_all};
use backups::{CheckOptions, ReadData, RestoreOptions, Silent, SnapshotFilter, Store, snapshots};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// So many cases; `OPSCTL_CHAOS_CASES` asks for more.
const CASES: u64 = 60;

type Objects = Vec<(StoreKey, Bytes)>;
type Picture = BTreeMap<PathBuf, String>;

async fn objects(store: &dyn Store) -> Objects {
    let mut objects = Vec::new();
    for entry in list_all(store, "").await.unwrap() {
        objects.push((entry.key.clone(), store.get(&entry.key).await.unwrap()));
    }
    objects
}

/// Does one to six things to files of the repository.
fn damage(objects: &mut Objects, rng: &mut StdRng, folders: &[&str]) -> Vec<String> {
    let mut done = Vec::new();
    for _ in 0..rng.random_range(1..=6) {
        let fits: Vec<usize> = (0..objects.len())
            .filter(|&at| folders.iter().any(|folder| objects[at].0.as_str().starts_with(folder)))
            .collect();
        let Some(&at) = fits.choose(rng) else { break };
        let key = objects[at].0.clone();
        let mut body = objects[at].1.to_vec();
        let what = rng.random_range(0..7);
        done.push(format!("{what} {key}"));
        match what {
            0..=2 if !body.is_empty() => {
                let bit = rng.random_range(0..body.len() * 8);
                body[bit / 8] ^= 1 << (bit % 8);
            }
            3 => body.truncate(rng.random_range(0..=body.len())),
            4 => body.extend(noise(rng.random(), rng.random_range(1..200))),
            // A snapshot that is gone is gone without a trace.
            5 if !key.as_str().starts_with("snapshots/") => {
                objects.remove(at);
                continue;
            }
            // Another's content.
            _ => body = objects[*fits.choose(rng).unwrap()].1.to_vec(),
        }
        objects[at].1 = body.into();
    }
    done
}

/// Restores every snapshot; those of the time given must be as the picture says.
async fn all_restore(repository: &Repository, pictures: &BTreeMap<jiff::Timestamp, Picture>) -> Result<usize, String> {
    let list = snapshots::list(repository, &SnapshotFilter::default()).await.unwrap();
    for record in &list.snapshots {
        let target = tempfile::tempdir().unwrap();
        let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
        let restored = backups::restore(repository, &record.id, target.path(), &options, &Silent, &cancel).await;
        let restored = restored.map_err(|error| format!("{}: {error}", record.id))?;
        if restored.is_partial() || picture(&target.path().join("source")) != pictures[&record.snapshot.time] {
            return Err(format!("{}: {restored:?}", record.id));
        }
    }
    Ok(list.snapshots.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_sound_restores_and_what_was_repaired_does_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("a/b/c")).unwrap();
    for number in 0..12 {
        std::fs::write(source.join(format!("a/file{number}")), noise(number, 3000)).unwrap();
    }
    std::fs::write(source.join("a/b/large"), noise(99, 1_500_000)).unwrap();
    let whole: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&whole).await;
    let mut pictures = BTreeMap::new();
    for number in 0..3 {
        std::fs::write(source.join(format!("a/b/c/new{number}")), noise(200 + number, 40_000)).unwrap();
        let (options, cancel) = (options(number.cast_signed()), CancellationToken::new());
        backups::backup(&repository, &files(&source), &options, &Silent, &cancel)
            .await
            .unwrap();
        pictures.insert(options.now, picture(&source));
    }
    let second = Repository::init(Arc::new(MemoryStore::new()), "other", &CHEAP)
        .await
        .unwrap();
    copy::copy(
        &repository,
        &second,
        &Selection::default(),
        &Silent,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    let whole = objects(&*whole).await;
    let cases = std::env::var("OPSCTL_CHAOS_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(CASES);
    let first: u64 = rand::random::<u32>().into();
    let (mut sound, mut repaired) = (0, 0);
    for seed in first..first + cases {
        let mut rng = StdRng::seed_from_u64(seed);
        // Keys and config cannot be repaired: those only must not make anything panic.
        let beyond = rng.random_range(0..8) == 0;
        let folders: &[&str] = if beyond {
            &["keys/", "config", "data/", "index/"]
        } else {
            &["data/", "index/", "snapshots/"]
        };
        let mut damaged = whole.clone();
        let done = damage(&mut damaged, &mut rng, folders);
        let told = |what: &str| format!("seed {seed}: {what}: {done:?}");
        let memory = Arc::new(MemoryStore::new());
        for (key, body) in damaged {
            memory.overwrite(key, body);
        }
        let store: Arc<dyn Store> = memory;
        let Ok(repository) = Repository::open(Arc::clone(&store), PASSWORD).await else {
            assert!(beyond, "{}", told("it cannot be opened"));
            continue;
        };
        let options = CheckOptions {
            read_data: ReadData::All,
        };
        let cancel = CancellationToken::new();
        let found = backups::check(&repository, &options, &Silent, &cancel).await.unwrap();
        if found.is_sound() {
            sound += 1;
            let restored = all_restore(&repository, &pictures).await;
            assert_eq!(restored, Ok(3), "{}", told("it was called sound"));
        }
        let plan = repair::plan(&repository, Some(&second), &RepairOptions::default(), &Silent, &cancel).await;
        let plan = plan.unwrap_or_else(|error| panic!("{}", told(&error.to_string())));
        assert!(!plan.leaves_damage(), "{}", told(&format!("{plan:?}")));
        repair::apply(&repository, Some(&second), plan, &Silent, &cancel)
            .await
            .unwrap();
        let again = backups::check(&repository, &options, &Silent, &cancel).await.unwrap();
        let keys = again
            .findings
            .iter()
            .all(|finding| matches!(finding.object, backups::Object::Key(_)));
        assert!(
            again.is_sound() || (beyond && keys),
            "{}",
            told(&format!("{:?}", again.findings))
        );
        let restored = all_restore(&repository, &pictures).await;
        assert_eq!(restored, Ok(3), "{}", told("it was repaired"));
        repaired += 1;
    }
    println!("{cases} cases from seed {first}: {sound} called sound, {repaired} repaired");
    assert!(repaired > 0, "some case is repaired");
}
