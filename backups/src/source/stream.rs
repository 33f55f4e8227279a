//! What sources that are one stream have in common: the node, made after the end; the hash of what passed; the manifest
//! beside it. No source of its own.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::command::CommandFailure;
use crate::Error;
use crate::process::{Output, Running};
use crate::repo::{Content, Node, NodeKind, ReadFailure, Writer, host};

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

/// Takes the output to its end. `Ok` says how the command ended; whether that counts is not decided here.
pub(super) async fn take(
    into: &Writer<'_>,
    running: &mut Running,
    passed: &Passed,
    output: Output,
) -> Result<(Content, ExitStatus), Outcome> {
    let mut saving = std::pin::pin!(into.save(Hashing {
        inner: output,
        passed: passed.clone(),
    }));
    let mut ended = None;
    let content = loop {
        tokio::select! {
            content = &mut saving => break content,
            // Whoever holds the output open after a failure is not waited for.
            status = running.ended(), if ended.is_none() => match status {
                Ok(status) if status.success() => ended = Some(status),
                Ok(status) => return Err(Outcome::Failed(how(status))),
                Err(error) => return Err(Outcome::Failed(CommandFailure::Output(error.to_string()))),
            },
        }
    };
    let content = content.map_err(|failure| match failure {
        ReadFailure::Engine(error) => Outcome::Engine(error),
        ReadFailure::Reader(error) => Outcome::Failed(CommandFailure::Output(error.to_string())),
    })?;
    let status = match ended {
        Some(status) => Ok(status),
        None => running.ended().await,
    };
    match status {
        Ok(status) if status.success() => Ok((content, status)),
        Ok(status) => Err(Outcome::Failed(how(status))),
        Err(error) => Err(Outcome::Failed(CommandFailure::Output(error.to_string()))),
    }
}

/// Why there is no content.
pub(super) enum Outcome {
    /// The repository.
    Engine(Error),
    /// What was printed does not count.
    Failed(CommandFailure),
}

/// How a program that did not end well ended.
pub(crate) fn how(status: ExitStatus) -> CommandFailure {
    use std::os::unix::process::ExitStatusExt;
    match status.code() {
        Some(code) => CommandFailure::Status(code),
        None => CommandFailure::Signal(status.signal().unwrap_or_default()),
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
pub(super) fn against_manifest(file: &Path, manifest: &Path) -> io::Result<Option<String>> {
    /// What every manifest says.
    #[derive(Deserialize)]
    struct Essence {
        length_bytes: u64,
        sha256: String,
    }
    let manifest: Essence = serde_json::from_slice(&read_manifest(manifest)?)?;
    let same = compare(file, manifest.length_bytes, &manifest.sha256)?;
    Ok((!same).then(|| "the file is not the one that was saved".to_owned()))
}

/// Whether a file is the one with this length and hash.
pub(super) fn compare(file: &Path, length: u64, sha256: &str) -> io::Result<bool> {
    let mut hash = Sha256::new();
    let found = io::copy(&mut File::open(file)?, &mut hash)?;
    Ok(found == length && hex::encode(hash.finalize()) == sha256)
}
