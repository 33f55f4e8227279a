//! Holds the files of a restored cluster against the manifest that the server made when they were saved. It does not look
//! into the files: that pages fit their checksums and indexes their tables is for the server's own programs to say.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::intake::BACKUP_MANIFEST;
use super::manifest::{BackupManifest, LONGEST, ManifestFile};
use super::{BaseError, FileProblem};
use crate::source::VerifiedCheck;

/// Reads every file that the manifest of this data folder names. `tablespace` says where the tablespace of a number lies.
/// Blocking.
pub(super) fn files(data: &Path, tablespace: impl Fn(u32) -> PathBuf) -> Vec<VerifiedCheck> {
    vec![VerifiedCheck {
        name: BACKUP_MANIFEST,
        problem: first_problem(data, tablespace),
    }]
}

fn first_problem(data: &Path, tablespace: impl Fn(u32) -> PathBuf) -> Option<String> {
    let mut text = Vec::new();
    let read =
        File::open(data.join(BACKUP_MANIFEST)).and_then(|file| file.take(LONGEST as u64 + 1).read_to_end(&mut text));
    if let Err(error) = read {
        return Some(format!("{BACKUP_MANIFEST} cannot be read: {error}"));
    }
    let manifest = match BackupManifest::parse(&text) {
        Ok(manifest) => manifest,
        Err(fault) => return Some(format!("{BACKUP_MANIFEST} does not count: {fault}")),
    };
    drop(text);
    manifest.files.into_iter().find_map(|file| {
        let place = place(data, &file.path, &tablespace);
        let problem = match compare(&place, &file) {
            Ok(problem) => problem?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => FileProblem::Missing,
            Err(error) => return Some(format!("{} cannot be read: {error}", file.path.display())),
        };
        let path = file.path;
        Some(BaseError::File { path, problem }.to_string())
    })
}

/// Where a file lies that the manifest names.
fn place(data: &Path, path: &Path, tablespace: &impl Fn(u32) -> PathBuf) -> PathBuf {
    let inside = path.strip_prefix("pg_tblspc").ok().and_then(|inside| {
        let mut names = inside.components();
        let oid = names.next()?.as_os_str().to_str()?.parse().ok()?;
        Some(tablespace(oid).join(names.as_path()))
    });
    inside.unwrap_or_else(|| data.join(path))
}

fn compare(place: &Path, listed: &ManifestFile) -> io::Result<Option<FileProblem>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(place)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let is = metadata.len();
    if is != listed.size {
        let listed = listed.size;
        return Ok(Some(FileProblem::Size { is, listed }));
    }
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash)?;
    Ok((<[u8; 32]>::from(hash.finalize()) != listed.sha256).then_some(FileProblem::Hash))
}
