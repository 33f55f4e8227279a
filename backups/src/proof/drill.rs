//! One restore drill: bring a snapshot back into a scratch place, check it, ask it, measure it. It neither chooses the
//! place nor keeps the record.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assertion::{Assertion, Canary, Subject};
use super::judge::{self, Value};
use super::live::{Live, Revive};
use super::record::{Check, Group, Objectives, Outcome, Phases, Proof, SCHEMA};
use crate::error::Error;
use crate::pitr;
use crate::progress::Progress;
use crate::repo::{NodeKind, Repository};
use crate::restore::{RestoreOptions, RestoreReport, restore};
use crate::snapshots::{self, SnapshotRecord};
use crate::source::{Source, VerifiedCheck};

/// What a drill is about, and what it expects.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The datastore's name.
    pub datastore: String,
    /// The environment.
    pub environment: String,
    /// Who asked for it.
    pub actor: String,
    /// The machine.
    pub host: String,
    /// The run, if it is one.
    pub run: Option<String>,
    /// The moment that is to be recovered.
    pub moment: Timestamp,
    /// The way on from the snapshot, where changes are shipped.
    pub forward: Option<pitr::sqlite::Plan>,
    /// What is promised.
    pub objectives: Objectives,
    /// What a copy must be.
    pub assertions: Vec<Assertion>,
    /// What tells the time of the newest row.
    pub canary: Option<Canary>,
    /// The name of the datastore's file or folder inside of the snapshot.
    pub name: OsString,
    /// Whether it is a database in a file, which can be asked.
    pub is_database: bool,
    /// Makes something of the files that can be asked, where they are not.
    pub revive: Option<Arc<dyn Revive>>,
    /// How long it took to open the repository and to find the snapshot: a part of the recovery.
    pub opened: Duration,
    /// How long one query may take.
    pub query_limit: Duration,
}

/// Which snapshot a recovery to `moment` begins with: the latest that was made by then. `snapshots` are oldest first.
pub fn at_or_before(snapshots: &[SnapshotRecord], moment: Timestamp) -> Option<&SnapshotRecord> {
    snapshots.iter().rev().find(|record| record.snapshot.time <= moment)
}

/// How many bytes the restored files will have, by their trees where the snapshot does not say.
pub async fn needed_bytes(repository: &Repository, record: &SnapshotRecord) -> Result<u64, Error> {
    if let Some(summary) = &record.snapshot.summary {
        return Ok(summary.total_bytes_processed);
    }
    let entries = snapshots::ls(repository, &record.snapshot, Path::new(""), true).await?;
    let files = entries.iter().filter(|entry| entry.node.kind == NodeKind::File);
    Ok(files.fold(0, |sum, entry| sum.saturating_add(entry.node.size)))
}

