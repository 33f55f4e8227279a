//! The platform on Kubernetes: services as Deployments, records as ConfigMaps, locks as Leases. Everything is asked of the
//! API server, through kube's client and the policies of `resilience`; there is no controller and no custom resource.
//!
//! Every change is a JSON patch that tests what was read (`edit`). It says which object holds which field (`field`), and
//! what the objects mean (`state`). It decides nothing: not whom to kill, not how much traffic to give.

pub mod access;
mod certificate;
mod client;
pub mod config;
mod cut;
mod edit;
mod errors;
mod field;
mod hop;
pub mod job;
mod journal;
mod kill;
mod lease;
pub mod mark;
mod nodes;
mod outpost;
pub mod pods;
mod record;
mod secret;
pub mod settings;
mod split;
mod state;
mod strays;
mod traffic;
mod versions;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::Value;

use crate::prometheus::Prometheus;
use crate::run::RunRecord;
use crate::{
    Cas, Fence, Field, Info, Instance, KillMode, Lease, LeaseHolder, LeaseOutcome, Node, Platform, PlatformError,
    Result, ServiceState, Tenant, Traffic, Usage, Weight,
};
use client::Clients;
use edit::Change;

pub use journal::{Publisher, Told};
pub use mark::Mark;
pub use record::record_name;
pub use settings::{Provider, Settings, Sli, Workload};
pub use state::version_of_image;
pub use traffic::traefik_services;

/// Objects asked for at one time.
const PAGE: u32 = 500;

/// The services of one environment on one cluster. Cheap to clone.
#[derive(Clone)]
pub struct KubePlatform {
    settings: Arc<Settings>,
    clients: Clients,
    /// In which namespace the record of a run is.
    places: Arc<Mutex<HashMap<String, String>>>,
    counting: Arc<traffic::Counting>,
}

impl KubePlatform {
    /// The platform of `settings`, reached as `config` says. Connects with the first request.
    pub fn connect(settings: Settings, config: &kube::Config) -> Result<Self> {
        Ok(Self {
            settings: Arc::new(settings),
            clients: Clients::new(config)?,
            places: Arc::default(),
            counting: Arc::default(),
        })
    }

    /// With another client for its Prometheus than one that anybody could be: who asks it with credentials. Why there is
    /// none is told when it is to be asked.
    #[must_use]
    pub fn asking(self, prometheus: std::result::Result<Prometheus, String>) -> Self {
        self.counting.ask(prometheus);
        self
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The client, for what is no business of a platform: Jobs, logs, nodes.
    pub fn client(&self) -> kube::Client {
        self.clients.calls.clone()
    }

    /// Whether all of a service's pods are as its Deployment says now.
    ///
    /// Errors: [`PlatformError::Refused`] when the roll-out does not go on.
    pub async fn is_rolled_out(&self, service: &str) -> Result<bool> {
        versions::is_rolled_out(self, self.workload(service)?).await
    }

    /// The client for answers that last: logs that are followed, exec, port-forward.
    pub fn streams(&self) -> kube::Client {
        self.clients.once.clone()
    }
}

#[async_trait]
impl Platform for KubePlatform {
    async fn info(&self) -> Result<Info> {
        Ok(Info {
            kind: "kubernetes".to_owned(),
            environment: self.settings.environment.clone(),
            place: self.settings.cluster.clone(),
        })
    }

    fn now(&self) -> Timestamp {
        self.clients.now()
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(1)
    }

    async fn services(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .settings
            .services
            .iter()
            .map(|service| service.name.clone())
            .collect();
        names.sort();
        Ok(names)
    }

    async fn service(&self, name: &str) -> Result<ServiceState> {
        self.state_of(self.workload(name)?).await
    }

    async fn states(&self) -> Result<Vec<ServiceState>> {
        self.all_states().await
    }

    async fn get(&self, field: &Field) -> Result<Option<Value>> {
        self.get_field(field).await
    }

    async fn compare_and_set(
        &self,
        by: Option<&Fence>,
        field: &Field,
        expect: Option<&Value>,
        new: Option<&Value>,
    ) -> Result<Cas> {
        self.set_field(&Change {
            by,
            field,
            expect,
            new,
            dry_run: false,
        })
        .await
    }

