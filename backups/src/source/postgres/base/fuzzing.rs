//! What holds for the readers of what a server sends: archives and the manifest. Sums are mended first, or no changed byte
//! would ever be looked at.

use std::collections::HashSet;
use std::path::{Component, Path};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::manifest::BackupManifest;
use super::tar::{DEEPEST, Entry, EntryKind, TarEvent, TarFault, TarReader};
use crate::fuzzing::Target;
use crate::repo::{Node, NodeKind};
use crate::snapshots::tar_header;

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "backup_archive",
        seeds: archives,
        property: archive,
    },
    Target {
        name: "backup_manifest",
        seeds: || MANIFESTS.iter().map(|text| mended_manifest(text.as_bytes())).collect(),
        property: manifest,
    },
];

const BLOCK: usize = 512;

fn archives() -> Vec<Vec<u8>> {
    let node = |name: &str, kind, size| {
        let mut node = Node::new(name, kind, 0o600);
        node.size = size;
        node.set_link_target("/srv/fast".as_ref());
        tar_header(Path::new(name), &node).unwrap_or_default()
    };
    let page = [&node("base/5/16384", NodeKind::File, 700)[..], &[7; 700], &[0; 324]].concat();
    let link = node("pg_tblspc/16385", NodeKind::Symlink, 0);
    let folder = node("global", NodeKind::Dir, 0);
    let long = node(&"folder/".repeat(30), NodeKind::Dir, 0);
    let huge = node("huge", NodeKind::File, 1 << 40);
    let end = vec![0; 2 * BLOCK];
    vec![
        [&page[..], &link, &folder, &end].concat(),
        [&folder[..], &long, &page].concat(),
        huge,
        end,
    ]
}

/// What an archive was read as; content is put together, since how much of it comes at once means nothing.
type Read = (Vec<(Entry, Vec<u8>)>, Result<(), TarFault>);

fn archive(input: &[u8]) {
    let mut mended = input.to_vec();
    for block in mended
        .chunks_exact_mut(BLOCK)
        .filter(|block| &block[257..262] == b"ustar")
    {
        block[148..156].fill(b' ');
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    for input in [input, &mended] {
        let whole = read(input, input.len().max(1));
        for piece in [1, 13, BLOCK] {
            assert_eq!(read(input, piece), whole, "pieces of {piece}");
        }
        for (entry, content) in &whole.0 {
            let plain = |component| matches!(component, Component::Normal(_));
            assert!(entry.path.components().all(plain), "{entry:?}");
            assert!(entry.path.components().count() <= DEEPEST);
            assert!(entry.mode <= 0o7777);
            match entry.kind {
                EntryKind::File { size } => assert!(content.len() as u64 <= size),
                _ => assert!(content.is_empty()),
            }
        }
        if whole.1.is_ok() {
            let all: u64 = whole.0.iter().map(|(_, content)| content.len() as u64).sum();
            let said = whole.0.iter().map(|(entry, _)| match entry.kind {
                EntryKind::File { size } => size,
                _ => 0,
            });
            assert_eq!(all, said.sum::<u64>(), "an archive that is whole has all that it says");
        }
    }
}

fn read(archive: &[u8], piece: usize) -> Read {
    let (mut reader, mut read) = (TarReader::new(), Vec::new());
    for piece in archive.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next() {
                Ok(None) => break,
                Ok(Some(TarEvent::Entry(entry))) => read.push((entry, Vec::new())),
                Ok(Some(TarEvent::Content(bytes))) => {
                    if let Some((_, content)) = read.last_mut() {
                        content.extend_from_slice(&bytes);
                    }
                }
                Ok(Some(TarEvent::FileEnds)) => {}
                Err(fault) => return (read, Err(fault)),
            }
        }
    }
    let ended = reader.finish();
    (read, ended)
}

const MANIFESTS: [&str; 2] = [
    r#"{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 227, "Last-Modified": "2026-11-23 13:00:00 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "3d4d6a8c9b0f3d4d6a8c9b0f3d4d6a8c9b0f3d4d6a8c9b0f3d4d6a8c9b0f3d4d" },
{ "Encoded-Path": "62617365ff", "Size": 0, "Last-Modified": "2026-11-23 13:00:00 GMT", "Checksum-Algorithm": "SHA256", "Checksum": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"#,
    r#"{ "PostgreSQL-Backup-Manifest-Version": 2,
"System-Identifier": 7320280665284567118,
"Files": [
],
"WAL-Ranges": [
{ "Timeline": 2, "Start-LSN": "16/B374D848", "End-LSN": "16/B374D848" }
],
"#,
];

/// The same with the checksum that it should have.
fn mended_manifest(body: &[u8]) -> Vec<u8> {
    let checksum = hex::encode(Sha256::digest(body));
    [body, format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").as_bytes()].concat()
}

fn manifest(input: &[u8]) {
    // What stands before the last line is the manifest; the line may be gone.
    let end = input
        .windows(2)
        .rposition(|pair| pair == b",\n")
        .map_or(input.len(), |at| at + 2);
    for text in [input.to_vec(), mended_manifest(&input[..end])] {
        let Ok(read) = BackupManifest::parse(&text) else {
            continue;
        };
        let mut names = HashSet::new();
        for file in &read.files {
            let plain = |component| matches!(component, Component::Normal(_));
            assert!(
                file.path.components().all(plain) && names.insert(&file.path),
                "{file:?}"
            );
        }
        assert!(read.ranges.iter().all(|range| range.start <= range.end));
        assert_eq!(read.system.is_some(), read.version == 2);
        // Nothing but the whole text counts.
        assert!(BackupManifest::parse(&text[..text.len() - 1]).is_err());
    }
}
