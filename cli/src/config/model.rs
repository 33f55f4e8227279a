//! The configuration as types: what the commands work with after everything was read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use backups::retention::Policy;
use manifest::landscape::Instrumentation;
use opsctl_platform::kube::Sli;
use opsctl_rollouts::Criterion;

use super::document::Origin;
use super::finding::Shown;
use super::kubernetes::{Cluster, Kubernetes};
use super::proof::Proof;
use super::schedule::{Cleanup, Schedule};
use super::secret::SecretSource;
use super::sources::{CommandKeys, FilesKeys, PostgresKeys};

/// Everything that holds in the chosen environment.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// The main file.
    pub(crate) file: PathBuf,
    /// Its folder.
    pub(crate) root: PathBuf,
    /// The state folder, if `OPSCTL_STATE` says where: in a pod nobody can write beside the file.
    pub(crate) state: Option<PathBuf>,
    /// The chosen environment.
    pub(crate) environment: Environment,
    /// The names of all environments.
    pub(crate) environments: Vec<String>,
    /// Clusters by name.
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// Services by name.
    pub(crate) services: BTreeMap<String, Service>,
    /// Datastores by name.
    pub(crate) datastores: BTreeMap<String, Datastore>,
    /// Repositories by name.
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// Jobs and when they run, by name.
    pub(crate) schedules: BTreeMap<String, Schedule>,
    /// What deletes what is not needed any more, by name.
    pub(crate) cleanups: BTreeMap<String, Cleanup>,
    /// Who is told, by team.
    pub(crate) teams: BTreeMap<String, Notify>,
    /// Every value in effect with its origin.
    pub(crate) values: Vec<Shown>,
}

impl Config {
    /// Where the local platform and the runs keep their state.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.clone().unwrap_or_else(|| self.root.join(".opsctl"))
    }

    /// The environment's name if it is protected.
    pub(crate) fn protected(&self) -> Option<&str> {
        self.environment.protected.then_some(self.environment.name.as_str())
    }

    /// The services that use a datastore.
    pub(crate) fn users_of(&self, store: &str) -> Vec<&Service> {
        self.services
            .values()
            .filter(|service| service.uses.iter().any(|used| used.store == store))
            .collect()
    }
}

/// An environment.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    /// Its name.
    pub(crate) name: String,
    /// Where its services run.
    pub(crate) platform: PlatformKind,
    /// The clusters that it is on.
    pub(crate) clusters: Vec<String>,
    /// Where the records of runs go that no service is the target of, on Kubernetes.
    pub(crate) namespace: Option<String>,
    /// Its Prometheus.
    pub(crate) prometheus: Option<Prometheus>,
    /// Its Alertmanager, if that is not the one that Prometheus names.
    pub(crate) alertmanager: Option<Prometheus>,
    /// What its rules and boards are written for.
    pub(crate) watching: Watching,
    /// Whether dangerous jobs ask for the typed name.
    pub(crate) protected: bool,
    /// The service that a job means when none is named.
    pub(crate) default_service: Option<String>,
    /// The repository that backups go to.
    pub(crate) repository: Option<String>,
    /// Told of every run.
    pub(crate) notify: Notify,
    /// Where the log lines of its services are, if not in files here.
    pub(crate) loki: Option<Loki>,
    /// Where their traces are, if not in files here: Jaeger or Tempo.
    pub(crate) traces: Option<Backend>,
    /// Where its boards are shown.
    pub(crate) grafana: Option<Grafana>,
}

/// A Grafana.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grafana {
    /// Its address, without a slash at the end.
    pub(crate) url: String,
    /// The token of a service account.
    pub(crate) token: Option<SecretSource>,
    /// Who signs its certificate, if that is nobody whom the system trusts.
    pub(crate) authority: Option<PathBuf>,
}

/// What the rules and boards of an environment are written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Watching {
    /// How often its Prometheus scrapes.
    pub(crate) scrape_interval: Duration,
    /// How often it evaluates rules.
    pub(crate) evaluation_interval: Duration,
    /// Address of the Grafana that has the boards.
    pub(crate) dashboards: Option<String>,
    /// Address of the folder of runbook pages.
    pub(crate) runbooks: Option<String>,
}

