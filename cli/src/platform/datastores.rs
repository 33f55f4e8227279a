//! The content of a datastore as one more field of the platform, so that a restore in place is a change like any other:
//! its undo step is written first, the watchdog and `recover` take it back, and a kill between two renames is healed.
//!
//! The field is `datastore/<name>` `/content`: absent is what the service wrote, a [`Content`] is what a run restored. Those
//! of a server's databases are in `databases`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use opsctl_platform::local::state_dir::{FileLock, StateDir, read_json, write_json};
use opsctl_platform::run::RunRecord;
use opsctl_platform::{
    Cas, Fence, Field, Info, Instance, KillMode, Lease, LeaseHolder, LeaseOutcome, Node, Platform, PlatformError,
    Result, ServiceState, Tenant, Traffic, Usage,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::databases::{Part, Servers};

/// What a run restored, and where the parts lie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    /// The run.
    pub(crate) run: String,
    /// The snapshot.
    pub(crate) snapshot: String,
    /// Where the service looks for it.
    pub(crate) live: PathBuf,
    /// Where the restored data lies before, and again after an undo.
    pub(crate) staged: PathBuf,
    /// Where the replaced data lies.
    pub(crate) kept: PathBuf,
    /// Files that belong to it, named after it: `-wal`, `-shm`, `-journal` of SQLite.
    pub(crate) companions: Vec<String>,
}

impl Content {
    /// The field of a datastore.
    pub(crate) fn field(store: &str) -> Field {
        Field::new(format!("datastore/{store}"), "/content")
    }

    /// The field's value.
    pub(crate) fn value(&self) -> Value {
        serde_json::to_value(self).expect("a struct of strings and paths that came from text is JSON")
    }

    /// Moves the live data away and the restored data in. Companions go first: a database never meets the log of
    /// another. Repeating it after a kill at any point ends the same.
    fn put_in_place(&self) -> io::Result<()> {
        if exists(&self.staged) {
            for suffix in &self.companions {
                rename_if_there(&with(&self.live, suffix), &with(&self.kept, suffix))?;
            }
            rename_if_there(&self.live, &self.kept)?;
            for suffix in &self.companions {
                rename_if_there(&with(&self.staged, suffix), &with(&self.live, suffix))?;
            }
            fs::rename(&self.staged, &self.live)?;
        }
        self.sync()
    }

    /// The way back, from any point.
    fn take_back(&self) -> io::Result<()> {
        if exists(&self.staged) {
            // Companions of the restored data may have moved in just before the kill, the data itself last.
            for suffix in self.companions.iter().filter(|_| !exists(&self.live)) {
                rename_if_there(&with(&self.live, suffix), &with(&self.staged, suffix))?;
            }
        } else {
            for suffix in &self.companions {
                rename_if_there(&with(&self.live, suffix), &with(&self.staged, suffix))?;
            }
            rename_if_there(&self.live, &self.staged)?;
        }
        rename_if_there(&self.kept, &self.live)?;
        for suffix in &self.companions {
            rename_if_there(&with(&self.kept, suffix), &with(&self.live, suffix))?;
        }
        self.sync()
    }

