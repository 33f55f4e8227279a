//! Which finished runs and which releases are old enough to go, and their removal. Never an unfinished run, nor one whose
//! undo is incomplete, nor what a roll-back needs.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::LocalPlatform;
use super::records;
use super::state_dir::{StateDir, failed};
use crate::Result;
use crate::run::{Outcome, Phase, RunRecord};

/// How many finished runs are kept.
pub const RUNS: usize = 100;
/// How many releases of a service are kept beside those that are in use.
pub const RELEASES: usize = 5;
/// How long the state lock is waited for.
const LOCK: Duration = Duration::from_secs(2);
/// The mark of a run's folder that is being removed.
const GONE: &str = ".gone-";

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// Runs, by id.
    pub runs: Vec<String>,
    /// Releases, as `service/version`.
    pub releases: Vec<String>,
}

impl LocalPlatform {
    /// Removes finished runs beyond the last `runs`, and releases that nothing uses beyond the last `releases` of their
    /// service. `needed` are runs that stay whatever their age, and so do the releases that they name.
    ///
    /// Errors: [`crate::PlatformError::Busy`] when the state lock is not free soon; those of the file system. What could
    /// not be removed is removed the next time.
    pub async fn remove_old(&self, runs: usize, releases: usize, needed: &BTreeSet<String>) -> Result<Removed> {
        let state = self.state();
        let _lock = state.lock(LOCK).await?;
        let all = records::records(state)?;
        let old = old_runs(&all, runs, needed);
        for id in &old {
            let gone = state.path("runs").join(format!("{GONE}{id}"));
            // At once as far as readers see, however long it takes.
            fs::rename(state.run_dir(id), &gone).map_err(failed("remove", &gone))?;
        }
        for folder in folders(&state.path("runs"))? {
            if folder.starts_with(GONE) {
                let path = state.path("runs").join(folder);
                fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            }
        }
        let mut users: Vec<String> = ["desired.json", "releases.json", "instances.json"]
            .iter()
            .map(|name| state.path(name))
            .chain(
                all.iter()
                    .filter(|record| !finished(record) || needed.contains(&record.id))
                    .map(|record| state.run_dir(&record.id).join("record.json")),
            )
            .map(|path| text(&path))
            .collect::<Result<_>>()?;
        users.retain(|text| !text.is_empty());
        Ok(Removed {
            runs: old,
            releases: remove_releases(state, releases, &users)?,
        })
    }
}

/// The finished runs that are older than the last `keep`, oldest first; `all` is oldest first. Not among them: `needed`
/// ones, and the newest of each kind and target, which commands tell about.
pub fn old_runs(all: &[RunRecord], keep: usize, needed: &BTreeSet<String>) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut old: Vec<String> = all
        .iter()
        .rev()
        .filter(|record| finished(record))
        .enumerate()
        .filter(|(age, record)| {
            let newest = told.insert((&record.kind, &record.target));
            *age >= keep && !newest && !needed.contains(&record.id)
        })
        .map(|(_, record)| record.id.clone())
        .collect();
    old.reverse();
    old
}

fn finished(record: &RunRecord) -> bool {
    record.phase == Phase::Closed && record.outcome != Some(Outcome::UndoIncomplete)
}

/// Removes the releases whose path stands in none of the texts, but the last `keep` of each service.
fn remove_releases(state: &StateDir, keep: usize, users: &[String]) -> Result<Vec<String>> {
    let root = state.path("releases");
    let mut removed = Vec::new();
    for service in folders(&root)? {
        let mut versions: Vec<(SystemTime, String)> = Vec::new();
        for version in folders(&root.join(&service))? {
            let path = root.join(&service).join(&version);
            let stored = path.metadata().and_then(|meta| meta.modified());
            versions.push((stored.map_err(failed("read", &path))?, version));
        }
        versions.sort();
        versions.reverse();
        for (_, version) in versions.into_iter().skip(keep) {
            let path = format!("/releases/{service}/{version}/");
            if users.iter().any(|text| text.contains(&path)) {
                continue;
            }
            let path = root.join(&service).join(&version);
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
            removed.push(format!("{service}/{version}"));
        }
    }
    removed.sort();
    Ok(removed)
}

