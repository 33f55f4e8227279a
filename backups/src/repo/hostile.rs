//! Properties of everything that reads foreign bytes: whatever a key file, config, index, snapshot, tree, pack header or
//! lock file holds, reading it yields a value or an error that names the object. It never panics, and never makes room
//! for a length that it was only told.
//!
//! Whoever has the password can seal anything, so most of these documents are sealed as they must be. Not here: damage
//! to sealed bytes, which `tests/engine/damage.rs` has.

mod bombs;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{Index as Pick, select};
use tokio_util::sync::CancellationToken;

use super::index::{IndexFile, PackJson};
use super::layout::{self, FileKind};
use super::pack::{self, PackedBlob};
use super::*;
use crate::snapshots::{self, SnapshotFilter};
use crate::store::MemoryStore;
use crate::{CheckOptions, ReadData, RestoreOptions, Silent};

const PASSWORD: &str = "right";
const CHEAP: KdfParams = KdfParams { log_n: 4, r: 1, p: 1 };

/// A change to a document.
#[derive(Debug, Clone)]
enum Edit {
    Set(Pick, u8),
    Cut(Pick),
    Remove(Pick, Pick),
    Insert(Pick, Vec<u8>),
    Repeat(Pick, Pick, u8),
    /// One value of a JSON document becomes another.
    Value(Pick, String),
}

impl Edit {
    fn apply(&self, document: &mut Vec<u8>) {
        let span = |document: &Vec<u8>, a: &Pick, b: &Pick| {
            let (a, b) = (a.index(document.len() + 1), b.index(document.len() + 1));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Set(at, byte) if !document.is_empty() => {
                let at = at.index(document.len());
                document[at] = *byte;
            }
            Self::Set(_, byte) => document.push(*byte),
            Self::Cut(at) => document.truncate(at.index(document.len() + 1)),
            Self::Remove(a, b) => drop(document.drain(span(document, a, b))),
            Self::Insert(at, bytes) => {
                let at = at.index(document.len() + 1);
                document.splice(at..at, bytes.iter().copied());
            }
            Self::Repeat(a, b, times) => {
                let span = span(document, a, b);
                let repeated = document[span.clone()].repeat((*times).into());
                document.splice(span, repeated);
            }
            Self::Value(which, value) => {
                let begins: Vec<usize> = (0..document.len())
                    .filter(|&at| matches!(document[at], b':' | b'['))
                    .collect();
                if !begins.is_empty() {
                    let begin = begins[which.index(begins.len())] + 1;
                    let length = document[begin..]
                        .iter()
                        .position(|byte| matches!(byte, b',' | b'}' | b']'))
                        .unwrap_or(document.len() - begin);
                    document.splice(begin..begin + length, value.bytes());
                }
            }
        }
    }
}

