//! Writes a snapshot, or parts of it, into a directory. It believes nothing that the repository says before it is
//! checked, goes on past damage and lists it, and never writes outside the directory.

mod content;
mod items;
mod plan;
mod root;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::attributes::Namespaces;
use crate::error::Error;
use crate::progress::{Phase, Progress};
use crate::repo::{Id, Lock, Repository};
use crate::source::{Patterns, Skipped};
use crate::threads::blocking;
use content::{Files, Outcome};
use items::{Items, Place};
use plan::Plan;
pub(crate) use root::Owners;
use root::{Leftovers, Rights, Root};

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these paths inside the snapshot, with what lies under them; empty means everything.
    pub include: Vec<PathBuf>,
    /// Also what fits these patterns, with what lies under it. Each must fit something.
    pub include_patterns: Patterns,
    /// Not what fits these patterns, nor what lies under it.
    pub exclude: Patterns,
    /// Which extended attributes are restored; those of `security.*` and `trusted.*` need privileges.
    pub attributes: Namespaces,
    /// Restore the setuid and setgid bits.
    pub setuid: bool,
    /// Restore device nodes (needs privileges).
    pub devices: bool,
    /// Restore user and group (needs privileges).
    pub owners: bool,
    /// Wait until everything is durable: for what takes the place of the original. Costs as long as the disk takes.
    pub durable: bool,
}

/// What was restored.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Files written.
    pub files: u64,
    /// Files that were there already, with the right content.
    pub unchanged: u64,
    /// Directories made or kept.
    pub directories: u64,
    /// Bytes in the files written.
    pub bytes: u64,
    /// Bytes that the target had already at their place, found right, and kept: of unchanged files, and of what an
    /// interrupted restore had written.
    pub reused_bytes: u64,
    /// Bytes that came from the repository.
    pub fetched_bytes: u64,
    /// Extended attributes that were not asked for (see [`RestoreOptions::attributes`]) and are therefore missing.
    pub withheld_attributes: u64,
    /// Files that are not there, because some of their data is damaged.
    pub damaged: Vec<DamagedFile>,
    /// Items that were not restored for another reason: refused names, device nodes, permissions.
    pub skipped: Vec<Skipped>,
}

impl RestoreReport {
    /// Something is missing from the target.
    pub fn is_partial(&self) -> bool {
        !self.damaged.is_empty() || !self.skipped.is_empty()
    }
}

/// A file that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// Its path inside the snapshot.
    pub path: PathBuf,
    /// What is damaged.
    pub reason: String,
}

/// Restores into `target`, which is created if need be. Files there that the snapshot does not name stay; those that it
/// names are replaced, each in one step. After `Err`, and when the future is dropped, files may be missing, and none is
/// half written; what was written of large ones lies in hidden files beside their places, which the next restore of the
/// same content takes over after hashing it again. A full disk leaves no such files.
pub async fn restore(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let work = Box::pin(unlocked(repository, snapshot, target, options, progress));
    Lock::while_reading(repository, cancel, work).await
}

