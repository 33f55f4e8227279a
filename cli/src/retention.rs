//! What is removed when a run ends: old runs, and releases that nobody runs. What a roll-back needs stays; which that is,
//! only canaries know.

use std::collections::BTreeSet;

use opsctl_drills::expectation::proved;
use opsctl_platform::local::retention::{RELEASES, RUNS};
use opsctl_platform::local::{LocalPlatform, StateDir};
use opsctl_platform::run::{Outcome, RunRecord};
use opsctl_platform::{Platform as _, PlatformError};
use opsctl_rollouts::{promotion, worker};

/// Removes what is old. A failure is logged, and made good by the end of the next run.
pub(crate) async fn after_run(local: &LocalPlatform) {
    let removed = match needed(local).await {
        Ok(needed) => local.remove_old(RUNS, RELEASES, &needed).await,
        Err(error) => Err(error),
    };
    match removed {
        Ok(removed) => {
            tracing::info!(
                runs = removed.runs.len(),
                releases = removed.releases.len(),
                "removed what is old"
            );
        }
        Err(error) => tracing::warn!(%error, "could not remove what is old"),
    }
}

/// Removes what old runs on clusters wrote here. Their records are in the cluster; a folder with a record is one of the
/// local platform's.
pub(crate) fn after_run_there(state: &StateDir) {
    let folders = std::fs::read_dir(state.path("runs"));
    let mut runs: Vec<_> = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && !path.join("record.json").exists())
        .collect();
    // Ids sort by the start of their runs.
    runs.sort();
    runs.truncate(runs.len().saturating_sub(RUNS));
    for folder in runs {
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(%error, folder = %folder.display(), "could not remove what is old");
        }
    }
}

/// The runs that tell `deploy rollback` what ran before the version that is stable now.
async fn needed(local: &LocalPlatform) -> Result<BTreeSet<String>, PlatformError> {
    let records = local.records().await?;
    let services: BTreeSet<&str> = records.iter().filter_map(RunRecord::service).collect();
    // When an alert was last proved is told for as long as it is.
    let environments: BTreeSet<&str> = records.iter().map(|record| record.environment.as_str()).collect();
    let standings = environments
        .into_iter()
        .flat_map(|name| proved::standings(&records, name));
    let mut needed: BTreeSet<String> = standings
        .filter_map(|standing| Some(standing.last_proved?.run))
        .collect();
    for service in services {
        let stable = local.service(service).await.ok().and_then(|state| state.stable_version);
        match stable {
            Some(stable) => needed.extend(promotion(&records, service, &stable).map(|record| record.id.clone())),
            // Which version will be stable is not known: every promotion may be needed.
            None => needed.extend(
                records
                    .iter()
                    .filter(|record| {
                        record.kind == worker::KIND
                            && record.service() == Some(service)
                            && record.outcome == Some(Outcome::Passed)
                    })
                    .map(|record| record.id.clone()),
            ),
        }
    }
    Ok(needed)
}