/// A server that keeps what services tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Its address, without a slash at the end.
    pub(crate) url: String,
    /// The tenant that is asked for, where it has several (`X-Scope-OrgID`).
    pub(crate) tenant: Option<String>,
    /// Lets us in: a bearer token, or a password with its user.
    pub(crate) key: Option<Key>,
}

/// A Prometheus, or the Alertmanager beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prometheus {
    /// Its address, without a slash at the end.
    pub(crate) url: String,
    /// Lets us in.
    pub(crate) key: Option<Key>,
    /// Who signs its certificate, if that is nobody whom the system trusts.
    pub(crate) authority: Option<PathBuf>,
    /// The Secret that has the same for what runs in the cluster.
    pub(crate) secret: Option<String>,
}

/// What lets us in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// `Authorization: Bearer …`.
    Token(SecretSource),
    /// `Authorization: Basic …`.
    Password(String, SecretSource),
}

/// A Loki.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Loki {
    /// The server.
    pub(crate) server: Backend,
    /// The label that holds the service's name.
    pub(crate) label: String,
}

/// Where services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlatformKind {
    /// On this machine, under opsctl's own supervisor.
    Local,
    /// On Kubernetes.
    Kubernetes,
}

/// Who is told of runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notify {
    /// Address of a webhook.
    pub(crate) webhook: Option<SecretSource>,
}

/// A service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
    /// The folder of the file that declares it.
    pub(crate) folder: PathBuf,
    /// The team that owns it.
    pub(crate) team: Option<String>,
    /// The stores that it uses.
    pub(crate) uses: Vec<StoreUse>,
    /// The services that it calls.
    pub(crate) depends_on: Vec<String>,
    /// Path of the readiness check on the HTTP port.
    pub(crate) health_http: Option<String>,
    /// Service name of the gRPC readiness check.
    pub(crate) health_grpc: Option<String>,
    /// Requests that should succeed, 0 to 1.
    pub(crate) availability: Option<f64>,
    /// Requests that should be fast.
    pub(crate) latency: Option<LatencyObjective>,
    /// How it runs here.
    pub(crate) local: Option<Local>,
    /// What drills send when nobody else does.
    pub(crate) probe: Option<Probe>,
    /// What runs as version `{version}`.
    pub(crate) canary_command: Option<Vec<String>>,
    /// Where it lives in a cluster.
    pub(crate) kubernetes: Kubernetes,
    /// Where its requests are counted.
    pub(crate) sli: Sli,
    /// What else must hold while it is shipped; queries with their placeholders.
    pub(crate) criteria: Vec<Criterion>,
    /// What it tells of itself besides its requests.
    pub(crate) exports: BTreeSet<Instrumentation>,
}

impl Service {
    /// The folder that is its `DATA_DIR`.
    pub(crate) fn data_dir(&self, state: &Path) -> PathBuf {
        self.local
            .as_ref()
            .and_then(|local| local.data.clone())
            .unwrap_or_else(|| state.join("data").join(&self.name))
    }
}

/// The share of requests that must be faster than a bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LatencyObjective {
    /// 0.95 for a p95.
    pub(crate) quantile: f64,
    /// The bound.
    pub(crate) bound: Duration,
}

/// A store that a service uses, or a part of it (`pg-main/payments`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreUse {
    /// The datastore's name.
    pub(crate) store: String,
    /// The part, for example a database.
    pub(crate) part: Option<String>,
}

/// How a service runs on this machine.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    /// Program and arguments.
    pub(crate) command: Vec<String>,
    /// Builds it before the start and for canaries.
    pub(crate) build: Option<Vec<String>>,
    /// Where both run.
    pub(crate) cwd: PathBuf,
    /// How many instances.
    pub(crate) replicas: u32,
    /// Added to their environment.
    pub(crate) env: BTreeMap<String, String>,
    /// The stable HTTP port, if it is fixed.
    pub(crate) http_port: Option<u16>,
    /// The stable gRPC port, if it is fixed.
    pub(crate) grpc_port: Option<u16>,
    /// `DATA_DIR`, if it is not the default.
    pub(crate) data: Option<PathBuf>,
}

