//! One service as the workers see it: an immutable picture of its configuration that is swapped as a whole, and the
//! choice of version and instance for a request. Not the control plane that changes it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderMap;
use opsctl_proxy_control::{Backend, Hold, Route, RouteConfig, RuleSource, Weight};
use tokio::time::Instant;

use crate::choice::{least_loaded, takes_share};
use crate::counters::{Cells, RouteCounters};
use crate::fault::FaultSet;
use crate::headers;

/// How long an instance that refused a connection gets no requests while others can take them.
const EJECTION: Duration = Duration::from_secs(1);

/// A service that the proxy serves.
pub(crate) struct LiveRoute {
    pub(crate) service: String,
    pub(crate) picture: ArcSwap<Picture>,
    pub(crate) counters: RouteCounters,
    pub(crate) faults: FaultSet,
    /// Lets instances with equal load take turns.
    turn: AtomicUsize,
}

/// What is configured, at one moment.
pub(crate) struct Picture {
    pub(crate) config: RouteConfig,
    pub(crate) backends: Vec<Backend>,
    pub(crate) hold: Option<Hold>,
    pub(crate) weight: Option<Arc<LiveWeight>>,
    pub(crate) objective: Duration,
    /// None for no limit.
    pub(crate) response_timeout: Option<Duration>,
    versions: BTreeMap<String, Arc<Version>>,
}

/// A version and its ready instances.
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) cells: Arc<Cells>,
    instances: Vec<Arc<Instance>>,
}

/// A ready instance.
pub(crate) struct Instance {
    pub(crate) backend: Backend,
    pub(crate) cells: Arc<Cells>,
    started: Instant,
    /// Milliseconds after `started` until which it is ejected.
    ejected_until: AtomicU64,
}

/// A weight and its lease.
pub(crate) struct LiveWeight {
    pub(crate) version: String,
    pub(crate) percent: u8,
    pub(crate) holder: String,
    started: Instant,
    /// Milliseconds after `started` at which the lease ends.
    ends_ms: AtomicU64,
    seed: u64,
    requests: AtomicU64,
}

impl LiveWeight {
    pub(crate) fn new(weight: &Weight, now: Instant) -> Self {
        let live = Self {
            version: weight.version.clone(),
            percent: weight.percent,
            holder: weight.holder.clone(),
            started: now,
            ends_ms: AtomicU64::new(0),
            seed: rand::random(),
            requests: AtomicU64::new(0),
        };
        live.renew(weight.ttl_seconds, now);
        live
    }

    pub(crate) fn renew(&self, ttl_seconds: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.started).as_millis() as u64;
        self.ends_ms.store(elapsed + ttl_seconds * 1000, Relaxed);
    }

    pub(crate) fn left(&self, now: Instant) -> Duration {
        let end = Duration::from_millis(self.ends_ms.load(Relaxed));
        end.saturating_sub(now.saturating_duration_since(self.started))
    }

    pub(crate) fn lapsed(&self, now: Instant) -> bool {
        self.left(now).is_zero()
    }

    /// As the protocol shows it.
    pub(crate) fn show(&self, now: Instant) -> Weight {
        let lapsed = self.lapsed(now);
        Weight {
            version: self.version.clone(),
            percent: if lapsed { 0 } else { self.percent },
            ttl_seconds: self.left(now).as_secs_f64().ceil() as u64,
            holder: self.holder.clone(),
            lapsed_percent: lapsed.then_some(self.percent),
        }
    }

    /// Whether the next request goes to this version.
    fn takes_next(&self, now: Instant) -> bool {
        if self.lapsed(now) {
            return false;
        }
        let n = self.requests.fetch_add(1, Relaxed);
        takes_share(n, self.percent, self.seed)
    }
}

