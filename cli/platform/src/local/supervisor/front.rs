//! The supervisor's side of the proxy: keeps its process alive and tells it routes, backends and holds when they change.
//! It grants no weights and plays no faults.

use std::collections::BTreeMap;
use std::time::Duration;

use opsctl_proxy_control::{Backend, Client, ControlError, Hold, RouteConfig};
use rustix::process::Signal;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::slot::wait_for_stranger;
use crate::local::launcher::{Launcher, Role};
use crate::local::state_dir::StateDir;
use crate::process::Process;
use crate::run::message_of;

/// What the proxy shall know of one service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) route: Option<RouteConfig>,
    pub(super) backends: Vec<Backend>,
    pub(super) hold: Option<Hold>,
}

/// The proxy as the supervisor sees it.
pub(super) struct Front {
    client: Client,
    process: Option<Process>,
    boot_id: Option<String>,
    pushed: BTreeMap<String, Entry>,
    errors: BTreeMap<String, FrontError>,
    backoff: Backoff,
    started: Option<Instant>,
    start_at: Instant,
}

/// Why the front door of a service is not open.
pub(super) struct FrontError {
    /// In words.
    pub(super) message: String,
    /// Another process has its port.
    pub(super) port_taken: bool,
}

impl Front {
    pub(super) fn new(state: &StateDir, process: Option<Process>) -> Self {
        Self {
            client: Client::new(state.proxy_socket()).with_timeout(Duration::from_secs(2)),
            process,
            boot_id: None,
            pushed: BTreeMap::new(),
            errors: BTreeMap::new(),
            backoff: Backoff::default(),
            started: None,
            start_at: Instant::now(),
        }
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.process
    }

    /// Why a service's front door is not open.
    pub(super) fn error(&self, service: &str) -> Option<&FrontError> {
        self.errors.get(service)
    }

    /// The hold that the proxy was told of.
    pub(super) fn hold(&self, service: &str) -> Option<Hold> {
        self.pushed.get(service).and_then(|entry| entry.hold.clone())
    }

    /// Starts the proxy when it does not run.
    pub(super) fn keep_alive(&mut self, launcher: &Launcher, state: &StateDir, now: Instant) {
        if let Some(process) = self.process
            && !process.alive()
        {
            let ran = self.started.map_or(Duration::ZERO, |started| now - started);
            self.start_at = now + self.backoff.ended(ran) - super::backoff::FIRST;
            tracing::warn!(pid = process.pid, "the proxy ended");
            self.process = None;
        }
        if self.process.is_none() && now >= self.start_at {
            match launcher.spawn(Role::Proxy, state) {
                Ok(process) => {
                    self.process = Some(process);
                    self.started = Some(now);
                }
                Err(error) => {
                    self.start_at = now + self.backoff.ended(Duration::ZERO);
                    tracing::error!(error = %message_of(&error), "could not start the proxy");
                }
            }
        }
    }

    /// Tells the proxy what has changed. `false`: it could not be told everything; try again soon.
    pub(super) async fn push(&mut self, wanted: &BTreeMap<String, Entry>) -> bool {
        if self.boot_id.is_some() && self.pushed == *wanted {
            return true;
        }
        let Ok(status) = self.client.status().await else {
            self.boot_id = None;
            return false;
        };
        if self.boot_id.as_ref() != Some(&status.boot_id) {
            self.pushed.clear();
            // What it remembers and nobody wants any more.
            let Ok(routes) = self.client.routes().await else {
                return false;
            };
            for route in routes
                .iter()
                .filter(|route| !wanted.contains_key(&route.config.service))
            {
                if self.client.delete_route(&route.config.service).await.is_err() {
                    return false;
                }
            }
            self.boot_id = Some(status.boot_id);
        }
        let mut complete = true;
        for (service, entry) in wanted {
            if self.pushed.get(service) == Some(entry) {
                continue;
            }
            match self.push_one(service, entry).await {
                Ok(()) => {
                    self.pushed.insert(service.clone(), entry.clone());
                    self.errors.remove(service);
                }
                Err(error) => {
                    complete = false;
                    self.pushed.remove(service);
                    let error = FrontError {
                        message: message_of(&error),
                        port_taken: matches!(error, ControlError::PortTaken { .. }),
                    };
                    self.errors.insert(service.clone(), error);
                }
            }
        }
        let gone: Vec<String> = self
            .pushed
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for service in gone {
            if self.client.delete_route(&service).await.is_ok() {
                self.pushed.remove(&service);
                self.errors.remove(&service);
            } else {
                complete = false;
            }
        }
        complete
    }

    /// Forgets what was told when the proxy is another one now. Cheap; called now and then.
    pub(super) async fn check(&mut self) {
        if let Ok(status) = self.client.status().await
            && self.boot_id.as_ref() != Some(&status.boot_id)
        {
            self.boot_id = None;
        }
    }

    async fn push_one(&self, service: &str, entry: &Entry) -> Result<(), ControlError> {
        let before = self.pushed.get(service);
        let Some(route) = &entry.route else { return Ok(()) };
        // A hold must stand before the backends go, and end after they are there.
        if entry.hold.is_some() {
            self.put_route(before, route).await?;
            self.client.set_hold(service, entry.hold.clone()).await?;
            return self.client.set_backends(service, entry.backends.clone()).await;
        }
        if before.is_none() {
            // The route must exist before its backends; those it has from before stay until they are replaced.
            self.put_route(before, route).await?;
        }
        self.client.set_backends(service, entry.backends.clone()).await?;
        self.put_route(before, route).await?;
        self.client.set_hold(service, None).await
    }

    async fn put_route(&self, before: Option<&Entry>, route: &RouteConfig) -> Result<(), ControlError> {
        if before.is_none_or(|before| before.route.as_ref() != Some(route)) {
            self.client.put_route(route).await?;
        }
        Ok(())
    }

    /// Ends the proxy.
    pub(super) async fn stop(&mut self, limit: Duration) {
        let Some(process) = self.process.take() else { return };
        let _ = process.signal(Signal::TERM);
        if tokio::time::timeout(limit, wait_for_stranger(process)).await.is_err() {
            let _ = process.signal(Signal::KILL);
            wait_for_stranger(process).await;
        }
    }
}