/// The names of the folders in a folder.
fn folders(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}

/// A file's text; empty when there is none.
fn text(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(failed("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::local::releases;

    fn run(second: i64, kind: &str, outcome: Option<Outcome>) -> RunRecord {
        let at = Timestamp::from_second(second).unwrap();
        let mut record = RunRecord::new(format!("run-{second:03}"), kind, "service/orders", Value::Null, at);
        record.outcome = outcome;
        record.phase = outcome.map_or(Phase::Active, |_| Phase::Closed);
        record
    }

    #[test]
    fn unfinished_needed_and_newest_runs_stay() {
        let passed = Some(Outcome::Passed);
        let all = [
            run(0, "drill", None),
            run(1, "drill", Some(Outcome::UndoIncomplete)),
            run(2, "canary", passed),
            run(3, "drill", passed),
            run(4, "drill", Some(Outcome::Lost)),
            run(5, "drill", passed),
            run(6, "drill", passed),
        ];
        let needed = BTreeSet::from(["run-004".to_owned()]);
        assert_eq!(old_runs(&all, 2, &needed), ["run-003"]);
        assert_eq!(old_runs(&all, 2, &BTreeSet::new()), ["run-003", "run-004"]);
        assert_eq!(old_runs(&all, 0, &needed), ["run-003", "run-005"]);
        assert_eq!(old_runs(&all, 5, &BTreeSet::new()), [""; 0]);
    }

    #[tokio::test]
    async fn what_is_in_use_stays_and_the_rest_goes_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path().join(".opsctl")).unwrap();
        let platform = LocalPlatform::new(state.clone(), None);
        let program = folder.path().join("orders");
        let stored: Vec<String> = (0..8_u64)
            .map(|number| {
                fs::write(&program, number.to_string()).unwrap();
                let release = releases::store(&state, "orders", &program).unwrap();
                let folder = fs::File::open(release.program.parent().unwrap()).unwrap();
                folder
                    .set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(number))
                    .unwrap();
                release.version
            })
            .collect();
        let names =
            |number: usize| json!({ "command": [state.path(format!("releases/orders/{}/orders", stored[number]))] });
        fs::write(state.path("desired.json"), names(0).to_string()).unwrap();
        fs::write(state.path("releases.json"), names(1).to_string()).unwrap();
        let mut records = [
            run(0, "canary", None),
            run(1, "drill", Some(Outcome::Passed)),
            run(2, "drill", Some(Outcome::Passed)),
            run(3, "drill", Some(Outcome::Passed)),
        ];
        records[0].spec = names(2);
        records[1].spec = names(3);
        records[2].spec = names(4);
        use crate::Platform as _;
        for record in &records {
            platform.create_record(record).await.unwrap();
        }
        let needed = BTreeSet::from(["run-001".to_owned()]);
        let removed = platform.remove_old(1, 2, &needed).await.unwrap();
        assert_eq!(removed.runs, ["run-002"]);
        let mut gone = [4, 5].map(|number| format!("orders/{}", stored[number]));
        gone.sort();
        assert_eq!(removed.releases, gone);
        let left: Vec<String> = platform
            .records()
            .await
            .unwrap()
            .into_iter()
            .map(|run| run.id)
            .collect();
        assert_eq!(left, ["run-000", "run-001", "run-003"]);
        assert_eq!(folders(&state.path("releases/orders")).unwrap().len(), 6);
        assert_eq!(folders(&state.path("runs")).unwrap().len(), 3, "nothing half removed");
        assert_eq!(platform.remove_old(1, 2, &needed).await.unwrap(), Removed::default());
    }
}
