//! What a platform says about services, instances, traffic and leases. Plain data; no behaviour beyond conversion.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use jiff::Timestamp;
use opsctl_proxy_control::FaultKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a platform is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// `local`, `memory`, `kubernetes`.
    pub kind: String,
    /// The environment's name, e.g. `local`.
    pub environment: String,
    /// The host or cluster.
    pub place: String,
}

/// What a service is meant to be, and what it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// The service's name.
    pub name: String,
    /// The version that gets all traffic that no canary takes.
    pub stable_version: Option<String>,
    /// Desired instances of the stable version.
    pub replicas: u32,
    /// Every version that is meant to run.
    pub versions: Vec<VersionState>,
    /// Every instance that exists or waits for its restart.
    pub instances: Vec<Instance>,
    /// The canary's share now.
    pub canary: Option<Weight>,
    /// Whether the service is meant to be held down.
    pub hold: Option<Hold>,
    /// What the service promises.
    pub objectives: Objectives,
    /// Where clients reach it (the stable front door).
    pub front: Addresses,
    /// How its readiness is asked.
    pub health: Health,
    /// What drills send when nobody else does.
    pub probe: Option<Probe>,
    /// Services that it calls.
    pub depends_on: Vec<String>,
    /// Counts changes of the desired state.
    pub revision: u64,
}

impl ServiceState {
    /// Instances that take traffic.
    pub fn ready(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.ready)
    }

    /// Ready instances of one version.
    pub fn ready_of(&self, version: &str) -> usize {
        self.ready().filter(|instance| instance.version == version).count()
    }

    /// Whether every version has its desired number of ready instances, and all others are on their way out.
    pub fn complete(&self) -> bool {
        let stopped = self.hold.is_some();
        self.versions
            .iter()
            .all(|v| self.ready_of(&v.version) == if stopped { 0 } else { v.replicas as usize })
            && self
                .instances
                .iter()
                .filter(|i| i.state != InstanceState::Draining)
                .all(|i| i.ready && self.versions.iter().any(|v| v.version == i.version))
    }

    /// Whether it is [complete](Self::complete), and nothing else is left.
    pub fn settled(&self) -> bool {
        self.complete() && self.instances.iter().all(|i| i.ready)
    }
}

/// One version that is meant to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionState {
    /// The version's label.
    pub version: String,
    /// Desired instances.
    pub replicas: u32,
    /// Ready instances.
    pub ready: u32,
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Stable name, e.g. `orders-1`; a restart keeps it.
    pub id: String,
    /// This very process (pid and start time) or pod; a restart changes it.
    pub uid: String,
    /// The service.
    pub service: String,
    /// The version that it runs.
    pub version: String,
    /// Takes traffic.
    pub ready: bool,
    /// Where it is in its life.
    pub state: InstanceState,
    /// When this process started; `None` while none runs.
    pub started_at: Option<Timestamp>,
    /// How often it was started again after it had ended by itself or been killed.
    pub restarts: u32,
    /// Process id on this host, if it is a process here.
    pub pid: Option<u32>,
    /// Where it listens itself (behind the proxy).
    pub addresses: Addresses,
    /// How its last process ended, in words.
    pub last_exit: Option<String>,
    /// The same as a kind; `None` before the first end, and where an earlier version of opsctl noted it.
    #[serde(default)]
    pub last_end: Option<End>,
    /// What else it is labelled with, where instances are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Instance {
    /// Whether it has all these labels. Every instance has `version` and `instance`, its name.
    pub fn matches(&self, selector: &BTreeMap<String, String>) -> bool {
        selector
            .iter()
            .all(|(key, value)| match (self.labels.get(key), key.as_str()) {
                (Some(label), _) => label == value,
                (None, "version") => self.version == *value,
                (None, "instance") => self.id == *value,
                (None, _) => false,
            })
    }
}

/// How the last process of an instance ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By itself or by a signal from elsewhere.
    Ended,
    /// It was stopped, because it was not ready in time.
    NeverReady,
    /// It could not be started at all.
    NotStarted,
}

/// How an instance is killed. Platforms without orchestrator know one way, SIGKILL, whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum KillMode {
    /// By eviction, which disruption budgets may refuse: then it is asked for again for so many seconds.
    Evict {
        /// How long to wait for a budget.
        patience_seconds: u64,
    },
    /// By deletion, which no budget sees.
    Delete {
        /// Time to end in; 0 kills at once.
        grace_seconds: u32,
    },
    /// Its main container alone: the instance stays, and starts it again.
    Container,
}

