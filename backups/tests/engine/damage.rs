//! Damage is found, named, and costs no more than what it touches. Hostile content harms nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backups::repo::{Node, NodeKind, Repository, Tree, Writer};
use backups::source::{Source, Verification, Written};
use backups::store::{LocalStore, MemoryStore, StoreKey, list_all};
use backups::{Damage, Error, Object, Problem, RestoreOptions, Severity, Silent, SnapshotFilter, Store, snapshots};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// A small repository in memory, with its source and its one backup.
struct Sample {
    memory: Arc<MemoryStore>,
    store: Arc<dyn Store>,
    folder: tempfile::TempDir,
    saved: backups::BackupReport,
}

async fn sample() -> Sample {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    odd_tree(&source);
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let saved = save(&init(&store).await, &files(&source)).await.unwrap();
    Sample {
        memory,
        store,
        folder,
        saved,
    }
}

impl Sample {
    async fn keys(&self, prefix: &str) -> Vec<StoreKey> {
        list_all(&*self.store, prefix)
            .await
            .unwrap()
            .into_iter()
            .map(|entry| entry.key)
            .collect()
    }

    async fn edit(&self, key: &StoreKey, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut body = self.store.get(key).await.unwrap().to_vec();
        edit(&mut body);
        self.memory.overwrite(key.clone(), body);
    }

    async fn open(&self) -> Repository {
        Repository::open(Arc::clone(&self.store), PASSWORD).await.unwrap()
    }
}

