//! Counters as a proxy would give them, from totals by version. No simulation of clients.

use std::collections::BTreeMap;
use std::time::Duration;

use opsctl_platform::{Counts, Traffic, VersionTraffic};

/// The counters after `elapsed`; totals are requests and errors.
pub(crate) fn traffic(elapsed: Duration, stable: &str, counts: &BTreeMap<String, (f64, f64)>) -> Traffic {
    Traffic {
        at: jiff::Timestamp::UNIX_EPOCH + elapsed,
        boot_id: "boot".to_owned(),
        stable_version: Some(stable.to_owned()),
        versions: counts
            .iter()
            .map(|(version, (requests, errors))| VersionTraffic {
                version: version.clone(),
                counts: Counts {
                    requests: requests.floor() as u64,
                    errors: errors.floor() as u64,
                    ..Counts::default()
                },
            })
            .collect(),
        instances: Vec::new(),
        held_rejections: 0,
        unrouted_errors: 0,
        probe_held_rejections: 0,
        probe_unrouted_errors: 0,
    }
}