impl LiveRoute {
    pub(crate) fn new(route: &Route, now: Instant) -> Self {
        let counters = RouteCounters::default();
        let weight = route
            .weight
            .as_ref()
            .map(|weight| Arc::new(LiveWeight::new(weight, now)));
        let parts = Parts {
            config: route.config.clone(),
            backends: route.backends.clone(),
            hold: route.hold.clone(),
            weight,
        };
        let picture = Picture::new(parts, &counters, None, now);
        Self {
            service: route.config.service.clone(),
            picture: ArcSwap::from_pointee(picture),
            counters,
            faults: FaultSet::new(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Swaps the picture; instances that stay keep their state.
    pub(crate) fn change(&self, parts: Parts, now: Instant) {
        let before = self.picture.load_full();
        let picture = Picture::new(parts, &self.counters, Some(&before), now);
        self.picture.store(Arc::new(picture));
    }

    /// As the protocol shows it.
    pub(crate) fn show(&self, now: Instant) -> Route {
        let picture = self.picture.load();
        Route {
            config: picture.config.clone(),
            backends: picture.backends.clone(),
            hold: picture.hold.clone(),
            weight: picture.weight.as_ref().map(|weight| weight.show(now)),
        }
    }

    /// The instance for the next attempt, other than those `tried`. An ejected one only when there is no other.
    pub(crate) fn choose_instance(
        &self,
        version: &Version,
        grpc: bool,
        tried: &[SocketAddr],
        now: Instant,
    ) -> Option<(Arc<Instance>, SocketAddr)> {
        let instances = &version.instances;
        let turn = self.turn.fetch_add(1, Relaxed);
        let load = |ejected: bool| {
            move |index: usize| {
                let instance: &Instance = &instances[index];
                let addr = instance.addr(grpc)?;
                let usable = !tried.contains(&addr) && (ejected || !instance.is_ejected(now));
                usable.then(|| instance.cells.in_flight.load(Relaxed))
            }
        };
        let index = least_loaded(instances.len(), turn, load(false))
            .or_else(|| least_loaded(instances.len(), turn, load(true)))?;
        let instance = &instances[index];
        Some((Arc::clone(instance), instance.addr(grpc)?))
    }
}

/// The parts of a [`Picture`] that are configured.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: RouteConfig,
    pub(crate) backends: Vec<Backend>,
    pub(crate) hold: Option<Hold>,
    pub(crate) weight: Option<Arc<LiveWeight>>,
}

impl Picture {
    fn new(parts: Parts, counters: &RouteCounters, before: Option<&Picture>, now: Instant) -> Self {
        let Parts {
            config,
            backends,
            hold,
            weight,
        } = parts;
        let mut ready: BTreeMap<String, Vec<Arc<Instance>>> = BTreeMap::new();
        ready.entry(config.stable_version.clone()).or_default();
        for backend in &backends {
            let cells = counters.instance(&backend.instance, &backend.version);
            let instances = ready.entry(backend.version.clone()).or_default();
            if !backend.ready {
                continue;
            }
            let known = before
                .and_then(|before| before.versions.get(&backend.version))
                .and_then(|version| version.instances.iter().find(|instance| instance.backend == *backend));
            instances.push(known.cloned().unwrap_or_else(|| {
                Arc::new(Instance {
                    backend: backend.clone(),
                    cells,
                    started: now,
                    ejected_until: AtomicU64::new(0),
                })
            }));
        }
        let versions = ready
            .into_iter()
            .map(|(name, instances)| {
                let cells = counters.version(&name);
                (name.clone(), Arc::new(Version { name, cells, instances }))
            })
            .collect();
        Self {
            objective: Duration::from_millis(config.latency_objective_ms),
            response_timeout: (config.response_timeout_ms > 0)
                .then(|| Duration::from_millis(config.response_timeout_ms)),
            config,
            backends,
            hold,
            weight,
            versions,
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts {
            config: self.config.clone(),
            backends: self.backends.clone(),
            hold: self.hold.clone(),
            weight: self.weight.clone(),
        }
    }

    /// The version for a request: the signed mark, then header rules, then cookie rules, then the weight, then the
    /// stable version. A version without a ready instance is passed over; none when the stable one has none either.
    pub(crate) fn choose_version(
        &self,
        mark: Option<&str>,
        headers: &HeaderMap,
        now: Instant,
    ) -> Option<&Arc<Version>> {
        let able = |name: &str| self.versions.get(name).filter(|version| !version.instances.is_empty());
        if let Some(version) = mark.and_then(able) {
            return Some(version);
        }
        for source in [RuleSource::Header, RuleSource::Cookie] {
            let rules = self.config.rules.iter().filter(|rule| rule.source == source);
            for rule in rules {
                if headers::matches(rule, headers)
                    && let Some(version) = able(&rule.version)
                {
                    return Some(version);
                }
            }
        }
        if let Some(weight) = &self.weight
            && weight.takes_next(now)
            && let Some(version) = able(&weight.version)
        {
            return Some(version);
        }
        able(&self.config.stable_version)
    }

    /// Whether an instance serves at this address and is ready.
    pub(crate) fn serves(&self, addr: SocketAddr) -> bool {
        self.backends
            .iter()
            .any(|backend| backend.ready && (backend.http == Some(addr) || backend.grpc == Some(addr)))
    }
}

impl Instance {
    fn addr(&self, grpc: bool) -> Option<SocketAddr> {
        if grpc { self.backend.grpc } else { self.backend.http }
    }

    fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until > 0 && now.saturating_duration_since(self.started).as_millis() < u128::from(until)
    }

    /// Gives it no requests for a while, as long as others can take them.
    pub(crate) fn eject(&self, now: Instant) {
        let until = now.saturating_duration_since(self.started) + EJECTION;
        self.ejected_until.store(until.as_millis() as u64, Relaxed);
        self.cells.connect_failures.fetch_add(1, Relaxed);
    }
}
