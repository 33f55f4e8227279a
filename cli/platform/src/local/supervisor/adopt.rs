//! Finding what a dead supervisor left running: every process that a supervisor of this state folder started carries the
//! folder's path in its environment, so that nothing can be lost between a start and its entry in a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::local::launcher::{SERVICE_VARIABLE, STATE_VARIABLE};
use crate::process::{Process, stat};

/// A process that was started for this state folder.
#[derive(Debug, Clone)]
pub(in crate::local) struct Found {
    pub(in crate::local) process: Process,
    /// It leads its process group: an instance or the proxy, no child of theirs.
    pub(in crate::local) leader: bool,
    /// Its service; none is the proxy.
    pub(in crate::local) service: Option<String>,
    pub(in crate::local) environment: BTreeMap<String, String>,
}

/// All of them.
pub(in crate::local) fn scan(root: &Path) -> Vec<Found> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let wanted = root.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(before) = Process::find(pid) else { continue };
        let Ok(block) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        let ours = block.split(|&byte| byte == 0).any(|variable| {
            variable
                .strip_prefix(STATE_VARIABLE.as_bytes())
                .and_then(|rest| rest.strip_prefix(b"="))
                .is_some_and(|value| value == wanted)
        });
        // Between fork and exec a child of the supervisor still has the supervisor's environment and group.
        if !ours || Process::find(pid) != Some(before) {
            continue;
        }
        let environment: BTreeMap<String, String> = block
            .split(|&byte| byte == 0)
            .filter_map(|variable| {
                let text = String::from_utf8_lossy(variable);
                text.split_once('=')
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect();
        found.push(Found {
            process: before,
            leader: stat(pid).is_some_and(|stat| stat.group == pid),
            service: environment.get(SERVICE_VARIABLE).cloned(),
            environment,
        });
    }
    found
}
