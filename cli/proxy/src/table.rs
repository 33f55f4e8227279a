//! The control plane: all routes, and every change of them. A change is checked, written to the state file, and only
//! then put into force. Not the protocol in which changes arrive.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_proxy_control::{
    Backend, Counters, Fault, FaultKind, Hold, MAX_FAULT_TTL_SECONDS, MAX_RESPONSE_TIMEOUT_MS, MAX_WEIGHT_TTL_SECONDS,
    Refusal, RefusalCode, Route, RouteConfig, RuleSource, Weight, WeightChange, WeightRenewal,
};
use tokio::time::Instant;

use crate::ProxyError;
use crate::client::Protocol;
use crate::listener::Listener;
use crate::route::{LiveRoute, LiveWeight, Parts};
use crate::state::State;
use crate::worker::Workers;

/// How long a starting proxy waits for the ports of one that is just ending.
const REBIND_FOR: Duration = Duration::from_secs(5);
const REBIND_EVERY: Duration = Duration::from_millis(50);

/// Every route and what is needed to change them.
pub(crate) struct Table {
    pub(crate) revision: u64,
    pub(crate) boot_id: String,
    routes: BTreeMap<String, Entry>,
    workers: Arc<Workers>,
    state_file: PathBuf,
}

struct Entry {
    live: Arc<LiveRoute>,
    http: Option<Listener>,
    grpc: Option<Listener>,
}

