//! Repositories that mean harm, through the public surface: names that lead elsewhere, links that are swapped while a
//! restore writes, trees that stand for more than there is memory. What readers make of odd bytes is in the crate's own
//! `repo/hostile.rs`, damage in `damage`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use backups::copy::Selection;
use backups::prune::PruneOptions;
use backups::repair::{RepairOptions, Scope};
use backups::repo::{Node, NodeKind, Tree, Writer};
use backups::source::{Source, Verification, Written};
use backups::store::MemoryStore;
use backups::{
    BackupReport, Damage, Error, Id, Problem, Repository, Severity, Silent, Store, copy, prune, repair, snapshots,
};
use rustix::fs::{CWD, RenameFlags};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// A source that writes what a test says.
enum Made {
    /// A root of these nodes.
    Nodes(fn(Id) -> Vec<Node>),
    /// Directories that each hold the one below twice: two to this power files.
    Twice(u32),
    /// A directory deep below long names with so many files.
    Deep(u32),
    /// Files in one directory.
    Many(u32),
}

#[async_trait]
impl Source for Made {
    fn kind(&self) -> &'static str {
        "made"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec!["/made".into()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let evil = into.save_bytes(b"evil".to_vec()).await?.blobs[0];
        let files = |count: u32| {
            let files = (0..count).map(|number| file(format!("file-{number:06}").as_bytes(), evil));
            Tree::new(files.collect())
        };
        let mut root = match self {
            Self::Nodes(nodes) => Tree { nodes: nodes(evil) },
            Self::Twice(_) => files(1),
            Self::Deep(count) => files(*count),
            Self::Many(count) => {
                let mut all = Node::new("all", NodeKind::Dir, 0o755);
                all.subtree = Some(into.save_tree(&files(*count)).await?);
                Tree::new(vec![all])
            }
        };
        let (levels, names) = match self {
            Self::Twice(levels) => (*levels, ["a".to_owned(), "b".to_owned()].to_vec()),
            Self::Deep(_) => (900, vec!["n".repeat(250)]),
            _ => (0, Vec::new()),
        };
        for _ in 0..levels {
            let below = into.save_tree(&root).await?;
            root = Tree::new(names.iter().map(|name| folder(name, below)).collect());
        }
        Ok(Written {
            root,
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, _: &Path) -> Result<Verification, Error> {
        Ok(Verification { checks: Vec::new() })
    }
}

fn file(name: &[u8], blob: Id) -> Node {
    let mut node = Node::new(OsStr::from_bytes(name), NodeKind::File, 0o644);
    node.content = Some(vec![blob]);
    node.size = 4;
    node
}

fn folder(name: &str, tree: Id) -> Node {
    let mut node = Node::new(name, NodeKind::Dir, 0o755);
    node.subtree = Some(tree);
    node
}

/// A second name of whatever else has this inode.
fn named_again(name: &[u8], blob: Id) -> Node {
    let mut node = file(name, blob);
    (node.links, node.inode, node.device_id) = (2, 77, 1);
    node
}

fn link(name: &str, target: &str) -> Node {
    let mut node = Node::new(name, NodeKind::Symlink, 0o777);
    node.set_link_target(target.as_ref());
    node
}

async fn made(source: &Made) -> (Repository, BackupReport) {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, source).await.unwrap();
    (repository, saved)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// What an attacker puts into a directory, with the name of a blob that there is.
type Attack = fn(Id) -> Vec<Node>;

#[tokio::test(flavor = "multi_thread")]
async fn no_name_and_no_link_leads_out_of_the_target() {
    let attacks: [(&str, Attack); 6] = [
        ("nul", |blob| vec![file(b"a\0b", blob), file(b"\0", blob)]),
        ("dots", |blob| {
            vec![file(b".", blob), file(b"..", blob), file(b"../x", blob)]
        }),
        ("long", |blob| {
            vec![file(&[b'x'; 256], blob), file(&[b'y'; 70_000], blob)]
        }),
        ("separators", |blob| {
            vec![file(b"/", blob), file(b"/etc/x", blob), file(b"x/", blob)]
        }),
        // The second name would be made of what the link of the same name leads to.
        ("hard link through a link", |blob| {
            let first = named_again(b"first", blob);
            vec![first, link("first", "../outside/mine"), named_again(b"second", blob)]
        }),
        // The first file is refused, so that its other name has nothing to be made of.
        ("hard link to what is refused", |blob| {
            vec![named_again(b"../outside/mine", blob), named_again(b"second", blob)]
        }),
    ];
    for (attack, nodes) in attacks {
        let (repository, saved) = made(&Made::Nodes(nodes)).await;
        let around = tempfile::tempdir().unwrap();
        let (target, outside) = (around.path().join("target"), around.path().join("outside"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("mine"), "mine").unwrap();
        for _ in 0..2 {
            restore(&repository, &saved, &target).await;
            assert_eq!(names_in(around.path()), ["outside", "target"], "{attack}");
            assert_eq!(names_in(&outside), ["mine"], "{attack}");
            let mine = outside.join("mine");
            assert_eq!(mine.metadata().unwrap().nlink(), 1, "{attack}");
            assert_eq!(std::fs::read(mine).unwrap(), b"mine", "{attack}");
        }
        assert!(!check(&repository).await.is_sound(), "{attack}: the check sees it, too");
    }
}

/// Somebody who may write in the target swaps a directory for a link that leads out, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_swapped_in_meanwhile_is_not_followed() {
    const FILES: u32 = 1500;
    let (repository, saved) = made(&Made::Many(FILES)).await;
    let around = tempfile::tempdir().unwrap();
    let (target, outside) = (around.path().join("target"), around.path().join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir_all(target.join("all")).unwrap();
    symlink("../outside", target.join("link")).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let swapping = std::thread::spawn({
        let (done, target) = (Arc::clone(&done), target.clone());
        move || {
            let mut swaps = 0;
            while !done.load(Ordering::Relaxed) {
                let (one, other) = (target.join("all"), target.join("link"));
                rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        }
    });
    for _ in 0..3 {
        let options = backups::RestoreOptions::default();
        // Items that met the link are listed; that all of them did is possible, too.
        let _ = restore_with(&repository, &saved, &target, &options).await;
    }
    done.store(true, Ordering::Relaxed);
    let swaps: u32 = swapping.join().unwrap();
    println!("{swaps} swaps");
    assert!(swaps > 10, "it raced: {swaps} swaps");
    assert_eq!(names_in(&outside), Vec::<String>::new(), "nothing came out");
}

/// Forty directories stand for a million million files. What needs each tree once needs no longer for it; what would lay
/// them out says that there is no end.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_doubles_at_each_level_is_read_once_or_refused() {
    let (repository, saved) = made(&Made::Twice(40)).await;
    let (silent, cancel) = (Silent, CancellationToken::new());
    is_found_endless(&repository, &saved).await;
    let options = PruneOptions::new(repository.store().time().await.unwrap());
    let plan = prune::plan(&repository, &options, &silent, &cancel).await.unwrap();
    plan.apply(&silent, &cancel).await.unwrap();
    let to = init(&(Arc::new(MemoryStore::new()) as Arc<dyn Store>)).await;
    copy::copy(&repository, &to, &Selection::default(), &silent, &cancel)
        .await
        .unwrap();
    assert_eq!(check(&to).await.trees, 41, "each was read once");
    let options = RepairOptions {
        scope: Scope::All,
        forget: false,
    };
    assert!(
        repair::plan(&repository, None, &options, &silent, &cancel)
            .await
            .unwrap()
            .is_empty()
    );
    refuses_to_lay_out(&repository, &saved).await;
}

/// A few hundred kilobytes of names make paths of gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn paths_that_grow_with_every_level_are_refused() {
    let (repository, saved) = made(&Made::Deep(5000)).await;
    is_found_endless(&repository, &saved).await;
    refuses_to_lay_out(&repository, &saved).await;
}

/// The check says of the snapshot what a restore of it would say, and nothing else.
async fn is_found_endless(repository: &Repository, saved: &BackupReport) {
    let report = check(repository).await;
    assert!(!report.is_sound());
    let [finding] = &report.findings[..] else {
        panic!("{:?}", report.findings);
    };
    assert_eq!(finding.problem, Problem::Damaged(Damage::Endless));
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.snapshots, [saved.snapshot]);
}

async fn refuses_to_lay_out(repository: &Repository, saved: &BackupReport) {
    let endless = |outcome: Result<(), Error>| {
        let damage = Damage::Endless;
        assert!(
            matches!(&outcome, Err(Error::Damaged { damage: found, .. }) if *found == damage),
            "{outcome:?}"
        );
    };
    let snapshot = repository.snapshot(&saved.snapshot).await.unwrap();
    let root = Path::new("");
    endless(snapshots::ls(repository, &snapshot, root, true).await.map(drop));
    let mut out = Vec::new();
    endless(snapshots::dump(repository, &snapshot, root, &mut out).await);
    assert!(out.is_empty());
    let mut other = snapshot.clone();
    let emptied = save(repository, &Made::Nodes(|_| Vec::new())).await.unwrap();
    other.tree = repository.snapshot(&emptied.snapshot).await.unwrap().tree;
    endless(snapshots::diff(repository, &snapshot, &other).await.map(drop));
    endless(snapshots::diff(repository, &other, &snapshot).await.map(drop));
    let target = tempfile::tempdir().unwrap();
    let restored = restore_with(repository, saved, target.path(), &backups::RestoreOptions::default()).await;
    endless(restored.map(drop));
    assert_eq!(names_in(target.path()), Vec::<String>::new());
    // A single directory of it can be seen.
    assert!(
        !snapshots::ls(repository, &snapshot, root, false)
            .await
            .unwrap()
            .is_empty()
    );
}

/// What is shared within reason is laid out: a thousand names of one directory of a hundred files.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_stands_in_many_places_is_no_attack() {
    struct Shared;
    #[async_trait]
    impl Source for Shared {
        fn kind(&self) -> &'static str {
            "shared"
        }
        fn paths(&self) -> Vec<PathBuf> {
            vec!["/shared".into()]
        }
        async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
            let evil = into.save_bytes(b"evil".to_vec()).await?.blobs[0];
            let files = (0..100).map(|number| file(format!("{number}").as_bytes(), evil));
            let below = into.save_tree(&Tree::new(files.collect())).await?;
            let folders = (0..1000).map(|number| folder(&format!("{number}"), below));
            Ok(Written {
                root: Tree::new(folders.collect()),
                skipped: Vec::new(),
                changed: Vec::new(),
            })
        }
        async fn verify(&self, _: &Path) -> Result<Verification, Error> {
            Ok(Verification { checks: Vec::new() })
        }
    }
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &Shared).await.unwrap();
    assert_eq!(check(&repository).await.findings, []);
    let snapshot = repository.snapshot(&saved.snapshot).await.unwrap();
    let listed = snapshots::ls(&repository, &snapshot, Path::new(""), true)
        .await
        .unwrap();
    assert_eq!(listed.len(), 101_000);
}
