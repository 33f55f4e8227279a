//! Files that do not hold still while they are saved: whatever happens to them, the snapshot is sound, says what it could
//! not take, and the next backup puts it right.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use backups::store::MemoryStore;
use backups::{BackupReport, Progress, Repository, Store};
use tokio_util::sync::CancellationToken;

use crate::world::*;

/// Does something once, at a moment of the backup.
struct Meddler<F> {
    moment: Moment,
    done: AtomicBool,
    deed: F,
}

#[derive(Clone, Copy, PartialEq)]
enum Moment {
    /// The walk has met the file called `victim`; it will be opened next.
    BeforeOpening,
    /// The first blocks of a file are stored; the next are being read.
    WhileReading,
}

impl<F: Fn() + Send + Sync> Meddler<F> {
    fn meddle(&self) {
        if !self.done.swap(true, Ordering::SeqCst) {
            (self.deed)();
        }
    }
}

impl<F: Fn() + Send + Sync> Progress for Meddler<F> {
    fn file(&self, path: &Path) {
        if self.moment == Moment::BeforeOpening && path.ends_with("victim") {
            self.meddle();
        }
    }

    fn bytes(&self, _: u64) {
        if self.moment == Moment::WhileReading {
            self.meddle();
        }
    }
}

/// A folder with the victim, and what the backup makes of it.
struct Scene {
    folder: tempfile::TempDir,
    repository: Repository,
}

