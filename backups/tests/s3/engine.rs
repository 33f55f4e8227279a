//! Whole backups over S3: through faults, over a long line, with listings that lag, judged by restic.

use std::sync::Arc;
use std::time::Duration;

use backups::snapshots::{self, SnapshotFilter};
use backups::store::{S3Store, list_all};
use backups::{Repository, Store};
use peers::faults::{Answer, Fault, Limits, Request};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::service::{Service, refused};
use crate::world::{PASSWORD, check, files, init, noise, odd_tree, picture, restore, restore_with, save};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_comes_through_a_network_that_fails_at_random() {
    const TEST: &str = "a_backup_comes_through_a_network_that_fails_at_random";
    let Some(service) = Service::start(TEST).await else {
        return;
    };
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    service.proxy.rule(move |request| {
        if !random.random_ratio(1, 5) {
            return None;
        }
        Some(match random.random_range(0..5) {
            0 => refused(503, "SlowDown"),
            1 => refused(500, "InternalError"),
            2 => Fault::RequestCut(random.random_range(0..=request.length)),
            3 => Fault::AnswerCut(random.random_range(0..1_000_000)),
            _ => Fault::AnswerLost,
        })
    });
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    std::fs::write(source.join("noise"), noise(3, 40 << 20)).unwrap();
    let store: Arc<dyn Store> = Arc::new(service.store());
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    let repository = Repository::open(Arc::clone(&store), PASSWORD).await.unwrap();
    assert!(check(&repository).await.is_sound());
    let target = folder.path().join("target");
    assert!(!restore(&repository, &saved, &target).await.is_partial());
    assert_eq!(picture(&target.join("source")), picture(&source));
    assert_eq!(list_all(&*store, "locks/").await.unwrap(), []);
    service.restic(TEST, &["check", "--read-data"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_of_restic_is_read_and_written() {
    const TEST: &str = "a_repository_of_restic_is_read_and_written";
    let Some(service) = Service::start(TEST).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), noise(1, 3 << 20)).unwrap();
    if service.restic(TEST, &["init", "--repository-version", "2"]).is_none() {
        return;
    }
    service.restic(TEST, &["backup", source.to_str().unwrap()]);
    let store: Arc<dyn Store> = Arc::new(service.store());
    let repository = Repository::open(store, PASSWORD).await.unwrap();
    assert!(check(&repository).await.is_sound());
    std::fs::write(source.join("more"), noise(2, 3 << 20)).unwrap();
    save(&repository, &files(&source)).await.unwrap();
    service.restic(TEST, &["check", "--read-data"]);
    let target = folder.path().join("target");
    service.restic(TEST, &["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(std::fs::read(target.join("source/more")).unwrap(), noise(2, 3 << 20));
}

/// 100 ms and 20 MB/s for each connection: what one connection carries alone is no bound.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_is_filled_by_several_transfers() {
    let Some(service) = Service::start("a_long_line_is_filled_by_several_transfers").await else {
        return;
    };
    service.proxy.limit(Limits {
        latency: Duration::from_millis(100),
        bytes_per_second: Some(20 << 20),
    });
    let folder = tempfile::tempdir().unwrap();
    let size = 192 << 20;
    std::fs::write(folder.path().join("noise"), noise(1, size)).unwrap();
    let store: Arc<dyn Store> = Arc::new(service.store());
    let repository = init(&store).await;
    let begun = Instant::now();
    save(&repository, &files(&folder.path().join("noise"))).await.unwrap();
    let rate = size as f64 / begun.elapsed().as_secs_f64() / f64::from(1 << 20);
    eprintln!("{rate:.0} MiB/s over a line with 100 ms and 20 MiB/s for each connection");
    assert!(rate > 22.0, "no faster than one connection: {rate:.0} MiB/s");
}

/// Drops from a listing what lies in `hidden`.
fn lagging(hidden: &'static str) -> Fault {
    Fault::Edited(Arc::new(move |answer: Answer| {
        let text = String::from_utf8_lossy(&answer.body);
        let mut kept = String::new();
        let mut rest = text.as_ref();
        while let Some(start) = rest.find("<Contents>") {
            let end = rest[start..].find("</Contents>").expect("it ends") + start + "</Contents>".len();
            kept.push_str(&rest[..start]);
            if !rest[start..end].contains(hidden) {
                kept.push_str(&rest[start..end]);
            }
            rest = &rest[end..];
        }
        kept.push_str(rest);
        let body = kept.into_bytes();
        Answer { body, ..answer }
    }))
}

fn lists(request: &Request) -> bool {
    request.method == "GET" && request.path.contains("list-type=2")
}

/// S3 promises that a listing has all that was acknowledged. A service that breaks this loses nothing of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_lags_loses_nothing() {
    const TEST: &str = "a_listing_that_lags_loses_nothing";
    let Some(service) = Service::start(TEST).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    let store: Arc<dyn Store> = Arc::new(service.store());
    let first = save(&init(&store).await, &files(&source)).await.unwrap();
    for hidden in ["/index/", "/snapshots/", "/data/"] {
        service.proxy.heal();
        service.proxy.strike(usize::MAX, lagging(hidden), lists);
        let fresh: Arc<dyn Store> = Arc::new(S3Store::new(service.options()));
        let repository = Repository::open(fresh, PASSWORD).await.unwrap();
        let target = folder.path().join(format!("target{}", hidden.replace('/', "-")));
        let again = save(&repository, &files(&source)).await.unwrap();
        let report = check(&repository).await;
        // What seems not to be there is stored again or said to be missing: never is anything taken for whole that is not.
        if hidden == "/data/" {
            assert!(!report.is_sound(), "packs that cannot be seen are missing");
            continue;
        }
        let options = backups::RestoreOptions::default();
        match restore_with(&repository, &again, &target, &options).await {
            Ok(report) => assert!(report.is_partial() || picture(&target.join("source")) == picture(&source)),
            Err(error) => eprintln!("{hidden}: {error}"),
        }
    }
    service.proxy.heal();
    let repository = Repository::open(Arc::clone(&store), PASSWORD).await.unwrap();
    assert!(check(&repository).await.is_sound());
    let saved = snapshots::list(&repository, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(
        saved.snapshots.len(),
        4,
        "every snapshot is there when the listings are"
    );
    let target = folder.path().join("target");
    assert!(!restore(&repository, &first, &target).await.is_partial());
    assert_eq!(picture(&target.join("source")), picture(&source));
    service.restic(TEST, &["check", "--read-data"]);
}