async fn unlocked(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport, Error> {
    let tree = repository.snapshot(snapshot).await?.tree;
    let owners = if options.owners { Owners::Saved } else { Owners::Ours };
    restore_tree(repository, snapshot, tree, owners, target, options, progress).await
}

/// Restores what lies in one directory of a snapshot, as if that were its root. The repository is locked by the caller.
pub(crate) async fn restore_tree(
    repository: &Repository,
    snapshot: &Id,
    tree: Id,
    owners: Owners,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport, Error> {
    let reader = repository.reader().await?;
    let plan = Plan::make(&reader, snapshot, tree, options).await?;
    let rights = Rights {
        setuid: options.setuid,
        owners,
        attributes: options.attributes,
    };
    let mut report = RestoreReport {
        damaged: plan.damaged,
        skipped: plan.skipped,
        withheld_attributes: plan.withheld_attributes,
        ..RestoreReport::default()
    };
    let (target, items) = (target.to_owned(), Arc::new(plan.items));
    let own = Arc::clone(&items);
    let prepared = blocking(move || prepare(&target, &own)).await??;
    let (root, unmade) = (prepared.root, prepared.unmade);
    report.directories = (items.folders.len() - unmade.len()) as u64;
    report.skipped.extend(prepared.refused);

    let expected = items.files.iter().map(|file| file.length).sum();
    progress.phase(Phase::Restoring, Some(expected), Some(items.files.len() as u64));
    let files = Files::new(Arc::clone(&root), rights, Arc::clone(&items), prepared.leftovers);
    let stop = StopOnDrop(&files);
    files.restore(&reader, progress).await?;
    drop(stop);

    let durable = options.durable;
    blocking(move || {
        Finish {
            root,
            items: &items,
            rights,
            durable,
            report,
        }
        .finish(&files, &unmade)
    })
    .await?
}

/// The target, ready for files.
struct Prepared {
    root: Arc<Root>,
    /// Directories that could not be made, by their place in the list.
    unmade: HashSet<usize>,
    /// Why they could not.
    refused: Vec<Skipped>,
    /// What an interrupted restore left.
    leftovers: Leftovers,
}

/// Opens the target and makes the directories. Those that cannot be made are listed, and not finished later.
fn prepare(target: &Path, items: &Items) -> Result<Prepared, Error> {
    let failed = |source| Error::Target {
        action: "open",
        path: target.to_owned(),
        source,
    };
    let root = Root::open(target).map_err(failed)?;
    let mut leftovers = Leftovers::default();
    root.sweep(Path::new(""), &mut leftovers).map_err(failed)?;
    let (mut unmade, mut refused) = (HashSet::new(), Vec::new());
    for (number, folder) in items.folders.iter().enumerate() {
        let path = items.path(folder.place);
        let outcome = root.make_folder(&path, &mut leftovers);
        if !judge(&root, &path, outcome, &mut refused)? {
            unmade.insert(number);
        }
    }
    Ok(Prepared {
        root: Arc::new(root),
        unmade,
        refused,
        leftovers,
    })
}

/// What is left once the files have their content.
struct Finish<'a> {
    root: Arc<Root>,
    items: &'a Items,
    rights: Rights,
    durable: bool,
    report: RestoreReport,
}

impl Finish<'_> {
    fn finish(mut self, files: &Files, unmade: &HashSet<usize>) -> Result<RestoreReport, Error> {
        let items = self.items;
        for (outcome, file) in files.outcomes().zip(&items.files) {
            self.count(file.place, file.length, outcome);
        }
        (self.report.reused_bytes, self.report.fetched_bytes) = files.figures();
        self.report.skipped.extend(files.take_lacking());
        for link in &items.links {
            match files.outcome_of(link.first) {
                Outcome::Written | Outcome::Unchanged => {
                    let existing = items.path(items.files[link.first as usize].place);
                    let path = items.path(link.place);
                    let linked = self.root.link(&existing, &path);
                    self.report.files += u64::from(self.judge(&path, linked)?);
                }
                outcome => self.count(link.place, 0, outcome),
            }
        }
        for special in &items.specials {
            let path = items.path(special.place);
            let made = self.root.make_special(&path, special, self.rights);
            self.report.files += u64::from(self.judge_lacking(&path, made)?);
        }
        // From the innermost outwards: what is written into a directory changes its times.
        for (number, folder) in items.folders.iter().enumerate().rev() {
            if !unmade.contains(&number) {
                let path = items.path(folder.place);
                let finished = self.root.finish_folder(&path, &folder.metadata, self.rights);
                self.judge_lacking(&path, finished)?;
            }
        }
        if self.durable {
            let path = self.root.display(Path::new(""));
            self.root.sync().map_err(|source| Error::Target {
                action: "make durable",
                path,
                source,
            })?;
        }
        Ok(self.report)
    }

    /// The same for what may be there, and lack something.
    fn judge_lacking(&mut self, path: &Path, outcome: io::Result<Vec<String>>) -> Result<bool, Error> {
        let outcome = outcome.map(|lacking| {
            let skipped = lacking.into_iter().map(|reason| Skipped {
                path: path.to_owned(),
                reason,
            });
            self.report.skipped.extend(skipped);
        });
        self.judge(path, outcome)
    }

    fn judge(&mut self, path: &Path, outcome: io::Result<()>) -> Result<bool, Error> {
        judge(&self.root, path, outcome, &mut self.report.skipped)
    }

    fn count(&mut self, place: Place, length: u64, outcome: Outcome) {
        let (report, path) = (&mut self.report, || self.items.path(place));
        match outcome {
            Outcome::Written => {
                report.files += 1;
                report.bytes += length;
            }
            Outcome::Unchanged => report.unchanged += 1,
            Outcome::Damaged(reason) => report.damaged.push(DamagedFile { path: path(), reason }),
            Outcome::Failed(reason) => report.skipped.push(Skipped { path: path(), reason }),
            Outcome::Pending => report.skipped.push(Skipped {
                path: path(),
                reason: "not all of its content was written".to_owned(),
            }),
        }
    }
}

/// Keeps worker threads from writing on when nobody waits for them any more.
struct StopOnDrop<'a>(&'a Files);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A full disk ends the restore; any other failure concerns the item alone, and is listed.
fn judge(root: &Root, path: &Path, outcome: io::Result<()>, skipped: &mut Vec<Skipped>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Err(Error::TargetFull {
                path: root.display(path),
            })
        }
        Err(error) => {
            skipped.push(Skipped {
                path: path.to_owned(),
                reason: error.to_string(),
            });
            Ok(false)
        }
    }
}