/// The packs that hold file content, the largest first.
async fn data_packs(sample: &Sample) -> Vec<StoreKey> {
    let mut entries = list_all(&*sample.store, "data/").await.unwrap();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.size));
    entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_the_files_it_touches_and_no_others() {
    let sample = sample().await;
    let pack = data_packs(&sample).await.remove(0);
    sample.edit(&pack, |body| body[1000] ^= 1).await;
    let repository = sample.open().await;
    let target = sample.folder.path().join("target");
    let report = restore(&repository, &sample.saved, &target).await;
    assert!(
        !report.damaged.is_empty() && report.damaged.len() <= 2,
        "{:?}",
        report.damaged
    );
    let (restored, original) = (
        picture(&target.join("source")),
        picture(&sample.folder.path().join("source")),
    );
    for (path, expected) in &original {
        let damaged = report
            .damaged
            .iter()
            .any(|damaged| damaged.path == Path::new("source").join(path));
        match restored.get(path) {
            Some(found) => assert!(!damaged && found == expected, "{path:?}"),
            None => assert!(damaged, "{path:?} is neither there nor listed"),
        }
    }
    assert_eq!(
        restored.len() + report.damaged.len(),
        original.len(),
        "nothing else is there"
    );

    let found = check(&repository).await;
    let object = Object::Pack(pack.file_name().parse().unwrap());
    let has = |object: Object, damage| {
        found
            .findings
            .iter()
            .any(|finding| finding.object == object && finding.problem == Problem::Damaged(damage))
    };
    assert!(has(object, Damage::WrongHash), "{:?}", found.findings);
    assert!(
        found
            .findings
            .iter()
            .any(|finding| matches!(finding.object, Object::DataBlob(_)))
    );
    // The structure alone is sound: only reading the data shows it.
    let structure = backups::check(
        &repository,
        &backups::CheckOptions::default(),
        &Silent,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    assert!(structure.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_damage_is_found_by_its_name() {
    type Edit = fn(&mut Vec<u8>);
    let flip: Edit = |body| {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    };
    let cut: Edit = |body| body.truncate(body.len() - 7);
    for (prefix, edit, expected) in [
        ("data/", cut, Damage::WrongSize),
        ("data/", flip, Damage::WrongHash),
        ("index/", flip, Damage::WrongHash),
        ("snapshots/", flip, Damage::WrongHash),
        ("snapshots/", cut, Damage::WrongHash),
        ("keys/", flip, Damage::WrongHash),
    ] {
        let sample = sample().await;
        let repository = sample.open().await;
        let key = sample.keys(prefix).await.remove(0);
        sample.edit(&key, edit).await;
        let found = check(&repository).await;
        let id: backups::Id = key.file_name().parse().unwrap();
        let object = match prefix {
            "data/" => Object::Pack(id),
            "index/" => Object::Index(id),
            "snapshots/" => Object::Snapshot(id),
            _ => Object::Key(id),
        };
        let worst: Vec<_> = found
            .findings
            .iter()
            .filter(|finding| finding.object == object)
            .collect();
        assert!(
            worst
                .iter()
                .any(|finding| finding.problem == Problem::Damaged(expected) && finding.severity == Severity::Error),
            "{prefix}: {:?}",
            found.findings
        );
        assert!(!found.is_sound());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_packs_and_indexes_are_found_and_affected_snapshots_named() {
    let sample = sample().await;
    let pack = data_packs(&sample).await.remove(0);
    sample.store.delete(&pack).await.unwrap();
    let repository = sample.open().await;
    let found = check(&repository).await;
    assert!(found.findings.iter().any(
        |finding| finding.object == Object::Pack(pack.file_name().parse().unwrap())
            && finding.problem == Problem::Damaged(Damage::Missing)
    ));
    assert!(
        found.findings.iter().any(
            |finding| matches!(finding.object, Object::DataBlob(_)) && finding.snapshots == [sample.saved.snapshot]
        )
    );
    let target = sample.folder.path().join("target");
    let report = restore(&repository, &sample.saved, &target).await;
    assert!(!report.damaged.is_empty() && report.files > 0, "{report:?}");

    let index = sample.keys("index/").await.remove(0);
    sample.store.delete(&index).await.unwrap();
    let found = check(&sample.open().await).await;
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.problem == Problem::Orphan && finding.severity == Severity::Note)
    );
    assert!(found.findings.iter().any(
        |finding| matches!(finding.object, Object::Tree(_)) && finding.problem == Problem::Damaged(Damage::Missing)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_hides_no_other() {
    let sample = sample().await;
    let repository = sample.open().await;
    let second = backups::backup(
        &repository,
        &files(&sample.folder.path().join("source")),
        &options(9),
        &Silent,
        &CancellationToken::new(),
    )
    .await
    .unwrap();
    let key = StoreKey::new(format!("snapshots/{}", second.snapshot)).unwrap();
    sample.edit(&key, |body| body[20] ^= 4).await;
    let list = snapshots::list(&repository, &SnapshotFilter::default()).await.unwrap();
    assert_eq!(list.damaged, [(second.snapshot, Damage::WrongHash)]);
    let latest = snapshots::find(&repository, "latest", &SnapshotFilter::default())
        .await
        .unwrap();
    assert_eq!(latest.id, sample.saved.snapshot);
    let asked = snapshots::find(&repository, &second.snapshot.short(), &SnapshotFilter::default()).await;
    assert!(
        matches!(
            asked,
            Err(Error::Damaged {
                object: Object::Snapshot(_),
                ..
            })
        ),
        "{asked:?}"
    );
    let none = snapshots::find(&repository, "0000000000000", &SnapshotFilter::default()).await;
    assert!(matches!(none, Err(Error::SnapshotNotFound { .. })));
}

/// The damaged tree is named with the snapshots that need it and the path that leads there; the restore lists the path.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_tree_is_named_with_its_snapshots_and_its_path() {
    let sample = sample().await;
    let repository = sample.open().await;
    let source = sample.folder.path().join("source");
    std::fs::write(source.join("small, and new"), b"the root changes, and nothing else").unwrap();
    let second = save(&repository, &files(&source)).await.unwrap();
    let mut both = vec![sample.saved.snapshot, second.snapshot];
    both.sort_unstable();
    let packs: Vec<StoreKey> = sample.keys("data/").await;
    let (mut paths, mut roots) = (std::collections::BTreeSet::new(), 0);
    for pack in packs {
        // One bit after the other costs one tree after the other.
        let length = sample.store.get(&pack).await.unwrap().len();
        for at in (0..length.min(6000)).step_by(100) {
            sample.edit(&pack, |body| body[at] ^= 1).await;
            let target = sample.folder.path().join(format!("{}-{at}", pack.file_name()));
            let repository = sample.open().await;
            let found = check(&repository).await;
            let trees = found
                .findings
                .iter()
                .filter(|finding| matches!(finding.object, Object::Tree(_)));
            for finding in trees.clone() {
                let path = finding.path.clone().expect("a path leads to every tree");
                let needed_by = &finding.snapshots;
                let options = RestoreOptions::default();
                let restored = restore_with(&repository, &sample.saved, &target, &options).await;
                if path == Path::new("") {
                    roots += 1;
                    assert_eq!(needed_by.len(), 1, "each snapshot has a root of its own");
                    if *needed_by == [sample.saved.snapshot] {
                        let said = restored.unwrap_err().to_string();
                        assert!(said.contains(&sample.saved.snapshot.short()), "{said}");
                    }
                } else if needed_by.contains(&sample.saved.snapshot) {
                    let damaged = restored.unwrap().damaged;
                    assert!(
                        damaged.iter().any(|damaged| damaged.path == path),
                        "{path:?}: {damaged:?}"
                    );
                }
                if path.starts_with("source/deep") {
                    let mut needed_by = needed_by.clone();
                    needed_by.sort_unstable();
                    assert_eq!(needed_by, both, "{path:?} is in both");
                }
                paths.insert(path);
            }
            assert!(trees.count() <= 1, "said once: {:?}", found.findings);
            sample.edit(&pack, |body| body[at] ^= 1).await;
        }
    }
    assert!(roots >= 2, "{roots}");
    let all = [
        "",
        "source",
        "source/deep",
        "source/deep/er",
        "source/deep/er/still",
        "source/empty folder",
    ];
    assert!(
        paths.iter().all(|path| all.contains(&path.to_str().unwrap())),
        "{paths:?}"
    );
    assert!(paths.len() >= 4, "{paths:?}");
}

/// Two packs of one size change places: both are authentic, neither is what the index says.
#[tokio::test(flavor = "multi_thread")]
async fn swapped_blobs_are_never_taken_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Arc::new(MemoryStore::new());
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
    let repository = init(&store).await;
    let mut saved = Vec::new();
    for seed in [1, 2] {
        let source = folder.path().join(format!("source{seed}"));
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), noise(seed, 400_000)).unwrap();
        saved.push(save(&repository, &files(&source)).await.unwrap());
    }
    let large: Vec<_> = list_all(&*store, "data/")
        .await
        .unwrap()
        .into_iter()
        .filter(|entry| entry.size > 400_000)
        .collect();
    assert_eq!((large.len(), large[0].size), (2, large[1].size));
    let bodies = [
        store.get(&large[0].key).await.unwrap(),
        store.get(&large[1].key).await.unwrap(),
    ];
    memory.overwrite(large[0].key.clone(), bodies[1].clone());
    memory.overwrite(large[1].key.clone(), bodies[0].clone());
    for saved in &saved {
        let report = restore(&repository, saved, &folder.path().join(saved.snapshot.short())).await;
        assert_eq!((report.damaged.len(), report.files), (1, 0), "{report:?}");
    }
    assert!(!check(&repository).await.is_sound());
}

/// What restic's own tests keep: sound and damaged repositories of format 1.
#[tokio::test(flavor = "multi_thread")]
async fn in_restics_repositories_we_find_what_restic_finds() {
    let test = "in_restics_repositories_we_find_what_restic_finds";
    let Some(tarballs) = peers::shared_data("restic-repositories", test) else {
        return;
    };
    let judge = Restic::find(test);
    for (name, sound, expected) in [
        ("small-repo", true, None),
        ("repo-mixed", true, None),
        ("repo-same-timestamps", true, None),
        ("repo-duplicates", true, Some(Problem::SeveralCopies)),
        ("repo-data-missing", false, Some(Problem::Damaged(Damage::Missing))),
        ("repo-index-missing", false, Some(Problem::Damaged(Damage::Missing))),
    ] {
        let folder = tempfile::tempdir().unwrap();
        unpack(&tarballs.join(format!("{name}.tar.gz")), folder.path());
        let repo = std::fs::read_dir(folder.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
        let repository = Repository::open(store, "geheim").await.unwrap();
        assert_eq!(repository.version(), 1);
        let found = check(&repository).await;
        println!("{name}: {:?}", found.findings);
        if let Some(restic) = &judge {
            let judged = restic.run(&repo, "geheim", &["--no-lock", "check", "--read-data"]);
            assert_eq!(
                judged.status.success(),
                found.is_sound(),
                "{name}: {}{}",
                String::from_utf8_lossy(&judged.stdout),
                String::from_utf8_lossy(&judged.stderr)
            );
        }
        assert_eq!(found.is_sound(), sound, "{name}: {:?}", found.findings);
        if let Some(problem) = expected {
            assert!(
                found.findings.iter().any(|finding| finding.problem == problem),
                "{name}"
            );
        }
        let list = snapshots::list(&repository, &SnapshotFilter::default()).await.unwrap();
        for record in &list.snapshots {
            let target = folder.path().join(format!("ours-{}", record.id));
            let report = backups::restore(
                &repository,
                &record.id,
                &target,
                &RestoreOptions::default(),
                &Silent,
                &CancellationToken::new(),
            )
            .await;
            if !sound {
                continue;
            }
            let report = report.unwrap();
            assert!(report.damaged.is_empty(), "{name}: {report:?}");
            if let Some(restic) = &judge {
                let theirs = folder.path().join(format!("theirs-{}", record.id));
                restic.ok(
                    &repo,
                    "geheim",
                    &[
                        "--no-lock",
                        "restore",
                        &record.id.to_string(),
                        "--target",
                        theirs.to_str().unwrap(),
                    ],
                );
                let plain = |root: &Path| {
                    picture(root)
                        .into_iter()
                        .map(|(path, said)| (path, said.split(' ').skip(4).map(str::to_owned).collect::<Vec<_>>()))
                        .collect::<Vec<_>>()
                };
                assert_eq!(plain(&target), plain(&theirs), "{name}");
            }
        }
    }
}

/// A source that writes what a hostile repository would hold.
struct Hostile(fn(&mut Vec<Node>, backups::Id));

#[async_trait]
impl Source for Hostile {
    fn kind(&self) -> &'static str {
        "hostile"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec!["/hostile".into()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let content = into.save_bytes(b"evil".to_vec()).await?;
        let inner = into
            .save_tree(&Tree::new(vec![file("inner", content.blobs[0])]))
            .await?;
        let mut nodes = vec![file("good", content.blobs[0])];
        let mut folder = Node::new("folder", NodeKind::Dir, 0o755);
        folder.subtree = Some(inner);
        nodes.push(folder);
        (self.0)(&mut nodes, inner);
        Ok(Written {
            root: Tree { nodes },
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, _: &Path) -> Result<Verification, Error> {
        Ok(Verification { checks: Vec::new() })
    }
}

fn file(name: &str, blob: backups::Id) -> Node {
    let mut node = Node::new(name, NodeKind::File, 0o6755);
    node.content = Some(vec![blob]);
    node.size = 4;
    node
}

fn link(name: &str, target: &str) -> Node {
    let mut node = Node::new(name, NodeKind::Symlink, 0o777);
    node.set_link_target(target.as_ref());
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_the_target() {
    let attacks: [fn(&mut Vec<Node>, backups::Id); 6] = [
        |nodes, _| nodes.push(file("../escaped", nodes[0].content.clone().unwrap()[0])),
        |nodes, _| nodes.push(file("/tmp/opsctl-escaped", nodes[0].content.clone().unwrap()[0])),
        |nodes, tree| {
            let mut dir = Node::new("..", NodeKind::Dir, 0o755);
            dir.subtree = Some(tree);
            nodes.push(dir);
        },
        // A link that leads out, then a directory of the same name that would be written through it.
        |nodes, tree| {
            nodes.push(link("sub", ".."));
            let mut dir = Node::new("sub", NodeKind::Dir, 0o755);
            dir.subtree = Some(tree);
            nodes.push(dir);
        },
        |nodes, _| nodes.push(file("", nodes[0].content.clone().unwrap()[0])),
        |nodes, _| nodes.push(file("a/b", nodes[0].content.clone().unwrap()[0])),
    ];
    for (number, attack) in attacks.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let repository = init(&store).await;
        let saved = save(&repository, &Hostile(attack)).await.unwrap();
        let outer = folder.path().join("outer");
        let target = outer.join("target");
        let report = restore(&repository, &saved, &target).await;
        assert!(!report.skipped.is_empty(), "attack {number}: {report:?}");
        let around: Vec<_> = std::fs::read_dir(&outer)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(around, ["target"], "attack {number}");
        assert!(!Path::new("/tmp/opsctl-escaped").exists());
        assert_eq!(std::fs::read(target.join("good")).unwrap(), b"evil");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            target.join("good").metadata().unwrap().permissions().mode() & 0o7777,
            0o755,
            "no setuid unless asked for"
        );
        assert!(
            !check(&repository).await.is_sound(),
            "attack {number}: the check sees it too"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_there_already_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &Hostile(|_, _| {})).await.unwrap();
    let (target, elsewhere) = (folder.path().join("target"), folder.path().join("elsewhere"));
    for path in [&target, &elsewhere] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(elsewhere.join("good"), "mine").unwrap();
    std::os::unix::fs::symlink(&elsewhere, target.join("folder")).unwrap();
    std::os::unix::fs::symlink(elsewhere.join("good"), target.join("good")).unwrap();
    let report = restore(&repository, &saved, &target).await;
    assert!(
        report.skipped.iter().any(|skipped| skipped.path.starts_with("folder")),
        "{report:?}"
    );
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1, "nothing came in");
    assert_eq!(
        std::fs::read(elsewhere.join("good")).unwrap(),
        b"mine",
        "a link is replaced, not written through"
    );
    assert_eq!(std::fs::read(target.join("good")).unwrap(), b"evil");
    let allowed = RestoreOptions {
        setuid: true,
        ..RestoreOptions::default()
    };
    restore_with(&repository, &saved, &folder.path().join("allowed"), &allowed)
        .await
        .unwrap();
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        folder
            .path()
            .join("allowed/good")
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o7777,
        0o6755
    );
}

/// A directory that holds itself many times over would be nested for ever; trees are named after their content, so the
/// worst that can be made is deep.
#[tokio::test(flavor = "multi_thread")]
async fn directories_nested_without_end_are_given_up() {
    struct Deep;
    #[async_trait]
    impl Source for Deep {
        fn kind(&self) -> &'static str {
            "deep"
        }
        fn paths(&self) -> Vec<PathBuf> {
            vec!["/deep".into()]
        }
        async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
            let mut root = Tree::default();
            for _ in 0..1500 {
                let mut node = Node::new("d", NodeKind::Dir, 0o755);
                node.subtree = Some(into.save_tree(&root).await?);
                root = Tree::new(vec![node]);
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
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let repository = init(&store).await;
    let saved = save(&repository, &Deep).await.unwrap();
    let report = restore(&repository, &saved, &folder.path().join("target")).await;
    assert_eq!(report.damaged.len(), 1, "{:?}", report.damaged);
    // The check reads on below, and tells where the restore stops.
    let checked = check(&repository).await;
    assert_eq!(checked.trees, 1501);
    let [finding] = &checked.findings[..] else {
        panic!("{:?}", checked.findings);
    };
    assert_eq!(finding.problem, Problem::Damaged(Damage::TooDeep));
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.path.as_ref(), Some(&report.damaged[0].path));
    assert_eq!(finding.snapshots, [saved.snapshot]);
    let snapshot = repository.snapshot(&saved.snapshot).await.unwrap();
    assert!(
        snapshots::ls(&repository, &snapshot, Path::new(""), true)
            .await
            .is_err()
    );
}