/// Values that are not what was there: too large, too deep, of another type, or simply odd.
fn value() -> impl Strategy<Value = String> {
    const ODD: &[&str] = &[
        "null",
        "-1",
        "0",
        "1",
        "true",
        "255",
        "4294967295",
        "4294967296",
        "18446744073709551615",
        "18446744073709551616",
        "1e400",
        "[]",
        "{}",
        "\"\"",
        "\"..\"",
        "\"a/b\"",
        "\"\\\\x00\"",
        "\"\\\\q\"",
        "\"\\ud800\"",
        "\"dir\"",
        "\"file\"",
        "\"chardev\"",
        "\"fifo\"",
        "\"symlink\"",
        "\"socket\"",
        "\"9999-12-31T23:59:59.999999999Z\"",
        "\"-009999-01-01T00:00:00Z\"",
        "\"0001-01-01T00:00:00Z\"",
        "\"0000000000000000000000000000000000000000000000000000000000000000\"",
    ];
    prop_oneof![
        8 => select(ODD).prop_map(str::to_owned),
        2 => any::<u64>().prop_map(|number| number.to_string()),
        1 => (1..400_usize).prop_map(|depth| "[".repeat(depth)),
        1 => (1..400_usize).prop_map(|depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth))),
        1 => (1..100_000_usize).prop_map(|length| format!("\"{}\"", "a".repeat(length))),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (any::<Pick>(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        1 => any::<Pick>().prop_map(Edit::Cut),
        1 => (any::<Pick>(), any::<Pick>()).prop_map(|(a, b)| Edit::Remove(a, b)),
        1 => (any::<Pick>(), proptest::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        1 => (any::<Pick>(), any::<Pick>(), 2..20_u8).prop_map(|(a, b, times)| Edit::Repeat(a, b, times)),
        8 => (any::<Pick>(), value()).prop_map(|(which, value)| Edit::Value(which, value)),
    ]
}

/// What is made of a sound document: edits of it, or something else altogether.
#[derive(Debug, Clone)]
enum Foreign {
    Edited(Vec<Edit>),
    Arbitrary(Vec<u8>),
}

impl Foreign {
    fn of(&self, sound: &[u8]) -> Vec<u8> {
        match self {
            Self::Edited(edits) => {
                let mut document = sound.to_vec();
                for edit in edits {
                    edit.apply(&mut document);
                }
                document
            }
            Self::Arbitrary(bytes) => bytes.clone(),
        }
    }
}

fn foreign() -> impl Strategy<Value = Foreign> {
    prop_oneof![
        6 => proptest::collection::vec(edit(), 1..4).prop_map(Foreign::Edited),
        1 => proptest::collection::vec(any::<u8>(), 0..300).prop_map(Foreign::Arbitrary),
    ]
}

/// A repository in memory with one file in one directory, whose parts can be replaced by others, properly sealed.
struct World {
    memory: Arc<MemoryStore>,
    repository: Repository,
    blobs: Vec<PackedBlob>,
    body: Vec<u8>,
    tree: Vec<u8>,
    root: Id,
}

impl World {
    async fn new() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&memory);
        let repository = Repository::init(store, PASSWORD, &InitOptions { kdf: CHEAP })
            .await
            .unwrap();
        let (blobs, body) = (Vec::new(), Vec::new());
        let mut world = Self {
            memory,
            repository,
            blobs,
            body,
            tree: Vec::new(),
            root: Id::of(b""),
        };
        let data = world.add(BlobKind::Data, b"content");
        let mut file = Node::new("file", NodeKind::File, 0o644);
        (file.content, file.size, file.links, file.inode) = (Some(vec![data]), 7, 2, 5);
        let mut link = Node::new("link", NodeKind::Symlink, 0o777);
        link.set_link_target("file".as_ref());
        let inner = world.add(BlobKind::Tree, &Tree::new(vec![file.clone(), link]).to_bytes().unwrap());
        let mut folder = Node::new("folder", NodeKind::Dir, 0o755);
        folder.subtree = Some(inner);
        world.tree = Tree::new(vec![file, folder]).to_bytes().unwrap();
        world.root = world.add(BlobKind::Tree, &world.tree.clone());
        world
    }

    /// Appends a blob to the pack to come.
    fn add(&mut self, kind: BlobKind, plain: &[u8]) -> Id {
        let (id, offset) = (Id::of(plain), self.body.len() as u32);
        let sealed = self.repository.key().seal_to_vec(plain);
        self.blobs.push(PackedBlob {
            kind,
            id,
            offset,
            length: sealed.len() as u32,
            uncompressed: None,
        });
        self.body.extend(sealed);
        id
    }

    fn put(&self, kind: FileKind, body: Vec<u8>) -> Id {
        let id = Id::of(&body);
        self.memory.overwrite(kind.key(&id), Bytes::from(body));
        id
    }

    /// Stores a document under its name, sealed; with `compress` as format 2 has it.
    fn put_sealed(&self, kind: FileKind, document: &[u8], compress: bool) -> Id {
        let plain = if compress {
            compress::pack_file(document).unwrap()
        } else {
            document.to_vec()
        };
        self.put(kind, self.repository.key().seal_to_vec(&plain))
    }

    /// Stores the pack, with this header if it is given.
    fn put_pack(&self, header: Option<&[u8]>) -> Id {
        let key = self.repository.key();
        let trailer = header.map_or_else(
            || pack::trailer(key, &self.blobs),
            |header| {
                let mut sealed = key.seal_to_vec(header);
                sealed.extend_from_slice(&(sealed.len() as u32).to_le_bytes());
                sealed
            },
        );
        self.put(FileKind::Pack, [self.body.clone(), trailer].concat())
    }

    fn index_json(&self, pack: Id) -> Vec<u8> {
        let packs = vec![PackJson::new(pack, &self.blobs)];
        serde_json::to_vec(&IndexFile {
            packs,
            ..IndexFile::default()
        })
        .unwrap()
    }

    fn snapshot_json(&self) -> Vec<u8> {
        let time = Timestamp::UNIX_EPOCH;
        let snapshot = Snapshot {
            time,
            parent: Some(self.root),
            tree: self.root,
            paths: vec!["/folder".to_owned()],
            hostname: "host".to_owned(),
            username: "user".to_owned(),
            uid: 7,
            gid: 8,
            excludes: vec!["*.tmp".to_owned()],
            tags: vec!["tag".to_owned()],
            original: None,
            program_version: Some("test".to_owned()),
            summary: Some(Summary::default()),
        };
        serde_json::to_vec(&snapshot).unwrap()
    }

    /// Opens the repository anew and does with it whatever reads. Errors are what is expected; a panic is not.
    async fn read_everything(&self) {
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&self.memory);
        let Some(repository) = sane(Repository::open(store, PASSWORD).await) else {
            return;
        };
        let (silent, cancel) = (Silent, CancellationToken::new());
        let everything = CheckOptions {
            read_data: ReadData::All,
        };
        sane(crate::check(&repository, &everything, &silent, &cancel).await);
        self.copy_everything(&repository).await;
        let Some(list) = sane(snapshots::list(&repository, &SnapshotFilter::default()).await) else {
            return;
        };
        for record in &list.snapshots {
            let root = std::path::Path::new("");
            sane(snapshots::ls(&repository, &record.snapshot, root, true).await);
            sane(snapshots::dump(&repository, &record.snapshot, root, &mut std::io::sink()).await);
            let mut other = record.snapshot.clone();
            other.tree = self.blobs[1].id;
            sane(snapshots::diff(&repository, &record.snapshot, &other).await);
            let target = tempfile::tempdir().unwrap();
            // Twice, since what is there already is looked at by other code.
            for _ in 0..2 {
                let options = RestoreOptions::default();
                sane(crate::restore(&repository, &record.id, target.path(), &options, &silent, &cancel).await);
            }
        }
    }
}

