//! Every store keeps the contract.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use backups::Store;
use backups::store::{Fault, FaultyStore, LocalStore, MemoryStore, StoreKey, contract};

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_contract() {
    contract::check(Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    contract::check(Arc::new(LocalStore::new(folder.path().join("not/yet/there")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decorator_without_faults_keeps_the_contract() {
    contract::check(Arc::new(FaultyStore::new(
        Arc::new(MemoryStore::new()),
        usize::MAX,
        Fault::Refuse,
    )))
    .await;
}

#[tokio::test]
async fn what_a_folder_holds_is_for_its_owner_alone_and_nothing_temporary_stays() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let store = LocalStore::new(&root);
    let key = StoreKey::new("data/ab/abcd").unwrap();
    store.put(&key, "content".into()).await.unwrap();
    store.put(&key, "other".into()).await.unwrap_err();
    let mode = |path: &str| root.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        [mode("."), mode("data"), mode("data/ab"), mode("data/ab/abcd")],
        [0o700, 0o700, 0o700, 0o600]
    );
    let names: Vec<_> = std::fs::read_dir(root.join("data/ab"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["abcd"]);
}

/// `/dev/shm` cannot be made small without privileges, so a file size limit stands in where mounting is not allowed.
#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("small");
    std::fs::create_dir(&mount).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(&mount)
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        peers::skip(
            "a_full_disk_is_said_to_be_full_and_leaves_nothing",
            "a small tmpfs cannot be mounted here",
        );
        return;
    }
    let store = LocalStore::new(mount.join("repo"));
    let outcome = store
        .put(&StoreKey::new("data/ab/abcd").unwrap(), vec![1; 4 << 20].into())
        .await;
    let left = std::fs::read_dir(mount.join("repo/data/ab")).map(Iterator::count);
    let unmounted = std::process::Command::new("umount").arg(&mount).status();
    assert!(matches!(outcome, Err(backups::StoreError::Full { .. })), "{outcome:?}");
    assert_eq!(left.unwrap(), 0);
    assert!(unmounted.unwrap().success());
}
