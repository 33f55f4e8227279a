//! Where workloads run, and what a run may leave behind there.
//!
//! [`Platform`] is everything opsctl asks of the place where services live: read, change one field by
//! compare-and-set, kill an instance, grant traffic for a limited time, keep records and leases. It is cut so that
//! Kubernetes fits as well as the local machine: a [`Field`] is a JSON pointer into an object (compare-and-set by
//! `resourceVersion`), a lease is a `Lease`, a record is a `ConfigMap`.
//! [`run`] builds on it what every drill, canary and restore shares: record, lock, undo, watchdog.
//!
//! It is not a drill, not a judge and not a command: nothing here prints, asks or exits.

#[cfg(feature = "contract")]
pub mod contract;
mod error;
mod field;
pub mod kube;
pub mod local;
pub mod memory;
pub mod process;
pub mod prometheus;
pub mod run;
mod state;

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

pub use error::PlatformError;
pub use field::{Cas, Fence, Field};
pub use opsctl_proxy_control::FaultKind;
pub use state::{
    Addresses, Counts, Cut, End, Fault, Health, Hold, Info, Instance, InstanceState, InstanceTraffic, Keeper, KillMode,
    Lease, LeaseHolder, LeaseOutcome, Node, Objectives, Probe, ServiceState, Tenant, Traffic, Usage, VersionSpec,
    VersionState, VersionTraffic, Weight,
};

use run::RunRecord;

/// The result of every call that reaches the platform.
pub type Result<T, E = PlatformError> = std::result::Result<T, E>;

