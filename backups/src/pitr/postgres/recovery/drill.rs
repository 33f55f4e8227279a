//! A restore drill of a whole cluster: base backup and log come back into a scratch place, PostgreSQL recovers them up to
//! the record of a plan, everything that it can say of the copy is asked ([`ladder`](crate::postgres::ladder)), and what
//! came of it is judged as for every other datastore. It neither chooses the place nor keeps the record.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::serve::Supply;
use super::feed::{Feed, damage};
use super::{Place, Plan, RecoveryError};
use crate::check::{CheckOptions, Severity, check};
use crate::error::{Error, chain};
use crate::postgres::ladder::{Came, Ladder, LadderOptions, Rung, Step, climb};
use crate::progress::Progress;
use crate::proof::judge::State;
use crate::proof::{Check, Found, Phases, Proof, Terms, conclude, nanoseconds, not_restored};
use crate::repo::Repository;
use crate::restore::RestoreReport;
use crate::snapshots::SnapshotRecord;
use crate::source::postgres::base::{BaseError, BaseRestore, Owner, RestoredBase, TablespaceMap, restore_base};

/// The kind of its source.
const KIND: &str = "postgres";

/// Where and with what a drill is carried through.
pub struct Rehearsal {
    /// Where to.
    pub plan: Plan,
    /// The snapshot of its base backup.
    pub record: SnapshotRecord,
    /// The server's place. Its data folder is not there yet; tablespaces come beside it.
    pub place: Place,
    /// Where the log comes from.
    pub supply: Arc<dyn Supply>,
    /// Whose the files are.
    pub owner: Owner,
    /// How many relations are looked through at one time.
    pub jobs: u32,
}

