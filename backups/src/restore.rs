//! Writes a snapshot, or parts of it, into a directory. It believes nothing that the repository says before it is
//! checked, goes on past damage and lists it, and never writes outside the directory.

mod content;
mod plan;
mod root;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::progress::{Phase, Progress};
use crate::repo::{Id, Lock, Node, Repository};
use crate::source::Skipped;
use crate::threads::blocking;
use content::{Files, Outcome};
use plan::Plan;
use root::{Rights, Root};

/// How to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these paths inside the snapshot, with what lies under them; empty means everything.
    pub include: Vec<PathBuf>,
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
/// half written.
pub async fn restore(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    let work = unlocked(repository, snapshot, target, options, progress);
    Lock::while_reading(repository, cancel, work).await
}

async fn unlocked(
    repository: &Repository,
    snapshot: &Id,
    target: &Path,
    options: &RestoreOptions,
    progress: &dyn Progress,
) -> Result<RestoreReport, Error> {
    let content = repository.snapshot(snapshot).await?;
    let reader = repository.reader().await?;
    let plan = Plan::make(&reader, snapshot, &content, options).await?;
    let rights = Rights {
        setuid: options.setuid,
        owners: options.owners,
    };
    let mut report = RestoreReport {
        damaged: plan.damaged,
        skipped: plan.skipped,
        ..RestoreReport::default()
    };
    let (target, folders) = (target.to_owned(), plan.folders);
    let (root, folders, refused) = blocking(move || prepare(&target, folders)).await??;
    report.directories = folders.len() as u64;
    report.skipped.extend(refused);

    let files = Files::new(Arc::clone(&root), rights, &reader, plan.files);
    let expected = files.outcomes().map(|(_, length, _)| length).sum();
    progress.phase(Phase::Restoring, Some(expected), Some(files.outcomes().count() as u64));
    let stop = StopOnDrop(&files);
    files.restore(&reader, progress).await?;
    drop(stop);

    let (links, specials, durable) = (plan.links, plan.specials, options.durable);
    blocking(move || {
        Finish {
            root,
            rights,
            durable,
            report,
        }
        .finish(&files, &links, &specials, &folders)
    })
    .await?
}

type Folders = Vec<(PathBuf, Node)>;

/// Opens the target and makes the directories. Those that cannot be made are listed, and not finished later.
fn prepare(target: &Path, folders: Folders) -> Result<(Arc<Root>, Folders, Vec<Skipped>), Error> {
    let failed = |source| Error::Target {
        action: "open",
        path: target.to_owned(),
        source,
    };
    let root = Root::open(target).map_err(failed)?;
    root.sweep(Path::new("")).map_err(failed)?;
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    for (path, node) in folders {
        let outcome = root.make_folder(&path);
        if judge(&root, &path, outcome, &mut refused)? {
            made.push((path, node));
        }
    }
    Ok((Arc::new(root), made, refused))
}

/// What is left once the files have their content.
struct Finish {
    root: Arc<Root>,
    rights: Rights,
    durable: bool,
    report: RestoreReport,
}

impl Finish {
    fn finish(
        mut self,
        files: &Files,
        links: &[(PathBuf, usize)],
        specials: &[(PathBuf, Node)],
        folders: &[(PathBuf, Node)],
    ) -> Result<RestoreReport, Error> {
        for (path, length, outcome) in files.outcomes() {
            self.count(path, length, outcome);
        }
        for (path, first) in links {
            match files.restored(*first) {
                Ok(existing) => {
                    let linked = self.root.link(existing, path);
                    self.report.files += u64::from(self.judge(path, linked)?);
                }
                Err(outcome) => self.count(path, 0, outcome),
            }
        }
        for (path, node) in specials {
            let made = self.root.make_special(path, node, self.rights);
            self.report.files += u64::from(self.judge(path, made)?);
        }
        // From the innermost outwards: what is written into a directory changes its times.
        for (path, node) in folders.iter().rev() {
            let finished = self.root.finish_folder(path, node, self.rights);
            self.judge(path, finished)?;
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

    fn judge(&mut self, path: &Path, outcome: io::Result<()>) -> Result<bool, Error> {
        judge(&self.root, path, outcome, &mut self.report.skipped)
    }

    fn count(&mut self, path: &Path, length: u64, outcome: Outcome) {
        let (report, path) = (&mut self.report, path.to_owned());
        match outcome {
            Outcome::Written => {
                report.files += 1;
                report.bytes += length;
            }
            Outcome::Unchanged => report.unchanged += 1,
            Outcome::Damaged(reason) => report.damaged.push(DamagedFile { path, reason }),
            Outcome::Failed(reason) => report.skipped.push(Skipped { path, reason }),
            Outcome::Pending => {
                report.skipped.push(Skipped {
                    path,
                    reason: "not all of its content was written".to_owned(),
                });
            }
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