/// The place where services run. All changes are compare-and-set; nothing is ever forced.
#[async_trait]
pub trait Platform: Send + Sync + 'static {
    /// What this platform is, for records and reports.
    async fn info(&self) -> Result<Info>;

    /// The platform's clock. Everything that is compared with a lease or written into a record uses it.
    fn now(&self) -> Timestamp;

    /// The shortest pause between two looks of one who waits for something: a platform that many share is not asked five
    /// times a second.
    fn pace(&self) -> Duration {
        Duration::ZERO
    }

    /// The names of all services, sorted.
    async fn services(&self) -> Result<Vec<String>>;

    /// What a service is meant to be and what it is now.
    ///
    /// Errors: [`PlatformError::UnknownService`].
    async fn service(&self, name: &str) -> Result<ServiceState>;

    /// All services, sorted by name: what [`Platform::service`] says of each, where possible with fewer questions.
    async fn states(&self) -> Result<Vec<ServiceState>> {
        let mut states = Vec::new();
        for name in self.services().await? {
            states.push(self.service(&name).await?);
        }
        Ok(states)
    }

    /// The value of a field; `None` when it is absent.
    ///
    /// Errors: [`PlatformError::UnknownService`], [`PlatformError::UnknownField`].
    async fn get(&self, field: &Field) -> Result<Option<Value>>;

    /// Sets a field to `new` (`None` removes it) if it still has the value `expect`.
    ///
    /// `by` names the run on whose behalf this happens: the change is refused with [`PlatformError::Fenced`] when that
    /// run was closed or taken over, and the check is atomic with the change. Undo and people pass `None`.
    /// The desired state is changed when this returns; the effect follows (see [`ServiceState`]).
    async fn compare_and_set(
        &self,
        by: Option<&Fence>,
        field: &Field,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas>;

    /// What [`Platform::compare_and_set`] would answer, with every check that can be made without changing anything.
    async fn rehearse(&self, field: &Field, expect: Option<&Value>, _new: Option<&Value>) -> Result<Cas> {
        let actual = self.get(field).await?;
        Ok(if actual.as_ref() == expect {
            Cas::Applied
        } else {
            Cas::Conflict { actual }
        })
    }

    /// Makes sure that nothing changes the field any more on behalf of an older epoch of the run `by`, not even a change
    /// that is under way. Called for each undo step after the epoch was raised. Nothing to do where the check of the
    /// fence and the change are one.
    async fn claim(&self, _by: &Fence, _field: &Field) -> Result<()> {
        Ok(())
    }

    /// Gives `version` a share of the service's traffic, `percent` of 100, for `lease`; without renewal it falls back
    /// to zero by itself. `expect_percent` is the share that it must have now (0: none has a canary share).
    ///
    /// Read it back as [`Field::canary`], whose value is [`Weight::value`].
    async fn grant_weight(
        &self,
        by: &Fence,
        service: &str,
        version: &str,
        expect_percent: u8,
        percent: u8,
        lease: Duration,
    ) -> Result<Cas>;

    /// Prolongs the share held by the run `by`. Errors: [`PlatformError::WeightLost`] when it has lapsed or changed hands.
    async fn renew_weight(&self, by: &Fence, service: &str, lease: Duration) -> Result<()>;

    /// Takes away the share of a service whose lease is over, where the platform has nobody who sees to that by itself.
    /// Called at each look by the watchdog of a run on that service.
    async fn lapse(&self, _service: &str) -> Result<()> {
        Ok(())
    }

    /// Prolongs a fault of the run `by` ([`Field::fault`]) for `ttl` from now. Errors: [`PlatformError::FaultLost`] when it
    /// has lapsed or is another one.
    async fn renew_fault(&self, by: &Fence, field: &Field, ttl: Duration) -> Result<()>;

    /// Kills an instance. Returns when the kill was sent, on the platform's clock.
    ///
    /// Errors: [`PlatformError::Gone`] when `instance.uid` is not that process any more, [`PlatformError::Refused`] when
    /// the platform does not allow it; nothing was killed then.
    async fn kill(&self, by: &Fence, instance: &Instance, mode: KillMode) -> Result<Timestamp>;

    /// How many connections a fault has met, where whoever plays it counts them.
    async fn fault_hits(&self, field: &Field) -> Result<u64> {
        Err(PlatformError::UnknownField { field: field.clone() })
    }

    /// Ends the sessions that are open at the database from which the run `by` has cut a service off ([`Field::cut`]), those
    /// of the service's role: how many there were.
    ///
    /// Errors: [`PlatformError::FaultLost`] when what cuts it off is gone or was changed.
    async fn end_sessions(&self, by: &Fence, field: &Field) -> Result<u64> {
        let _ = by;
        Err(PlatformError::UnknownField { field: field.clone() })
    }

    /// Whether [`Platform::kill`] would be allowed now, with every check that can be made without killing.
    async fn rehearse_kill(&self, instance: &Instance, mode: KillMode) -> Result<()> {
        let _ = (instance, mode);
        Ok(())
    }

    /// The nodes, sorted by name; none where there are no such things.
    async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(Vec::new())
    }

    /// Everything that runs on a node and is not about to end.
    async fn tenants(&self, node: &str) -> Result<Vec<Tenant>> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Has a tenant leave its node by eviction. Returns when that was accepted.
    ///
    /// Errors: [`PlatformError::Gone`] when it has left, [`PlatformError::Refused`] when a disruption budget does not allow
    /// it now; asking again is the caller's business.
    async fn evict(&self, by: &Fence, tenant: &Tenant) -> Result<Timestamp> {
        let _ = by;
        Err(PlatformError::Refused {
            what: format!("the eviction of `{}`", tenant.name),
            why: "there are no nodes here".to_owned(),
        })
    }

    /// Monotonic counters of the service's traffic as its clients saw it.
    async fn traffic(&self, service: &str) -> Result<Traffic>;

    /// The one number that a query of the service's Prometheus gives now; `None` when it gives none, several, or not all.
    ///
    /// Errors: [`PlatformError::NoTraffic`] when there is no Prometheus or it does not answer, [`PlatformError::Refused`]
    /// for a query that it does not understand.
    async fn number(&self, service: &str, _query: &str) -> Result<Option<f64>> {
        Err(PlatformError::NoTraffic {
            service: service.to_owned(),
            why: "no Prometheus is configured".to_owned(),
        })
    }

    /// CPU and memory of a service's instances, as far as somebody tells; none at all where nobody does.
    async fn usage(&self, _service: &str) -> Result<Vec<Usage>> {
        Ok(Vec::new())
    }

    /// Stores a new record at revision 1. Errors: [`PlatformError::RecordExists`].
    async fn create_record(&self, record: &RunRecord) -> Result<u64>;

    /// Replaces a record if the stored one has `record.revision`; returns the new revision.
    ///
    /// Errors: [`PlatformError::RecordConflict`], [`PlatformError::RecordMissing`].
    async fn update_record(&self, record: &RunRecord) -> Result<u64>;

    /// One record, if it exists.
    async fn record(&self, id: &str) -> Result<Option<RunRecord>>;

    /// All records, oldest first. A record that cannot be read is reported as an error only by [`Platform::record`].
    async fn records(&self) -> Result<Vec<RunRecord>>;

    /// Takes a free lease (or one that this holder already has). A lease of another holder is never taken, expired
    /// or not: see [`Platform::replace_lease`].
    async fn acquire_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome>;

    /// Takes over the lease `old` if it is unchanged since it was read. The caller has made sure that `old`'s run is
    /// dead or expired, and undone.
    async fn replace_lease(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome>;

    /// Prolongs a lease. Errors: [`PlatformError::LeaseLost`] when it has another holder or is gone.
    async fn renew_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease>;

    /// Gives a lease back; a lease of another holder stays untouched.
    async fn release_lease(&self, name: &str, holder: &LeaseHolder) -> Result<()>;

    /// A lease by name.
    async fn lease(&self, name: &str) -> Result<Option<Lease>>;

    /// Whether the process that holds a lease or works on a run still exists, as far as this host can tell:
    /// `Some(false)` is certain death, `None` means that it runs elsewhere.
    fn holder_alive(&self, holder: &LeaseHolder) -> Option<bool>;

    /// Starts a version beside the others, with no traffic. The same as a compare-and-set of [`Field::version`] from absent.
    async fn start_version(&self, by: Option<&Fence>, service: &str, spec: &VersionSpec) -> Result<Cas> {
        let value = spec.value();
        self.compare_and_set(by, &Field::version(service, &spec.version), None, Some(&value))
            .await
    }

    /// Stops a version: no new requests, drain, end. Idempotent.
    async fn stop_version(&self, by: Option<&Fence>, service: &str, version: &str) -> Result<Cas> {
        let field = Field::version(service, version);
        match self.get(&field).await? {
            None => Ok(Cas::Applied),
            Some(now) => self.compare_and_set(by, &field, Some(&now), None).await,
        }
    }
}
