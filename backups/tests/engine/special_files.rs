//! What is no plain file: devices, pipes, sockets; owners; files with several names; names that are not text.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backups::source::{Excludes, FilesSource};
use backups::store::{LocalStore, MemoryStore};
use backups::{RestoreOptions, SnapshotFilter, Store, snapshots};
use rustix::fs::{CWD, FileType, Mode};

use crate::world::*;

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        peers::skip(test, "only root may make devices and give files away");
    }
    root
}

fn make_device(path: &Path, kind: FileType, major: u32, minor: u32) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o640);
    rustix::fs::mknodat(CWD, path, kind, mode, rustix::fs::makedev(major, minor))
}

fn privileged() -> RestoreOptions {
    RestoreOptions {
        devices: true,
        owners: true,
        setuid: true,
        ..RestoreOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_come_back_on_request_pipes_always_and_sockets_never() {
    let test = "devices_come_back_on_request_pipes_always_and_sockets_never";
    if !is_root(test) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    // Numbers beyond eight bits: they are split in an odd way.
    let made = make_device(&source.join("char"), FileType::CharacterDevice, 1, 3)
        .and_then(|()| make_device(&source.join("block"), FileType::BlockDevice, 259, 70_000));
    if made.is_err() {
        peers::skip(test, "device nodes cannot be made here");
        return;
    }
    rustix::fs::mknodat(CWD, source.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    let repo = folder.path().join("repo");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    assert_eq!((&saved.skipped, &saved.changed), (&vec![], &vec![]));

    let plain = folder.path().join("plain");
    let report = restore(&repository, &saved, &plain).await;
    let skipped: Vec<_> = report.skipped.iter().map(|skipped| skipped.path.as_path()).collect();
    assert_eq!(skipped, ["source/block", "source/char", "source/socket"].map(Path::new));
    let names: Vec<_> = picture(&plain.join("source")).into_keys().collect();
    assert_eq!(names, ["", "pipe"].map(PathBuf::from));

    let full = folder.path().join("full");
    let report = restore_with(&repository, &saved, &full, &privileged()).await.unwrap();
    assert_eq!(report.skipped.len(), 1, "the socket: {report:?}");
    let mut judged = vec![full.clone()];
    if let Some(restic) = Restic::find(test) {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
        let theirs = folder.path().join("theirs");
        let id = saved.snapshot.to_string();
        restic.ok(&repo, PASSWORD, &["restore", &id, "--target", theirs.to_str().unwrap()]);
        judged.push(theirs);
    }
    for target in judged {
        for name in ["char", "block", "pipe"] {
            let of = |root: &Path| {
                let metadata = root.join("source").join(name).symlink_metadata().unwrap();
                (
                    metadata.mode(),
                    metadata.rdev(),
                    metadata.mtime(),
                    metadata.mtime_nsec(),
                )
            };
            assert_eq!(of(&target), of(folder.path()), "{name} in {target:?}");
        }
    }
    let restored = full.join("source");
    assert!(restored.join("char").metadata().unwrap().file_type().is_char_device());
    assert!(restored.join("block").metadata().unwrap().file_type().is_block_device());
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_come_back_on_request_for_every_kind_of_item() {
    if !is_root("owners_come_back_on_request_for_every_kind_of_item") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    // A number that no account has, a different one for each item, beyond sixteen bits.
    for (number, path) in picture(&source).into_keys().enumerate() {
        let (uid, gid) = (100_000 + number as u32, 200_000 + number as u32);
        std::os::unix::fs::lchown(source.join(path), Some(uid), Some(gid)).unwrap();
    }
    // Giving a file away takes these bits from it, so they must come after.
    rustix::fs::chmod(source.join("deep/text"), Mode::from_raw_mode(0o6755)).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &files(&source)).await.unwrap();
    let target = folder.path().join("target");
    for round in 1..=2 {
        let report = restore_with(&repository, &saved, &target, &privileged()).await.unwrap();
        assert!(!report.is_partial(), "{report:?}");
        assert_eq!(picture(&target.join("source")), picture(&source), "round {round}");
    }
    let ours = folder.path().join("ours");
    restore(&repository, &saved, &ours).await;
    for path in picture(&ours).into_keys() {
        let metadata = ours.join(&path).symlink_metadata().unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o6000),
            (0, 0, 0),
            "{path:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_one_file_stay_names_of_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let roots = ["one", "two"].map(|name| folder.path().join(name));
    std::fs::create_dir_all(roots[0].join("deep")).unwrap();
    std::fs::create_dir(&roots[1]).unwrap();
    std::fs::write(roots[0].join("b"), noise(1, 100_000)).unwrap();
    for name in [roots[0].join("deep/c"), roots[1].join("a")] {
        std::fs::hard_link(roots[0].join("b"), name).unwrap();
    }
    // Its other name lies outside of what is saved.
    std::fs::write(roots[1].join("half"), b"half").unwrap();
    std::fs::hard_link(roots[1].join("half"), folder.path().join("outside")).unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let source = FilesSource::new(roots.to_vec(), Excludes::default());
    let saved = save(&repository, &source).await.unwrap();
    assert_eq!(
        saved.summary.data_blobs, 2,
        "one file is stored once: {:?}",
        saved.summary
    );

    let target = folder.path().join("target");
    // What is there already: two names of one file as files of their own, and a name that leads to a stranger's file.
    std::fs::create_dir_all(target.join("one/deep")).unwrap();
    std::fs::write(target.join("one/b"), noise(1, 100_000)).unwrap();
    std::fs::write(target.join("one/deep/c"), noise(1, 100_000)).unwrap();
    let stranger = folder.path().join("stranger");
    std::fs::create_dir(target.join("two")).unwrap();
    std::fs::write(&stranger, b"mine").unwrap();
    std::fs::hard_link(&stranger, target.join("two/half")).unwrap();
    for _ in 0..2 {
        let report = restore(&repository, &saved, &target).await;
        assert!(!report.is_partial(), "{report:?}");
        let inode = |path: &str| target.join(path).metadata().unwrap().ino();
        assert_eq!([inode("one/deep/c"), inode("two/a")], [inode("one/b"); 2]);
        assert_eq!(
            target.join("one/b").metadata().unwrap().nlink(),
            3,
            "and no other name is left"
        );
        assert_eq!(std::fs::read(target.join("two/a")).unwrap(), noise(1, 100_000));
        assert_eq!(target.join("two/half").metadata().unwrap().nlink(), 1);
        assert_eq!(std::fs::read(&stranger).unwrap(), b"mine");
    }

    // Only some of the names.
    let part = folder.path().join("part");
    let wanted = RestoreOptions {
        include: vec!["one/deep".into(), "two/a".into()],
        ..RestoreOptions::default()
    };
    let report = restore_with(&repository, &saved, &part, &wanted).await.unwrap();
    assert!(!report.is_partial(), "{report:?}");
    assert_eq!(std::fs::read(part.join("two/a")).unwrap(), noise(1, 100_000));
    assert_eq!(part.join("one/deep/c").metadata().unwrap().nlink(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text_are_names_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let odd = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    // To anybody who reads them as text these two are the same.
    let roots = [b"root-\xff", b"root-\xfe"].map(|name| folder.path().join(odd(name)));
    for (number, root) in roots.iter().enumerate() {
        std::fs::create_dir_all(root.join(odd(b"in\xc3"))).unwrap();
        std::fs::write(root.join(odd(b"in\xc3/\xa0")), format!("content {number}")).unwrap();
        std::fs::write(root.join(odd(b"drop\xff.tmp")), b"excluded").unwrap();
        std::os::unix::fs::symlink(odd(b"in\xc3/\xa0"), root.join(odd(b"to\xc0"))).unwrap();
    }
    let repo = folder.path().join("repo");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let source = FilesSource::new(roots.to_vec(), Excludes::new(["*.tmp"]).unwrap());
    let saved = save(&repository, &source).await.unwrap();
    assert!(!saved.is_partial());
    for root in &roots {
        std::fs::remove_file(root.join(odd(b"drop\xff.tmp"))).unwrap();
    }
    let target = folder.path().join("target");
    let report = restore(&repository, &saved, &target).await;
    assert!(!report.is_partial(), "{report:?}");
    for root in &roots {
        // Something was removed from it since.
        let without_root = |mut picture: std::collections::BTreeMap<PathBuf, String>| {
            picture.remove(Path::new(""));
            picture
        };
        let restored = picture(&target.join(root.file_name().unwrap()));
        assert_eq!(without_root(restored), without_root(picture(root)));
    }
    // Asked for by name.
    let wanted = odd(b"root-\xfe/in\xc3/\xa0");
    let part = folder.path().join("part");
    let options = RestoreOptions {
        include: vec![wanted.clone()],
        ..RestoreOptions::default()
    };
    restore_with(&repository, &saved, &part, &options).await.unwrap();
    assert_eq!(std::fs::read(part.join(&wanted)).unwrap(), b"content 1");
    assert_eq!(std::fs::read_dir(&part).unwrap().count(), 1);
    let record = snapshots::find(&repository, "latest", &SnapshotFilter::default())
        .await
        .unwrap();
    let mut out = Vec::new();
    snapshots::dump(&repository, &record.snapshot, &wanted, &mut out)
        .await
        .unwrap();
    assert_eq!(out, b"content 1");
    // No file changed: none is read again.
    let again = save(&repository, &source).await.unwrap();
    assert_eq!((again.summary.files_unmodified, again.summary.data_blobs), (2, 0));
    if let Some(restic) = Restic::find("names_that_are_no_text_are_names_everywhere") {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
        let theirs = folder.path().join("theirs");
        let id = saved.snapshot.to_string();
        restic.ok(&repo, PASSWORD, &["restore", &id, "--target", theirs.to_str().unwrap()]);
        for (number, root) in roots.iter().enumerate() {
            let file = theirs.join(root.file_name().unwrap()).join(odd(b"in\xc3/\xa0"));
            assert_eq!(std::fs::read(file).unwrap(), format!("content {number}").as_bytes());
        }
    }
}
