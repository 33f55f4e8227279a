//! What holds for the readers of restic's format: what is read can be written, and is then read as the same; what comes
//! out stays within the limits that a reader promises.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::chunker::{Chunker, MAX_SIZE};
use super::compress::{self, Zstd};
use super::config::Config;
use super::crypto::{Key, KeyJson, OVERHEAD};
use super::index::{Index, IndexFile, PackJson};
use super::key::{KdfParams, KeyFile};
use super::lock::LockFile;
use super::pack::{self, PackedBlob};
use super::polynomial::Polynomial;
use super::{BlobKind, ExtendedAttribute, Id, Node, NodeKind, Snapshot, Summary, Tree, name};
use crate::attributes;
use crate::fuzzing::Target;
use crate::snapshots::{SnapshotFilter, tar_header};

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "config",
        seeds: || vec![json(&Config::new())],
        property: config,
    },
    Target {
        name: "key_file",
        seeds: key_files,
        property: key_file,
    },
    Target {
        name: "master_key",
        seeds: || vec![json(&KeyJson::from(&key()))],
        property: master_key,
    },
    Target {
        name: "sealed",
        seeds: || vec![key().seal_to_vec(b"attack at dawn"), key().seal_to_vec(b"")],
        property: sealed,
    },
    Target {
        name: "pack",
        seeds: packs,
        property: pack,
    },
    Target {
        name: "pack_header",
        seeds: pack_headers,
        property: pack_header,
    },
    Target {
        name: "index",
        seeds: indexes,
        property: index,
    },
    Target {
        name: "tree",
        seeds: trees,
        property: tree,
    },
    Target {
        name: "snapshot",
        seeds: snapshots,
        property: snapshot,
    },
    Target {
        name: "lock",
        seeds: locks,
        property: lock,
    },
    Target {
        name: "stored_file",
        seeds: stored_files,
        property: stored_file,
    },
    Target {
        name: "blob",
        seeds: blobs,
        property: blob,
    },
    Target {
        name: "name",
        seeds: names,
        property: file_name,
    },
    Target {
        name: "chunker",
        seeds: || vec![b"3DA3358B4DC173".to_vec(), Polynomial::random().to_string().into()],
        property: chunker,
    },
];

fn key() -> Key {
    Key::from_bytes(&[7; 64])
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is stored is always valid JSON")
}

/// What was read, written and read again; once more written it is the same to the byte.
fn again<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let written = json(value);
    let read: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert!(json(&read) == written, "{}", String::from_utf8_lossy(&written));
    read
}

fn config(input: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Config>(input) else {
        return;
    };
    let read = again(&config);
    assert!(read.chunks_like(&config) && read.chunker_secret() == config.chunker_secret());
    assert!(Config::like(&config).chunks_like(&config));
}

fn key_files() -> Vec<Vec<u8>> {
    let params = KdfParams { log_n: 4, r: 1, p: 1 };
    let file = KeyFile::seal(&key(), "right", params, Timestamp::UNIX_EPOCH);
    vec![json(&file)]
}

fn key_file(input: &[u8]) {
    if let Ok(file) = serde_json::from_slice::<KeyFile>(input) {
        again(&file);
    }
    let Some((params, salt, data)) = KeyFile::parse(input) else {
        return;
    };
    assert!(params.are_bearable() && params.log_n < 31);
    assert!(salt.len() + data.len() < input.len());
    // Only what costs next to nothing is paid here.
    let cost = (u64::from(params.r) * u64::from(params.p)) << params.log_n;
    if cost < 1 << 8 {
        let _ = KeyFile::open(&Id::of(input), input, "right");
    }
}

fn master_key(input: &[u8]) {
    let Some(key) = serde_json::from_slice::<KeyJson>(input)
        .ok()
        .and_then(|json| json.key())
    else {
        return;
    };
    let same = again(&KeyJson::from(&key)).key().expect("a key stays one");
    let mut opened = Vec::new();
    assert!(same.open(&key.seal_to_vec(b"plain"), &mut opened).is_ok() && opened == b"plain");
}