    async fn rehearse(&self, field: &Field, expect: Option<&Value>, new: Option<&Value>) -> Result<Cas> {
        self.set_field(&Change {
            by: None,
            field,
            expect,
            new,
            dry_run: true,
        })
        .await
    }

    async fn claim(&self, by: &Fence, field: &Field) -> Result<()> {
        self.claim_field(by, field).await
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
        let workload = self.workload(service)?;
        self.admit(Some(by)).await?;
        if percent > 100 || self.deployment_of(workload, version).await?.is_none() {
            let reason = "it must be 0 to 100 of a version that runs";
            return Err(field::invalid(&Field::canary(service), reason));
        }
        let share = |percent: u8| {
            (percent > 0).then(|| Weight {
                version: version.to_owned(),
                percent,
                holder: by.run.clone(),
            })
        };
        let (expect, new) = (share(expect_percent), share(percent));
        split::set(
            self,
            Some(by),
            workload,
            expect.as_ref(),
            new.as_ref(),
            Some(lease),
            false,
        )
        .await
    }

    async fn renew_weight(&self, by: &Fence, service: &str, lease: Duration) -> Result<()> {
        let workload = self.workload(service)?;
        self.admit(Some(by)).await?;
        split::renew(self, by, workload, lease).await
    }

    async fn renew_fault(&self, by: &Fence, field: &Field, ttl: Duration) -> Result<()> {
        let front = self.front(field);
        let front = front.ok_or_else(|| PlatformError::UnknownField { field: field.clone() })?;
        self.admit(Some(by)).await?;
        hop::renew(self, by, &front, ttl).await
    }

    async fn lapse(&self, service: &str) -> Result<()> {
        split::lapse(self, self.workload(service)?).await
    }

    async fn kill(&self, by: &Fence, instance: &Instance, mode: KillMode) -> Result<Timestamp> {
        self.kill_pod(Some(by), instance, mode, false).await
    }

    async fn fault_hits(&self, field: &Field) -> Result<u64> {
        let front = self.front(field);
        let front = front.ok_or_else(|| PlatformError::UnknownField { field: field.clone() })?;
        hop::hits(self, &front).await
    }

    async fn end_sessions(&self, by: &Fence, field: &Field) -> Result<u64> {
        self.end_sessions_of(by, field).await
    }

    async fn rehearse_kill(&self, instance: &Instance, mode: KillMode) -> Result<()> {
        self.kill_pod(None, instance, mode, true).await.map(drop)
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        self.list_nodes().await
    }

    async fn tenants(&self, node: &str) -> Result<Vec<Tenant>> {
        self.list_tenants(node).await
    }

    async fn evict(&self, by: &Fence, tenant: &Tenant) -> Result<Timestamp> {
        self.evict_tenant(by, tenant).await
    }

    async fn traffic(&self, service: &str) -> Result<Traffic> {
        traffic::read(self, self.workload(service)?).await
    }

    async fn number(&self, service: &str, query: &str) -> Result<Option<f64>> {
        traffic::number(self, self.workload(service)?, query).await
    }

    async fn usage(&self, service: &str) -> Result<Vec<Usage>> {
        traffic::usage(self, self.workload(service)?).await
    }

    async fn create_record(&self, record: &RunRecord) -> Result<u64> {
        self.store_record(record).await
    }

    async fn update_record(&self, record: &RunRecord) -> Result<u64> {
        self.replace_record(record).await
    }

    async fn record(&self, id: &str) -> Result<Option<RunRecord>> {
        self.find_record(id).await
    }

    async fn records(&self) -> Result<Vec<RunRecord>> {
        self.list_records().await
    }

    async fn acquire_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.take_lease(name, holder, ttl).await
    }

    async fn replace_lease(&self, old: &Lease, holder: &LeaseHolder, ttl: Duration) -> Result<LeaseOutcome> {
        self.take_over_lease(old, holder, ttl).await
    }

    async fn renew_lease(&self, name: &str, holder: &LeaseHolder, ttl: Duration) -> Result<Lease> {
        self.prolong_lease(name, holder, ttl).await
    }

    async fn release_lease(&self, name: &str, holder: &LeaseHolder) -> Result<()> {
        self.give_lease_back(name, holder).await
    }

    async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        self.find_lease(name).await
    }

    fn holder_alive(&self, holder: &LeaseHolder) -> Option<bool> {
        crate::process::holder_alive(holder)
    }
}