/// What lies in a store, as it is now.
async fn objects(store: &MemoryStore) -> Vec<(crate::store::StoreKey, Bytes)> {
    let mut objects = Vec::new();
    for entry in crate::store::list_all(store, "").await.unwrap() {
        let body = store.get(&entry.key).await.unwrap();
        objects.push((entry.key, body));
    }
    objects
}

impl World {
    /// What a copy takes over can be read there; and a repair, of a copy of the whole store, leaves nothing to repair.
    async fn copy_everything(&self, repository: &Repository) {
        let (silent, cancel) = (Silent, CancellationToken::new());
        let to = Repository::init(Arc::new(MemoryStore::new()), PASSWORD, &InitOptions { kdf: CHEAP });
        let to = to.await.unwrap();
        let selection = crate::copy::Selection::default();
        sane(crate::copy::copy(repository, &to, &selection, &silent, &cancel).await);
        let options = CheckOptions {
            read_data: ReadData::All,
        };
        let found = crate::check(&to, &options, &silent, &cancel).await.unwrap();
        for finding in &found.findings {
            // Odd names and kinds are copied as they are.
            assert_eq!(
                finding.problem,
                crate::Problem::Damaged(Damage::Malformed),
                "{finding:?}"
            );
        }
        let store = Arc::new(MemoryStore::new());
        for (key, body) in objects(&self.memory).await {
            store.overwrite(key, body);
        }
        let Some(damaged) = sane(Repository::open(store, PASSWORD).await) else {
            return;
        };
        for forget in [false, true] {
            let options = crate::repair::RepairOptions {
                scope: crate::repair::Scope::All,
                forget,
            };
            for again in [false, true] {
                let plan = crate::repair::plan(&damaged, None, &options, &silent, &cancel).await;
                let Some(plan) = sane(plan) else { return };
                assert!(!again || plan.is_empty(), "{plan:?}");
                sane(crate::repair::apply(&damaged, None, plan, &silent, &cancel).await);
            }
        }
    }
}

/// Runs one case.
fn run<T>(case: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(case)
}

/// How many bytes scrypt would mix for a key file that says what it costs.
fn cost_of(bytes: &[u8]) -> u64 {
    let Ok(file) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return 0;
    };
    ["N", "r", "p"].iter().fold(128, |cost: u64, part| {
        cost.saturating_mul(file.get(part).and_then(serde_json::Value::as_u64).unwrap_or(0))
    })
}

/// An error is as good as a value here; but work on another thread that panicked is reported as cancelled.
fn sane<T>(outcome: Result<T, Error>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(error @ (Error::Cancelled | Error::Internal(_))) => panic!("{error:?}"),
        Err(_) => None,
    }
}

/// The error says which object, or that the format is unknown.
fn names_the_object(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. } | Error::UnsupportedVersion { .. })
}