fn sealed(input: &[u8]) {
    let (key, mut opened) = (key(), Vec::new());
    if key.open(input, &mut opened).is_ok() {
        assert_eq!(opened.len() + OVERHEAD, input.len());
        let mut changed = input.to_vec();
        let bit = Id::of(input).as_bytes()[0] as usize % (8 * changed.len());
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(key.open(&changed, &mut opened).is_err());
        assert!(key.open(&input[1..], &mut opened).is_err());
    }
    assert!(key.open(&key.seal_to_vec(input), &mut opened).is_ok() && opened == input);
}

/// Blobs of all four kinds, one behind the other.
fn packed() -> Vec<PackedBlob> {
    let kinds = [
        (BlobKind::Data, None),
        (BlobKind::Tree, None),
        (BlobKind::Data, Some(9)),
        (BlobKind::Tree, Some(70_000)),
    ];
    let packed = |(at, (kind, uncompressed)): (usize, _)| PackedBlob {
        kind,
        id: Id::of(&[at as u8]),
        offset: 40 * at as u32,
        length: 40,
        uncompressed,
    };
    kinds.into_iter().enumerate().map(packed).collect()
}

fn pack_headers() -> Vec<Vec<u8>> {
    let trailer = pack::trailer(&key(), &packed());
    let mut header = Vec::new();
    let opened = key().open(&trailer[..trailer.len() - 4], &mut header);
    opened.expect("our own header");
    vec![header, Vec::new()]
}

fn packs() -> Vec<Vec<u8>> {
    vec![[vec![1; 160], pack::trailer(&key(), &packed())].concat()]
}

fn pack(input: &[u8]) {
    if let Ok(blobs) = pack::parse(&key(), input) {
        assert_eq!(pack::expected_size(&blobs), input.len() as u64);
        let within = |blob: &PackedBlob| u64::from(blob.offset) + u64::from(blob.length) <= input.len() as u64;
        assert!(blobs.iter().all(within));
    }
}

fn pack_header(input: &[u8]) {
    let key = key();
    let Some(blobs) = pack::parse_header(input) else {
        return;
    };
    assert!(blobs.len() <= input.len() / 37);
    let mut end = 0;
    for blob in &blobs {
        assert_eq!(u64::from(blob.offset), end, "blobs lie one behind the other");
        end += u64::from(blob.length);
    }
    assert!(u32::try_from(end).is_ok());
    let trailer = pack::trailer(&key, &blobs);
    let (size, mut header) = (pack::expected_size(&blobs), Vec::new());
    assert_eq!(size, end + trailer.len() as u64);
    assert!(key.open(&trailer[..trailer.len() - 4], &mut header).is_ok() && header == input);
    assert_eq!(pack::trailer_length(&trailer, size), Ok(trailer.len() as u64));
    assert!(pack::parse_trailer(&key, &trailer, size + 1).is_err());
    assert_eq!(pack::parse_trailer(&key, &trailer, size), Ok(blobs));
}

fn indexes() -> Vec<Vec<u8>> {
    let (one, two) = (Id::of(b"one"), Id::of(b"two"));
    let whole = IndexFile {
        supersedes: vec![Id::of(b"before")],
        packs: vec![PackJson::new(one, &packed()), PackJson::new(two, &packed()[..2])],
        packs_to_delete: vec![PackJson::marked(two, &packed(), Timestamp::UNIX_EPOCH, 500)],
    };
    let early = json(&whole.packs);
    vec![json(&whole), json(&IndexFile::default()), early]
}

