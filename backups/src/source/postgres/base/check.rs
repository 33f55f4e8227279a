//! Whether what came is all of a cluster: held against the server's manifest, and against itself. Hashes were computed on
//! the way; nothing is read here.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use replication::{Position, SystemId};

use super::folders::FileItem;
use super::intake::{BACKUP_MANIFEST, Received};
use super::manifest::{BackupManifest, ManifestFile};
use super::record::{BaseTablespace, DATA, TABLESPACES};
use super::{BaseError, FileProblem};

/// The last file that a server sends: without it nothing starts on the others.
const CONTROL: &str = "global/pg_control";

/// How many files there are and how long they are together, if all came as the server read them.
pub(super) fn whole(
    received: &Received,
    system: SystemId,
    tablespaces: &[BaseTablespace],
    start: Position,
    end: Position,
) -> Result<(u64, u64), BaseError> {
    let inconsistent = |what: String| Err(BaseError::Inconsistent(what));
    let manifest = BackupManifest::parse(&received.manifest)?;
    if manifest.system.is_some_and(|said| said != system.0) {
        return inconsistent(format!("the manifest is of another cluster than {system}"));
    }
    let begins = manifest.ranges.iter().any(|range| range.start == start.lsn.0);
    let ends = |range: &super::manifest::WalRange| range.end == end.lsn.0 && range.timeline == end.timeline.0;
    if !begins || !manifest.ranges.iter().any(ends) {
        return inconsistent(format!(
            "the manifest asks for other log than that from {} to {}",
            start.lsn, end.lsn
        ));
    }
    if !received.archives.contains(&None) {
        return inconsistent("the data folder did not come".to_owned());
    }
    if received.archives.len() != tablespaces.len() + 1 {
        return inconsistent("there are other archives than tablespaces".to_owned());
    }
    let links = received.root.links(&Path::new(DATA).join("pg_tblspc"));
    for tablespace in tablespaces {
        let oid = tablespace.oid;
        let linked = links.iter().find(|(name, _)| ***name == *oid.to_string());
        if !received.archives.contains(&Some(oid)) || linked.is_none_or(|(_, to)| **to != *tablespace.location) {
            return inconsistent(format!("tablespace {oid} did not come, or nothing leads to it"));
        }
    }
    if links.len() != tablespaces.len() {
        return inconsistent("a link in pg_tblspc leads to no tablespace that came".to_owned());
    }
    for file in &manifest.files {
        check(received, file)?;
    }
    // No name is there twice on either side: as many as the manifest's, and all of those.
    let files = manifest.files.len() as u64;
    if received.files != files {
        let known: HashSet<&Path> = manifest.files.iter().map(|file| file.path.as_path()).collect();
        let is_unlisted = |path: &PathBuf| path != Path::new(BACKUP_MANIFEST) && !known.contains(path.as_path());
        let path = received.root.files().map(listed).find(is_unlisted);
        return Err(BaseError::File {
            path: path.unwrap_or_default(),
            problem: FileProblem::Unlisted,
        });
    }
    if received.last != Path::new(CONTROL) {
        return inconsistent(format!("{CONTROL} is not the last file that came"));
    }
    Ok((files, received.bytes))
}

fn check(received: &Received, listed: &ManifestFile) -> Result<(), BaseError> {
    let problem = match find(received, &listed.path) {
        None => FileProblem::Missing,
        Some(file) if file.size != listed.size => FileProblem::Size {
            is: file.size,
            listed: listed.size,
        },
        Some(file) if file.sha256 != listed.sha256 => FileProblem::Hash,
        Some(_) => return Ok(()),
    };
    let path = listed.path.clone();
    Err(BaseError::File { path, problem })
}

/// What the manifest calls `pg_tblspc/16385/…` lies in a folder of its own.
fn find<'a>(received: &'a Received, path: &Path) -> Option<&'a FileItem> {
    let place = match path.strip_prefix("pg_tblspc") {
        Ok(inside) => Path::new(TABLESPACES).join(inside),
        Err(_) => Path::new(DATA).join(path),
    };
    received.root.file(&place)
}

/// What the manifest calls a file of the snapshot.
fn listed(place: PathBuf) -> PathBuf {
    match place.strip_prefix(TABLESPACES) {
        Ok(inside) => Path::new("pg_tblspc").join(inside),
        Err(_) => place.strip_prefix(DATA).map(Path::to_owned).unwrap_or(place),
    }
}