impl Scene {
    async fn new(content: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        std::fs::write(folder.path().join("source/victim"), content).unwrap();
        std::fs::write(folder.path().join("secret"), "not to be saved").unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let repository = init(&store).await;
        Self { folder, repository }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn victim(&self) -> PathBuf {
        self.source().join("victim")
    }

    async fn save(&self, moment: Moment, deed: impl Fn() + Send + Sync) -> BackupReport {
        let meddler = Meddler {
            moment,
            done: AtomicBool::new(false),
            deed,
        };
        let cancel = CancellationToken::new();
        let saved = backups::backup(&self.repository, &files(&self.source()), &options(0), &meddler, &cancel)
            .await
            .unwrap();
        assert!(meddler.done.load(Ordering::SeqCst), "the moment came");
        saved
    }

    /// The restored victim; everything restored must be sound.
    async fn restored(&self, saved: &BackupReport) -> Option<Vec<u8>> {
        assert!(check(&self.repository).await.findings.is_empty());
        let target = self.folder.path().join(saved.snapshot.short());
        let report = restore(&self.repository, saved, &target).await;
        assert!(!report.is_partial(), "{report:?}");
        std::fs::read(target.join("source/victim")).ok()
    }

    /// The next backup, undisturbed, holds what is there now.
    async fn settles(&self) {
        let saved = save(&self.repository, &files(&self.source())).await.unwrap();
        assert!(saved.changed.is_empty() && saved.skipped.is_empty(), "{saved:?}");
        assert_eq!(self.restored(&saved).await, std::fs::read(self.victim()).ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_its_size_before_it_is_opened_is_saved_as_it_is_and_listed() {
    for now in [&b""[..], b"short", &[7; 3000]] {
        let scene = Scene::new(b"what the walk saw").await;
        let victim = scene.victim();
        let saved = scene
            .save(Moment::BeforeOpening, || std::fs::write(&victim, now).unwrap())
            .await;
        assert_eq!((&saved.changed, saved.is_partial()), (&vec![victim.clone()], false));
        assert_eq!(scene.restored(&saved).await.as_deref(), Some(now));
        scene.settles().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_another_of_the_same_size_is_listed() {
    let scene = Scene::new(b"before").await;
    let victim = scene.victim();
    let saved = scene
        .save(Moment::BeforeOpening, || std::fs::write(&victim, b"after!").unwrap())
        .await;
    assert_eq!(saved.changed, std::slice::from_ref(&victim));
    assert_eq!(scene.restored(&saved).await.unwrap(), b"after!");
    scene.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_or_becomes_something_else_is_skipped_and_nothing_else_is_read() {
    type Deed = fn(&Path);
    let deeds: [(&str, Deed); 5] = [
        ("nothing", |_| {}),
        ("a link", |victim| {
            std::os::unix::fs::symlink("../secret", victim).unwrap();
        }),
        ("a pipe", |victim| {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(rustix::fs::CWD, victim, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        }),
        ("a directory", |victim| std::fs::create_dir(victim).unwrap()),
        ("a socket", |victim| {
            drop(std::os::unix::net::UnixListener::bind(victim).unwrap());
        }),
    ];
    for (what, deed) in deeds {
        let scene = Scene::new(b"here still").await;
        std::fs::write(scene.source().join("witness"), "saved").unwrap();
        let victim = scene.victim();
        let saved = scene
            .save(Moment::BeforeOpening, || {
                std::fs::remove_file(&victim).unwrap();
                deed(&victim);
            })
            .await;
        let skipped: Vec<_> = saved.skipped.iter().map(|skipped| &skipped.path).collect();
        assert_eq!(skipped, [&victim], "{what}");
        assert!(saved.is_partial());
        if what == "nothing" {
            assert_eq!(saved.skipped[0].reason, "vanished before it could be read");
        }
        assert_eq!(scene.restored(&saved).await, None, "{what}");
        let witness = scene.folder.path().join(saved.snapshot.short()).join("source/witness");
        assert_eq!(std::fs::read(witness).unwrap(), b"saved");
    }
}

/// More than is read ahead of what is stored, so that the deed comes in the middle.
fn large() -> Vec<u8> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    noise(5, (2 * cores + 6) * (8 << 20))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_while_it_is_read_is_saved_as_far_as_it_was_there() {
    let content = large();
    let scene = Scene::new(&content).await;
    let victim = scene.victim();
    let saved = scene
        .save(Moment::WhileReading, || {
            std::fs::File::options()
                .write(true)
                .open(&victim)
                .unwrap()
                .set_len(1000)
                .unwrap();
        })
        .await;
    assert_eq!(saved.changed, std::slice::from_ref(&victim));
    let restored = scene.restored(&saved).await.unwrap();
    assert!(
        restored.len() > 1000 && restored.len() < content.len(),
        "{} bytes",
        restored.len()
    );
    assert!(content.starts_with(&restored));
    scene.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_grows_while_it_is_read_is_saved_with_what_was_added() {
    let content = large();
    let scene = Scene::new(&content).await;
    let victim = scene.victim();
    let saved = scene
        .save(Moment::WhileReading, || {
            use std::io::Write;
            let mut file = std::fs::File::options().append(true).open(&victim).unwrap();
            file.write_all(b"one line more\n").unwrap();
        })
        .await;
    assert_eq!(saved.changed, std::slice::from_ref(&victim));
    assert!(scene.restored(&saved).await.unwrap() == [&content[..], b"one line more\n"].concat());
    scene.settles().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_while_it_is_read_is_saved_whole() {
    let content = large();
    let scene = Scene::new(&content).await;
    let victim = scene.victim();
    let saved = scene
        .save(Moment::WhileReading, || std::fs::remove_file(&victim).unwrap())
        .await;
    assert!(!saved.is_partial(), "{:?}", saved.skipped);
    assert!(scene.restored(&saved).await.unwrap() == content);
    scene.settles().await;
}

/// Writers that never rest: every snapshot is one that can be restored, with the size that it says.
#[tokio::test(flavor = "multi_thread")]
async fn under_writers_that_never_rest_every_snapshot_is_sound() {
    let scene = Scene::new(b"").await;
    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
    let (source, stop_writer, begun) = (scene.source(), Arc::clone(&stop), Arc::clone(&ready));
    let writer = std::thread::spawn(move || {
        let mut round = 0_usize;
        while !stop_writer.load(Ordering::Relaxed) {
            for number in 0..20 {
                let path = source.join(format!("file{number}"));
                match (round + number) % 3 {
                    0 => std::fs::write(&path, vec![number as u8; (round * 7919) % 300_000]).unwrap(),
                    1 => drop(std::fs::remove_file(&path)),
                    _ => std::fs::write(&path, b"").unwrap(),
                }
            }
            round += 1;
            if round == 1 {
                begun.wait();
            }
        }
    });
    ready.wait();
    for _ in 0..10 {
        let saved = save(&scene.repository, &files(&scene.source())).await.unwrap();
        let skipped_for_another_reason = saved
            .skipped
            .iter()
            .find(|skipped| skipped.reason != "vanished before it could be read");
        assert_eq!(skipped_for_another_reason, None);
        scene.restored(&saved).await.unwrap();
        let target = scene.folder.path().join(saved.snapshot.short()).join("source");
        for entry in std::fs::read_dir(target).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, path.metadata().unwrap().size());
            assert!(
                bytes.iter().all(|byte| *byte == bytes[0]),
                "of one writer alone: {path:?}"
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    scene.settles().await;
}