fn index(input: &[u8]) {
    let Ok(file) = IndexFile::parse(input) else { return };
    let written = json(&file);
    let read = IndexFile::parse(&written).expect("what was written can be read");
    assert!(json(&read) == written);
    let mut index = Index::default();
    index.add_file(Id::of(b"file"), &file);
    index.add_file(Id::of(b"again"), &read);
    for pack in &file.packs {
        for blob in pack.blobs() {
            let mut found = index.find(blob.kind, &blob.id);
            assert!(index.contains(blob.kind, &blob.id) && found.next().is_some());
            // What is indexed twice is known once.
            let places: Vec<_> = index.find(blob.kind, &blob.id).collect();
            let in_packs = places
                .iter()
                .filter(|at| at.pack == pack.id && at.blob.offset == blob.offset);
            assert!(in_packs.count() <= 2, "{places:?}");
        }
    }
    for blob in file.packs_to_delete.iter().flat_map(PackJson::blobs) {
        assert!(index.find(blob.kind, &blob.id).next().is_some());
    }
}

fn trees() -> Vec<Vec<u8>> {
    let mut file = Node::new(OsString::from_vec(b"a\tb\xff".to_vec()), NodeKind::File, 0o4755);
    file.content = Some(vec![Id::of(b"one"), Id::of(b"two")]);
    (file.size, file.links, file.inode, file.device_id) = (7, 2, 5, 9);
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, 4, 0, 5, 0, 1, 0, 0, 0],
    ]
    .concat();
    let attribute = |name: &str, value: Vec<u8>| ExtendedAttribute {
        name: name.to_owned(),
        value,
    };
    file.extended_attributes = vec![
        attribute("system.posix_acl_access", acl),
        attribute("user.empty", Vec::new()),
    ];
    let mut link = Node::new("link", NodeKind::Symlink, 0o777);
    link.set_link_target(OsStr::from_bytes(b"../a\xff"));
    let mut folder = Node::new("folder", NodeKind::Dir, 0o1755);
    folder.subtree = Some(Id::of(b"tree"));
    (folder.user, folder.group) = ("user".to_owned(), "group".to_owned());
    let mut device = Node::new("null", NodeKind::Chardev, 0o666);
    device.device = 259;
    device.mtime = Timestamp::MIN;
    vec![
        json(&Tree::new(vec![file, link, folder, device])),
        json(&Tree::default()),
        br#"{"nodes":null}"#.to_vec(),
    ]
}

fn tree(input: &[u8]) {
    let Ok(tree) = Tree::parse(input) else { return };
    let written = tree.to_bytes().expect("what was read can be written");
    assert_eq!(Tree::parse(&written).expect("and read"), tree);
    for node in &tree.nodes {
        assert!(node.permissions() <= 0o7777);
        let below = Path::new("/root").join(&node.name);
        if node.has_safe_name() {
            assert_eq!(below.parent(), Some(Path::new("/root")));
        }
        let group = attributes::group_bits(&node.extended_attributes);
        assert!(group.is_none_or(|bits| bits & !0o070 == 0));
        if let Some(header) = tar_header(Path::new(&node.name), node) {
            archive_header(&header);
        }
        let mut same = node.clone();
        same.set_link_target(node.link_target());
        assert_eq!(same.link_target(), node.link_target());
    }
    let sorted = Tree::new(tree.nodes.clone());
    assert!(sorted.nodes.is_sorted_by(|a, b| a.name.as_bytes() < b.name.as_bytes()));
    for node in &tree.nodes {
        assert!(sorted.find(&node.name).is_some() && tree.find(&node.name).is_some());
    }
}

/// Whole blocks, the last one with a sum that is right; before it perhaps one of pax, whose records count themselves.
fn archive_header(header: &[u8]) {
    let (blocks, rest) = header.as_chunks::<512>();
    let (last, first) = (blocks.last().expect("a header is a block"), &blocks[0]);
    assert!(rest.is_empty());
    for block in [last, first] {
        let bytes = |range: std::ops::Range<usize>| block[range].iter().map(|byte| u32::from(*byte)).sum::<u32>();
        let sum = bytes(0..148) + 8 * u32::from(b' ') + bytes(156..512);
        assert_eq!(octal(&block[148..155]), u64::from(sum));
    }
    if blocks.len() > 1 {
        assert_eq!(first[156], b'x');
        let mut records = &header[512..][..octal(&first[124..136]) as usize];
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').expect("a length");
            let length = std::str::from_utf8(&records[..space]).expect("digits").parse::<usize>();
            let (record, behind) = records.split_at(length.expect("a length"));
            assert!(record.ends_with(b"\n") && record.contains(&b'='));
            records = behind;
        }
    }
}