/// Carries it through. What is wrong with the data is in the record, and so is damage of the repository and log that
/// cannot be had; an error means that the drill could not be done. `tell` hears which step is made.
///
/// # Errors
/// [`PostgresError`](crate::postgres::PostgresError) if there are no programs of its version, or nobody to run them as; [`Error::Cancelled`].
pub async fn rehearse(
    repository: &Repository,
    terms: &Terms,
    rehearsal: &Rehearsal,
    progress: &dyn Progress,
    tell: &(dyn Fn(Step) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Proof, Error> {
    let Rehearsal { plan, record, .. } = rehearsal;
    let mut phases = Phases {
        open_seconds: nanoseconds(terms.opened.as_secs_f64()),
        ..Phases::default()
    };
    tell(Step::Manifest);
    let started = Instant::now();
    let restored = Box::pin(bring_back(repository, rehearsal, progress, cancel)).await?;
    phases.restore_seconds = nanoseconds(started.elapsed().as_secs_f64());
    let (ladder, report) = match restored {
        Ok(restored) => {
            let manifest = Came::Passed(format!("{} files, every blob by its hash", restored.report.files));
            let ladder = Box::pin(ladder(repository, terms, rehearsal, manifest, progress, tell, cancel)).await?;
            (Ok(ladder), restored.report)
        }
        Err(problem) => (Err(problem), RestoreReport::default()),
    };
    let state = match plan.moment() {
        Some(moment) => State::Shipped(moment),
        None => State::Snapshot(record.snapshot.time),
    };
    let mut found = Found {
        kind: KIND,
        phases,
        recovery_seconds: 0.0,
        checks: Vec::new(),
        newest: None,
        came_back: false,
        state,
        report,
        server_version: None,
    };
    match ladder {
        Ok(ladder) => {
            climbed(&mut found, ladder);
            if terms.canary.is_some() && found.newest.is_none() {
                found.newest = Some(Err("nobody could be asked".to_owned()));
            }
        }
        Err(problem) => found.checks = fallen(problem),
    }
    conclude(repository, record, terms, found).await
}

/// The record of a drill that found no way: log that is missing or damaged, by its name. `record` is the base backup that
/// would have been the first to begin with.
///
/// # Errors
/// `error` itself where it says nothing about what is held.
pub async fn no_way(
    repository: &Repository,
    terms: &Terms,
    record: &SnapshotRecord,
    error: Error,
) -> Result<Proof, Error> {
    let step = match &error {
        Error::Recovery(recovery) if is_damage(recovery) => "log",
        Error::Damaged { .. } => "manifest",
        _ => return Err(error),
    };
    let found = Found {
        kind: KIND,
        phases: Phases {
            open_seconds: nanoseconds(terms.opened.as_secs_f64()),
            ..Phases::default()
        },
        recovery_seconds: 0.0,
        checks: vec![not_restored(step, chain(&error))],
        newest: None,
        came_back: false,
        state: State::Snapshot(record.snapshot.time),
        report: RestoreReport::default(),
        server_version: None,
    };
    conclude(repository, record, terms, found).await
}

fn is_damage(error: &RecoveryError) -> bool {
    matches!(
        error,
        RecoveryError::Short { .. }
            | RecoveryError::NoWay { .. }
            | RecoveryError::NoLog { .. }
            | RecoveryError::Archive(_)
            | RecoveryError::Search { .. }
    )
}

/// The files. The inner error is damage.
async fn bring_back(
    repository: &Repository,
    rehearsal: &Rehearsal,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Result<RestoredBase, String>, Error> {
    let backup = &rehearsal.plan.backup;
    let data = &rehearsal.place.data;
    let mut tablespaces = TablespaceMap::default();
    for tablespace in &backup.base.tablespaces {
        // Beside the data and not in it, where the manifest knows of nothing.
        let beside = beside(data).join(tablespace.oid.to_string());
        tablespaces = tablespaces
            .clone()
            .with(&tablespace.location, beside)
            .unwrap_or(tablespaces);
    }
    let options = BaseRestore {
        tablespaces,
        owner: rehearsal.owner,
        durable: false,
    };
    let restored = async {
        let unfinished = Box::pin(restore_base(
            repository,
            &backup.snapshot,
            data,
            &options,
            progress,
            cancel,
        ))
        .await?;
        Box::pin(unfinished.finish(repository, progress, cancel)).await
    };
    match restored.await {
        Ok(restored) => Ok(Ok(restored)),
        Err(
            error @ (Error::Damaged { .. }
            | Error::Cluster(
                BaseError::Incomplete { .. }
                | BaseError::File { .. }
                | BaseError::Manifest(_)
                | BaseError::Archive { .. }
                | BaseError::Inconsistent(_)
                | BaseError::NoBase(_),
            )),
        ) => Ok(Err(chain(&error))),
        Err(error) => Err(error),
    }
}

/// The folder of the tablespaces of a drill, each under its number.
pub fn beside(data: &Path) -> PathBuf {
    data.with_file_name("tablespaces")
}

/// Everything after the files are there.
async fn ladder(
    repository: &Repository,
    terms: &Terms,
    rehearsal: &Rehearsal,
    manifest: Came,
    progress: &dyn Progress,
    tell: &(dyn Fn(Step) + Send + Sync),
    cancel: &CancellationToken,
) -> Result<Ladder, Error> {
    let Rehearsal { plan, place, .. } = rehearsal;
    let feed = Feed::open(plan, place, Arc::clone(&rehearsal.supply)).await?;
    let options = LadderOptions {
        scratch: feed.options().clone(),
        target: Some(plan.ends()),
        manifest,
        // While the copy is asked nobody waits for it any more.
        repository: Came::NotRun("it comes last".to_owned()),
        assertions: terms.assertions.clone(),
        canary: terms.canary.clone(),
        asked: None,
        query_limit: terms.query_limit,
        jobs: rehearsal.jobs,
    };
    let mut ladder = Box::pin(climb(&options, tell, cancel)).await?;
    tell(Step::Repository);
    let started = Instant::now();
    let came = sound(repository, rehearsal, progress, cancel).await?;
    let took = started.elapsed();
    let why = match (ladder.came(Step::Recovery), feed.refused()) {
        (Some(Came::Failed(_)), None) => damage(plan, Arc::clone(&rehearsal.supply), cancel).await?,
        (_, refused) => refused,
    };
    for rung in &mut ladder.rungs {
        match (rung.step, &mut rung.came) {
            (Step::Repository, _) => (rung.came, rung.took) = (came.clone(), took),
            (Step::Recovery, Came::Failed(told)) => {
                if let Some(why) = &why {
                    *told = format!("{why}; {told}");
                }
            }
            _ => {}
        }
    }
    Ok(ladder)
}

/// What the repository's own check says of the snapshot.
async fn sound(
    repository: &Repository,
    rehearsal: &Rehearsal,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Came, Error> {
    let report = Box::pin(check(repository, &CheckOptions::default(), progress, cancel)).await?;
    let damage = report
        .findings
        .iter()
        .filter(|finding| finding.severity >= Severity::Error);
    let (ours, others): (Vec<_>, Vec<_>) =
        damage.partition(|finding| finding.snapshots.is_empty() || finding.snapshots.contains(&rehearsal.record.id));
    let others = match others.len() {
        0 => String::new(),
        count => format!("; {count} damaged objects are of other snapshots"),
    };
    Ok(match ours.first() {
        Some(first) => Came::Failed(format!(
            "{} is {}, the first of {}{others}",
            first.object,
            first.problem,
            ours.len()
        )),
        None => Came::Passed(format!(
            "{} packs and {} trees are there and fit{others}",
            report.packs, report.trees
        )),
    })
}

/// What the ladder said.
fn climbed(found: &mut Found, ladder: Ladder) {
    let took = |steps: &[Step]| -> f64 {
        let rungs = ladder.rungs.iter().filter(|rung| steps.contains(&rung.step));
        nanoseconds(rungs.map(|rung| rung.took.as_secs_f64()).sum())
    };
    let phases = &mut found.phases;
    phases.recovery_seconds = nanoseconds(ladder.recovered_in.unwrap_or_default().as_secs_f64());
    phases.checks_seconds = took(&[
        Step::Repository,
        Step::Files,
        Step::Checksums,
        Step::Indexes,
        Step::Dump,
    ]);
    phases.assertions_seconds = took(&[Step::Questions]);
    found.recovery_seconds = phases.open_seconds + phases.restore_seconds + phases.recovery_seconds;
    found.came_back = matches!(ladder.came(Step::Recovery), Some(Came::Passed(_)));
    found.checks = ladder.rungs.iter().map(Rung::check).collect();
    if !ladder.missing_libraries.is_empty()
        && let Some(recovery) = found
            .checks
            .iter_mut()
            .find(|check| check.name == Step::Recovery.name())
    {
        let missing = ladder.missing_libraries.join(", ");
        recovery.observed = format!("{}; without {missing}, which is not here", recovery.observed);
    }
    found.checks.extend(ladder.checks);
    found.newest = ladder.newest;
    found.server_version = ladder.version;
}

/// Every step where the files did not come back.
fn fallen(problem: String) -> Vec<Check> {
    let rungs = Step::ALL.map(|step| Rung {
        step,
        came: if step == Step::Manifest {
            Came::Failed(problem.clone())
        } else {
            Came::NotRun("the files did not come back".to_owned())
        },
        took: std::time::Duration::ZERO,
    });
    rungs.iter().map(Rung::check).collect()
}
