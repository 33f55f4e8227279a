//! Reading what snapshots hold: list and find here, then [`ls`], [`diff`] and [`dump`].

mod diff;
mod dump;
mod ls;
mod room;
mod tar;

pub use diff::{Change, ChangeKind, Difference, Totals, diff};
pub use dump::dump;
pub use ls::{LsEntry, ls};
pub(crate) use ls::{MAX_DEPTH, node_at};
pub(crate) use room::{Extent, Room, shown_below};
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use tar::header as tar_header;

use futures::{StreamExt, stream};

use crate::error::{Damage, Error};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Repository, Snapshot};

/// A snapshot and its name.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotRecord {
    /// The name.
    pub id: Id,
    /// What it says.
    pub snapshot: Snapshot,
}

/// Which snapshots; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// The machine.
    pub host: Option<String>,
    /// Labels that it must all have.
    pub tags: Vec<String>,
    /// Paths of which it must have saved each.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// Whether a snapshot fits.
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        self.host.as_ref().is_none_or(|host| *host == snapshot.hostname)
            && self.tags.iter().all(|tag| snapshot.tags.contains(tag))
            && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }
}

/// What [`list`] found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SnapshotList {
    /// Those that fit, oldest first.
    pub snapshots: Vec<SnapshotRecord>,
    /// Snapshot files that cannot be read, whatever they would fit.
    pub damaged: Vec<(Id, Damage)>,
}

/// All snapshots that fit. Damaged ones do not hide the others.
pub async fn list(repository: &Repository, filter: &SnapshotFilter) -> Result<SnapshotList, Error> {
    let ids = repository.list(FileKind::Snapshot).await?;
    let mut loading = stream::iter(ids)
        .map(|(id, _)| async move { (id, repository.snapshot(&id).await) })
        .buffered(16);
    let mut list = SnapshotList::default();
    while let Some((id, loaded)) = loading.next().await {
        match loaded {
            Ok(snapshot) if filter.fits(&snapshot) => list.snapshots.push(SnapshotRecord { id, snapshot }),
            // Unfit, or forgotten since it was listed.
            Ok(_)
            | Err(Error::Damaged {
                damage: Damage::Missing,
                ..
            }) => {}
            Err(Error::Damaged { damage, .. }) => list.damaged.push((id, damage)),
            Err(error) => return Err(error),
        }
    }
    list.snapshots.sort_by_key(|record| (record.snapshot.time, record.id));
    Ok(list)
}

/// The snapshot whose id begins with `wanted`, or the `latest` of those that fit.
pub async fn find(repository: &Repository, wanted: &str, filter: &SnapshotFilter) -> Result<SnapshotRecord, Error> {
    let missing = || Error::SnapshotNotFound {
        wanted: wanted.to_owned(),
    };
    if wanted == "latest" {
        return list(repository, filter).await?.snapshots.pop().ok_or_else(missing);
    }
    if wanted.is_empty() || !wanted.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let wanted_digits = wanted.to_ascii_lowercase();
    let mut ids = repository.list(FileKind::Snapshot).await?;
    ids.retain(|(id, _)| id.to_string().starts_with(&wanted_digits));
    match ids.as_slice() {
        [] => Err(missing()),
        [(id, _)] => Ok(SnapshotRecord {
            id: *id,
            snapshot: repository.snapshot(id).await?,
        }),
        several => Err(Error::SnapshotAmbiguous {
            wanted: wanted.to_owned(),
            count: several.len(),
        }),
    }
}
