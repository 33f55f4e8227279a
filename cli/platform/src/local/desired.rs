//! What is meant to run: the file `desired.json`, schema `opsctl.desired/v1`. Every field that a run may change lives
//! here, except a canary's share, which the proxy grants for a limited time. Pure: reads and changes a value.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Field, Health, Hold, Objectives, PlatformError, Probe, Result, VersionSpec};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// `opsctl.desired/v1`.
    pub schema: String,
    /// Counts changes.
    pub revision: u64,
    /// The environment's name.
    pub environment: String,
    /// By name.
    pub services: BTreeMap<String, DesiredService>,
    /// Everything is meant to stop.
    #[serde(default)]
    pub stop: bool,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DesiredService {
    /// The version that gets all traffic that no canary takes.
    pub stable_version: String,
    /// Every version that is meant to run, the stable one included.
    pub versions: BTreeMap<String, VersionSpec>,
    /// Working directory, absolute.
    pub cwd: PathBuf,
    /// `DATA_DIR`, absolute.
    pub data_dir: PathBuf,
    /// Environment of all versions.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Services whose addresses it is told.
    #[serde(default)]
    pub depends_on: Vec<String>,
    /// How readiness is asked.
    #[serde(default)]
    pub health: Health,
    /// What drills send.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// What it promises.
    #[serde(default)]
    pub objectives: Objectives,
    /// How long an instance may take from SIGTERM to its end, in seconds; then it is killed.
    pub drain_seconds: f64,
    /// How long an instance may take from its start to readiness, in seconds; then it is killed and counts as failed.
    pub start_seconds: f64,
    /// The stable HTTP address.
    pub http_listen: Option<SocketAddr>,
    /// The stable gRPC address.
    pub grpc_listen: Option<SocketAddr>,
    /// Held down.
    #[serde(default)]
    pub hold: Option<Hold>,
    /// Counts changes of this service.
    pub revision: u64,
}

impl Desired {
    /// Nothing is meant to run.
    pub fn empty(environment: &str) -> Self {
        Self {
            schema: "opsctl.desired/v1".to_owned(),
            revision: 0,
            environment: environment.to_owned(),
            services: BTreeMap::new(),
            stop: false,
        }
    }

    /// A service by name.
    pub fn service(&self, name: &str) -> Result<&DesiredService> {
        self.services.get(name).ok_or_else(|| PlatformError::UnknownService {
            service: name.to_owned(),
        })
    }

    /// The value of a field other than the canary's share.
    pub fn get(&self, field: &Field) -> Result<Option<Value>> {
        let service = self.service(service_of(field)?)?;
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        Ok(match parts.as_slice() {
            ["stable_version"] => Some(service.stable_version.clone().into()),
            ["versions", version] => service.versions.get(*version).map(VersionSpec::value),
            ["versions", version, "replicas"] => service.versions.get(*version).map(|spec| spec.replicas.into()),
            ["hold"] => service.hold.as_ref().map(Hold::value),
            _ => return Err(PlatformError::UnknownField { field: field.clone() }),
        })
    }

    /// Sets a field other than the canary's share.
    pub fn set(&mut self, field: &Field, new: Option<&Value>) -> Result<()> {
        let invalid = |reason: &str| PlatformError::InvalidValue {
            field: field.clone(),
            reason: reason.to_owned(),
        };
        let name = service_of(field)?;
        let service = self
            .services
            .get_mut(name)
            .ok_or_else(|| PlatformError::UnknownService {
                service: name.to_owned(),
            })?;
        let parts = field.parts();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (parts.as_slice(), new) {
            (["stable_version"], Some(Value::String(version))) if service.versions.contains_key(version) => {
                service.stable_version.clone_from(version);
            }
            (["stable_version"], _) => return Err(invalid("it must be a version that runs")),
            (["versions", version], None) => {
                if service.stable_version == *version {
                    return Err(invalid("the stable version cannot be removed"));
                }
                service.versions.remove(*version);
            }
            (["versions", version], Some(value)) => {
                let spec: VersionSpec =
                    serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?;
                if spec.version != *version {
                    return Err(invalid("its version is not the field's"));
                }
                if spec.command.is_empty() {
                    return Err(invalid("it has no command"));
                }
                service.versions.insert((*version).to_owned(), spec);
            }
            (["versions", version, "replicas"], Some(value)) => {
                let replicas = value
                    .as_u64()
                    .and_then(|n| u32::try_from(n).ok())
                    .filter(|n| *n <= 1000);
                let replicas = replicas.ok_or_else(|| invalid("it must be a whole number up to 1000"))?;
                service
                    .versions
                    .get_mut(*version)
                    .ok_or_else(|| invalid("there is no such version"))?
                    .replicas = replicas;
            }
            (["versions", _, "replicas"], None) => return Err(invalid("it cannot be absent")),
            (["hold"], None) => service.hold = None,
            (["hold"], Some(value)) => {
                let hold = serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))?;
                service.hold = Some(hold);
            }
            _ => return Err(PlatformError::UnknownField { field: field.clone() }),
        }
        service.revision += 1;
        self.revision += 1;
        Ok(())
    }
}

/// The service that a field belongs to.
pub fn service_of(field: &Field) -> Result<&str> {
    field
        .service()
        .ok_or_else(|| PlatformError::UnknownField { field: field.clone() })
}
