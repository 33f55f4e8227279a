//! What is counted, exactly once a request, with atomics that all workers share. Not how it is shown.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opsctl_proxy_control::{InstanceCounters, VersionCounters};
use tokio::time::Instant;

/// Upper bounds of the duration buckets, in seconds; those of the catalogue's entry.
pub(crate) const BUCKETS: &[f64] = catalogue::PROXY_REQUEST_DURATION_SECONDS.metric().buckets;
const BUCKET_COUNT: usize = BUCKETS.len() + 1;

/// Status classes, as the metric's `code` label says them; the last is for requests that got no status.
pub(crate) const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The figures of one version or one instance.
#[derive(Default)]
pub(crate) struct Cells {
    pub(crate) in_flight: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    over_objective: AtomicU64,
    probe_requests: AtomicU64,
    probe_errors: AtomicU64,
    probe_over_objective: AtomicU64,
    pub(crate) connect_failures: AtomicU64,
    pub(crate) codes: [AtomicU64; CODES.len()],
    pub(crate) buckets: [AtomicU64; BUCKET_COUNT],
    pub(crate) duration_micros: AtomicU64,
}

impl Cells {
    fn count(&self, end: &End) {
        let over = u64::from(end.over_objective);
        let error = u64::from(end.error);
        if end.probe {
            self.probe_errors.fetch_add(error, Relaxed);
            self.probe_over_objective.fetch_add(over, Relaxed);
            self.probe_requests.fetch_add(1, Relaxed);
        } else {
            self.errors.fetch_add(error, Relaxed);
            self.over_objective.fetch_add(over, Relaxed);
            self.requests.fetch_add(1, Relaxed);
        }
    }

    fn observe(&self, end: &End) {
        self.codes[end.code].fetch_add(1, Relaxed);
        let seconds = end.duration.as_secs_f64();
        let bucket = BUCKETS
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        let micros = u64::try_from(end.duration.as_micros()).unwrap_or(u64::MAX);
        self.duration_micros.fetch_add(micros, Relaxed);
    }

    /// Errors and slow requests, probes included: for the metrics.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (
            self.errors.load(Relaxed) + self.probe_errors.load(Relaxed),
            self.over_objective.load(Relaxed) + self.probe_over_objective.load(Relaxed),
        )
    }

    /// Reads parts before wholes, so that a reading never shows more errors than requests.
    fn version(&self, version: &str) -> VersionCounters {
        let errors = self.errors.load(Relaxed);
        let over_objective = self.over_objective.load(Relaxed);
        let probe_errors = self.probe_errors.load(Relaxed);
        let probe_over_objective = self.probe_over_objective.load(Relaxed);
        VersionCounters {
            version: version.to_owned(),
            requests: self.requests.load(Relaxed).max(errors),
            errors,
            over_objective,
            in_flight: self.in_flight.load(Relaxed),
            probe_requests: self.probe_requests.load(Relaxed).max(probe_errors),
            probe_errors,
            probe_over_objective,
        }
    }
}

struct End {
    duration: Duration,
    over_objective: bool,
    error: bool,
    probe: bool,
    code: usize,
}

/// All figures of one service.
#[derive(Default)]
pub(crate) struct RouteCounters {
    versions: Mutex<BTreeMap<String, Arc<Cells>>>,
    instances: Mutex<BTreeMap<String, (String, Arc<Cells>)>>,
    held: AtomicU64,
    probe_held: AtomicU64,
    unrouted: AtomicU64,
    probe_unrouted: AtomicU64,
}

impl RouteCounters {
    /// The cells of a version, made at first sight.
    pub(crate) fn version(&self, version: &str) -> Arc<Cells> {
        let mut versions = lock(&self.versions);
        Arc::clone(versions.entry(version.to_owned()).or_default())
    }

    /// The cells of an instance, which runs `version` now.
    pub(crate) fn instance(&self, instance: &str, version: &str) -> Arc<Cells> {
        let mut instances = lock(&self.instances);
        let (runs, cells) = instances.entry(instance.to_owned()).or_default();
        version.clone_into(runs);
        Arc::clone(cells)
    }

    pub(crate) fn held(&self, probe: bool) {
        let cell = if probe { &self.probe_held } else { &self.held };
        cell.fetch_add(1, Relaxed);
    }

