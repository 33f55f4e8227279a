//! A base backup on its way back into a data folder, through the engine that restores everything else: every blob is
//! authenticated and hashed again, and nothing is written outside of the folders that were named.
//!
//! What a server must not start on does not let it: `global/pg_control` is written last, after everything else is whole
//! and in its place.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::record::{Stored, read_stored};
use super::{Base, BaseError, TABLESPACES};
use crate::error::Error;
use crate::progress::Progress;
use crate::repo::{Id, Lock, Repository};
use crate::restore::{Owners, RestoreOptions, RestoreReport, restore_tree};
use crate::source::Patterns;
use crate::threads::blocking;

/// Without this file no server starts.
const CONTROL: &str = "global/pg_control";
/// Where a data folder's links to its tablespaces are.
const LINKS: &str = "pg_tblspc";

/// How to restore a cluster.
#[derive(Debug, Clone, Default)]
pub struct BaseRestore {
    /// Where the tablespaces go.
    pub tablespaces: TablespaceMap,
    /// Whose the files are to be.
    pub owner: Owner,
    /// Wait until everything is durable.
    pub durable: bool,
}

/// Whose the files of a restored cluster are. A server runs only as the owner of its data folder, and never as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Owner {
    /// Of whoever restores.
    #[default]
    Process,
    /// Of this user and group; needs privileges.
    User {
        /// The user's number.
        uid: u32,
        /// The group's number.
        gid: u32,
    },
}

/// Where tablespaces are restored: folders on the server that was saved, and what takes their place. What is not named
/// goes into `tablespaces/<number>` in the data folder, never to where it was: the original may still be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TablespaceMap(BTreeMap<PathBuf, PathBuf>);

impl TablespaceMap {
    /// The same, with one more.
    ///
    /// # Errors
    /// If one of them is not absolute, leads upwards, or was named before.
    pub fn with(mut self, old: impl Into<PathBuf>, new: impl Into<PathBuf>) -> Result<Self, BaseError> {
        let (old, new) = (old.into(), new.into());
        for path in [&old, &new] {
            let plain = |component| matches!(component, Component::RootDir | Component::Normal(_));
            if !path.is_absolute() || !path.components().all(plain) {
                let what = format!("{} is no absolute path of a tablespace", path.display());
                return Err(BaseError::Tablespaces(what));
            }
        }
        if self
            .0
            .values()
            .any(|known| known.starts_with(&new) || new.starts_with(known))
        {
            let what = format!("two tablespaces are to lie in {}", new.display());
            return Err(BaseError::Tablespaces(what));
        }
        if self.0.insert(old.clone(), new).is_some() {
            let what = format!("the tablespace at {} is named twice", old.display());
            return Err(BaseError::Tablespaces(what));
        }
        Ok(self)
    }
}

/// A cluster whose files are all in their places, but for the one without which no server starts on them: what else has
/// to lie there before is written now (`recovery.signal`), and then [`Unfinished::finish`] is called.
#[derive(Debug)]
#[must_use = "no server starts on it before it is finished"]
pub struct Unfinished {
    stored: Stored,
    snapshot: Id,
    target: PathBuf,
    tablespaces: Vec<(u32, PathBuf)>,
    options: BaseRestore,
    report: RestoreReport,
}

/// A cluster that was restored.
#[derive(Debug, Clone)]
pub struct RestoredBase {
    /// What it is.
    pub base: Base,
    /// Where its tablespaces lie now, by number.
    pub tablespaces: Vec<(u32, PathBuf)>,
    /// Figures.
    pub report: RestoreReport,
}

