//! Looks for damage: the structure always, the data if asked to. It changes nothing, and one damaged object does not
//! keep it from finding the next.

pub(crate) mod data;
mod structure;
mod trees;

use std::collections::HashSet;
use std::path::PathBuf;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::error::{Damage, Error, Object};
use crate::progress::{Phase, Progress};
use crate::repo::{Id, Lock, Repository};

/// What to look at beyond the structure.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CheckOptions {
    /// Which packs to read.
    pub read_data: ReadData,
}

/// Which packs to read in full.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// One of `of` equal parts (1 is the first), so that `of` runs cover everything.
    Part {
        /// Which part, from 1.
        part: u64,
        /// How many parts, at least 1.
        of: u64,
    },
    /// This share of the packs, above 0 and up to 100, picked anew each time; at least one.
    Percent(f64),
    /// Packs picked anew each time, of about this many bytes in all; at least one.
    Bytes(u64),
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Everything found, worst first.
    pub findings: Vec<Finding>,
    /// Snapshots looked at.
    pub snapshots: u64,
    /// Trees looked at.
    pub trees: u64,
    /// Packs in the store.
    pub packs: u64,
    /// Packs that were read in full.
    pub packs_read: u64,
    /// Bytes that were read of packs.
    pub bytes_read: u64,
}

impl CheckReport {
    /// Nothing that costs data was found.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity < Severity::Error)
    }
}

/// One thing found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it concerns.
    pub object: Object,
    /// What is wrong.
    pub problem: Problem,
    /// Snapshots that cannot be restored whole because of it, where known.
    pub snapshots: Vec<Id>,
    /// Under which path the first of them reaches it, without a leading `/`; empty for its root.
    pub path: Option<PathBuf>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Harmless: takes space until the next prune.
    Note,
    /// No data is lost, something should be repaired.
    Warning,
    /// Data is lost or cannot be reached.
    Error,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Problem {
    /// The object is damaged.
    #[error("{0}")]
    Damaged(Damage),
    /// A pack that no index names.
    #[error("not in any index")]
    Orphan,
    /// A pack that nothing needed at the last prune; one that comes after its grace deletes it.
    #[error("to be deleted by a later prune")]
    ToBeDeleted,
    /// A pack that nothing needed at the last prune holds what a snapshot needs and no other pack has. It can be read.
    #[error("marked for deletion{}, and alone holds what is needed; the next prune will keep it", on(*since))]
    NeededAgain {
        /// When it was marked, if the index tells.
        since: Option<Timestamp>,
    },
    /// Several indexes name the pack.
    #[error("in several indexes")]
    InSeveralIndexes,
    /// The blob is stored more than once.
    #[error("stored more than once")]
    SeveralCopies,
}

fn on(since: Option<Timestamp>) -> String {
    since.map_or_else(String::new, |since| format!(" on {since:.0}"))
}

/// Checks a repository. Findings are no error; an error means that the check itself could not be done.
pub async fn check(
    repository: &Repository,
    options: &CheckOptions,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<CheckReport, Error> {
    Lock::while_reading(repository, cancel, unlocked(repository, *options, progress)).await
}

async fn unlocked(
    repository: &Repository,
    options: CheckOptions,
    progress: &dyn Progress,
) -> Result<CheckReport, Error> {
    let mut report = CheckReport::default();
    progress.phase(Phase::CheckingStructure, None, None);
    structure::keys(repository, &mut report).await?;
    let catalogue = structure::indexes(repository, &mut report).await?;
    structure::packs(&catalogue, &mut report);
    structure::snapshots(repository, &catalogue, &mut report, progress).await?;
    data::packs(repository, &catalogue, options.read_data, &mut report, progress).await?;
    report.forget_placeless_twins();
    report
        .findings
        .sort_by_key(|finding| (std::cmp::Reverse(finding.severity), finding.object));
    report.findings.dedup();
    Ok(report)
}

impl CheckReport {
    fn add(&mut self, severity: Severity, object: Object, problem: Problem) {
        self.findings.push(Finding {
            severity,
            object,
            problem,
            snapshots: Vec::new(),
            path: None,
        });
    }

    /// Reading the packs finds again what the trees led to; the finding that says where it is needed stays.
    fn forget_placeless_twins(&mut self) {
        let placed: HashSet<Object> = self
            .findings
            .iter()
            .filter(|finding| finding.path.is_some() && finding.severity == Severity::Error)
            .map(|finding| finding.object)
            .collect();
        self.findings.retain(|finding| {
            finding.path.is_some() || finding.severity < Severity::Error || !placed.contains(&finding.object)
        });
    }

    fn damaged(&mut self, object: Object, damage: Damage) {
        self.add(Severity::Error, object, Problem::Damaged(damage));
    }
}
