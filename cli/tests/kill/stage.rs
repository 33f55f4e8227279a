//! Services on a real local platform, and what can be seen of them and of their runs from outside.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::{Sandbox, eventually, tiny_service};

/// A project whose services are up.
pub struct Stage {
    pub sandbox: Sandbox,
    services: Vec<(String, u16)>,
}

/// Which process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Worker,
    Watchdog,
}

impl Stage {
    /// Starts two instances of each of these services.
    pub fn up(names: &[String]) -> Self {
        let sandbox = Sandbox::new();
        let tiny = tiny_service().display().to_string();
        let mut text = "version = 1\n[env.local]\n".to_owned();
        for name in names {
            let _ = write!(
                text,
                "[service.{name}]\nhealth = {{ http = \"/healthz\" }}\nprobe = {{ http = \"/\", rate = \"20/s\" }}\n\
                 objectives = {{ availability = \"80%\" }}\n[service.{name}.local]\ncommand = [{tiny:?}]\nreplicas = 2\n\
                 [service.{name}.canary]\ncommand = [{tiny:?}, \"--release\", \"{{version}}\"]\n"
            );
        }
        sandbox.write("opsctl.toml", &text);
        let up = sandbox.run(&["up", "--json"]).ended(0).json();
        let services = up["ready"]
            .as_array()
            .expect("what is ready")
            .iter()
            .map(|ready| {
                let name = ready["name"].as_str().or(ready["service"].as_str()).expect("a name");
                let port = ready["ports"]["http"].as_u64().expect("a port") as u16;
                (name.to_owned(), port)
            })
            .collect();
        Self { sandbox, services }
    }

    pub fn port(&self, service: &str) -> u16 {
        let found = self.services.iter().find(|(name, _)| name == service);
        found.expect("one of ours").1
    }

    /// A service as `opsctl status --json` tells it.
    pub fn service(&self, name: &str) -> Value {
        let status = self.sandbox.run(&["status", "--json"]).json();
        let services = status["services"].as_array().expect("services").clone();
        services
            .into_iter()
            .find(|service| service["name"] == name)
            .expect("one of ours")
    }

    /// The version that has the traffic.
    pub fn stable(&self, name: &str) -> String {
        let service = self.service(name);
        service["stable_version"].as_str().expect("a stable version").to_owned()
    }

    /// Whether only the stable version runs, all of it ready, without a share for anybody else.
    pub fn settled(&self, name: &str) -> bool {
        let service = self.service(name);
        let stable = &service["stable_version"];
        let versions = service["versions"].as_array().expect("versions");
        let instances = service["instances"].as_array().expect("instances");
        service["canary"].is_null()
            && service["hold"].is_null()
            && versions.len() == 1
            && versions[0]["version"] == *stable
            && instances.len() == 2
            && instances
                .iter()
                .all(|instance| instance["ready"] == true && instance["version"] == *stable)
    }

    /// The faults that the proxy plays on a service.
    pub fn faults(&self, service: &str) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = opsctl_proxy_control::Client::new(self.sandbox.path(".opsctl/proxy.sock"));
        runtime
            .expect("a runtime")
            .block_on(client.faults(service))
            .expect("the proxy")
            .len()
    }

    /// The ids of all runs on a service.
    pub fn runs(&self, service: &str) -> BTreeSet<String> {
        let target = format!("service/{service}");
        fs::read_dir(self.sandbox.path(".opsctl/runs"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|run| self.record(run).is_some_and(|record| record["target"] == *target))
            .collect()
    }

    /// A run's record.
    pub fn record(&self, run: &str) -> Option<Value> {
        let text = fs::read(self.sandbox.path(".opsctl/runs").join(run).join("record.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether a run is over.
    pub fn closed(&self, run: &str) -> bool {
        self.record(run).is_some_and(|record| record["phase"] == "closed")
    }

    /// The processes of a run, whether they have entered themselves in its record or not.
    pub fn processes(&self, run: &str) -> Vec<(Role, Pid)> {
        let state = self.sandbox.path(".opsctl");
        let mut found = Vec::new();
        for (pid, words) in command_lines() {
            if !words.iter().any(|word| word == run) || !words.iter().any(|word| Path::new(word) == state) {
                continue;
            }
            for (name, role) in [("judge", Role::Worker), ("watchdog", Role::Watchdog)] {
                if words.iter().any(|word| word == name) {
                    found.push((role, pid));
                }
            }
        }
        found
    }

    /// Sends a signal to a run's processes of these roles; how many there were.
    pub fn signal(&self, run: &str, roles: &[Role], signal: Signal) -> usize {
        let found = self.processes(run);
        let meant = found.iter().filter(|(role, _)| roles.contains(role));
        meant
            .map(|(_, pid)| usize::from(kill_process(*pid, signal).is_ok()))
            .sum()
    }

    /// Kills a run's processes of these roles and waits until they are gone; how many there were.
    pub fn kill(&self, run: &str, roles: &[Role]) -> usize {
        let mut killed = 0;
        eventually("the end of what was killed", || {
            // A worker that was just starting its watchdog leaves one that was not seen before.
            let found = self.signal(run, roles, Signal::KILL);
            killed = killed.max(found);
            found == 0
        });
        killed
    }

    /// Stops everything and checks that nothing is left.
    pub fn down(self) {
        self.sandbox.run(&["down"]).ended(0);
        let folder = self.sandbox.path("").canonicalize().expect("our own folder");
        let left = || {
            let folder = folder.display().to_string();
            let of = folder.trim_end_matches('/').to_owned();
            command_lines()
                .into_iter()
                .filter(|(pid, words)| {
                    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).unwrap_or_default();
                    words.iter().any(|word| word.contains(&of)) || String::from_utf8_lossy(&environment).contains(&of)
                })
                .map(|(pid, words)| format!("{} {}", pid.as_raw_nonzero(), words.join(" ")))
                .collect::<Vec<_>>()
        };
        // A worker that has closed its run may still write its report.
        eventually("the end of every process", || left().is_empty());
        assert_eq!(sockets(&self.sandbox.path(".opsctl")), Vec::<String>::new());
        for (name, port) in &self.services {
            TcpListener::bind(("127.0.0.1", *port)).unwrap_or_else(|error| panic!("port {port} of {name}: {error}"));
        }
    }
}

pub fn command_lines() -> Vec<(Pid, Vec<String>)> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = words
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        // One that has ended and was not waited for has no words.
        if let Some(pid) = Pid::from_raw(pid).filter(|_| words.iter().any(|word| !word.is_empty())) {
            found.push((pid, words));
        }
    }
    found
}

fn sockets(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            found.extend(sockets(&entry.path()));
        } else if kind.is_socket() {
            found.push(entry.path().display().to_string());
        }
    }
    found
}
