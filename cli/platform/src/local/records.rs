//! Records and leases as files under the state lock: `runs/<id>/record.json`, `leases/<name>.json`. Not their meaning.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::state_dir::{FileLock, StateDir, failed, make_dir, read_json, write_json};
use crate::run::RunRecord;
use crate::{Fence, Lease, LeaseHolder, LeaseOutcome, PlatformError, Result};

/// The state folder while its lock is held; every change goes through it.
pub(super) struct Locked<'a> {
    pub(super) state: &'a StateDir,
    pub(super) _lock: FileLock,
    pub(super) now: Timestamp,
}

impl Locked<'_> {
    /// Refuses a worker whose run was closed or taken over.
    pub(super) fn admit(&self, by: Option<&Fence>) -> Result<()> {
        match by {
            None => Ok(()),
            Some(fence) => match record(self.state, &fence.run)? {
                Some(record) if record.admits(fence) => Ok(()),
                _ => Err(PlatformError::Fenced { run: fence.run.clone() }),
            },
        }
    }

    pub(super) fn create_record(&self, record: &RunRecord) -> Result<u64> {
        let path = record_path(self.state, &record.id)?;
        if path.exists() {
            return Err(PlatformError::RecordExists { run: record.id.clone() });
        }
        make_dir(&self.state.run_dir(&record.id))?;
        write_json(
            &path,
            &RunRecord {
                revision: 1,
                updated_at: self.now,
                ..record.clone()
            },
            true,
        )?;
        Ok(1)
    }

    pub(super) fn update_record(&self, new: &RunRecord) -> Result<u64> {
        let path = record_path(self.state, &new.id)?;
        let stored =
            record(self.state, &new.id)?.ok_or_else(|| PlatformError::RecordMissing { run: new.id.clone() })?;
        if stored.revision != new.revision {
            return Err(PlatformError::RecordConflict { run: new.id.clone() });
        }
        let revision = new.revision + 1;
        write_json(
            &path,
            &RunRecord {
                revision,
                updated_at: self.now,
                ..new.clone()
            },
            true,
        )?;
        Ok(revision)
    }

    pub(super) fn acquire(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        match lease(self.state, name)? {
            Some(lease) if lease.holder != *holder => Ok(LeaseOutcome::Held(lease)),
            old => self.put(name, holder, ttl, old).map(LeaseOutcome::Acquired),
        }
    }

    pub(super) fn replace(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        match lease(self.state, &old.name)? {
            Some(lease) if lease.revision != old.revision || lease.holder != old.holder => {
                Ok(LeaseOutcome::Held(lease))
            }
            _ => {
                let lease = self.new_lease(&old.name, holder, ttl, self.now, old.revision + 1);
                self.write(&lease)?;
                Ok(LeaseOutcome::Acquired(lease))
            }
        }
    }

    pub(super) fn renew(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        match lease(self.state, name)? {
            Some(lease) if lease.holder == *holder => self.put(name, holder, ttl, Some(lease)),
            _ => Err(PlatformError::LeaseLost { name: name.to_owned() }),
        }
    }

    pub(super) fn release(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        if lease(self.state, name)?.is_some_and(|lease| lease.holder == *holder) {
            let path = lease_path(self.state, name)?;
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn put(&self, name: &str, holder: &LeaseHolder, ttl: Duration, old: Option<Lease>) -> Result<Lease> {
        let (acquired_at, revision) = old.map_or((self.now, 1), |old| (old.acquired_at, old.revision + 1));
        let lease = self.new_lease(name, holder, ttl, acquired_at, revision);
        self.write(&lease)?;
        Ok(lease)
    }

    fn new_lease(
        &self,
        name: &str,
        holder: &LeaseHolder,
        ttl: Duration,
        acquired_at: Timestamp,
        revision: u64,
    ) -> Lease {
        Lease {
            name: name.to_owned(),
            holder: holder.clone(),
            acquired_at,
            renewed_at: self.now,
            expires_at: self.now + ttl,
            revision,
        }
    }

    /// Not synced: after a power cut every holder is dead anyway.
    fn write(&self, lease: &Lease) -> Result<()> {
        self.state.make("leases")?;
        write_json(&lease_path(self.state, &lease.name)?, lease, false)
    }
}

/// One record.
pub(super) fn record(state: &StateDir, id: &str) -> Result<Option<RunRecord>> {
    read_json(&record_path(state, id)?)
}

/// All records that can be read, oldest first.
pub(super) fn records(state: &StateDir) -> Result<Vec<RunRecord>> {
    let folder = state.path("runs");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", &folder)(error)),
    };
    let mut records = Vec::new();
    for entry in entries.flatten() {
        if let Some(id) = entry.file_name().to_str()
            && let Ok(Some(record)) = record(state, id)
        {
            records.push(record);
        }
    }
    records.sort_by_key(|record| (record.started_at, record.id.clone()));
    Ok(records)
}

/// One lease.
pub(super) fn lease(state: &StateDir, name: &str) -> Result<Option<Lease>> {
    read_json(&lease_path(state, name)?)
}

fn record_path(state: &StateDir, id: &str) -> Result<PathBuf> {
    if !plain(id) {
        return Err(PlatformError::RecordMissing { run: id.to_owned() });
    }
    Ok(state.run_dir(id).join("record.json"))
}

fn lease_path(state: &StateDir, name: &str) -> Result<PathBuf> {
    if !plain(name) {
        return Err(PlatformError::LeaseLost { name: name.to_owned() });
    }
    Ok(state.path("leases").join(format!("{name}.json")))
}

/// Whether a name can be a file's name inside our folders.
fn plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