/// What drills send when nobody else does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// Path on the HTTP port.
    pub(crate) http: String,
    /// Such as `20/s`.
    pub(crate) rate: String,
}

/// Something that is backed up.
#[derive(Debug, Clone)]
pub(crate) struct Datastore {
    /// Its name.
    pub(crate) name: String,
    /// Where it is declared.
    pub(crate) origin: Origin,
    /// What it is.
    pub(crate) kind: DatastoreKind,
    /// File or folder of the kinds that are one.
    pub(crate) path: Option<PathBuf>,
    /// What a `files` store leaves out.
    pub(crate) exclude: Vec<String>,
    /// How else a `files` store is saved.
    pub(crate) files: FilesKeys,
    /// What a `command` store runs.
    pub(crate) command: Option<CommandKeys>,
    /// How a `postgres` store is saved.
    pub(crate) postgres: Option<PostgresKeys>,
    /// Which of its snapshots stay, if that is said.
    pub(crate) keep: Option<Policy>,
    /// How a server is reached.
    pub(crate) dsn: Option<SecretSource>,
    /// When it is backed up.
    pub(crate) schedule: Option<Schedule>,
    /// What it promises, and how that is proved.
    pub(crate) proof: Proof,
    /// How often what changed in a `sqlite` store is shipped by `backup --continuous`.
    pub(crate) ship: Option<Duration>,
    /// Labels of the series of the `postgres_exporter` that watches it.
    pub(crate) exporter: Option<BTreeMap<String, String>>,
}

/// The kinds of datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DatastoreKind {
    /// A SQLite database file.
    Sqlite,
    /// A file or a folder.
    Files,
    /// What a command prints.
    Command,
    /// PostgreSQL.
    Postgres,
    /// MongoDB.
    Mongodb,
    /// Redis.
    Redis,
    /// MariaDB or MySQL.
    Mariadb,
    /// Kafka.
    Kafka,
    /// Objects of a Kubernetes cluster.
    Kubernetes,
}

impl DatastoreKind {
    /// Every kind, as written in the file.
    pub(crate) const ALL: [(&'static str, Self); 9] = [
        ("sqlite", Self::Sqlite),
        ("files", Self::Files),
        ("command", Self::Command),
        ("postgres", Self::Postgres),
        ("mongodb", Self::Mongodb),
        ("redis", Self::Redis),
        ("mariadb", Self::Mariadb),
        ("kafka", Self::Kafka),
        ("kubernetes", Self::Kubernetes),
    ];

    /// The kind as written in the file.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }
}

/// Where backups are kept.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    /// Its name.
    pub(crate) name: String,
    /// The store as written, for example `file:.opsctl/repo`.
    pub(crate) store: String,
    /// The folder of a `file:` store.
    pub(crate) folder: Option<PathBuf>,
    /// The bucket of an `s3:` store.
    pub(crate) bucket: Option<Bucket>,
    /// Its password.
    pub(crate) password: SecretSource,
}

/// A bucket of S3.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    /// Its name.
    pub(crate) name: String,
    /// What the names of the objects begin with, without slashes at its ends.
    pub(crate) prefix: String,
    /// The service's URL, if it is not Amazon's.
    pub(crate) endpoint: Option<String>,
    /// The region.
    pub(crate) region: Option<String>,
    /// The bucket stands in the path of the URL.
    pub(crate) path_style: bool,
    /// Checksums go along although nobody asks for them.
    pub(crate) checksums: bool,
    /// Certificates that are trusted besides the system's.
    pub(crate) certificate: Option<PathBuf>,
    /// The keys; without them those of the surroundings.
    pub(crate) credentials: Option<BucketCredentials>,
}

/// Where the keys of a bucket come from.
#[derive(Debug, Clone)]
pub(crate) struct BucketCredentials {
    /// The access key.
    pub(crate) access_key: SecretSource,
    /// The secret key.
    pub(crate) secret_key: SecretSource,
    /// The token of keys that are lent.
    pub(crate) session_token: Option<SecretSource>,
}
