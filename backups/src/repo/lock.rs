//! Locks, compatible with restic's: a file in `locks/` per holder, shared or exclusive, renewed every five minutes and
//! stale after thirty.
//!
//! Who wants a lock writes it and then looks who else holds one: of two that exclude each other at least one sees the
//! other. Beware: `restic unlock` asks whether the process of a lock lives by sending it SIGHUP.
//!
//! A lock whose process on this machine is dead is taken away; so is any that was not renewed for thirty minutes by the
//! store's clock, whatever the clock of the machine says that wrote it.

mod found;

pub use found::{FoundLock, LockState, locks, remove_locks};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::layout::FileKind;
use super::{Id, Repository, host};
use crate::clock;
use crate::error::Error;
use crate::store::{Store, StoreError};

/// How often a lock is renewed: restic's interval.
const RENEW_EVERY: Duration = Duration::from_mins(5);
/// After a failed renewal it is tried again this often.
const RETRY_EVERY: Duration = Duration::from_secs(20);
/// When others may take a lock for dead: restic's limit.
const STALE_AFTER: SignedDuration = SignedDuration::from_mins(30);
/// When we stop trusting a lock that we could not renew: before others may take it away.
const LOST_AFTER: SignedDuration = SignedDuration::from_mins(25);

/// Where a lock that is held has the time of day from. Not the monotonic clock: that stands still while a machine
/// sleeps, and others count the minutes meanwhile.
type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Who may hold a lock beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Other shared locks: everything that only adds or reads.
    Shared,
    /// Nobody: whatever deletes.
    Exclusive,
}

/// A lock that is held. Released by [`Lock::release`], or when it is dropped.
pub struct Lock {
    held: Arc<Held>,
    renewal: AbortHandle,
    released: bool,
}

/// What the renewal and the owner share.
struct Held {
    store: Arc<dyn Store>,
    /// Our lock files: one, and during a renewal two.
    files: Mutex<Vec<Id>>,
    /// When the lock was written last.
    renewed: Mutex<Timestamp>,
    /// Somebody took it away.
    gone: AtomicBool,
    clock: Clock,
}

impl Held {
    fn files(&self) -> Vec<Id> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, id: Id) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Whether one of our lock files is still in the store. If none is, somebody took us for dead, and does by now what
    /// our lock was there to prevent.
    async fn is_there(&self) -> Result<bool, StoreError> {
        for id in self.files() {
            match self.store.stat(&FileKind::Lock.key(&id)).await {
                Err(error) if error.is_not_found() => {}
                found => return found.map(|_| true),
            }
        }
        Ok(false)
    }

    /// Deletes our lock files but `keep`.
    async fn delete_all_but(&self, keep: Option<Id>) -> Result<(), StoreError> {
        for id in self.files() {
            if Some(id) != keep {
                self.store.delete(&FileKind::Lock.key(&id)).await?;
                self.files
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|file| *file != id);
            }
        }
        Ok(())
    }
}

impl Lock {
    /// Takes a lock, or says who holds one that excludes it.
    pub async fn acquire(repository: &Repository, mode: LockMode, now: Timestamp) -> Result<Self, Error> {
        Self::acquire_by(repository, mode, now, Arc::new(clock::now)).await
    }

    async fn acquire_by(repository: &Repository, mode: LockMode, now: Timestamp, clock: Clock) -> Result<Self, Error> {
        refuse_conflicts(repository, mode, now, None).await?;
        let held = Arc::new(Held {
            store: repository.store(),
            files: Mutex::default(),
            renewed: Mutex::new(now),
            gone: AtomicBool::new(false),
            clock,
        });
        let renewal = tokio::spawn(renew(repository.clone(), mode, Arc::clone(&held))).abort_handle();
        // From here on dropping this value cleans up, also when the caller goes away in the middle of the next line.
        let lock = Self {
            held,
            renewal,
            released: false,
        };
        let id = write(repository, mode, now, &lock.held).await?;
        match refuse_conflicts(repository, mode, now, Some(id)).await {
            Ok(()) => Ok(lock),
            Err(error) => {
                lock.release().await;
                Err(error)
            }
        }
    }