    /// After this a power cut changes nothing any more.
    fn sync(&self) -> io::Result<()> {
        for path in [&self.live, &self.staged] {
            match path.parent().map(fs::File::open) {
                Some(Ok(folder)) => folder.sync_all()?,
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A platform that also knows datastores. Everything else goes to the one inside.
pub(crate) struct WithDatastores {
    inner: Arc<dyn Platform>,
    state: StateDir,
    servers: Servers,
}

/// How long another change is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
const LOCK: &str = "datastores.lock";

impl WithDatastores {
    /// Adds datastores, whose state lies in `state` and on `servers`.
    pub(crate) fn new(inner: Arc<dyn Platform>, state: StateDir, servers: Servers) -> Self {
        Self { inner, state, servers }
    }

    /// Whoever has it makes a change now: under it nobody does who was fenced off before.
    async fn lock(&self) -> Result<FileLock> {
        match self.state.lock_file(LOCK, LOCK_LIMIT).await {
            Err(PlatformError::Busy { what, holder }) => {
                // A process of ours that was stopped (SIGSTOP) within a change would block every undo.
                match self.state.lock_holder(LOCK).filter(|holder| holder.stopped()) {
                    Some(stopped) => {
                        tracing::warn!(pid = stopped.pid, "killing a stopped process that changes a datastore");
                        let _ = stopped.signal(Signal::KILL);
                        self.state.lock_file(LOCK, LOCK_LIMIT).await
                    }
                    None => Err(PlatformError::TimedOut {
                        what: format!("the lock of {what}, which {holder} has,"),
                        limit: LOCK_LIMIT,
                    }),
                }
            }
            other => other,
        }
    }

    /// Refuses a worker whose run was closed or taken over.
    async fn admit(&self, by: Option<&Fence>) -> Result<()> {
        let Some(fence) = by else { return Ok(()) };
        let record = self.inner.record(&fence.run).await?;
        if record.is_some_and(|record| record.admits(fence)) {
            return Ok(());
        }
        Err(PlatformError::Fenced { run: fence.run.clone() })
    }

    async fn change_database(
        &self,
        by: Option<&Fence>,
        field: &Field,
        (store, part): (&str, &Part),
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        let _lock = self.lock().await?;
        self.admit(by).await?;
        let actual = self.servers.get(store, part).await?;
        if actual.as_ref() != expect {
            return Ok(Cas::Conflict { actual });
        }
        if expect != new {
            self.servers.set(field, store, part, expect, new).await?;
        }
        Ok(Cas::Applied)
    }

    fn file(&self, store: &str) -> PathBuf {
        self.state.path("datastores").join(format!("{store}.json"))
    }

    async fn change(
        &self,
        by: Option<&Fence>,
        field: &Field,
        store: &str,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        let _lock = self.lock().await?;
        self.admit(by).await?;
        let file = self.file(store);
        let actual: Option<Value> = read_json(&file)?;
        if actual.as_ref() != expect {
            return Ok(Cas::Conflict { actual });
        }
        let parse = |value: &Value| {
            serde_json::from_value::<Content>(value.clone()).map_err(|error| PlatformError::InvalidValue {
                field: field.clone(),
                reason: error.to_string(),
            })
        };
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| PlatformError::Io {
                action: "swap",
                path,
                source,
            }
        };
        match (new, expect) {
            (Some(new), _)
                if expect.is_none_or(|before| before != new) && parse(new)?.staged.symlink_metadata().is_ok() =>
            {
                let content = parse(new)?;
                self.state.make("datastores")?;
                // The intent first: from here on a kill is healed by the undo of this value.
                write_json(&file, new, true)?;
                content.put_in_place().map_err(io(&content.live))?;
            }
            (before, Some(ours)) => {
                let content = parse(ours)?;
                content.take_back().map_err(io(&content.live))?;
                match before {
                    Some(before) => write_json(&file, before, true)?,
                    None => fs::remove_file(&file).map_err(io(&file))?,
                }
            }
            (Some(new), None) => {
                let content = parse(new)?;
                return Err(PlatformError::InvalidValue {
                    field: field.clone(),
                    reason: format!("there is nothing at `{}`", content.staged.display()),
                });
            }
            (None, None) => {}
        }
        Ok(Cas::Applied)
    }
}

fn store_of(field: &Field) -> Option<&str> {
    field
        .object
        .strip_prefix("datastore/")
        .filter(|_| field.pointer == "/content")
}

fn is_ours(field: &Field) -> bool {
    store_of(field).is_some() || Part::of(field).is_some()
}

#[async_trait]
impl Platform for WithDatastores {
    async fn get(&self, field: &Field) -> Result<Option<Value>> {
        if let Some((store, part)) = Part::of(field) {
            return self.servers.get(store, &part).await;
        }
        match store_of(field) {
            Some(store) => read_json(&self.file(store)),
            None => self.inner.get(field).await,
        }
    }

    async fn compare_and_set(
        &self,
        by: Option<&Fence>,
        field: &Field,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        if let Some((store, part)) = Part::of(field) {
            return self.change_database(by, field, (store, &part), expect, new).await;
        }
        match store_of(field) {
            Some(store) => self.change(by, field, store, expect, new).await,
            None => self.inner.compare_and_set(by, field, expect, new).await,
        }
    }

    async fn info(&self) -> Result<Info> {
        self.inner.info().await
    }
    fn now(&self) -> Timestamp {
        self.inner.now()
    }
    fn pace(&self) -> Duration {
        self.inner.pace()
    }
    async fn services(&self) -> Result<Vec<String>> {
        self.inner.services().await
    }
    async fn service(&self, name: &str) -> Result<ServiceState> {
        self.inner.service(name).await
    }
    async fn states(&self) -> Result<Vec<ServiceState>> {
        self.inner.states().await
    }
    async fn rehearse(&self, field: &Field, expect: Option<&Value>, new: Option<&Value>) -> Result<Cas> {
        if !is_ours(field) {
            return self.inner.rehearse(field, expect, new).await;
        }
        let actual = self.get(field).await?;
        Ok(if actual.as_ref() == expect {
            Cas::Applied
        } else {
            Cas::Conflict { actual }
        })
    }
    async fn claim(&self, by: &Fence, field: &Field) -> Result<()> {
        if is_ours(field) {
            // A change that is under way ends before this does.
            self.lock().await.map(drop)
        } else {
            self.inner.claim(by, field).await
        }
    }
    async fn lapse(&self, service: &str) -> Result<()> {
        self.inner.lapse(service).await
    }
    async fn grant_weight(
        &self,
        by: &Fence,
        service: &str,
        version: &str,
        expect_percent: u8,
        percent: u8,
        lease: Duration,
    ) -> Result<Cas> {
        self.inner
            .grant_weight(by, service, version, expect_percent, percent, lease)
            .await
    }
    async fn renew_weight(&self, by: &Fence, service: &str, lease: Duration) -> Result<()> {
        self.inner.renew_weight(by, service, lease).await
    }
    async fn renew_fault(&self, by: &Fence, field: &Field, ttl: Duration) -> Result<()> {
        self.inner.renew_fault(by, field, ttl).await
    }
    async fn fault_hits(&self, field: &Field) -> Result<u64> {
        self.inner.fault_hits(field).await
    }
    async fn end_sessions(&self, by: &Fence, field: &Field) -> Result<u64> {
        self.inner.end_sessions(by, field).await
    }
    async fn rehearse_kill(&self, instance: &Instance, mode: KillMode) -> Result<()> {
        self.inner.rehearse_kill(instance, mode).await
    }
    async fn nodes(&self) -> Result<Vec<Node>> {
        self.inner.nodes().await
    }
    async fn tenants(&self, node: &str) -> Result<Vec<Tenant>> {
        self.inner.tenants(node).await
    }
    async fn evict(&self, by: &Fence, tenant: &Tenant) -> Result<Timestamp> {
        self.inner.evict(by, tenant).await
    }
    async fn kill(&self, by: &Fence, instance: &Instance, mode: KillMode) -> Result<Timestamp> {
        self.inner.kill(by, instance, mode).await
    }
    async fn traffic(&self, service: &str) -> Result<Traffic> {
        self.inner.traffic(service).await
    }
    async fn number(&self, service: &str, query: &str) -> Result<Option<f64>> {
        self.inner.number(service, query).await
    }
    async fn usage(&self, service: &str) -> Result<Vec<Usage>> {
        self.inner.usage(service).await
    }
    async fn create_record(&self, record: &RunRecord) -> Result<u64> {
        self.inner.create_record(record).await
    }
    async fn update_record(&self, record: &RunRecord) -> Result<u64> {
        self.inner.update_record(record).await
    }
    async fn record(&self, id: &str) -> Result<Option<RunRecord>> {
        self.inner.record(id).await
    }
    async fn records(&self) -> Result<Vec<RunRecord>> {
        self.inner.records().await
    }
    async fn acquire_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.inner.acquire_lease(name, holder, ttl).await
    }
    async fn replace_lease(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.inner.replace_lease(old, holder, ttl).await
    }
    async fn renew_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        self.inner.renew_lease(name, holder, ttl).await
    }
    async fn release_lease(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        self.inner.release_lease(name, holder).await
    }
    async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        self.inner.lease(name).await
    }
    fn holder_alive(&self, holder: &LeaseHolder) -> Option<bool> {
        self.inner.holder_alive(holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(folder: &Path) -> Content {
        Content {
            run: "r1".to_owned(),
            snapshot: "s1".to_owned(),
            live: folder.join("orders.db"),
            staged: folder.join("new/orders.db"),
            kept: folder.join("orders.db.before-r1"),
            companions: vec!["-wal".to_owned()],
        }
    }

    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for name in [
            "orders.db",
            "orders.db-wal",
            "orders.db.before-r1",
            "orders.db.before-r1-wal",
            "new/orders.db",
        ] {
            if let Ok(text) = fs::read_to_string(folder.join(name)) {
                found.push((name.to_owned(), text));
            }
        }
        found
    }

    /// Renames of `put_in_place` one by one; a kill after each, then the undo.
    #[test]
    fn a_kill_after_any_rename_is_taken_back_whole() {
        let moves = |content: &Content| {
            [
                (with(&content.live, "-wal"), with(&content.kept, "-wal")),
                (content.live.clone(), content.kept.clone()),
                (content.staged.clone(), content.live.clone()),
            ]
        };
        for killed_after in 0..=3 {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let content = content(folder.path());
            fs::create_dir(folder.path().join("new")).expect("a folder");
            fs::write(&content.live, "old").expect("written");
            fs::write(with(&content.live, "-wal"), "old log").expect("written");
            fs::write(&content.staged, "new").expect("written");
            let before = files(folder.path());
            for (from, to) in moves(&content).iter().take(killed_after) {
                fs::rename(from, to).expect("renamed");
            }
            content.take_back().expect("taken back");
            assert_eq!(files(folder.path()), before, "killed after {killed_after} renames");
            content.take_back().expect("idempotent");
            assert_eq!(files(folder.path()), before);
            content.put_in_place().expect("put in place");
            content.put_in_place().expect("idempotent");
            assert_eq!(fs::read_to_string(&content.live).expect("readable"), "new");
            assert_eq!(fs::read_to_string(&content.kept).expect("readable"), "old");
            assert_eq!(
                fs::read_to_string(with(&content.kept, "-wal")).expect("readable"),
                "old log"
            );
            assert!(!exists(&with(&content.live, "-wal")));
        }
    }

    #[test]
    fn a_lost_database_is_replaced_and_taken_back_as_lost() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let content = content(folder.path());
        fs::create_dir(folder.path().join("new")).expect("a folder");
        fs::write(&content.staged, "new").expect("written");
        content.put_in_place().expect("put in place");
        assert_eq!(files(folder.path()), [("orders.db".to_owned(), "new".to_owned())]);
        content.take_back().expect("taken back");
        assert_eq!(files(folder.path()), [("new/orders.db".to_owned(), "new".to_owned())]);
    }
}
