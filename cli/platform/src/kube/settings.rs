//! What a platform on Kubernetes is made from: plain data, so that a Job in the cluster can be handed the same. How the
//! API server is reached is not in here (see `config`).

use serde::{Deserialize, Serialize};

use super::mark::Mark;
use crate::{Health, Objectives, Probe};

/// One environment on one cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The environment's name, e.g. `staging`.
    pub environment: String,
    /// The cluster's name in the configuration.
    pub cluster: String,
    /// The services that there are.
    pub services: Vec<Workload>,
    /// Base URL of the Prometheus that scrapes them.
    pub prometheus: Option<String>,
    /// Where records and leases go that belong to no service.
    pub namespace: String,
    /// The image of opsctl, for what drills run in the cluster: hops.
    pub image: Option<String>,
}

/// One service: a Deployment, the Service before it, and what is known of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// The service's name.
    pub name: String,
    /// Where its objects are.
    pub namespace: String,
    /// The Deployment's name.
    pub deployment: String,
    /// The Service's name.
    pub service: String,
    /// The container that runs the program; else the only one, or the one named like the Deployment.
    pub container: Option<String>,
    /// Who splits its traffic.
    pub provider: Provider,
    /// Routes such as `HTTPRoute/orders`; empty: those that lead to the Service.
    pub routes: Vec<String>,
    /// Change routes and Deployments that a GitOps tool keeps.
    pub take_ownership: bool,
    /// Requests with this mark get the canary, whatever its share.
    pub mark: Option<Mark>,
    /// Where its front door is, for probes.
    pub url: Option<String>,
    /// The name by which it is asked for there, when `url` has another.
    pub host: Option<String>,
    /// `url` is that of a gateway: without `host` it is asked for by the name that its HTTPRoute has.
    pub by_hostname: bool,
    /// Where counters of its traffic come from.
    pub sli: Sli,
    /// What it promises.
    pub objectives: Objectives,
    /// How its readiness is asked.
    pub health: Health,
    /// What drills send when nobody else does.
    pub probe: Option<Probe>,
    /// Services that it calls.
    pub depends_on: Vec<String>,
}

/// Who gives a version its share of the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Routes of the Gateway API.
    #[default]
    Gateway,
    /// Annotations of ingress-nginx.
    IngressNginx,
    /// The numbers of pods behind one Service.
    Replicas,
}

/// Where the counters of a service's traffic come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sli {
    /// The counters that services of this workspace have.
    #[default]
    Opsctl,
    /// OpenTelemetry's HTTP server metrics.
    OtelHttp,
    /// Traefik's metrics by service.
    Traefik,
    /// Selectors of counters.
    Custom {
        /// All requests.
        total: String,
        /// Those that failed.
        errors: String,
        /// Those slower than the objective.
        slow: Option<String>,
    },
}

impl Workload {
    /// The Deployment beside the stable one, for another version.
    pub fn canary_deployment(&self) -> String {
        format!("{}-canary", self.deployment)
    }

    /// The Service before that Deployment.
    pub fn canary_service(&self) -> String {
        format!("{}-canary", self.service)
    }
}

impl Settings {
    /// A service by name.
    pub fn workload(&self, name: &str) -> Option<&Workload> {
        self.services.iter().find(|workload| workload.name == name)
    }

    /// Who splits the traffic of any service.
    pub fn providers(&self) -> Vec<Provider> {
        let mut providers: Vec<Provider> = Vec::new();
        for service in &self.services {
            if !providers.contains(&service.provider) {
                providers.push(service.provider);
            }
        }
        providers
    }

    /// Every namespace that is touched, sorted.
    pub fn namespaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self
            .services
            .iter()
            .map(|workload| workload.namespace.as_str())
            .collect();
        names.push(&self.namespace);
        names.retain(|name| !name.is_empty());
        names.sort_unstable();
        names.dedup();
        names
    }
}