    /// A shared lock for reading. `None` where the store lets us read only: then nobody can delete there through it either;
    /// and where it is full: what is there must come back all the same, and whatever is deleted meanwhile is noticed.
    pub async fn for_reading(repository: &Repository, now: Timestamp) -> Result<Option<Self>, Error> {
        match Self::acquire(repository, LockMode::Shared, now).await {
            Ok(lock) => Ok(Some(lock)),
            Err(Error::Store(StoreError::Denied { .. })) => {
                tracing::warn!(
                    location = repository.location(),
                    "reading without a lock: the store is read-only"
                );
                Ok(None)
            }
            Err(Error::Store(StoreError::Full { .. })) => {
                tracing::warn!(
                    location = repository.location(),
                    "reading without a lock: the store is full"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Does work that reads under a lock for reading, until it is done or cancelled.
    pub(crate) async fn while_reading<T>(
        repository: &Repository,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let locked = async {
            let lock = Self::for_reading(repository, clock::now()).await?;
            let outcome = work.await;
            if let Some(lock) = lock {
                lock.release().await;
            }
            outcome
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            outcome = locked => outcome,
        }
    }

    /// Fails once the lock was taken away, or could not be renewed for so long that it may be.
    pub fn still_held(&self) -> Result<(), Error> {
        let renewed = *self.held.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let age = (self.held.clock)().duration_since(renewed);
        if age > LOST_AFTER || self.held.gone.load(Ordering::Acquire) {
            Err(Error::LockLost)
        } else {
            Ok(())
        }
    }

    /// As [`Self::still_held`], and looks into the store: fails as soon as somebody took the lock away. What must not be
    /// done without the lock comes right after this.
    pub async fn confirm(&self) -> Result<(), Error> {
        self.still_held()?;
        if self.held.is_there().await? {
            Ok(())
        } else {
            self.held.gone.store(true, Ordering::Release);
            Err(Error::LockLost)
        }
    }

    /// Gives the lock back. If that fails, it counts as dead once this process is gone.
    pub async fn release(mut self) {
        self.renewal.abort();
        if let Err(error) = self.held.delete_all_but(None).await {
            tracing::warn!(%error, "a lock could not be given back");
        }
        self.released = true;
    }
}

impl Drop for Lock {
    /// Whoever drops the lock without releasing it was cancelled or failed. The runtime may be going down with it, so the
    /// files are deleted from a thread of their own, which is waited for.
    fn drop(&mut self) {
        self.renewal.abort();
        if self.released {
            return;
        }
        let held = Arc::clone(&self.held);
        let deletion = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let limit = tokio::time::timeout(Duration::from_secs(10), held.delete_all_but(None));
                limit
                    .await
                    .map_err(std::io::Error::other)?
                    .map_err(std::io::Error::other)
            })
        });
        if !matches!(deletion.join(), Ok(Ok(()))) {
            tracing::warn!("a lock could not be deleted; it counts as stale when this process is gone");
        }
    }
}

/// Renews a lock until it is aborted, or gone.
async fn renew(repository: Repository, mode: LockMode, held: Arc<Held>) {
    let mut pause = RENEW_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        let now = (held.clock)();
        let outcome = async {
            if !held.is_there().await? {
                return Ok(false);
            }
            let id = write(&repository, mode, now, &held).await?;
            *held.renewed.lock().unwrap_or_else(PoisonError::into_inner) = now;
            held.delete_all_but(Some(id)).await?;
            Ok::<_, Error>(true)
        };
        pause = match outcome.await {
            Ok(true) => RENEW_EVERY,
            Ok(false) => {
                tracing::warn!("our lock was taken away");
                held.gone.store(true, Ordering::Release);
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a lock could not be renewed");
                RETRY_EVERY
            }
        };
    }
}

/// A lock file, in restic's JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LockFile {
    time: Timestamp,
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    /// Ours alone: what tells the process from a later one with the same number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    opsctl_process: Option<String>,
}

/// Writes a lock file; `held` knows of it before the store does.
async fn write(repository: &Repository, mode: LockMode, now: Timestamp, held: &Held) -> Result<Id, Error> {
    let pid = host::pid();
    let (uid, gid) = host::user();
    let file = LockFile {
        time: now,
        exclusive: mode == LockMode::Exclusive,
        hostname: host::name(),
        username: host::user_name(uid).unwrap_or_default(),
        pid,
        uid,
        gid,
        opsctl_process: host::process_birth(pid),
    };
    let (id, bytes) = repository.seal_file(&file)?;
    held.remember(id);
    repository.store().put(&FileKind::Lock.key(&id), bytes).await?;
    Ok(id)
}

/// Takes away dead locks; fails if a living one excludes ours, or one that cannot be read may.
async fn refuse_conflicts(
    repository: &Repository,
    mode: LockMode,
    now: Timestamp,
    own: Option<Id>,
) -> Result<(), Error> {
    for lock in found::others(repository, now, own).await? {
        match lock.state {
            LockState::ProcessGone | LockState::NotRenewed => {
                tracing::info!(lock = %lock.id, "taking away the lock of a dead process");
                repository.store().delete(&FileKind::Lock.key(&lock.id)).await?;
            }
            LockState::Unreadable(damage) => return Err(Error::damaged(FileKind::Lock.object(lock.id), damage)),
            LockState::Alive => match lock.holder {
                Some(holder) if holder.exclusive || mode == LockMode::Exclusive => return Err(Error::Locked(holder)),
                _ => {}
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
