//! Files with holes: what is not there costs no time to save, none to restore, and no room.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backups::store::{LocalStore, MemoryStore};
use backups::{RestoreOptions, SnapshotFilter, Store, snapshots};
use rand::{RngCore, SeedableRng};

use crate::world::*;

const TIB: u64 = 1 << 40;

fn room(path: &Path) -> u64 {
    path.metadata().unwrap().blocks() * 512
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_of_a_tebibyte_costs_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let file = File::create(&source).unwrap();
    let places = [0, 3 << 20, TIB / 2 + 12_345, TIB - 1_000_000];
    if file.set_len(TIB).is_err() {
        peers::skip(
            "a_hole_of_a_tebibyte_costs_no_time",
            "the file system has no such files",
        );
        return;
    }
    for (seed, place) in places.into_iter().enumerate() {
        file.write_all_at(&noise(seed as u64, 1_000_000), place).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let target = folder.path().join("target");
    // Reading zeros at a gigabyte a second would take a quarter of an hour.
    let limit = Duration::from_secs(100);
    let all = tokio::time::timeout(limit, async {
        let saved = save(&repository, &files(&source)).await.unwrap();
        assert_eq!(saved.summary.total_bytes_processed, TIB);
        assert!(saved.changed.is_empty() && saved.summary.data_blobs < 40, "{saved:?}");
        let report = restore(&repository, &saved, &target).await;
        assert!(!report.is_partial() && report.bytes == TIB, "{report:?}");
        assert!(report.fetched_bytes < 200 << 20, "{report:?}");
        // Again: it is there, and that is found out without reading a tebibyte.
        let again = restore(&repository, &saved, &target).await;
        assert_eq!((again.unchanged, again.reused_bytes), (1, TIB), "{again:?}");
    });
    all.await.expect("in time");
    let restored = target.join("source");
    assert_eq!(restored.metadata().unwrap().len(), TIB);
    assert!(room(&restored) < 80 << 20, "{} bytes", room(&restored));
    let restored = File::open(restored).unwrap();
    for (seed, place) in places.into_iter().enumerate() {
        let mut there = vec![0; 1_000_000];
        restored.read_exact_at(&mut there, place).unwrap();
        assert!(there == noise(seed as u64, 1_000_000), "at {place}");
    }
}

/// Holes and data of random lengths, long holes among them: the content is the same to us and to restic.
#[tokio::test(flavor = "multi_thread")]
async fn random_holes_come_back_as_holes() {
    let test = "random_holes_come_back_as_holes";
    let seed = std::env::var("OPSCTL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("{test}: OPSCTL_SEED={seed}");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let (source, repo) = (folder.path().join("source"), folder.path().join("repo"));
    std::fs::create_dir(&source).unwrap();
    for number in 0..6 {
        let file = File::create(source.join(number.to_string())).unwrap();
        let mut at = 0;
        for _ in 0..=(random.next_u32() % 5) {
            // Up to 40 MiB of hole, up to 3 MiB of data; some at the edges of what is stored as one blob.
            at += match random.next_u32() % 4 {
                0 => 0,
                1 => 16 << 20,
                2 => u64::from(random.next_u32()) % (1 << 20),
                _ => u64::from(random.next_u32()) % (40 << 20),
            };
            let data = noise(random.next_u64(), random.next_u32() as usize % (3 << 20));
            file.write_all_at(&data, at).unwrap();
            at += data.len() as u64;
        }
        file.set_len(at + u64::from(random.next_u32()) % (30 << 20)).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    assert!(saved.changed.is_empty(), "{:?}", saved.changed);
    let judge = async |id, name: &str| {
        let target = folder.path().join(name);
        let (silent, cancel) = (backups::Silent, tokio_util::sync::CancellationToken::new());
        let options = RestoreOptions::default();
        backups::restore(&repository, &id, &target, &options, &silent, &cancel)
            .await
            .unwrap();
        target
    };
    let target = judge(saved.snapshot, "target").await.join("source");
    assert_eq!(picture(&target), picture(&source));
    let rooms = |folder: &Path| (0..6).map(|number| room(&folder.join(number.to_string()))).sum::<u64>();
    // A hole inside of a blob is found again by pieces of 32 KiB.
    assert!(
        rooms(&target) <= rooms(&source) + ((6 * 5) << 17),
        "{} {}",
        rooms(&target),
        rooms(&source)
    );
    let Some(restic) = Restic::find(test) else { return };
    restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
    let theirs = folder.path().join("theirs");
    let id = saved.snapshot.to_string();
    restic.ok(&repo, PASSWORD, &["restore", &id, "--target", theirs.to_str().unwrap()]);
    assert_eq!(
        picture(&theirs.join("source")),
        picture(&source),
        "restic restores ours"
    );
    restic.ok(&repo, PASSWORD, &["backup", "--force", source.to_str().unwrap()]);
    let filter = SnapshotFilter::default();
    let latest = snapshots::find(&repository, "latest", &filter).await.unwrap();
    let back = judge(latest.id, "back").await.join(source.strip_prefix("/").unwrap());
    assert_eq!(picture(&back), picture(&source), "we restore restic's");
    assert!(rooms(&back) <= rooms(&source) + ((6 * 5) << 17));
}