fn octal(field: &[u8]) -> u64 {
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default();
    let digits = std::str::from_utf8(digits).expect("digits");
    u64::from_str_radix(digits, 8).expect("octal digits")
}

fn snapshots() -> Vec<Vec<u8>> {
    let snapshot = Snapshot {
        time: Timestamp::UNIX_EPOCH,
        parent: Some(Id::of(b"parent")),
        tree: Id::of(b"tree"),
        paths: vec!["/folder".to_owned()],
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 7,
        gid: 8,
        excludes: vec!["*.tmp".to_owned()],
        tags: vec!["tag".to_owned(), super::PARTIAL_TAG.to_owned()],
        original: Some(Id::of(b"original")),
        program_version: Some("test".to_owned()),
        summary: Some(Summary::default()),
    };
    vec![json(&snapshot)]
}

fn snapshot(input: &[u8]) {
    let Ok(snapshot) = serde_json::from_slice::<Snapshot>(input) else {
        return;
    };
    let read = again(&snapshot);
    assert_eq!(read, snapshot);
    let itself = SnapshotFilter {
        host: Some(read.hostname),
        tags: read.tags,
        paths: read.paths,
    };
    assert!(itself.fits(&snapshot));
}

fn locks() -> Vec<Vec<u8>> {
    let ours = br#"{"time":"2026-11-22T16:30:11.25Z","exclusive":true,"hostname":"host","username":"user","pid":7,"uid":1,"gid":2,"opsctl_process":"9"}"#;
    let restics =
        br#"{"time":"2014-08-27T00:07:29.2+02:00","exclusive":false,"hostname":"h","username":"u","pid":13607}"#;
    vec![ours.to_vec(), restics.to_vec()]
}

fn lock(input: &[u8]) {
    if let Ok(lock) = serde_json::from_slice::<LockFile>(input) {
        again(&lock);
    }
}

fn stored_files() -> Vec<Vec<u8>> {
    let long = format!("{{\"some\":\"{}\"}}", "json".repeat(1000)).into_bytes();
    let packed = compress::pack_file(&long).expect("zstd packs");
    vec![long, packed, b"[]".to_vec()]
}

fn stored_file(input: &[u8]) {
    const LIMIT: usize = 1 << 20;
    if let Ok(json) = compress::unpack_file_within(input.to_vec(), LIMIT) {
        assert!(json.len() <= LIMIT.max(input.len()));
        if matches!(json.first(), Some(b'{' | b'[')) {
            let packed = compress::pack_file(&json).expect("zstd packs");
            assert!(compress::unpack_file_within(packed, json.len()).as_ref() == Ok(&json));
        }
    }
}

/// A claimed length of four bytes, then what it is claimed of.
fn blobs() -> Vec<Vec<u8>> {
    let claimed = |plain: &[u8]| {
        let mut packed = Vec::new();
        let zstd = Zstd::new().and_then(|mut zstd| zstd.compress(plain, &mut packed));
        zstd.expect("zstd packs");
        [&(plain.len() as u32).to_le_bytes()[..], &packed].concat()
    };
    vec![
        claimed(b"plain"),
        claimed(&[0; 300_000]),
        claimed(b""),
        claimed(&b"text ".repeat(99)),
    ]
}

