//! Every kind of damage that restic's own tests know, made to repositories of ours: restic's verdict and ours agree, and
//! ours names the object. Restic's own repositories are in `damage.rs`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use async_trait::async_trait;
use backups::repo::{Node, NodeKind, Writer};
use backups::source::{Source, Verification, Written};
use backups::store::LocalStore;
use backups::{CheckOptions, Error, Id, Object, ReadData, Repository, Severity, Silent, Store};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// A repository with two snapshots and packs of known kinds.
struct Lab {
    repo: PathBuf,
    /// Data packs of one size.
    data: Vec<PathBuf>,
    /// Packs of directories.
    trees: Vec<PathBuf>,
    indexes: Vec<PathBuf>,
    snapshots: Vec<PathBuf>,
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_in(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn id(path: &Path) -> Id {
    path.file_name().unwrap().to_str().unwrap().parse().unwrap()
}

impl Lab {
    fn at(repo: PathBuf) -> Self {
        let packs = files_in(&repo.join("data"));
        let (data, trees) = packs
            .into_iter()
            .partition(|path| path.metadata().unwrap().len() > 300_000);
        Self {
            data,
            trees,
            indexes: files_in(&repo.join("index")),
            snapshots: files_in(&repo.join("snapshots")),
            repo,
        }
    }

    /// The same somewhere else.
    fn copy(&self, to: &Path) -> Self {
        let done = Command::new("cp").arg("-a").arg(&self.repo).arg(to).status().unwrap();
        assert!(done.success());
        Self::at(to.to_owned())
    }
}

fn edit(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    edit(&mut bytes);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn flip_last(path: &Path) {
    edit(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
}

fn flip_first(path: &Path) {
    edit(path, |bytes| bytes[0] ^= 0x80);
}

fn flip_middle(path: &Path) {
    edit(path, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
}

fn truncate(path: &Path) {
    edit(path, |bytes| bytes.truncate(bytes.len() - 1));
}

fn empty(path: &Path) {
    edit(path, Vec::clear);
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// What must be found.
enum Expect {
    Sound,
    /// Damage of this object.
    Named(Object),
    /// Some directory cannot be read.
    ATree,
    /// Some content cannot be read.
    AFile,
    /// The repository cannot be opened.
    Refused(fn(&Object) -> bool),
}

type Damage = fn(&Lab) -> Expect;

fn pack(path: &Path) -> Expect {
    Expect::Named(Object::Pack(id(path)))
}

const DAMAGES: &[(&str, Damage)] = &[
    ("nothing", |_| Expect::Sound),
    ("last byte of a data pack flipped", |lab| {
        flip_last(&lab.data[0]);
        pack(&lab.data[0])
    }),
    ("first byte of a data pack flipped", |lab| {
        flip_first(&lab.data[0]);
        pack(&lab.data[0])
    }),
    ("a byte within a data pack flipped", |lab| {
        flip_middle(&lab.data[1]);
        pack(&lab.data[1])
    }),
    ("a byte of a data pack's header flipped", |lab| {
        edit(&lab.data[0], |bytes| {
            let at = bytes.len() - 20;
            bytes[at] ^= 1;
        });
        pack(&lab.data[0])
    }),
    ("a data pack one byte shorter", |lab| {
        truncate(&lab.data[0]);
        pack(&lab.data[0])
    }),
    ("a data pack one byte longer", |lab| {
        edit(&lab.data[0], |bytes| bytes.push(0));
        pack(&lab.data[0])
    }),
    ("a data pack cut to nothing", |lab| {
        empty(&lab.data[0]);
        pack(&lab.data[0])
    }),
    ("a data pack missing", |lab| {
        remove(&lab.data[0]);
        pack(&lab.data[0])
    }),
    ("all packs missing", |lab| {
        lab.data.iter().chain(&lab.trees).for_each(|path| remove(path));
        pack(&lab.data[0])
    }),
    ("two data packs of one size swapped", |lab| {
        let (one, two) = (&lab.data[0], &lab.data[1]);
        assert_eq!(one.metadata().unwrap().len(), two.metadata().unwrap().len());
        let spare = lab.repo.join("spare");
        std::fs::rename(one, &spare).unwrap();
        std::fs::rename(two, one).unwrap();
        std::fs::rename(&spare, two).unwrap();
        pack(one)
    }),
    ("a data pack in the place of another", |lab| {
        std::fs::copy(&lab.data[0], lab.repo.join("spare")).unwrap();
        std::fs::rename(lab.repo.join("spare"), &lab.data[1]).unwrap();
        pack(&lab.data[1])
    }),
    ("a data pack under another name", |lab| {
        let other = "ab".repeat(32);
        std::fs::create_dir_all(lab.repo.join("data/ab")).unwrap();
        std::fs::rename(&lab.data[0], lab.repo.join("data/ab").join(other)).unwrap();
        pack(&lab.data[0])
    }),
    ("a tree pack missing", |lab| {
        remove(&lab.trees[0]);
        pack(&lab.trees[0])
    }),
    ("a byte of a tree flipped", |lab| {
        edit(&lab.trees[0], |bytes| bytes[30] ^= 1);
        Expect::ATree
    }),
    ("a tree pack truncated", |lab| {
        truncate(&lab.trees[0]);
        pack(&lab.trees[0])
    }),
    ("a byte of an index flipped", |lab| {
        flip_middle(&lab.indexes[0]);
        Expect::Named(Object::Index(id(&lab.indexes[0])))
    }),
    ("the last byte of an index flipped", |lab| {
        flip_last(&lab.indexes[0]);
        Expect::Named(Object::Index(id(&lab.indexes[0])))
    }),
    ("an index truncated", |lab| {
        truncate(&lab.indexes[1]);
        Expect::Named(Object::Index(id(&lab.indexes[1])))
    }),
    ("an index cut to nothing", |lab| {
        empty(&lab.indexes[0]);
        Expect::Named(Object::Index(id(&lab.indexes[0])))
    }),
    ("an index missing", |lab| {
        remove(&lab.indexes[0]);
        Expect::ATree
    }),
    ("all indexes missing", |lab| {
        lab.indexes.iter().for_each(|path| remove(path));
        Expect::ATree
    }),
    ("a byte of a snapshot flipped", |lab| {
        flip_middle(&lab.snapshots[0]);
        Expect::Named(Object::Snapshot(id(&lab.snapshots[0])))
    }),
    ("a snapshot truncated", |lab| {
        truncate(&lab.snapshots[0]);
        Expect::Named(Object::Snapshot(id(&lab.snapshots[0])))
    }),
    ("a snapshot cut to nothing", |lab| {
        empty(&lab.snapshots[1]);
        Expect::Named(Object::Snapshot(id(&lab.snapshots[1])))
    }),
    ("a snapshot missing, which nobody can know", |lab| {
        remove(&lab.snapshots[0]);
        Expect::Sound
    }),
    ("everything missing but the packs, which nobody needs then", |lab| {
        lab.snapshots.iter().chain(&lab.indexes).for_each(|path| remove(path));
        Expect::Sound
    }),
    ("damage to a pack that no index names", |lab| {
        lab.snapshots.iter().chain(&lab.indexes).for_each(|path| remove(path));
        flip_middle(&lab.data[0]);
        Expect::Sound
    }),
    ("files that are none of ours", |lab| {
        let folder = lab.data[0].parent().unwrap();
        std::fs::write(folder.join("notes"), b"?").unwrap();
        std::fs::write(lab.repo.join("snapshots/README"), b"?").unwrap();
        std::fs::write(lab.repo.join("data/readme"), b"?").unwrap();
        Expect::Sound
    }),
    ("a pack of noise that no index names", |lab| {
        std::fs::create_dir_all(lab.repo.join("data/cd")).unwrap();
        std::fs::write(lab.repo.join("data/cd").join("cd".repeat(32)), noise(5, 1000)).unwrap();
        Expect::Sound
    }),
    ("a byte of the key flipped", |lab| {
        flip_middle(&files_in(&lab.repo.join("keys"))[0]);
        Expect::Refused(|object| matches!(object, Object::Key(_)))
    }),
    ("the key truncated", |lab| {
        truncate(&files_in(&lab.repo.join("keys"))[0]);
        Expect::Refused(|object| matches!(object, Object::Key(_)))
    }),
    ("a byte of the config flipped", |lab| {
        flip_middle(&lab.repo.join("config"));
        Expect::Refused(|object| *object == Object::Config)
    }),
    ("the config truncated", |lab| {
        truncate(&lab.repo.join("config"));
        Expect::Refused(|object| *object == Object::Config)
    }),
];

async fn open(repo: &Path) -> Result<Repository, Error> {
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(repo));
    Repository::open(store, PASSWORD).await
}

/// What our check says with all data read.
async fn judge(repo: &Path) -> Result<backups::CheckReport, Error> {
    let options = CheckOptions {
        read_data: ReadData::All,
    };
    backups::check(&open(repo).await?, &options, &Silent, &CancellationToken::new()).await
}

fn compare(name: &str, ours: &Result<backups::CheckReport, Error>, expect: &Expect) -> bool {
    let report = match (ours, expect) {
        (Err(Error::Damaged { object, .. }), Expect::Refused(fits)) => {
            assert!(fits(object), "{name}: {object:?}");
            return false;
        }
        (Ok(report), _) => report,
        (Err(error), _) => panic!("{name}: {error:?}"),
    };
    let found = |fits: &dyn Fn(&Object) -> bool| {
        let mut findings = report.findings.iter();
        findings.any(|finding| finding.severity == Severity::Error && fits(&finding.object))
    };
    let as_expected = match expect {
        Expect::Sound => report.is_sound(),
        Expect::Named(object) => found(&|found| found == object),
        Expect::ATree => found(&|found| matches!(found, Object::Tree(_))),
        Expect::AFile => found(&|found| matches!(found, Object::DataBlob(_))),
        Expect::Refused(_) => false,
    };
    assert!(as_expected, "{name}: {:?}", report.findings);
    report.is_sound()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_every_kind_of_damage_restic_and_we_agree() {
    let restic = Restic::find("in_every_kind_of_damage_restic_and_we_agree");
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&whole));
    let repository = init(&store).await;
    for seed in [1, 2] {
        let source = folder.path().join(format!("source{seed}"));
        std::fs::create_dir_all(source.join("folder")).unwrap();
        std::fs::write(source.join("folder/file"), noise(seed, 400_000)).unwrap();
        save(&repository, &files(&source)).await.unwrap();
    }
    let whole = Lab::at(whole);
    assert_eq!(
        (whole.data.len(), whole.indexes.len(), whole.snapshots.len()),
        (2, 2, 2)
    );
    // All at once: restic asks again and again, with longer and longer pauses, for what it cannot read.
    let mut cases = tokio::task::JoinSet::new();
    for (number, (name, damage)) in DAMAGES.iter().enumerate() {
        let lab = whole.copy(&folder.path().join(format!("damaged{number}")));
        let (expect, restic) = (damage(&lab), restic.clone());
        cases.spawn(async move {
            let sound = compare(name, &judge(&lab.repo).await, &expect);
            let Some(restic) = restic else { return };
            let judging =
                tokio::task::spawn_blocking(move || restic.run(&lab.repo, PASSWORD, &["check", "--read-data"]));
            let judged = judging.await.unwrap();
            let said = String::from_utf8_lossy(&judged.stderr);
            assert_eq!(judged.status.success(), sound, "{name}: restic says {said}");
        });
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

/// Blobs that are stored twice are no damage, and neither judge takes them for any.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_stored_twice_are_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let repo = folder.path().join("repo");
    let store: Arc<dyn Store> = Arc::new(LocalStore::new(&repo));
    let repository = init(&store).await;
    let source = folder.path().join("source");
    odd_tree(&source);
    save(&repository, &files(&source)).await.unwrap();
    let (index, aside) = (files_in(&repo.join("index")).remove(0), folder.path().join("aside"));
    std::fs::rename(&index, &aside).unwrap();
    save(&open(&repo).await.unwrap(), &files(&source)).await.unwrap();
    std::fs::rename(&aside, &index).unwrap();
    let found = judge(&repo).await.unwrap();
    assert!(found.is_sound(), "{:?}", found.findings);
    assert!(
        found
            .findings
            .iter()
            .any(|finding| finding.problem == backups::Problem::SeveralCopies)
    );
    if let Some(restic) = Restic::find("blobs_stored_twice_are_no_damage") {
        restic.ok(&repo, PASSWORD, &["check", "--read-data"]);
    }
    // One of the two copies is enough.
    let packs = files_in(&repo.join("data"));
    let largest = packs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    flip_middle(largest);
    assert!(!judge(&repo).await.unwrap().is_sound());
    let list = backups::snapshots::list(&repository, &backups::SnapshotFilter::default())
        .await
        .unwrap();
    for record in list.snapshots {
        let target = folder.path().join(record.id.short());
        let (options, cancel) = (backups::RestoreOptions::default(), CancellationToken::new());
        let report = backups::restore(&repository, &record.id, &target, &options, &Silent, &cancel)
            .await
            .unwrap();
        assert!(!report.is_partial(), "{report:?}");
        assert_eq!(picture(&target.join("source")), picture(&source));
    }
}

/// A source whose directories are not what they should be.
struct Odd(Make);

/// Adds to a directory, which has one good file, what is odd; the content of that file is there to be used.
type Make = fn(&mut Vec<Node>, Id);

#[async_trait]
impl Source for Odd {
    fn kind(&self) -> &'static str {
        "odd"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec!["/odd".into()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let content = into.save_bytes(b"content".to_vec()).await?;
        let mut node = Node::new("good", NodeKind::File, 0o644);
        (node.size, node.content) = (7, Some(content.blobs.clone()));
        let mut nodes = vec![node];
        (self.0)(&mut nodes, content.blobs[0]);
        let root = backups::repo::Tree { nodes };
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

fn file(name: &str, content: Option<Vec<Id>>) -> Node {
    let mut node = Node::new(name, NodeKind::File, 0o644);
    node.content = content;
    node
}

fn folder(name: &str, subtree: Option<Id>) -> Node {
    let mut node = Node::new(name, NodeKind::Dir, 0o755);
    node.subtree = subtree;
    node
}

#[tokio::test(flavor = "multi_thread")]
async fn in_every_kind_of_malformed_directory_restic_and_we_agree() {
    let restic = Restic::find("in_every_kind_of_malformed_directory_restic_and_we_agree");
    let kinds: [(&str, Make, Expect); 9] = [
        ("nothing odd", |_, _| {}, Expect::Sound),
        (
            "a directory without a list",
            |nodes, _| nodes.push(folder("x", None)),
            Expect::ATree,
        ),
        (
            "a directory whose list does not exist",
            |nodes, _| nodes.push(folder("x", Some(Id::of(b"nowhere")))),
            Expect::ATree,
        ),
        (
            "a directory whose list is a file's content",
            |nodes, blob| nodes.push(folder("x", Some(blob))),
            Expect::ATree,
        ),
        (
            "a file without a list of its content",
            |nodes, _| nodes.push(file("x", None)),
            Expect::ATree,
        ),
        (
            "a file whose content does not exist",
            |nodes, blob| nodes.push(file("x", Some(vec![blob, Id::of(b"nowhere")]))),
            Expect::AFile,
        ),
        (
            "a file with a blob of zeros for a name",
            |nodes, _| nodes.push(file("x", Some(vec![Id::from_bytes([0; 32])]))),
            Expect::AFile,
        ),
        (
            "an item of an unknown kind",
            |nodes, _| nodes.push(Node::new("x", NodeKind::Unknown, 0o644)),
            Expect::ATree,
        ),
        (
            "an item without a name",
            |nodes, blob| nodes.push(file("", Some(vec![blob]))),
            Expect::ATree,
        ),
    ];
    for (name, make, expect) in kinds {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()));
        save(&init(&store).await, &Odd(make)).await.unwrap();
        let sound = compare(name, &judge(folder.path()).await, &expect);
        if let Some(restic) = &restic {
            let judged = restic.run(folder.path(), PASSWORD, &["check", "--read-data"]);
            let said = String::from_utf8_lossy(&judged.stderr);
            assert_eq!(judged.status.success(), sound, "{name}: restic says {said}");
        }
    }
}
