//! Extended attributes and POSIX ACLs: saved by namespace, restored likewise, the same to restic as to us.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::source::{FilesOptions, FilesSource};
use backups::store::{LocalStore, MemoryStore};
use backups::{Namespace, Namespaces, RestoreOptions, SnapshotFilter, Store, snapshots};
use rustix::fs::XattrFlags;

use crate::world::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
}

/// Whether the tests' folder keeps attributes of these names; says so if not.
fn are_kept(test: &str, folder: &Path, names: &[&str]) -> bool {
    let probe = folder.join("probe");
    std::fs::write(&probe, b"").unwrap();
    let kept = names.iter().all(|name| {
        let value = if *name == ACCESS {
            acl(0o6, 0o4, 7)
        } else {
            b"x".to_vec()
        };
        set(&probe, name, &value).is_ok()
    });
    std::fs::remove_file(probe).unwrap();
    if !kept {
        peers::skip(
            test,
            "the file system or our rights keep these attributes from being set",
        );
    }
    kept
}

/// An ACL as the kernel has it: owner, one named user, group, mask, others.
fn acl(owner: u16, named: u16, group: u16) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, bits, id) in [
        (0x01_u16, owner, nobody),
        (0x02, named, 12_345),
        (0x04, group, nobody),
        (0x10, 7, nobody),
        (0x20, 0, nobody),
    ] {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// Every attribute of every item, with the modes, which ACLs are a part of.
fn attributes(root: &Path) -> BTreeMap<PathBuf, (u32, BTreeMap<String, Vec<u8>>)> {
    let mut found = BTreeMap::new();
    for path in picture(root).into_keys() {
        let item = if path.as_os_str().is_empty() {
            root.to_owned()
        } else {
            root.join(&path)
        };
        let mut names = vec![0; 65_536];
        let length = rustix::fs::llistxattr(&item, &mut names).unwrap();
        let names = String::from_utf8(names[..length].to_vec()).unwrap();
        let of_item = names.split_terminator('\0').map(|name| {
            let mut value = vec![0; 65_536];
            let length = rustix::fs::lgetxattr(&item, name, &mut value).unwrap();
            (name.to_owned(), value[..length].to_vec())
        });
        let mode = item.symlink_metadata().unwrap().mode();
        found.insert(path, (mode, of_item.collect()));
    }
    found
}

fn only(
    mut all: BTreeMap<PathBuf, (u32, BTreeMap<String, Vec<u8>>)>,
    namespaces: Namespaces,
) -> BTreeMap<PathBuf, (u32, BTreeMap<String, Vec<u8>>)> {
    for (_, attributes) in all.values_mut() {
        attributes.retain(|name, _| namespaces.takes(name));
    }
    all
}

fn tree(source: &Path) {
    std::fs::create_dir_all(source.join("folder/inner")).unwrap();
    for name in ["plain", "with acl", "folder/inner/file", "read only"] {
        std::fs::write(source.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("plain", source.join("link")).unwrap();
    set(&source.join("plain"), "user.empty", b"").unwrap();
    set(&source.join("plain"), "user.bytes", &[0, 1, 254, 255]).unwrap();
    set(&source.join("plain"), "user.größe", &[7; 2000]).unwrap();
    set(&source.join("folder"), "user.of a folder", b"yes").unwrap();
    set(&source.join("read only"), "user.note", b"kept").unwrap();
    set(&source.join("with acl"), ACCESS, &acl(6, 4, 0)).unwrap();
    set(&source.join("folder/inner"), ACCESS, &acl(7, 7, 5)).unwrap();
    set(&source.join("folder/inner"), DEFAULT, &acl(6, 6, 4)).unwrap();
    std::fs::set_permissions(source.join("read only"), std::fs::Permissions::from_mode(0o444)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_and_acls_come_back_from_us_and_from_restic() {
    let test = "attributes_and_acls_come_back_from_us_and_from_restic";
    let folder = tempfile::tempdir().unwrap();
    if !are_kept(test, folder.path(), &["user.x", ACCESS]) {
        return;
    }
    let (source, repo) = (folder.path().join("source"), folder.path().join("repo"));
    tree(&source);
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    assert!(!saved.is_partial(), "{:?}", saved.skipped);
    let expected = only(attributes(&source), Namespaces::default());
    assert_eq!(expected[Path::new("plain")].1.len(), 3);

    let target = folder.path().join("target");
    // Twice: into nothing, and onto what is there with attributes added, changed and removed since.
    for round in 1..=2 {
        let report = restore(&repository, &saved, &target).await;
        assert!(!report.is_partial(), "{report:?}");
        let restored = target.join("source");
        assert_eq!(
            only(attributes(&restored), Namespaces::default()),
            expected,
            "round {round}"
        );
        assert_eq!(picture(&restored), picture(&source));
        set(&restored.join("plain"), "user.added", b"since").unwrap();
        set(&restored.join("plain"), "user.bytes", b"changed").unwrap();
        set(&restored.join("folder"), DEFAULT, &acl(7, 7, 7)).unwrap();
        set(&restored.join("read only"), ACCESS, &acl(7, 7, 7)).unwrap();
        rustix::fs::lremovexattr(restored.join("with acl"), ACCESS).unwrap();
    }
    let Some(restic) = Restic::find(test) else { return };
    restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
    let theirs = folder.path().join("theirs");
    let id = saved.snapshot.to_string();
    restic.ok(&repo, PASSWORD, &["restore", &id, "--target", theirs.to_str().unwrap()]);
    assert_eq!(
        only(attributes(&theirs.join("source")), Namespaces::default()),
        expected,
        "restic restores ours"
    );
    restic.ok(&repo, PASSWORD, &["backup", "--force", source.to_str().unwrap()]);
    let filter = SnapshotFilter::default();
    let latest = snapshots::find(&repository, "latest", &filter).await.unwrap();
    assert_ne!(latest.id, saved.snapshot);
    let back = folder.path().join("back");
    let (silent, cancel) = (backups::Silent, tokio_util::sync::CancellationToken::new());
    let options = RestoreOptions::default();
    let report = backups::restore(&repository, &latest.id, &back, &options, &silent, &cancel)
        .await
        .unwrap();
    assert!(!report.is_partial(), "{report:?}");
    let back = back.join(source.strip_prefix("/").unwrap());
    assert_eq!(
        only(attributes(&back), Namespaces::default()),
        expected,
        "we restore restic's"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_system_trusts_is_saved_and_restored_on_request_alone() {
    let test = "what_the_system_trusts_is_saved_and_restored_on_request_alone";
    let folder = tempfile::tempdir().unwrap();
    if !are_kept(test, folder.path(), &["user.x", "security.test", "trusted.test"]) {
        return;
    }
    let source = folder.path().join("source");
    std::fs::write(&source, b"content").unwrap();
    for name in ["user.x", "security.test", "trusted.test"] {
        set(&source, name, name.as_bytes()).unwrap();
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let names = |path: &Path| attributes(path)[Path::new("")].1.keys().cloned().collect::<Vec<_>>();
    let all: Namespaces = Namespace::ALL.into_iter().map(|(_, namespace)| namespace).collect();
    let saved_with = async |attributes: Namespaces| {
        let options = FilesOptions {
            attributes,
            ..FilesOptions::default()
        };
        let source = FilesSource::with(vec![source.clone()], options);
        save(&repository, &source).await.unwrap()
    };
    let (few, none, full) = (
        saved_with(Namespaces::default()).await,
        saved_with(Namespaces::from_iter([])).await,
        saved_with(all).await,
    );
    let restored = async |saved, attributes, name: &str| {
        let options = RestoreOptions {
            attributes,
            ..RestoreOptions::default()
        };
        let target = folder.path().join(name);
        let report = restore_with(&repository, saved, &target, &options).await.unwrap();
        assert!(!report.is_partial(), "{report:?}");
        (names(&target.join("source")), report.withheld_attributes)
    };
    let (default, user) = (Namespaces::default(), vec!["user.x".to_owned()]);
    assert_eq!(restored(&few, all, "few").await, (user.clone(), 0));
    assert_eq!(restored(&none, all, "none").await, (vec![], 0));
    assert_eq!(restored(&full, default, "default").await, (user, 2));
    let (mut names, withheld) = restored(&full, all, "full").await;
    names.sort();
    assert_eq!(
        (names.join(" ").as_str(), withheld),
        ("security.test trusted.test user.x", 0)
    );
}

/// Where an ACL cannot be, nobody gets more rights than they had.
#[tokio::test(flavor = "multi_thread")]
async fn without_its_acl_a_file_grants_its_group_no_more() {
    let folder = tempfile::tempdir().unwrap();
    if !are_kept(
        "without_its_acl_a_file_grants_its_group_no_more",
        folder.path(),
        &[ACCESS],
    ) {
        return;
    }
    let source = folder.path().join("source");
    std::fs::write(&source, b"content").unwrap();
    set(&source, ACCESS, &acl(6, 6, 4)).unwrap();
    assert_eq!(
        source.metadata().unwrap().mode() & 0o777,
        0o670,
        "the mode shows the mask"
    );
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    let options = RestoreOptions {
        attributes: Namespaces::from_iter([Namespace::User]),
        ..RestoreOptions::default()
    };
    let target = folder.path().join("target");
    let report = restore_with(&repository, &saved, &target, &options).await.unwrap();
    assert_eq!(report.withheld_attributes, 1);
    assert_eq!(target.join("source").metadata().unwrap().mode() & 0o777, 0o640);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_without_attributes_gets_the_content_and_says_what_it_lacks() {
    let test = "a_target_without_attributes_gets_the_content_and_says_what_it_lacks";
    let folder = tempfile::tempdir().unwrap();
    if !are_kept(test, folder.path(), &["user.x"]) {
        return;
    }
    let (source, mount) = (folder.path().join("source"), folder.path().join("mount"));
    std::fs::write(&source, b"content").unwrap();
    set(&source, "user.note", b"lost").unwrap();
    std::fs::create_dir(&mount).unwrap();
    let mut command = std::process::Command::new("mount");
    let mounted = command.args(["-t", "ramfs", "ramfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        peers::skip(test, "a file system without attributes cannot be mounted here");
        return;
    }
    std::fs::write(mount.join("probe"), b"").unwrap();
    let lacks = set(&mount.join("probe"), "user.x", b"x").is_err();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    let report = restore(&repository, &saved, &mount).await;
    let content = std::fs::read(mount.join("source"));
    std::process::Command::new("umount").arg(&mount).status().unwrap();
    assert_eq!(content.unwrap(), b"content");
    if lacks {
        assert_eq!(report.files, 1);
        assert_eq!(report.skipped.len(), 1, "{report:?}");
        assert!(report.skipped[0].reason.contains("user.note"), "{report:?}");
    } else {
        peers::skip(test, "every file system here has attributes");
    }
}
