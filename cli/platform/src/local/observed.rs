//! What runs: the file `instances.json`, schema `opsctl.instances/v1`, written by the supervisor whenever it changes.
//! Readers check process ids themselves, so that a dead supervisor's file does not lie.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Instance;
use crate::process::Process;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// `opsctl.instances/v1`.
    pub schema: String,
    /// The supervisor that wrote it.
    pub supervisor: Process,
    /// When it was written.
    pub at: Timestamp,
    /// The proxy's process.
    pub proxy: Option<Process>,
    /// By name.
    pub services: BTreeMap<String, ObservedService>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedService {
    /// Its instances, by id.
    pub instances: Vec<Instance>,
    /// The version that the proxy treats as stable; follows the desired one when that is ready.
    pub routed_version: Option<String>,
    /// The revision of the desired service that was acted upon.
    pub revision: u64,
    /// Why the front door is not open, in words.
    pub front_error: Option<String>,
    /// Whether that is because another process has its port.
    #[serde(default)]
    pub front_port_taken: bool,
}

impl Observed {
    /// Nothing runs.
    pub fn empty(supervisor: Process, at: Timestamp) -> Self {
        Self {
            schema: "opsctl.instances/v1".to_owned(),
            supervisor,
            at,
            proxy: None,
            services: BTreeMap::new(),
        }
    }
}

/// The process that an instance's uid names.
pub fn process_of(instance: &Instance) -> Option<Process> {
    let (pid, start_ticks) = instance.uid.split_once(':')?;
    Some(Process {
        pid: pid.parse().ok()?,
        start_ticks: start_ticks.parse().ok()?,
    })
}
