//! What runs in one environment and what is promised of it: services, datastores, teams. Rules and boards are derived from
//! it. It is plain data, made from the catalogue file by whoever reads that; it is not how the file is written, and asks
//! nothing of the world.

mod ratio;
mod recorded;
mod selector;
mod sli;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use ratio::{Ratio, Scaled};
pub use recorded::{Recorded, Slo, window};
pub use selector::{Matcher, Op, Selector, regex_escape, string};
pub use sli::{Bounds, SERVER_FAULTS, Sli};

/// One environment: everything that its rules and boards say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Landscape {
    /// Name of the environment: label `environment` of every alert.
    pub environment: String,
    /// Where its services run.
    pub platform: Platform,
    /// How often its Prometheus scrapes.
    #[serde(with = "seconds")]
    pub scrape_interval: Duration,
    /// How often it evaluates rules.
    #[serde(with = "seconds")]
    pub evaluation_interval: Duration,
    /// Its services, by name.
    pub services: Vec<Service>,
    /// Its datastores, by name.
    pub datastores: Vec<Datastore>,
    /// Its teams, by name.
    pub teams: Vec<Team>,
    /// Set where versions are shipped as canaries.
    pub canary: Option<Canary>,
    /// Where people are sent from an alert or a panel.
    pub links: Links,
}

/// Where services run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// On one machine, behind opsctl's own proxy.
    Local,
    /// On Kubernetes.
    Kubernetes,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name: label `service` of its alerts.
    pub name: String,
    /// Who owns it: label `team` of its alerts.
    pub team: Option<String>,
    /// What its series have in common in Prometheus; see [`Selector::job`] and [`Selector::pods`].
    pub selector: Selector,
    /// Its namespace, on Kubernetes.
    pub namespace: Option<String>,
    /// Its Deployment, on Kubernetes.
    pub deployment: Option<String>,
    /// Which counters tell how its requests went.
    pub sli: Sli,
    /// The share of requests that must succeed.
    pub availability: Option<Ratio>,
    /// The share of requests that must be fast.
    pub latency: Option<Latency>,
    /// What else it exports.
    pub exports: BTreeSet<Instrumentation>,
    /// Datastores that it uses, by name.
    pub uses: Vec<String>,
    /// Services that it calls, by name.
    pub depends_on: Vec<String>,
}

/// A promise about duration: `quantile` of all requests take no longer than `bound`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// 0.95 for a p95.
    pub quantile: Ratio,
    /// The bound. It has to be one of the histogram's, or the promise cannot be counted.
    #[serde(with = "seconds")]
    pub bound: Duration,
}

/// Groups of the catalogue's metrics that a service has or has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instrumentation {
    /// `circuit_breaker_*`.
    CircuitBreaker,
    /// `db_pool_*`.
    DatabasePool,
    /// `dead_letters`.
    DeadLetters,
    /// `health_*`.
    Health,
    /// `outbox_*`.
    Outbox,
    /// `retry_*`.
    Retry,
    /// `saga_*` and `orders_*`.
    Saga,
}

/// Something that is backed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datastore {
    /// Its name: label `datastore` of its alerts.
    pub name: String,
    /// What it is.
    pub kind: DatastoreKind,
    /// How much may be lost.
    #[serde(with = "seconds::optional")]
    pub rpo: Option<Duration>,
    /// How long coming back may take.
    #[serde(with = "seconds::optional")]
    pub rto: Option<Duration>,
    /// How old the last proof may be.
    #[serde(with = "seconds::optional")]
    pub prove_every: Option<Duration>,
    /// When it is backed up.
    pub schedule: Option<Schedule>,
    /// Whether changes are shipped between snapshots, so that the last snapshot may be older than what may be lost.
    pub continuous: bool,
    /// Whether its log is received by a replication slot: a PostgreSQL that is saved as a whole.
    #[serde(default)]
    pub log: bool,
    /// Series of the `postgres_exporter` that watches it.
    pub exporter: Option<Selector>,
}

/// The kinds of datastore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DatastoreKind {
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

