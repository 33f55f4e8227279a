//! What sources that are one stream have in common: the node, made after the end; the hash of what passed; the manifest
//! beside it. No source of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::repo::{Content, Node, NodeKind, host};

/// The name of the manifest in the snapshot.
pub const MANIFEST: &str = "manifest.json";

/// The node of a stream, made after its end: true size, mode 0600.
pub(super) fn stream_node(name: OsString, content: Content, time: Timestamp) -> Node {
    let mut node = Node::new(name, NodeKind::File, 0o600);
    let (uid, gid) = host::user();
    (node.uid, node.gid) = (uid, gid);
    (node.user, node.group) = (
        host::user_name(uid).unwrap_or_default(),
        host::group_name(gid).unwrap_or_default(),
    );
    (node.mtime, node.atime, node.ctime) = (time, time, time);
    (node.size, node.links) = (content.size, 1);
    node.content = Some(content.blobs);
    node
}

/// The SHA-256 of what passed a [`Hashing`] reader.
#[derive(Clone, Default)]
pub(super) struct Passed(Arc<Mutex<Sha256>>);

impl Passed {
    /// In hexadecimal digits.
    pub(super) fn sha256(&self) -> String {
        let hash = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hex::encode(hash.finalize())
    }
}

/// A reader that hashes what passes.
pub(super) struct Hashing<R> {
    pub(super) inner: R,
    pub(super) passed: Passed,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut hash = self.passed.0.lock().unwrap_or_else(PoisonError::into_inner);
        hash.update(&buffer[..count]);
        Ok(count)
    }
}

/// A manifest as it came back; what is longer than any has ever been is none.
pub(crate) fn read_manifest(path: &Path) -> io::Result<Vec<u8>> {
    const LIMIT: u64 = 1 << 20;
    let mut text = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut text)?;
    Ok(text)
}

/// Holds a restored file against its manifest. `Some` says what is wrong.
pub(super) fn compare(file: &Path, manifest: &Path) -> io::Result<Option<String>> {
    /// What every manifest says.
    #[derive(Deserialize)]
    struct Essence {
        length_bytes: u64,
        sha256: String,
    }
    let manifest: Essence = serde_json::from_slice(&read_manifest(manifest)?)?;
    let mut hash = Sha256::new();
    let length = io::copy(&mut File::open(file)?, &mut hash)?;
    let same = length == manifest.length_bytes && hex::encode(hash.finalize()) == manifest.sha256;
    Ok((!same).then(|| "the file is not the one that was saved".to_owned()))
}
