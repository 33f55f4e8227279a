//! The locks that lie in a repository: whose they are, and which of them count no more.

use jiff::{SignedDuration, Timestamp};

use super::{LockFile, STALE_AFTER};
use crate::error::{Damage, Error, LockHolder};
use crate::repo::layout::FileKind;
use crate::repo::{Id, Repository, host};
use crate::store::{Entry, list_all};

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLock {
    /// The lock file.
    pub id: Id,
    /// Whose it is; `None` where it cannot be read.
    pub holder: Option<LockHolder>,
    /// Whether it counts.
    pub state: LockState,
    /// How long ago it was written, by the store's clock where that is known.
    pub age: SignedDuration,
}

impl FoundLock {
    /// Nobody can be behind it any more: it may be removed without asking.
    pub fn is_stale(&self) -> bool {
        match self.state {
            LockState::Alive => false,
            LockState::ProcessGone | LockState::NotRenewed => true,
            LockState::Unreadable(_) => self.age > STALE_AFTER,
        }
    }
}

/// Whether a lock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockState {
    /// It does.
    Alive,
    /// Its process on this machine is gone.
    ProcessGone,
    /// Nobody renewed it for thirty minutes.
    NotRenewed,
    /// It cannot be read, so nobody knows.
    Unreadable(Damage),
}

/// Every lock in the repository.
pub async fn locks(repository: &Repository, now: Timestamp) -> Result<Vec<FoundLock>, Error> {
    others(repository, now, None).await
}

/// Removes lock files, whoever holds them: the holder finds out before it concludes anything.
pub async fn remove_locks(repository: &Repository, locks: &[Id]) -> Result<(), Error> {
    for id in locks {
        repository.store().delete(&FileKind::Lock.key(id)).await?;
    }
    Ok(())
}

/// Every lock but our own.
pub(super) async fn others(repository: &Repository, now: Timestamp, own: Option<Id>) -> Result<Vec<FoundLock>, Error> {
    let store = repository.store();
    let (mut found, mut theirs) = (Vec::new(), None);
    for entry in list_all(&*store, FileKind::Lock.folder()).await? {
        let Ok(id) = entry.key.file_name().parse::<Id>() else {
            continue;
        };
        if Some(id) == own {
            continue;
        }
        let (file, damage) = match repository.load_file::<LockFile>(FileKind::Lock, &id).await {
            Ok(file) => (Some(file), None),
            // Released since it was listed.
            Err(Error::Damaged {
                damage: Damage::Missing,
                ..
            }) => continue,
            Err(Error::Damaged { damage, .. }) => (None, Some(damage)),
            Err(error) => return Err(error),
        };
        // Asked once, and only where there are locks.
        let store_now = match theirs {
            Some(time) => time,
            None => *theirs.insert(store.time().await?),
        };
        let age = age(&entry, file.as_ref(), store_now, now);
        let state = match (&file, damage) {
            (None, damage) => LockState::Unreadable(damage.unwrap_or(Damage::Malformed)),
            (Some(file), _) if file.hostname == host::name() && !process_lives(file) => LockState::ProcessGone,
            (Some(_), _) if age > STALE_AFTER => LockState::NotRenewed,
            (Some(_), _) => LockState::Alive,
        };
        let holder = file.map(|file| LockHolder {
            id,
            host: file.hostname,
            pid: file.pid,
            username: file.username,
            since: file.time,
            exclusive: file.exclusive,
        });
        found.push(FoundLock { id, holder, state, age });
    }
    Ok(found)
}

/// How long ago a lock was written. The store says when by its own clock, and the writer by its clock, which may be an
/// hour off: the lock counts as long as either says so, but a time that is yet to come says nothing.
fn age(entry: &Entry, file: Option<&LockFile>, store_now: Timestamp, now: Timestamp) -> SignedDuration {
    let stored = entry.modified.map(|modified| store_now.duration_since(modified));
    let written = file.map(|file| now.duration_since(file.time));
    match (stored, written) {
        (Some(stored), Some(written)) if !written.is_negative() => stored.min(written),
        (Some(age), _) | (None, Some(age)) => age,
        (None, None) => SignedDuration::ZERO,
    }
}

fn process_lives(file: &LockFile) -> bool {
    let same = |born: &String| host::process_birth(file.pid).is_none_or(|now| now == *born);
    host::process_exists(file.pid) && file.opsctl_process.as_ref().is_none_or(same)
}