impl Default for KillMode {
    fn default() -> Self {
        Self::Evict { patience_seconds: 30 }
    }
}

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Started, not ready yet.
    Starting,
    /// Takes traffic.
    Ready,
    /// Was ready, its readiness check fails.
    Unready,
    /// Takes no new requests and ends.
    Draining,
    /// Ended; waits for its restart.
    Backoff,
    /// Ended too often in a row; still tried, seldom.
    CrashLoop,
}

/// Socket addresses of a service or instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// gRPC.
    pub grpc: Option<SocketAddr>,
    /// The admin listener: `unix:/path` or host:port.
    pub admin: Option<String>,
    /// Where HTTP clients reach it, when that is no address of its own: behind a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The name by which it is asked for there, when `url` has another: what a gateway tells services apart by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

impl Addresses {
    /// The base URL of HTTP, without a slash at its end, and the name to ask for when that is another.
    pub fn door(&self) -> Option<(String, Option<String>)> {
        match (self.http, &self.url) {
            (Some(address), _) => Some((format!("http://{address}"), None)),
            (None, Some(url)) => Some((url.trim_end_matches('/').to_owned(), self.host.clone())),
            (None, None) => None,
        }
    }
}

/// How readiness is asked: the HTTP path, else the gRPC service name, else a TCP connect.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Path on the HTTP port; 2xx is ready.
    pub http: Option<String>,
    /// Service name for `grpc.health.v1` (empty: the whole server).
    pub grpc: Option<String>,
}

/// What drills send when nobody else does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Path on the HTTP front door.
    pub http: String,
    /// Such as `20/s`.
    pub rate: String,
}

/// What a service promises. Ratios are 0 to 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Objectives {
    /// Requests that succeed.
    pub availability_ratio: Option<f64>,
    /// The latency bound that counters count over and under, in seconds.
    pub latency_seconds: Option<f64>,
    /// Requests that must be under it (0.95 for a p95).
    pub latency_ratio: Option<f64>,
}

/// How to run a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSpec {
    /// The label, e.g. a short digest.
    pub version: String,
    /// Program and arguments, absolute. Kubernetes: empty.
    #[serde(default)]
    pub command: Vec<String>,
    /// The image on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Added to the service's environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Instances.
    pub replicas: u32,
}

impl VersionSpec {
    /// The value of [`Field::version`](crate::Field::version).
    pub fn value(&self) -> Value {
        serde_json::to_value(self).expect("a struct of strings and numbers is JSON")
    }
}

/// A canary's share of the traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// The version.
    pub version: String,
    /// Of 100.
    pub percent: u8,
    /// The run that holds the share.
    pub holder: String,
}

impl Weight {
    /// The value of [`Field::canary`](crate::Field::canary): absent when the share is zero.
    pub fn value(version: &str, percent: u8, holder: &str) -> Option<Value> {
        (percent > 0).then(|| serde_json::json!({ "version": version, "percent": percent, "holder": holder }))
    }
}

/// Why a service is held down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The run that holds it.
    pub holder: String,
    /// For people, and in the answer to requests.
    pub reason: String,
    /// `Retry-After` of the 503 answers.
    pub retry_after_seconds: u32,
}

impl Hold {
    /// The value of [`Field::hold`](crate::Field::hold).
    pub fn value(&self) -> Value {
        serde_json::to_value(self).expect("a struct of strings and numbers is JSON")
    }
}

/// A machine on which instances run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Runs what it is given.
    pub ready: bool,
    /// Takes nothing new.
    pub unschedulable: bool,
}

/// Something that runs on a node, of a service or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its namespace, where there are any.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// This very one.
    pub uid: String,
    /// The service that it is an instance of, if that is known.
    pub service: Option<String>,
    /// Who brings it back elsewhere.
    pub kept_by: Keeper,
    /// Whether data of it is lost with its place.
    pub local_data: bool,
}

impl Tenant {
    /// Whether a drain makes it leave: what wants to be on this very node stays.
    pub fn moves(&self) -> bool {
        matches!(self.kept_by, Keeper::Controller | Keeper::Nobody)
    }
}