/// When backups are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// As written in the catalogue.
    pub cron: String,
    /// The longest time between two of its moments.
    #[serde(with = "seconds")]
    pub longest_gap: Duration,
}

/// Who owns services and is told of their alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Team {
    /// Its name.
    pub name: String,
    /// Where the address of its webhook is kept. The address is a secret and never here.
    pub webhook: Option<Webhook>,
}

/// Where the address of a webhook is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Webhook {
    /// In a file, by its path.
    File(String),
    /// In a key of a Kubernetes Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// Where only opsctl can read it: a command or a variable. Somebody has to put it into a file for Alertmanager.
    Elsewhere,
}

/// How long a canary may stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// One that is neither promoted nor taken back for so long is stuck.
    #[serde(with = "seconds")]
    pub stuck_after: Duration,
}

/// Where people are sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Links {
    /// Address of the Grafana that has the boards, without a slash at its end.
    pub dashboards: Option<String>,
    /// Address of the folder of runbook pages, without a slash at its end.
    pub runbooks: Option<String>,
}

/// The boards that alerts link to, by their uid in Grafana.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Board {
    /// Rate, errors, duration of one service.
    Requests,
    /// Objectives, budgets and burn rates.
    Objectives,
    /// Breakers and retries.
    Policies,
    /// Sagas, outbox, dead letters.
    Sagas,
    /// A canary beside the version that runs.
    Canary,
    /// Backups and their proofs.
    Backups,
    /// PostgreSQL and pools.
    Postgres,
    /// Pods and containers.
    Workload,
    /// What it costs.
    Cost,
}

impl Board {
    /// Every board.
    pub const ALL: [Self; 9] = [
        Self::Requests,
        Self::Objectives,
        Self::Policies,
        Self::Sagas,
        Self::Canary,
        Self::Backups,
        Self::Postgres,
        Self::Workload,
        Self::Cost,
    ];

    /// Its uid, the last part of its address.
    pub const fn uid(self) -> &'static str {
        match self {
            Self::Requests => "opsctl-requests",
            Self::Objectives => "opsctl-objectives",
            Self::Policies => "opsctl-policies",
            Self::Sagas => "opsctl-sagas",
            Self::Canary => "opsctl-canary",
            Self::Backups => "opsctl-backups",
            Self::Postgres => "opsctl-postgres",
            Self::Workload => "opsctl-workload",
            Self::Cost => "opsctl-cost",
        }
    }
}

impl Links {
    /// The address of a board with some of its variables set, for example `service` to `orders`.
    pub fn board(&self, board: Board, variables: &[(&str, &str)]) -> Option<String> {
        let mut address = format!("{}/d/{}", self.dashboards.as_ref()?, board.uid());
        for (index, (name, value)) in variables.iter().enumerate() {
            address.push(if index == 0 { '?' } else { '&' });
            let _ = write!(address, "var-{name}={}", percent_encoded(value));
        }
        Some(address)
    }

    /// The address of an alert's page; without a base, the path in the project's own documentation.
    pub fn runbook(&self, alert: &str) -> String {
        format!("{}/{alert}.md", self.runbooks.as_deref().unwrap_or("docs/runbooks"))
    }
}

impl Landscape {
    /// A service by name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Who owns a datastore: the team of the services that use it, if that is one team.
    pub fn owner_of(&self, datastore: &str) -> Option<&str> {
        let users = self.services.iter();
        let users = users.filter(|service| service.uses.iter().any(|used| used == datastore));
        let mut owners = users.map(|service| service.team.as_deref());
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then_some(first)
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Durations are numbers of seconds in documents.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(value.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use std::time::Duration;

        use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

        // The signature is serde's.
        #[expect(clippy::ref_option)]
        pub(in super::super) fn serialize<S: Serializer>(
            value: &Option<Duration>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => serializer.serialize_some(&value.as_secs_f64()),
                None => serializer.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<Duration>, D::Error> {
            let seconds = Option::<f64>::deserialize(deserializer)?;
            seconds
                .map(|seconds| Duration::try_from_secs_f64(seconds).map_err(D::Error::custom))
                .transpose()
        }
    }
}

#[cfg(test)]
mod tests;