/// Restores a base backup into `target`, which is absent or empty, as far as [`Unfinished`] says. After an error what was
/// written stays, and is no cluster.
pub async fn restore_base(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &BaseRestore,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Unfinished, Error> {
    let work = Box::pin(unlocked(repository, snapshot, target, options, progress));
    Lock::while_reading(repository, cancel, work).await
}

async fn unlocked(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &BaseRestore,
    progress: &dyn Progress,
) -> Result<Unfinished, Error> {
    let stored = read_stored(repository, snapshot).await?;
    let target = std::path::absolute(target).map_err(|source| failed("find", target, source))?;
    let tablespaces = places(&stored, &target, &options.tablespaces)?;
    let (folders, owner) = ((target.clone(), tablespaces.clone()), options.owner);
    blocking(move || {
        make_folder(&folders.0, owner)?;
        folders.1.iter().try_for_each(|(_, place)| make_folder(place, owner))
    })
    .await??;

    let links = tablespaces.iter().map(|(oid, _)| format!("/{LINKS}/{oid}"));
    let exclude = Patterns::new(links.chain([format!("/{CONTROL}")]));
    let exclude = exclude.map_err(|_| Error::Internal("numbers are patterns"))?;
    let restore = RestoreOptions {
        exclude,
        durable: options.durable,
        ..RestoreOptions::default()
    };
    let mut unfinished = Unfinished {
        snapshot: *snapshot,
        target: target.clone(),
        tablespaces: tablespaces.clone(),
        options: options.clone(),
        report: RestoreReport::default(),
        stored,
    };
    let all = RestoreOptions {
        durable: options.durable,
        ..RestoreOptions::default()
    };
    let parts = tablespaces.iter().zip(unfinished.stored.tablespaces.clone());
    for ((_, place), (_, tree)) in parts {
        unfinished.part(repository, tree, place, &all, progress).await?;
    }
    unfinished
        .part(repository, unfinished.stored.data, &target, &restore, progress)
        .await?;
    blocking(move || link(&target, &tablespaces, owner)).await??;
    Ok(unfinished)
}

impl Unfinished {
    /// What it is.
    pub fn base(&self) -> &Base {
        &self.stored.base
    }

    /// The data folder.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where its tablespaces lie, by number.
    pub fn tablespaces(&self) -> &[(u32, PathBuf)] {
        &self.tablespaces
    }

    /// Writes the last file. From now on a server starts.
    pub async fn finish(
        mut self,
        repository: &Repository,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<RestoredBase, Error> {
        let control = RestoreOptions {
            include: vec![CONTROL.into()],
            durable: self.options.durable,
            ..RestoreOptions::default()
        };
        let (data, target) = (self.stored.data, self.target.clone());
        let work = Box::pin(self.part(repository, data, &target, &control, progress));
        Lock::while_reading(repository, cancel, work).await?;
        Ok(RestoredBase {
            base: self.stored.base,
            tablespaces: self.tablespaces,
            report: self.report,
        })
    }

    /// Restores one of the trees, or fails: a cluster of which something is missing is none.
    async fn part(
        &mut self,
        repository: &Repository,
        tree: Id,
        target: &Path,
        options: &RestoreOptions,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let owners = match self.options.owner {
            Owner::Process => Owners::Ours,
            Owner::User { uid, gid } => Owners::Given { uid, gid },
        };
        let part = restore_tree(repository, &self.snapshot, tree, owners, target, options, progress).await?;
        let damaged = part.damaged.iter().map(|file| (&file.path, &file.reason));
        let skipped = part.skipped.iter().map(|item| (&item.path, &item.reason));
        let mut missing = damaged.chain(skipped);
        if let Some((path, reason)) = missing.next() {
            return Err(Error::Cluster(BaseError::Incomplete {
                count: missing.count() + 1,
                first: target.join(path),
                reason: reason.clone(),
            }));
        }
        let report = &mut self.report;
        report.files += part.files;
        report.unchanged += part.unchanged;
        report.directories += part.directories;
        report.bytes += part.bytes;
        report.reused_bytes += part.reused_bytes;
        report.fetched_bytes += part.fetched_bytes;
        Ok(())
    }
}

/// Where each tablespace goes.
fn places(stored: &Stored, target: &Path, map: &TablespaceMap) -> Result<Vec<(u32, PathBuf)>, Error> {
    let known = |old: &PathBuf| {
        stored
            .tablespaces
            .iter()
            .any(|(tablespace, _)| tablespace.location == *old)
    };
    if let Some(old) = map.0.keys().find(|old| !known(old)) {
        let what = format!("the cluster had no tablespace at {}", old.display());
        return Err(Error::Cluster(BaseError::Tablespaces(what)));
    }
    let place = |oid: u32, location: &PathBuf| match map.0.get(location) {
        Some(new) if target.starts_with(new) || new.starts_with(target) => {
            let what = format!(
                "the tablespace at {} cannot lie around or in the data folder",
                new.display()
            );
            Err(Error::Cluster(BaseError::Tablespaces(what)))
        }
        Some(new) => Ok((oid, new.clone())),
        None => Ok((oid, target.join(TABLESPACES).join(oid.to_string()))),
    };
    let tablespaces = stored.tablespaces.iter();
    tablespaces
        .map(|(tablespace, _)| place(tablespace.oid, &tablespace.location))
        .collect()
}

/// Makes a folder for its owner alone, with those that it lies in. One that is there is taken if it is empty.
fn make_folder(path: &Path, owner: Owner) -> Result<(), Error> {
    let mut missing: Vec<&Path> = path
        .ancestors()
        .take_while(|path| path.symlink_metadata().is_err())
        .collect();
    while let Some(folder) = missing.pop() {
        let made = fs::DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .and_then(|()| own(folder, owner));
        made.map_err(|source| failed("make", folder, source))?;
    }
    let taken = fs::read_dir(path).and_then(|mut entries| {
        if entries.next().is_some() {
            return Ok(false);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        own(path, owner)?;
        Ok(true)
    });
    match taken {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Cluster(BaseError::Occupied(path.to_owned()))),
        Err(source) => Err(failed("open", path, source)),
    }
}

/// Leads from the data folder to the tablespaces. No other file says where they are.
fn link(target: &Path, tablespaces: &[(u32, PathBuf)], owner: Owner) -> Result<(), Error> {
    for (oid, place) in tablespaces {
        let link = target.join(LINKS).join(oid.to_string());
        let made = std::os::unix::fs::symlink(place, &link).and_then(|()| own(&link, owner));
        made.map_err(|source| failed("make", &link, source))?;
    }
    Ok(())
}

fn own(path: &Path, owner: Owner) -> io::Result<()> {
    match owner {
        Owner::Process => Ok(()),
        Owner::User { uid, gid } => std::os::unix::fs::lchown(path, Some(uid), Some(gid)),
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    Error::Target { action, path, source }
}