/// Who sees to it that a [`Tenant`] runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keeper {
    /// A controller, which starts it on another node.
    Controller,
    /// A controller that wants it on this node.
    Daemon,
    /// The node itself.
    Node,
    /// Nobody: it would not come back.
    Nobody,
}

/// A fault that is played on what is sent to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The run that plays it.
    pub holder: String,
    /// What happens to a request.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Share of the requests that it hits, above 0 and up to 100.
    pub percent: f64,
    /// The service whose open database sessions are ended once it is played, so that they come back and meet it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_of: Option<String>,
}

impl Fault {
    /// The value of [`Field::fault`](crate::Field::fault).
    pub fn value(&self) -> Value {
        serde_json::to_value(self).expect("a struct of strings and finite numbers is JSON")
    }
}

/// A service's way to somewhere, cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The run that cut it.
    pub holder: String,
    /// The Service of the cluster that its instances may not reach: `<namespace>/<name>`.
    pub from: String,
}

impl Cut {
    /// The value of [`Field::cut`](crate::Field::cut).
    pub fn value(&self) -> Value {
        serde_json::to_value(self).expect("a struct of strings is JSON")
    }
}

/// Counts of requests since the counting part started. `errors` and `over_objective` are counted apart: a request may be both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Requests that have ended.
    pub requests: u64,
    /// Of them: 5xx answers, failed connections, resets, gRPC errors that are the server's fault.
    pub errors: u64,
    /// Of them: slower than the latency objective.
    pub over_objective: u64,
    /// Requests that have not ended.
    pub in_flight: u64,
    /// Requests sent by a drill's probe (in none of the counts above).
    pub probe_requests: u64,
    /// Of them: errors.
    pub probe_errors: u64,
    /// Of them: too slow.
    pub probe_over_objective: u64,
}

/// A service's traffic. All counts only grow while `boot_id` stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// When it was read, on the platform's clock.
    pub at: Timestamp,
    /// Changes when the counting part restarted and the counts began at zero.
    pub boot_id: String,
    /// The version that counts as stable there.
    pub stable_version: Option<String>,
    /// By version.
    pub versions: Vec<VersionTraffic>,
    /// By instance.
    pub instances: Vec<InstanceTraffic>,
    /// Requests refused because the service is held.
    pub held_rejections: u64,
    /// Errors with no instance to blame (none was ready).
    pub unrouted_errors: u64,
    /// Probes refused because the service is held (not in `held_rejections`).
    #[serde(default)]
    pub probe_held_rejections: u64,
    /// Probes that failed with no instance to blame (not in `unrouted_errors`).
    #[serde(default)]
    pub probe_unrouted_errors: u64,
}

impl Traffic {
    /// The counts of one version; zero when it has none.
    pub fn version(&self, version: &str) -> Counts {
        self.versions
            .iter()
            .find(|v| v.version == version)
            .map(|v| v.counts)
            .unwrap_or_default()
    }
}

/// Counts of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionTraffic {
    /// The version.
    pub version: String,
    /// Its counts.
    pub counts: Counts,
}

/// Counts of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTraffic {
    /// The instance's id.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// Its counts.
    pub counts: Counts,
}

/// Who holds a lease or works on a run: a run and one very process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseHolder {
    /// The run's id.
    pub run: String,
    /// The host's name.
    pub host: String,
    /// Process id there.
    pub pid: u32,
    /// When that process started, in the kernel's ticks since boot; tells a reused process id apart.
    pub start_ticks: u64,
}

/// A lease as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Its name, e.g. `service-orders`.
    pub name: String,
    /// Who has it.
    pub holder: LeaseHolder,
    /// When it was first taken by this holder.
    pub acquired_at: Timestamp,
    /// When it was last prolonged.
    pub renewed_at: Timestamp,
    /// When it ends unless prolonged.
    pub expires_at: Timestamp,
    /// Counts changes; for the compare-and-set of a take-over.
    pub revision: u64,
}

impl Lease {
    /// Whether its time is over.
    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

/// The answer to taking a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseOutcome {
    /// It is ours.
    Acquired(Lease),
    /// Somebody else has it, perhaps expired.
    Held(Lease),
}

/// What an instance uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// The instance's id.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// CPU seconds per second over the last minute; absent when nobody counts them.
    pub cpu_cores: Option<f64>,
    /// Memory in use; absent when nobody tells.
    pub memory_bytes: Option<f64>,
}
