//! A prune of an index as large as that of terabytes, without the terabytes: packs are holes, blobs are names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{MaxUnused, PruneOptions, preview};
use crate::repo::index::{IndexFile, PackJson};
use crate::repo::layout::FileKind;
use crate::repo::pack::{PackedBlob, expected_size};
use crate::repo::{BlobKind, Id, InitOptions, KdfParams, Node, NodeKind, Repository, Tree, Writer};
use crate::source::{Source, Verification, Written};
use crate::store::LocalStore;
use crate::{BackupOptions, Error, Parent, Silent, backup};

/// How many blobs; 1 TiB has about 750,000.
const BLOBS: u64 = 150_000;
const PER_PACK: u64 = 12;
const PER_FILE: u64 = 24_000;
const LENGTH: u32 = 1_400_000;

fn id(number: u64) -> Id {
    Id::of(&number.to_be_bytes())
}

/// A folder whose files have every blob whose number is in the first half.
struct Half;

#[async_trait]
impl Source for Half {
    fn kind(&self) -> &'static str {
        "half"
    }

    fn paths(&self) -> Vec<PathBuf> {
        vec!["/half".into()]
    }

    async fn write(&self, into: &Writer<'_>) -> Result<Written, Error> {
        let mut nodes = Vec::new();
        for first in (0..BLOBS / 2).step_by(5000) {
            let mut file = Node::new("file", NodeKind::File, 0o644);
            file.content = Some((first..(first + 5000).min(BLOBS / 2)).map(id).collect());
            let mut folder = Node::new(format!("{first}"), NodeKind::Dir, 0o755);
            folder.subtree = Some(into.save_tree(&Tree::new(vec![file])).await?);
            nodes.push(folder);
        }
        Ok(Written {
            root: Tree::new(nodes),
            skipped: Vec::new(),
            changed: Vec::new(),
        })
    }

    async fn verify(&self, _: &Path) -> Result<Verification, Error> {
        Ok(Verification { checks: Vec::new() })
    }
}

/// The most memory that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_index_is_looked_through_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(folder.path()));
    let options = InitOptions {
        kdf: KdfParams { log_n: 4, r: 1, p: 1 },
    };
    let repository = Repository::init(store, "password", &options).await.unwrap();
    let mut file = IndexFile::default();
    for first in (0..BLOBS).step_by(PER_PACK as usize) {
        let blobs: Vec<PackedBlob> = (first..(first + PER_PACK).min(BLOBS))
            .map(|number| PackedBlob {
                kind: BlobKind::Data,
                id: id(number),
                offset: (number - first) as u32 * LENGTH,
                length: LENGTH,
                uncompressed: None,
            })
            .collect();
        let pack = id(u64::MAX - first);
        let path = folder.path().join(FileKind::Pack.key(&pack).as_str());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create(path)
            .unwrap()
            .set_len(expected_size(&blobs))
            .unwrap();
        file.packs.push(PackJson::new(pack, &blobs));
        if file.packs.len() as u64 * PER_PACK >= PER_FILE {
            repository
                .save_file(FileKind::Index, &std::mem::take(&mut file))
                .await
                .unwrap();
        }
    }
    repository.save_file(FileKind::Index, &file).await.unwrap();
    drop(file);
    let options = BackupOptions {
        now: crate::now(),
        host: "host".to_owned(),
        username: "user".to_owned(),
        tags: Vec::new(),
        parent: Parent::None,
    };
    let cancel = CancellationToken::new();
    backup(&repository, &Half, &options, &Silent, &cancel).await.unwrap();
    let repository = Repository::open(repository.store(), "password").await.unwrap();

    // Forgets the peak so far, where that is allowed.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let before = peak();
    let started = tokio::time::Instant::now();
    let options = PruneOptions {
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::new(crate::now())
    };
    let figures = preview(&repository, &options, &Silent, &cancel).await.unwrap();
    println!(
        "{BLOBS} blobs: {} MiB more at the most, {:?}",
        (peak() - before) >> 20,
        started.elapsed()
    );
    assert_eq!(figures.marked.packs, (BLOBS - BLOBS / 2) / PER_PACK, "{figures:?}");
    // Those of the first half and the pack of the trees.
    assert_eq!(
        figures.kept.packs + figures.repacked.packs,
        (BLOBS / 2).div_ceil(PER_PACK) + 1,
        "{figures:?}"
    );
    assert_eq!(figures.unused, 0);
}
