//! What must leave no snapshot, and no server that starts.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backups::source::BaseSource;
use backups::source::SourceError;
use backups::source::postgres::base::{BaseError, BaseRestore, CorruptPages, Pages, read_base, restore_base};
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore};
use backups::{Error, Silent, Store};
use peers::servers::Release;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::base_world::*;

fn base_error(error: Error) -> BaseError {
    match error {
        Error::Source(SourceError::Base(error)) => error,
        error => panic!("{error:?}"),
    }
}

async fn corrupt_pages_are_named(release: Release, test: &str) {
    let Some(mut world) = Archived::start(release, test).await else {
        return;
    };
    world
        .cluster
        .run("create table hurt as select n, repeat('x', 500) as text from generate_series(1, 1000) n")
        .await;
    let file = world.cluster.run("select pg_relation_filepath('hurt')").await;
    world.cluster.stop().await;
    let path = world.cluster.data().join(&file);
    let heap = File::options().read(true).write(true).open(path).unwrap();
    for page in [3, 7] {
        let mut byte = [0];
        heap.read_exact_at(&mut byte, page * 8192 + 5000).unwrap();
        heap.write_all_at(&[byte[0] ^ 0x10], page * 8192 + 5000).unwrap();
    }
    world.cluster.start_again().await;

    let repository = repository().await;
    let refused = base_error(save(&repository, &world.source()).await.unwrap_err());
    let BaseError::CorruptPages { files } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(files.as_slice(), [file.as_str()]);
    assert!(refused.to_string().contains(&file), "{refused}");
    assert_eq!(snapshots_in(&repository).await, 0);

    let mut options = world.options();
    options.corrupt_pages = CorruptPages::Save;
    let accepted = BaseSource::new(options, Arc::new(InFolder(world.log())));
    let report = save(&repository, &accepted).await.unwrap();
    assert_eq!(
        read_base(&repository, &report.snapshot).await.unwrap().pages,
        Pages::Unverified
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_pages_of_version_14_are_an_error_that_names_the_file() {
    corrupt_pages_are_named(
        Release::V14,
        "corrupt_pages_of_version_14_are_an_error_that_names_the_file",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_pages_of_version_15_are_an_error_that_names_the_file() {
    corrupt_pages_are_named(
        Release::V15,
        "corrupt_pages_of_version_15_are_an_error_that_names_the_file",
    )
    .await;
}

/// Lets so many bytes of the server's through, and cuts the connection then. Returns its address, and counts.
async fn cutting(server: &str, limit: u64) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (server, passed) = (server.to_owned(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&passed);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let asking = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
                let left = limit.saturating_sub(count.load(Ordering::SeqCst));
                let read = read.min(usize::try_from(left).unwrap_or(usize::MAX));
                if to_client.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
                count.fetch_add(read as u64, Ordering::SeqCst);
                if count.load(Ordering::SeqCst) >= limit {
                    break;
                }
            }
            asking.abort();
        }
    });
    (address, passed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_leaves_no_snapshot() {
    let test = "a_connection_that_is_cut_leaves_no_snapshot";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let server = world.cluster.server().address("postgres").to_string();
    let through = |address: &str| {
        let options = options_of(&format!("postgres://postgres@{address}/postgres"));
        BaseSource::new(options, Arc::new(InFolder(world.log())))
    };
    let (address, passed) = cutting(&server, u64::MAX).await;
    let repository = repository().await;
    save(&repository, &through(&address)).await.unwrap();
    let all = passed.load(Ordering::SeqCst);
    assert!(all > 1 << 20, "{all}");
    // Within the archives, within the manifest, and before the server's last word.
    for limit in [600, all / 10, all / 2, all - 100_000, all - 500] {
        let (address, _) = cutting(&server, limit).await;
        let error = base_error(save(&repository, &through(&address)).await.unwrap_err());
        assert!(matches!(&error, BaseError::Server(_)), "cut after {limit}: {error:?}");
        assert_eq!(snapshots_in(&repository).await, 1, "cut after {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_room_leaves_no_snapshot() {
    let test = "a_repository_without_room_leaves_no_snapshot";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::default());
    drop(repository_in(&inner).await);
    for allowed in [1, 2, 3] {
        let full: Arc<dyn Store> = Arc::new(FaultyStore::new(Arc::clone(&inner), allowed, Fault::Full));
        let repository = backups::Repository::open(full, "correct horse").await.unwrap();
        let error = save(&repository, &world.source()).await.unwrap_err();
        assert!(error.is_disk_full(), "{error:?}");
        assert_eq!(snapshots_in(&repository).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_its_log_does_not_count() {
    let test = "a_backup_without_its_log_does_not_count";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let repository = repository().await;
    let source = BaseSource::new(world.options(), Arc::new(Nowhere));
    let error = base_error(save(&repository, &source).await.unwrap_err());
    assert!(
        matches!(&error, BaseError::NoLog(what) if what.contains("is missing")),
        "{error:?}"
    );
    assert_eq!(snapshots_in(&repository).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_gives_no_cluster_that_starts() {
    let test = "a_damaged_repository_gives_no_cluster_that_starts";
    let Some(world) = Archived::start(Release::V15, test).await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().join("repo")));
    let repository = repository_in(&store).await;
    let report = save(&repository, &world.source()).await.unwrap();
    let mut packs = Vec::new();
    for shelf in fs::read_dir(folder.path().join("repo/data")).unwrap() {
        packs.extend(
            fs::read_dir(shelf.unwrap().path())
                .unwrap()
                .map(|pack| pack.unwrap().path()),
        );
    }
    // The largest holds content, not directories.
    let pack = packs
        .into_iter()
        .max_by_key(|pack| fs::metadata(pack).unwrap().len())
        .unwrap();
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&pack, bytes).unwrap();

    let target = folder.path().join("data");
    let cancel = CancellationToken::new();
    let options = BaseRestore::default();
    let outcome = restore_base(&repository, &report.snapshot, &target, &options, &Silent, &cancel).await;
    let error = outcome.unwrap_err();
    let Error::Cluster(BaseError::Incomplete { count, first, .. }) = &error else {
        panic!("{error:?}")
    };
    assert!(*count >= 1 && first.starts_with(&target), "{error}");
    assert!(!target.join("global/pg_control").exists());

    let plain = tempfile::tempdir().unwrap();
    fs::write(plain.path().join("file"), "no cluster").unwrap();
    let files = backups::source::FilesSource::new(vec![plain.path().to_owned()], backups::source::Excludes::default());
    let options = backups::BackupOptions {
        now: backups::now(),
        host: "test".to_owned(),
        username: "tester".to_owned(),
        tags: Vec::new(),
        parent: backups::Parent::None,
    };
    let other = backups::backup(&repository, &files, &options, &Silent, &cancel)
        .await
        .unwrap();
    let error = read_base(&repository, &other.snapshot).await.unwrap_err();
    assert!(matches!(error, Error::Cluster(BaseError::NoBase(_))), "{error:?}");
}