/// Brings the data back into `folder`: the snapshot, and what was shipped after it.
async fn bring_back(
    repository: &Repository,
    record: &SnapshotRecord,
    terms: &Terms,
    folder: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<RestoreReport, Error> {
    if let Some(forward) = &terms.forward {
        let name = Path::new(&terms.name);
        let applied = forward.apply(repository, name, folder, false, progress, cancel);
        return Ok(Box::pin(applied).await?.report);
    }
    restore(
        repository,
        &record.id,
        folder,
        &RestoreOptions::default(),
        progress,
        cancel,
    )
    .await
}

/// Carries a drill through in `folder`, which is empty. What is wrong with the data is in the record, and so is damage of
/// the repository that keeps it from coming back; an error means that the drill could not be done.
pub async fn rehearse(
    repository: &Repository,
    source: &dyn Source,
    record: &SnapshotRecord,
    terms: &Terms,
    folder: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Proof, Error> {
    let mut phases = Phases {
        open_seconds: nanoseconds(terms.opened.as_secs_f64()),
        ..Phases::default()
    };
    let mut checks = Vec::new();
    let mut newest = None;
    let mut server_version = None;

    let started = Instant::now();
    let bringing = Box::pin(bring_back(repository, record, terms, folder, progress, cancel));
    let report = match bringing.await {
        Ok(report) => report,
        Err(damaged @ (Error::Damaged { .. } | Error::Shipping(_))) => {
            checks.push(not_restored("everything", damaged.to_string()));
            RestoreReport::default()
        }
        Err(error) => return Err(error),
    };
    phases.restore_seconds = nanoseconds(started.elapsed().as_secs_f64());
    checks.extend(whole(&report, &checks));
    let mut came_back = judge::verdict(&checks) == super::Verdict::Proved;

    if came_back {
        let started = Instant::now();
        let work = async {
            let verification = source.verify(folder).await?;
            Ok::<_, Error>(if verification.checks.is_empty() {
                // The source has no inner truth: every file is read from the disk again and held against its hashes.
                vec![Box::pin(read_again(repository, record, folder, progress, cancel)).await?]
            } else {
                verification.checks.into_iter().map(verified).collect()
            })
        };
        checks.extend(until(cancel, work).await?);
        phases.checks_seconds = nanoseconds(started.elapsed().as_secs_f64());

        let mut live: Option<Box<dyn Live>> = None;
        if let (Some(revive), super::Verdict::Proved) = (&terms.revive, judge::verdict(&checks)) {
            let started = Instant::now();
            let revived = until(cancel, revive.revive(folder)).await?;
            checks.extend(revived.checks);
            // What does not load has not come back.
            came_back = judge::verdict(&checks) == super::Verdict::Proved;
            live = revived.live;
            phases.restore_seconds += nanoseconds(started.elapsed().as_secs_f64());
        }

        let started = Instant::now();
        let work = async {
            let mut answers = Vec::new();
            let root = folder.join(&terms.name);
            let mut subject = if let Some(live) = live {
                Subject::of_server(root, live, terms.query_limit)
            } else {
                let (subject, first) = Subject::open(root, terms.is_database, terms.query_limit).await?;
                answers.extend(first);
                subject
            };
            for assertion in &terms.assertions {
                answers.extend(subject.check(assertion).await?);
            }
            let newest = match &terms.canary {
                Some(canary) => Some(subject.newest(canary).await?),
                None => None,
            };
            server_version = subject.stop().await?;
            Ok((answers, newest))
        };
        let (answers, told) = until(cancel, work).await?;
        checks.extend(answers);
        newest = told;
        phases.assertions_seconds = nanoseconds(started.elapsed().as_secs_f64());
    }

    let state = match &terms.forward {
        Some(forward) => judge::State::Shipped(forward.reached),
        None => judge::State::Snapshot(record.snapshot.time),
    };
    let found = Found {
        kind: source.kind(),
        recovery_seconds: phases.total(),
        phases,
        checks,
        newest,
        came_back,
        state,
        report,
        server_version,
    };
    conclude(repository, record, terms, found).await
}

/// What a drill found, before it is held against what was promised.
pub(crate) struct Found {
    /// The source's kind.
    pub(crate) kind: &'static str,
    pub(crate) phases: Phases,
    /// What of the phases somebody would wait for after a disaster.
    pub(crate) recovery_seconds: f64,
    pub(crate) checks: Vec<Check>,
    /// What the canary's query answered, or why it did not.
    pub(crate) newest: Option<Result<Value, String>>,
    /// Whether the data is there again.
    pub(crate) came_back: bool,
    pub(crate) state: judge::State,
    pub(crate) report: RestoreReport,
    pub(crate) server_version: Option<String>,
}

/// Judges it.
pub(crate) async fn conclude(
    repository: &Repository,
    record: &SnapshotRecord,
    terms: &Terms,
    found: Found,
) -> Result<Proof, Error> {
    let Found {
        mut checks, came_back, ..
    } = found;
    let rto_seconds = came_back.then(|| nanoseconds(found.recovery_seconds));
    let loss = match (&terms.canary, came_back) {
        (Some(_), false) => judge::loss(
            terms.moment,
            found.state,
            Some(Err("the data did not come back".to_owned())),
        ),
        _ => judge::loss(terms.moment, found.state, found.newest),
    };
    let rpo_seconds = loss.seconds.filter(|_| came_back).map(nanoseconds);
    checks.extend(judge::objectives(
        &terms.objectives,
        rto_seconds,
        &judge::Loss {
            seconds: rpo_seconds,
            ..loss.clone()
        },
    ));
    Ok(Proof {
        schema: SCHEMA.to_owned(),
        snapshot: record.id,
        snapshot_time: record.snapshot.time,
        datastore: terms.datastore.clone(),
        kind: found.kind.to_owned(),
        environment: terms.environment.clone(),
        at: repository.store().time().await?,
        moment: terms.moment,
        actor: terms.actor.clone(),
        host: terms.host.clone(),
        run: terms.run.clone(),
        phases: found.phases,
        rto_seconds,
        rpo_seconds,
        rpo_basis: loss.basis,
        objectives: terms.objectives,
        verdict: judge::verdict(&checks),
        checks,
        files: found.report.files,
        bytes: found.report.bytes,
        tool_version: concat!("opsctl ", env!("CARGO_PKG_VERSION")).to_owned(),
        sqlite_version: terms.is_database.then(|| rusqlite::version().to_owned()),
        server_version: found.server_version,
    })
}

async fn until<T>(cancel: &CancellationToken, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        done = work => done,
    }
}

/// To whole nanoseconds: such a number of seconds comes back from JSON as it was.
pub(crate) fn nanoseconds(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e9
}

/// So many files that did not come back are named in a record; the number of all is told, too.
const NAMED: usize = 100;

/// Whether everything came back, file by file where not.
fn whole(report: &RestoreReport, before: &[Check]) -> Vec<Check> {
    let damaged = report.damaged.iter().map(|item| (&item.path, &item.reason));
    let skipped = report.skipped.iter().map(|item| (&item.path, &item.reason));
    let mut missing: Vec<Check> = damaged
        .chain(skipped)
        .take(NAMED)
        .map(|(path, reason)| not_restored(&path.display().to_string(), reason.clone()))
        .collect();
    let all = report.damaged.len() + report.skipped.len();
    if all > NAMED {
        missing.push(not_restored("and more", format!("{all} in all did not come back")));
    }
    if missing.is_empty() && before.is_empty() {
        missing.push(Check {
            group: Group::Restore,
            name: "everything".to_owned(),
            expected: "restored, every blob by its hash".to_owned(),
            observed: format!("{} files, {} bytes", report.files, report.bytes),
            figure: Some(report.bytes as f64),
            outcome: Outcome::Met,
        });
    }
    missing
}

pub(crate) fn not_restored(what: &str, why: String) -> Check {
    Check {
        group: Group::Restore,
        name: what.to_owned(),
        expected: "restored".to_owned(),
        observed: why,
        figure: None,
        outcome: Outcome::NotMet,
    }
}

fn verified(check: VerifiedCheck) -> Check {
    Check {
        group: Group::Source,
        name: check.name.to_owned(),
        expected: "no problem".to_owned(),
        outcome: Outcome::of(check.problem.is_none()),
        observed: check.problem.unwrap_or_else(|| "no problem".to_owned()),
        figure: None,
    }
}

/// A second restore over the first leaves alone what is there byte by byte; what it has to write was not.
async fn read_again(
    repository: &Repository,
    record: &SnapshotRecord,
    folder: &Path,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Check, Error> {
    let again = restore(
        repository,
        &record.id,
        folder,
        &RestoreOptions::default(),
        progress,
        cancel,
    )
    .await?;
    let sound = again.bytes == 0 && again.damaged.is_empty();
    Ok(Check {
        group: Group::Source,
        name: "content by hash".to_owned(),
        expected: "every file on the disk is the one that was saved".to_owned(),
        observed: if sound {
            format!("each file is, {} of them", again.unchanged)
        } else {
            format!("{} bytes were not", again.bytes)
        },
        figure: Some(again.unchanged as f64),
        outcome: Outcome::of(sound),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::{Id, Snapshot};

    fn snapshot(second: i64) -> SnapshotRecord {
        SnapshotRecord {
            id: Id::of(&second.to_le_bytes()),
            snapshot: Snapshot {
                time: Timestamp::from_second(second).unwrap(),
                parent: None,
                tree: Id::of(b""),
                paths: Vec::new(),
                hostname: String::new(),
                username: String::new(),
                uid: 0,
                gid: 0,
                excludes: Vec::new(),
                tags: Vec::new(),
                original: None,
                program_version: None,
                summary: None,
            },
        }
    }

    proptest! {
        #[test]
        fn a_recovery_begins_with_the_latest_snapshot_that_is_not_too_late(
            mut seconds in proptest::collection::vec(0_i64..1000, 0..20),
            moment in -10_i64..1010,
        ) {
            seconds.sort_unstable();
            let snapshots: Vec<SnapshotRecord> = seconds.iter().copied().map(snapshot).collect();
            let chosen = at_or_before(&snapshots, Timestamp::from_second(moment).unwrap());
            prop_assert_eq!(
                chosen.map(|record| record.snapshot.time.as_second()),
                seconds.iter().copied().filter(|second| *second <= moment).max()
            );
        }
    }
}