fn blob(input: &[u8]) {
    const MOST_EXPANSION: usize = 32 << 10;
    let Some((claimed, packed)) = input.split_first_chunk::<4>() else {
        return;
    };
    let claimed = u32::from_le_bytes(*claimed) as usize;
    let (mut zstd, mut out) = (Zstd::new().expect("there is memory"), Vec::new());
    let decompressed = zstd.decompress(packed, claimed, &mut out);
    assert!(out.capacity() <= compress::BLOB_LIMIT.min(packed.len() * MOST_EXPANSION));
    if decompressed.is_ok() {
        assert_eq!(out.len(), claimed);
        let (mut packed, mut same) = (Vec::new(), Vec::new());
        zstd.compress(&out, &mut packed).expect("zstd packs");
        assert!(zstd.decompress(&packed, claimed, &mut same).is_ok() && same == out);
    }
}

fn names() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 5] = [
        b"plain.txt",
        b"latin-\\xe9",
        b"\\101\\u00e9\\U0001f600",
        b"two\\nlines\\\"",
        b"\xff\x00\x1b[2J",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

fn file_name(input: &[u8]) {
    let whole = |name: &OsStr| {
        let quoted = name::quote(name);
        assert!(!quoted.contains(char::is_control), "{quoted:?}");
        assert_eq!(name::unquote(&quoted).as_deref(), Some(name));
    };
    whole(OsStr::from_bytes(input));
    if let Some(name) = std::str::from_utf8(input).ok().and_then(name::unquote) {
        assert!(name.len() <= input.len(), "an escape is longer than what it stands for");
        whole(&name);
    }
}

fn chunker(input: &[u8]) {
    let Ok(polynomial) = String::from_utf8_lossy(input).parse::<Polynomial>() else {
        return;
    };
    assert_eq!(polynomial.to_string().parse(), Ok(polynomial));
    let chunker = Chunker::new(&polynomial.secret());
    let content: Vec<u8> = input.iter().copied().cycle().take(600 << 10).collect();
    let length = chunker.cut(&content, true).expect("the end of content is a chunk");
    assert!((1..=content.len().min(MAX_SIZE)).contains(&length));
}

/// The opened files of a repository, by the target that reads them.
#[cfg(test)]
pub(crate) fn plain_files(
    store: std::sync::Arc<dyn crate::store::Store>,
    password: &str,
) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    use super::layout::FileKind;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let repository = super::Repository::open(store, password).await.unwrap();
        let mut read = vec![("config", vec![json(repository.config())])];
        for (target, kind) in [("index", FileKind::Index), ("snapshot", FileKind::Snapshot)] {
            let mut files = Vec::new();
            for (id, _) in repository.list(kind).await.unwrap() {
                files.push(repository.load_bytes(kind, &id).await.unwrap());
            }
            read.push((target, files));
        }
        let (mut keys, mut headers) = (Vec::new(), Vec::new());
        for (id, _) in repository.list(FileKind::Key).await.unwrap() {
            keys.push(repository.store().get(&FileKind::Key.key(&id)).await.unwrap().to_vec());
        }
        for (id, _) in repository.list(FileKind::Pack).await.unwrap() {
            let pack = repository.store().get(&FileKind::Pack.key(&id)).await.unwrap();
            let length = pack::trailer_length(&pack, pack.len() as u64).unwrap() as usize;
            let mut header = Vec::new();
            let trailer = &pack[pack.len() - length..];
            repository.key().open(&trailer[..length - 4], &mut header).unwrap();
            headers.push(header);
        }
        read.extend([("key_file", keys), ("pack_header", headers)]);
        let (reader, mut trees) = (repository.reader().await.unwrap(), Vec::new());
        for (id, _) in repository.list(FileKind::Snapshot).await.unwrap() {
            let mut open = vec![repository.snapshot(&id).await.unwrap().tree];
            while let Some(tree) = open.pop() {
                let json = reader.blob(BlobKind::Tree, &tree).await.unwrap();
                open.extend(Tree::parse(&json).unwrap().nodes.iter().filter_map(|node| node.subtree));
                trees.push(json);
            }
        }
        read.push(("tree", trees));
        read
    })
}