/// Without an edit everything can be read: else the properties below would say little.
#[test]
fn the_world_before_any_edit_is_sound() {
    run(async {
        let world = World::new().await;
        world.put_sealed(FileKind::Index, &world.index_json(world.put_pack(None)), true);
        let id = world.put_sealed(FileKind::Snapshot, &world.snapshot_json(), false);
        let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
        let checked = crate::check(&world.repository, &CheckOptions::default(), &Silent, &cancel).await;
        assert_eq!(checked.unwrap().findings, []);
        let target = tempfile::tempdir().unwrap();
        let restored = crate::restore(&world.repository, &id, target.path(), &options, &Silent, &cancel).await;
        assert!(!restored.unwrap().is_partial());
        assert_eq!(std::fs::read(target.path().join("folder/link")).unwrap(), b"content");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_key_file_is_opened_refused_or_damaged(foreign in foreign(), inner in foreign()) {
        let file = KeyFile::seal(&Key::random(), PASSWORD, CHEAP, Timestamp::UNIX_EPOCH).unwrap();
        let bytes = foreign.of(&serde_json::to_vec(&file).unwrap());
        // Only what costs little may be tried in a test.
        if cost_of(&bytes) < 1 << 20 {
            let _ = KeyFile::open(&Id::of(&bytes), &bytes, PASSWORD);
        }
        // What the password opens may be nonsense too.
        let sound = serde_json::to_vec(&crypto::KeyJson::from(&Key::random())).unwrap();
        let file = KeyFile::seal_bytes(&inner.of(&sound), PASSWORD, CHEAP, Timestamp::UNIX_EPOCH).unwrap();
        let bytes = serde_json::to_vec(&file).unwrap();
        prop_assert!(!matches!(KeyFile::open(&Id::of(&bytes), &bytes, PASSWORD), Attempt::WrongPassword));
    }

    #[test]
    fn an_index_is_read_or_malformed(foreign in foreign()) {
        let blob = PackedBlob { kind: BlobKind::Data, id: Id::of(b"b"), offset: 3, length: 40, uncompressed: Some(9) };
        let file = IndexFile { supersedes: vec![Id::of(b"i")], packs: vec![PackJson::new(Id::of(b"p"), &[blob; 3])], ..IndexFile::default() };
        if let Ok(file) = IndexFile::parse(&foreign.of(&serde_json::to_vec(&file).unwrap())) {
            let mut index = Index::default();
            index.add_file(Id::of(b"i"), &file);
            index.add_file(Id::of(b"j"), &file);
        }
    }

    #[test]
    fn a_tree_is_read_or_malformed(foreign in foreign()) {
        let mut node = Node::new(std::ffi::OsString::from("a\tb"), NodeKind::Symlink, 0o777);
        node.linktarget_raw = Some(vec![0xff]);
        if let Ok(tree) = Tree::parse(&foreign.of(&Tree::new(vec![node]).to_bytes().unwrap())) {
            let again: Tree = serde_json::from_slice(&tree.to_bytes().unwrap()).unwrap();
            prop_assert_eq!(again, tree, "what is read can be written");
        }
    }

    #[test]
    fn a_pack_header_is_read_or_malformed(foreign in foreign()) {
        let key = Key::random();
        let mut header = Vec::new();
        for kind in 0..4_u8 {
            header.push(kind);
            header.extend(40_u32.to_le_bytes());
            if kind > 1 {
                header.extend(9_u32.to_le_bytes());
            }
            header.extend([kind; 32]);
        }
        let sealed = key.seal_to_vec(&foreign.of(&header));
        let length = (sealed.len() as u32).to_le_bytes();
        let pack = [vec![1; 160], sealed, length.to_vec()].concat();
        if let Ok(blobs) = pack::parse(&key, &pack) {
            prop_assert!(pack::expected_size(&blobs) == pack.len() as u64);
        }
        // And whatever lies where a pack should.
        let _ = pack::parse(&key, &foreign.of(&pack));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_config_is_read_or_named(foreign in foreign()) {
        run(async {
            let world = World::new().await;
            let sound = serde_json::to_vec(world.repository.config()).unwrap();
            let sealed = world.repository.key().seal_to_vec(&foreign.of(&sound));
            world.memory.overwrite(layout::config(), Bytes::from(sealed));
            let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&world.memory);
            if let Err(error) = Repository::open(store, PASSWORD).await {
                assert!(names_the_object(&error), "{error:?}");
            }
            world.read_everything().await;
        });
    }

    #[test]
    fn a_lock_is_heeded_taken_away_or_named(foreign in foreign(), compress: bool) {
        run(async {
            let world = World::new().await;
            let lock = Lock::acquire(&world.repository, LockMode::Exclusive, clock::now()).await.unwrap();
            let locks = world.repository.list(FileKind::Lock).await.unwrap();
            let sound = world.repository.load_bytes(FileKind::Lock, &locks[0].0).await.unwrap();
            lock.release().await;
            world.put_sealed(FileKind::Lock, &foreign.of(&sound), compress);
            match Lock::acquire(&world.repository, LockMode::Exclusive, clock::now()).await {
                Ok(lock) => lock.release().await,
                Err(error) => assert!(
                    matches!(error, Error::Locked(_) | Error::Damaged { object: Object::Lock(_), .. }),
                    "{error:?}"
                ),
            }
        });
    }

    #[test]
    fn an_index_leads_nowhere_but_to_findings(foreign in foreign(), compress: bool) {
        run(async {
            let world = World::new().await;
            let index = foreign.of(&world.index_json(world.put_pack(None)));
            let id = world.put_sealed(FileKind::Index, &index, compress);
            world.put_sealed(FileKind::Snapshot, &world.snapshot_json(), true);
            if let Err(error) = world.repository.load_index().await {
                assert!(matches!(error, Error::Damaged { object: Object::Index(named), .. } if named == id), "{error:?}");
            }
            world.read_everything().await;
        });
    }

    #[test]
    fn a_snapshot_leads_nowhere_but_to_findings(foreign in foreign(), compress: bool) {
        run(async {
            let world = World::new().await;
            world.put_sealed(FileKind::Index, &world.index_json(world.put_pack(None)), true);
            let id = world.put_sealed(FileKind::Snapshot, &foreign.of(&world.snapshot_json()), compress);
            if let Err(error) = world.repository.snapshot(&id).await {
                assert!(matches!(error, Error::Damaged { object: Object::Snapshot(named), .. } if named == id), "{error:?}");
            }
            world.read_everything().await;
        });
    }

    #[test]
    fn a_tree_leads_nowhere_but_to_findings(foreign in foreign()) {
        run(async {
            let mut world = World::new().await;
            let tree = foreign.of(&world.tree);
            world.root = world.add(BlobKind::Tree, &tree);
            world.put_sealed(FileKind::Index, &world.index_json(world.put_pack(None)), true);
            let id = world.put_sealed(FileKind::Snapshot, &world.snapshot_json(), true);
            let target = tempfile::tempdir().unwrap();
            let (options, cancel) = (RestoreOptions::default(), CancellationToken::new());
            let restored = crate::restore(&world.repository, &id, target.path(), &options, &Silent, &cancel).await;
            if let Err(error) = restored {
                assert!(matches!(error, Error::Damaged { object: Object::Tree(_), .. }), "{error:?}");
            }
            world.read_everything().await;
        });
    }

    #[test]
    fn a_pack_header_leads_nowhere_but_to_findings(foreign in foreign()) {
        run(async {
            let world = World::new().await;
            let pack = world.put_pack(Some(&foreign.of(&[0; 37])));
            world.put_sealed(FileKind::Index, &world.index_json(pack), true);
            world.put_sealed(FileKind::Snapshot, &world.snapshot_json(), true);
            world.read_everything().await;
        });
    }

    /// The outermost layer of an index, snapshot or lock file is zstd, whose frames have lengths of their own.
    #[test]
    fn a_frame_of_zstd_is_unpacked_or_refused(foreign in foreign()) {
        let packed = compress::pack_file(&b"{\"some\":\"json\"}".repeat(50)).unwrap();
        if let Ok(json) = compress::unpack_file_within(foreign.of(&packed), 64 << 20) {
            prop_assert!(json.len() <= 64 << 20);
        }
    }

    /// Claimed lengths of one blob, whatever the bytes are.
    #[test]
    fn a_blob_is_decoded_or_damaged(plain in proptest::collection::vec(any::<u8>(), 0..200), foreign in foreign(), claimed: u32) {
        let key = Key::random();
        let mut packed = Vec::new();
        compress::Zstd::new().unwrap().compress(&plain, &mut packed).unwrap();
        let sealed = key.seal_to_vec(&foreign.of(&packed));
        let blob = PackedBlob {
            kind: BlobKind::Data,
            id: Id::of(&plain),
            offset: 0,
            length: sealed.len() as u32,
            uncompressed: Some(claimed),
        };
        let mut decoder = reader::Decoder::new().unwrap();
        if let Ok(decoded) = decoder.decode(&key, &blob, &sealed) {
            prop_assert_eq!(decoded, &plain);
        }
    }
}
