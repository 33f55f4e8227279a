//! What runs, read from files and `/proc`, with one short question to the proxy. Works while the supervisor is dead, and
//! says so.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::desired::DesiredService;
use super::observed::{Observed, process_of};
use super::{LocalPlatform, read_json};
use crate::process::Process;
use crate::run::{Loss, Orphan, RunRecord, orphans};
use crate::{Addresses, InstanceState, Result, ServiceState, VersionState, Weight};

/// How long the proxy may take; without its answer the shares are missing.
const PROXY_LIMIT: Duration = Duration::from_millis(300);

/// Everything that `opsctl status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The environment's name.
    pub environment: String,
    /// The supervisor, if it lives.
    pub supervisor: Option<Process>,
    /// The proxy, if it lives.
    pub proxy: Option<Process>,
    /// Whether the proxy answered; without, `canary` is missing everywhere.
    pub proxy_answers: bool,
    /// Everything is meant to stop.
    pub stopping: bool,
    /// By name, sorted.
    pub services: Vec<ServiceState>,
    /// Why a service's front door is not open, by service.
    pub front_errors: BTreeMap<String, String>,
    /// Runs that are not over.
    pub runs: Vec<RunRecord>,
    /// Runs that need `recover`, by id, with the reason in words. Those that a watchdog will undo are not among them.
    pub orphans: BTreeMap<String, String>,
}

impl Status {
    /// Whether anything runs or is meant to.
    pub fn up(&self) -> bool {
        self.supervisor.is_some() || self.proxy.is_some() || !self.services.is_empty()
    }

    /// Whether every service has all its instances ready and its front door open.
    pub fn healthy(&self) -> bool {
        self.proxy.is_some() && self.front_errors.is_empty() && self.services.iter().all(ServiceState::settled)
    }
}

impl LocalPlatform {
    /// Reads the status. Never starts anything.
    pub async fn status(&self) -> Result<Status> {
        let desired = self.desired()?;
        let observed = self.observed()?;
        let supervisor = self.state.lock_holder("supervisor.lock");
        let proxy = observed
            .as_ref()
            .and_then(|observed| observed.proxy)
            .filter(|process| process.alive());
        let routes = match proxy {
            Some(_) => self.proxy().with_timeout(PROXY_LIMIT).routes().await.ok(),
            None => None,
        };
        let share = |name: &str| {
            let weight = routes
                .iter()
                .flatten()
                .find(|route| route.config.service == name)?
                .weight
                .clone()?;
            (weight.percent > 0).then_some(Weight {
                version: weight.version,
                percent: weight.percent,
                holder: weight.holder,
            })
        };
        let services = desired
            .services
            .iter()
            .filter(|_| !(desired.stop && supervisor.is_none()))
            .map(|(name, service)| service_state(name, service, observed.as_ref(), share(name)))
            .collect();
        let mut orphaned = BTreeMap::new();
        for Orphan { record, loss, watched } in orphans(self).await.unwrap_or_default() {
            if !watched {
                orphaned.insert(record.id, why(loss).to_owned());
            }
        }
        let runs = super::records::records(&self.state)?;
        Ok(Status {
            environment: desired.environment.clone(),
            supervisor,
            proxy,
            proxy_answers: routes.is_some(),
            stopping: desired.stop,
            services,
            front_errors: observed
                .iter()
                .flat_map(|observed| &observed.services)
                .filter(|_| proxy.is_some())
                .filter_map(|(name, service)| Some((name.clone(), service.front_error.clone()?)))
                .collect(),
            runs: runs
                .into_iter()
                .filter(|record| record.phase != crate::run::Phase::Closed)
                .collect(),
            orphans: orphaned,
        })
    }

    /// The services alone, by name, from files and `/proc`: nobody is asked, so shares of canaries are missing.
    pub fn service_states(&self) -> Result<Vec<ServiceState>> {
        let (desired, observed) = (self.desired()?, self.observed()?);
        let stopped = desired.stop && self.state.lock_holder("supervisor.lock").is_none();
        let services = desired.services.iter().filter(|_| !stopped);
        Ok(services
            .map(|(name, service)| service_state(name, service, observed.as_ref(), None))
            .collect())
    }

    /// The version that traffic without a canary goes to, as the proxy was last told.
    pub fn routed_version(&self, service: &str) -> Result<Option<String>> {
        let observed: Option<Observed> = read_json(&self.state.path("instances.json"))?;
        Ok(observed.and_then(|mut observed| observed.services.remove(service)?.routed_version))
    }
}

fn why(loss: Loss) -> &'static str {
    match loss {
        Loss::Dead => "its worker is dead",
        Loss::Expired => "its worker does not answer",
        Loss::UndoIncomplete => "some of its changes could not be undone",
    }
}

/// One service as the files say, with dead processes found dead.
pub(super) fn service_state(
    name: &str,
    service: &DesiredService,
    observed: Option<&Observed>,
    canary: Option<Weight>,
) -> ServiceState {
    let mut instances = observed
        .and_then(|observed| observed.services.get(name))
        .map(|s| s.instances.clone())
        .unwrap_or_default();
    for instance in &mut instances {
        if let Some(process) = process_of(instance)
            && !process.alive()
        {
            instance.ready = false;
            instance.state = InstanceState::Backoff;
            instance.pid = None;
            instance.uid.clear();
            instance.started_at = None;
        }
    }
    let ready = |version: &str| instances.iter().filter(|i| i.ready && i.version == version).count() as u32;
    ServiceState {
        name: name.to_owned(),
        stable_version: Some(service.stable_version.clone()),
        replicas: service
            .versions
            .get(&service.stable_version)
            .map_or(0, |spec| spec.replicas),
        versions: service
            .versions
            .values()
            .map(|spec| VersionState {
                version: spec.version.clone(),
                replicas: spec.replicas,
                ready: ready(&spec.version),
            })
            .collect(),
        canary,
        hold: service.hold.clone(),
        objectives: service.objectives.clone(),
        front: Addresses {
            http: service.http_listen,
            grpc: service.grpc_listen,
            ..Addresses::default()
        },
        health: service.health.clone(),
        probe: service.probe.clone(),
        depends_on: service.depends_on.clone(),
        revision: service.revision,
        instances,
    }
}