    pub(crate) fn unrouted(&self, probe: bool) {
        let cell = if probe { &self.probe_unrouted } else { &self.unrouted };
        cell.fetch_add(1, Relaxed);
    }

    /// Held and unrouted requests: (held, probes held, unrouted, probes unrouted).
    pub(crate) fn rejected(&self) -> (u64, u64, u64, u64) {
        (
            self.held.load(Relaxed),
            self.probe_held.load(Relaxed),
            self.unrouted.load(Relaxed),
            self.probe_unrouted.load(Relaxed),
        )
    }

    pub(crate) fn read_versions(&self) -> Vec<VersionCounters> {
        self.each_version(|version, cells| cells.version(version))
    }

    pub(crate) fn each_version<T>(&self, mut read: impl FnMut(&str, &Cells) -> T) -> Vec<T> {
        lock(&self.versions)
            .iter()
            .map(|(version, cells)| read(version, cells))
            .collect()
    }

    pub(crate) fn read_instances(&self) -> Vec<InstanceCounters> {
        lock(&self.instances)
            .iter()
            .map(|(instance, (version, cells))| {
                let figures = cells.version(version);
                InstanceCounters {
                    instance: instance.clone(),
                    version: figures.version,
                    requests: figures.requests,
                    errors: figures.errors,
                    over_objective: figures.over_objective,
                    in_flight: figures.in_flight,
                    probe_requests: figures.probe_requests,
                    probe_errors: figures.probe_errors,
                    probe_over_objective: figures.probe_over_objective,
                    connect_failures: cells.connect_failures.load(Relaxed),
                }
            })
            .collect()
    }
}

/// A panic while counting leaves whole numbers behind, so the map is still good.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request under way. Counts it when it ends, also when it is dropped because the client has gone.
pub(crate) struct Flight {
    version: Option<Arc<Cells>>,
    instance: Option<Arc<Cells>>,
    started: Instant,
    objective: Duration,
    probe: bool,
    /// Set when the latency is that of the response headers.
    headers_after: Option<Duration>,
    code: usize,
    /// While a fault keeps the request from being answered, its client leaving is an error.
    swallowed: bool,
}

impl Flight {
    pub(crate) fn new(version: Arc<Cells>, started: Instant, objective: Duration, probe: bool) -> Self {
        version.in_flight.fetch_add(1, Relaxed);
        Self {
            version: Some(version),
            instance: None,
            started,
            objective,
            probe,
            headers_after: None,
            code: CODES.len() - 1,
            swallowed: false,
        }
    }

    /// The request goes to this instance; an earlier one did not get it.
    pub(crate) fn attempt(&mut self, instance: &Arc<Cells>) {
        self.leave_instance();
        instance.in_flight.fetch_add(1, Relaxed);
        self.instance = Some(Arc::clone(instance));
    }

    /// The instance could not be reached.
    pub(crate) fn leave_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            instance.in_flight.fetch_sub(1, Relaxed);
        }
    }

    /// The response headers came, and their time is what the objective speaks of.
    pub(crate) fn headers_count(&mut self, now: Instant) {
        self.headers_after = Some(now.saturating_duration_since(self.started));
    }

    pub(crate) fn status(&mut self, status: http::StatusCode) {
        self.code = usize::from(status.as_u16() / 100 - 1).min(4);
    }

    pub(crate) fn swallowed(&mut self, swallowed: bool) {
        self.swallowed = swallowed;
    }

    /// The request has ended.
    pub(crate) fn finish(mut self, error: bool) {
        self.end(error);
    }

    /// No instance had it: it is not the version's.
    pub(crate) fn forget(mut self) {
        self.leave_instance();
        if let Some(version) = self.version.take() {
            version.in_flight.fetch_sub(1, Relaxed);
        }
    }

    /// Counts the request now, though it is not dropped yet.
    pub(crate) fn end(&mut self, error: bool) {
        let Some(version) = self.version.take() else {
            return;
        };
        let duration = self.headers_after.unwrap_or_else(|| self.started.elapsed());
        let end = End {
            duration,
            over_objective: duration > self.objective,
            error,
            probe: self.probe,
            code: self.code,
        };
        version.count(&end);
        version.observe(&end);
        version.in_flight.fetch_sub(1, Relaxed);
        if let Some(instance) = self.instance.take() {
            instance.count(&end);
            instance.in_flight.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let error = self.swallowed;
        self.end(error);
    }
}