impl Table {
    /// Takes up the saved routes on their ports.
    pub(crate) async fn restore(
        state: State,
        state_file: PathBuf,
        boot_id: String,
        workers: Arc<Workers>,
    ) -> Result<Self, ProxyError> {
        let mut table = Self {
            revision: state.revision,
            boot_id,
            routes: BTreeMap::new(),
            workers,
            state_file,
        };
        let deadline = Instant::now() + REBIND_FOR;
        for route in state.routes {
            let live = Arc::new(LiveRoute::new(&route, Instant::now()));
            let mut entry = Entry {
                live,
                http: None,
                grpc: None,
            };
            for protocol in [Protocol::Http, Protocol::Grpc] {
                let Some(addr) = wanted(&route.config, protocol) else {
                    continue;
                };
                let listener = loop {
                    match Listener::bind(addr, protocol, &entry.live, &table.workers).await {
                        Ok(listener) => break listener,
                        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                            if Instant::now() >= deadline {
                                return Err(ProxyError::PortTaken { addr });
                            }
                            tokio::time::sleep(REBIND_EVERY).await;
                        }
                        Err(source) => return Err(ProxyError::Listen { addr, source }),
                    }
                };
                *entry.listener(protocol) = Some(listener);
            }
            table.routes.insert(route.config.service.clone(), entry);
        }
        Ok(table)
    }

    /// Stops listening; connections end after the requests that they have.
    pub(crate) fn close(&mut self) {
        for entry in self.routes.values_mut() {
            entry.http = None;
            entry.grpc = None;
            entry.live.faults.clear();
        }
    }

    pub(crate) fn routes(&self) -> Vec<Route> {
        let now = Instant::now();
        self.routes.values().map(|entry| entry.live.show(now)).collect()
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = &Arc<LiveRoute>> {
        self.routes.values().map(|entry| &entry.live)
    }

    pub(crate) async fn put_route(&mut self, mut config: RouteConfig) -> Result<Route, Refusal> {
        check_config(&config)?;
        let now = Instant::now();
        let service = config.service.clone();
        let (live, fresh) = if let Some(entry) = self.routes.get(&service) {
            (Arc::clone(&entry.live), false)
        } else {
            let route = Route {
                config: config.clone(),
                backends: Vec::new(),
                hold: None,
                weight: None,
            };
            (Arc::new(LiveRoute::new(&route, now)), true)
        };
        // New ports first: when one is taken, nothing has changed.
        let mut opened = Vec::new();
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let Some(addr) = wanted(&config, protocol) else {
                continue;
            };
            let kept = self
                .routes
                .get(&service)
                .and_then(|entry| entry.kept(protocol))
                .filter(|listener| listener.is(addr))
                .map(Listener::addr);
            let real = if let Some(real) = kept {
                real
            } else {
                let listener = Listener::bind(addr, protocol, &live, &self.workers)
                    .await
                    .map_err(|error| cannot_listen(addr, &error))?;
                let real = listener.addr();
                opened.push((protocol, listener));
                real
            };
            match protocol {
                Protocol::Http => config.http_listen = Some(real),
                Protocol::Grpc => config.grpc_listen = Some(real),
            }
        }
        let before = live.picture.load_full();
        if !fresh && before.config == config {
            return Ok(live.show(now));
        }
        let parts = Parts {
            config: config.clone(),
            ..before.parts()
        };
        self.save(&service, Some((&live, &parts))).await?;
        live.change(parts, now);
        let entry = self.routes.entry(service).or_insert_with(|| Entry {
            live: Arc::clone(&live),
            http: None,
            grpc: None,
        });
        for protocol in [Protocol::Http, Protocol::Grpc] {
            if wanted(&config, protocol).is_none() {
                *entry.listener(protocol) = None;
            }
        }
        for (protocol, listener) in opened {
            *entry.listener(protocol) = Some(listener);
        }
        Ok(live.show(now))
    }

    pub(crate) async fn delete_route(&mut self, service: &str) -> Result<(), Refusal> {
        if self.routes.contains_key(service) {
            self.save(service, None).await?;
            if let Some(entry) = self.routes.remove(service) {
                entry.live.faults.clear();
            }
        }
        Ok(())
    }

    pub(crate) async fn set_backends(&mut self, service: &str, backends: Vec<Backend>) -> Result<(), Refusal> {
        check_backends(&backends)?;
        let live = self.find(service)?;
        let before = live.picture.load_full();
        if before.backends == backends {
            return Ok(());
        }
        let parts = Parts {
            backends,
            ..before.parts()
        };
        self.save(service, Some((&live, &parts))).await?;
        live.change(parts, Instant::now());
        let after = live.picture.load();
        for backend in &before.backends {
            for addr in [backend.http, backend.grpc].into_iter().flatten() {
                if !after.serves(addr) {
                    self.workers.retire(addr);
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn set_hold(&mut self, service: &str, hold: Option<Hold>) -> Result<(), Refusal> {
        let live = self.find(service)?;
        let before = live.picture.load_full();
        if before.hold == hold {
            return Ok(());
        }
        let parts = Parts { hold, ..before.parts() };
        self.save(service, Some((&live, &parts))).await?;
        live.change(parts, Instant::now());
        Ok(())
    }

    pub(crate) fn weight(&self, service: &str) -> Result<Option<Weight>, Refusal> {
        let live = self.find(service)?;
        let picture = live.picture.load();
        Ok(picture.weight.as_ref().map(|weight| weight.show(Instant::now())))
    }

    pub(crate) async fn change_weight(&mut self, service: &str, change: WeightChange) -> Result<(), Refusal> {
        let live = self.find(service)?;
        let now = Instant::now();
        if let Some(weight) = &change.new {
            check_weight(weight)?;
        }
        let before = live.picture.load_full();
        let actual = before.weight.as_ref().map(|weight| weight.show(now));
        let as_expected = match (&actual, &change.expect) {
            (None, None) => true,
            (Some(actual), Some((version, percent))) => {
                actual.version == *version && (actual.percent == *percent || actual.lapsed_percent == Some(*percent))
            }
            _ => false,
        };
        if !as_expected {
            return Err(conflict("the weight is not what was expected", actual));
        }
        let weight = change.new.map(|weight| Arc::new(LiveWeight::new(&weight, now)));
        let parts = Parts {
            weight,
            ..before.parts()
        };
        self.save(service, Some((&live, &parts))).await?;
        live.change(parts, now);
        Ok(())
    }

    pub(crate) fn renew_weight(&self, service: &str, renewal: &WeightRenewal) -> Result<(), Refusal> {
        check_ttl(renewal.ttl_seconds, MAX_WEIGHT_TTL_SECONDS)?;
        let live = self.find(service)?;
        let now = Instant::now();
        let picture = live.picture.load();
        let Some(weight) = &picture.weight else {
            return Err(conflict("no weight is set", None));
        };
        if weight.holder != renewal.holder {
            return Err(conflict("another run holds the weight", Some(weight.show(now))));
        }
        if weight.lapsed(now) {
            return Err(conflict("the lease on the weight has run out", Some(weight.show(now))));
        }
        weight.renew(renewal.ttl_seconds, now);
        Ok(())
    }

    pub(crate) fn faults(&self, service: &str) -> Result<Vec<Fault>, Refusal> {
        Ok(self.find(service)?.faults.list(Instant::now()))
    }

    pub(crate) fn put_fault(&mut self, fault: Fault) -> Result<(), Refusal> {
        check_fault(&fault)?;
        let live = self.find(&fault.service)?;
        for other in self.routes.values() {
            if !Arc::ptr_eq(&other.live, &live) {
                other.live.faults.remove(&fault.id);
            }
        }
        let Some(active) = live.faults.put(fault, Instant::now()) else {
            return Ok(());
        };
        self.revision += 1;
        tokio::spawn(async move {
            active.over().await;
            live.faults.expire(&active);
        });
        Ok(())
    }

    pub(crate) fn delete_fault(&mut self, id: &str) {
        for entry in self.routes.values() {
            if entry.live.faults.remove(id) {
                self.revision += 1;
            }
        }
    }

    pub(crate) fn counters(&self, service: &str) -> Result<Counters, Refusal> {
        let live = self.find(service)?;
        let (held_rejections, probe_held_rejections, unrouted_errors, probe_unrouted_errors) = live.counters.rejected();
        Ok(Counters {
            at: Timestamp::now(),
            boot_id: self.boot_id.clone(),
            service: service.to_owned(),
            stable_version: live.picture.load().config.stable_version.clone(),
            versions: live.counters.read_versions(),
            instances: live.counters.read_instances(),
            held_rejections,
            unrouted_errors,
            probe_held_rejections,
            probe_unrouted_errors,
        })
    }

    fn find(&self, service: &str) -> Result<Arc<LiveRoute>, Refusal> {
        match self.routes.get(service) {
            Some(entry) => Ok(Arc::clone(&entry.live)),
            None => Err(refusal(
                RefusalCode::UnknownService,
                format!("no route for the service {service}"),
            )),
        }
    }

    /// Writes the state with `service` as it shall be (gone, when there is no change).
    async fn save(&mut self, service: &str, change: Option<(&Arc<LiveRoute>, &Parts)>) -> Result<(), Refusal> {
        let unchanged = self
            .routes
            .iter()
            .filter(|(name, _)| *name != service)
            .map(|(_, entry)| saved(&entry.live.picture.load().parts()));
        let routes = unchanged.chain(change.map(|(_, parts)| saved(parts))).collect();
        let revision = self.revision + 1;
        State::new(revision, routes)
            .save(self.state_file.clone())
            .await
            .map_err(|error| {
                refusal(
                    RefusalCode::Failed,
                    format!("the state file cannot be written: {error}"),
                )
            })?;
        self.revision = revision;
        Ok(())
    }
}

impl Entry {
    fn listener(&mut self, protocol: Protocol) -> &mut Option<Listener> {
        match protocol {
            Protocol::Http => &mut self.http,
            Protocol::Grpc => &mut self.grpc,
        }
    }

    fn kept(&self, protocol: Protocol) -> Option<&Listener> {
        match protocol {
            Protocol::Http => self.http.as_ref(),
            Protocol::Grpc => self.grpc.as_ref(),
        }
    }
}

/// A route as it is saved: its weight keeps its percentage and has no time left.
fn saved(parts: &Parts) -> Route {
    Route {
        config: parts.config.clone(),
        backends: parts.backends.clone(),
        hold: parts.hold.clone(),
        weight: parts.weight.as_ref().map(|weight| Weight {
            version: weight.version.clone(),
            percent: weight.percent,
            ttl_seconds: 0,
            holder: weight.holder.clone(),
            lapsed_percent: None,
        }),
    }
}

fn wanted(config: &RouteConfig, protocol: Protocol) -> Option<SocketAddr> {
    match protocol {
        Protocol::Http => config.http_listen,
        Protocol::Grpc => config.grpc_listen,
    }
}

fn cannot_listen(addr: SocketAddr, error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::AddrInUse {
        Refusal {
            addr: Some(addr),
            ..refusal(RefusalCode::PortTaken, format!("{addr} is taken by another process"))
        }
    } else {
        refusal(RefusalCode::Invalid, format!("cannot listen on {addr}: {error}"))
    }
}

fn check_config(config: &RouteConfig) -> Result<(), Refusal> {
    check_name("service", &config.service)?;
    check_name("stable version", &config.stable_version)?;
    if let (Some(http), Some(grpc)) = (config.http_listen, config.grpc_listen)
        && http == grpc
        && http.port() != 0
    {
        return Err(invalid(format!("{http} cannot serve both HTTP and gRPC")));
    }
    if config.response_timeout_ms > MAX_RESPONSE_TIMEOUT_MS {
        let ms = config.response_timeout_ms;
        return Err(invalid(format!(
            "a response time-out of {ms} ms is more than a day; 0 is no limit"
        )));
    }
    for rule in &config.rules {
        check_name("version", &rule.version)?;
        if rule.source == RuleSource::Header && http::HeaderName::try_from(&rule.name).is_err() {
            return Err(invalid(format!("{:?} is no header name", rule.name)));
        }
    }
    Ok(())
}

fn check_backends(backends: &[Backend]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for backend in backends {
        check_name("instance", &backend.instance)?;
        check_name("version", &backend.version)?;
        if !seen.insert(&backend.instance) {
            return Err(invalid(format!("the instance {} is listed twice", backend.instance)));
        }
    }
    Ok(())
}

fn check_weight(weight: &Weight) -> Result<(), Refusal> {
    check_name("version", &weight.version)?;
    if weight.percent > 100 {
        return Err(invalid(format!("a weight of {} % is more than all", weight.percent)));
    }
    if weight.holder.is_empty() {
        return Err(invalid("a weight needs a holder"));
    }
    check_ttl(weight.ttl_seconds, MAX_WEIGHT_TTL_SECONDS)
}

pub(crate) fn check_fault(fault: &Fault) -> Result<(), Refusal> {
    check_name("fault", &fault.id)?;
    if !(fault.percent > 0.0 && fault.percent <= 100.0) {
        return Err(invalid(format!("{} % of the requests cannot be hit", fault.percent)));
    }
    match fault.kind {
        FaultKind::Latency { ms, jitter_ms } if jitter_ms > ms || ms > 600_000 => {
            return Err(invalid(
                "the jitter must not exceed the latency, nor the latency ten minutes",
            ));
        }
        FaultKind::Error { status } if !(400..=599).contains(&status) => {
            return Err(invalid(format!("{status} is no error status")));
        }
        _ => {}
    }
    check_ttl(fault.ttl_seconds, MAX_FAULT_TTL_SECONDS)
}

fn check_ttl(seconds: u64, most: u64) -> Result<(), Refusal> {
    if (1..=most).contains(&seconds) {
        Ok(())
    } else {
        Err(invalid(format!(
            "a time to live of {seconds} s is not between 1 and {most} s"
        )))
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
    if name.is_empty() || name.len() > 200 || !name.bytes().all(plain) {
        return Err(invalid(format!(
            "{name:?} is no name of a {what}: letters, digits and '-', '_', '.', '+' only"
        )));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Refusal {
    refusal(RefusalCode::Invalid, message)
}

fn conflict(message: &str, actual: Option<Weight>) -> Refusal {
    Refusal {
        actual: actual.map(Box::new),
        ..refusal(RefusalCode::Conflict, message)
    }
}

pub(crate) fn refusal(code: RefusalCode, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
        addr: None,
        actual: None,
    }
}
