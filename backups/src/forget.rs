//! Removes snapshots: those that a [policy](crate::retention) does not keep, or those named. Only the snapshot files go;
//! what nothing needs any more is the business of [`prune`](crate::prune).
//!
//! Removing takes the exclusive lock, as restic's `forget` does: of two that decide at once each could remove what the
//! other counts on.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::error::{Damage, Error};
use crate::progress::{Phase, Progress};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Lock, LockMode, Repository};
use crate::retention::{self, Among, Candidate, Decision, Group, Policy};
use crate::snapshots::SnapshotFilter;
use crate::store::list_all;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ForgetOptions {
    /// Which snapshots.
    pub which: Which,
    /// Snapshots that were restored and found sound.
    pub proved: BTreeSet<Id>,
    /// When days begin.
    pub zone: TimeZone,
}

/// Which snapshots may go.
#[derive(Debug, Clone)]
pub enum Which {
    /// These. One that must stay is an error, and then none is removed.
    Snapshots(Vec<Id>),
    /// Of those that fit a filter, what its policy does not keep. The first filter that fits counts; what fits none stays.
    Policies(Vec<(SnapshotFilter, Policy)>),
}

/// What becomes of the snapshots.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgetPlan {
    /// By what they are snapshots of, newest first. Groups that nobody asked about are not listed.
    pub groups: Vec<Group>,
    /// Snapshot files that cannot be read. They stay: nobody knows what they are.
    pub unreadable: Vec<(Id, Damage)>,
}

impl ForgetPlan {
    /// Those that go, oldest first within each group.
    pub fn removed(&self) -> impl Iterator<Item = &Decision> {
        let decisions = self.groups.iter().flat_map(|group| group.decisions.iter().rev());
        decisions.filter(|decision| !decision.is_kept())
    }

    /// Those that stay.
    pub fn kept(&self) -> impl Iterator<Item = &Decision> {
        let decisions = self.groups.iter().flat_map(|group| &group.decisions);
        decisions.filter(|decision| decision.is_kept())
    }
}

/// Decides which snapshots go. Changes nothing and takes no lock.
pub async fn plan(repository: &Repository, options: &ForgetOptions) -> Result<ForgetPlan, Error> {
    let store = repository.store();
    let now = store.time().await?;
    let mut loading = stream::iter(list_all(&*store, FileKind::Snapshot.folder()).await?)
        .filter_map(async |entry| Some((entry.key.file_name().parse::<Id>().ok()?, entry.modified)))
        .map(async |(id, modified)| (id, modified, repository.snapshot(&id).await))
        .boxed()
        .buffered(16);
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    while let Some((id, modified, loaded)) = loading.next().await {
        match loaded {
            Ok(snapshot) => found.push((
                Candidate {
                    id,
                    time: snapshot.time,
                    modified,
                    tags: snapshot.tags.clone(),
                    host: snapshot.hostname.clone(),
                    paths: snapshot.paths.clone(),
                    is_whole: !snapshot.is_partial(),
                    is_proved: options.proved.contains(&id),
                },
                snapshot,
            )),
            // Forgotten since it was listed.
            Err(Error::Damaged {
                damage: Damage::Missing,
                ..
            }) => {}
            Err(Error::Damaged { damage, .. }) => unreadable.push((id, damage)),
            Err(error) => return Err(error),
        }
    }
    let groups = match &options.which {
        Which::Snapshots(wanted) => {
            if let Some(id) = wanted
                .iter()
                .find(|id| !found.iter().any(|(other, _)| other.id == **id))
            {
                let wanted = id.to_string();
                return Err(Error::SnapshotNotFound { wanted });
            }
            let all = found.into_iter().map(|(candidate, _)| candidate).collect();
            let mut groups = retention::remove(wanted, all, now);
            let asked = |decision: &Decision| wanted.contains(&decision.candidate.id);
            groups.retain(|group| group.decisions.iter().any(asked));
            refuse_last(&groups, wanted)?;
            groups
        }
        Which::Policies(policies) => {
            let mut parts: Vec<Vec<Candidate>> = vec![Vec::new(); policies.len()];
            for (candidate, snapshot) in found {
                let fits = policies.iter().position(|(filter, _)| filter.fits(&snapshot));
                if let Some(at) = fits {
                    parts[at].push(candidate);
                }
            }
            let mut groups = Vec::new();
            for ((_, policy), part) in policies.iter().zip(parts) {
                let decided = retention::apply(policy, part, now, &options.zone);
                groups.extend(decided.map_err(|error| Error::Invalid(error.to_string()))?);
            }
            groups
        }
    };
    Ok(ForgetPlan { groups, unreadable })
}

/// A snapshot that was asked for by name and must stay is an error.
fn refuse_last(groups: &[Group], wanted: &[Id]) -> Result<(), Error> {
    for group in groups {
        for decision in &group.decisions {
            let id = decision.candidate.id;
            if let Some(reason) = decision.reasons.first().filter(|_| wanted.contains(&id)) {
                return Err(Error::LastSnapshot {
                    id,
                    what: if reason.among == Among::Proved {
                        "proved"
                    } else {
                        "whole"
                    },
                    group: group.key.to_string(),
                });
            }
        }
    }
    Ok(())
}

/// Removes what a plan says. It is looked at again under the lock: what has to stay by now stays. Returns what was removed.
pub async fn apply(
    repository: &Repository,
    options: &ForgetOptions,
    plan: &ForgetPlan,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Vec<Id>, Error> {
    if repository.version() == 1 {
        return Err(Error::ReadOnlyVersion);
    }
    let planned: BTreeSet<Id> = plan.removed().map(|decision| decision.candidate.id).collect();
    if planned.is_empty() {
        return Ok(Vec::new());
    }
    let locked = async {
        let lock = Lock::acquire(repository, LockMode::Exclusive, clock::now()).await?;
        let removed = remove(repository, options, &planned, &lock, progress).await;
        lock.release().await;
        removed
    };
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        outcome = locked => outcome,
    }
}

async fn remove(
    repository: &Repository,
    options: &ForgetOptions,
    planned: &BTreeSet<Id>,
    lock: &Lock,
    progress: &dyn Progress,
) -> Result<Vec<Id>, Error> {
    let current = match &options.which {
        // Another has removed some of them meanwhile.
        Which::Snapshots(wanted) => {
            let there = repository.list(FileKind::Snapshot).await?;
            let left = wanted.iter().filter(|id| there.iter().any(|(other, _)| other == *id));
            ForgetOptions {
                which: Which::Snapshots(left.copied().collect()),
                ..options.clone()
            }
        }
        Which::Policies(_) => options.clone(),
    };
    let again = plan(repository, &current).await?;
    let going: Vec<Id> = again
        .removed()
        .map(|decision| decision.candidate.id)
        .filter(|id| planned.contains(id))
        .collect();
    lock.confirm().await?;
    progress.phase(Phase::Deleting, None, Some(going.len() as u64));
    let store = repository.store();
    let removals = stream::iter(going.iter().map(Ok)).try_for_each_concurrent(4, |id| {
        let store = &store;
        async move {
            lock.still_held()?;
            store.delete(&FileKind::Snapshot.key(id)).await?;
            progress.file_done();
            Ok::<_, Error>(())
        }
    });
    removals.await?;
    Ok(going)
}
