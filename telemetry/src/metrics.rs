//! The registry: series of the metrics in `catalogue`, with their labels checked and their number capped, and the text
//! that is scraped. What is measured is decided by who takes a handle; nothing is measured here.
//!
//! It is our own, since prometheus-client's exemplars put a lock into every observation, its text is OpenMetrics alone,
//! and it does not tell how many series there are: see `docs/decisions/0006-own-metrics-registry.md`.

mod family;
pub(crate) mod memo;
mod push;
mod settings;
mod text;
mod value;
mod wire;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use catalogue::Metric;

use crate::server::RpcNames;
pub use family::OVERFLOW;
use family::{Family, Value};
pub use settings::MetricsSettings;
pub(crate) use text::Format;
pub use value::{Counter, Exemplar, Gauge, Histogram};

type Hook = Arc<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one process. Clones share.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    /// Every metric of the catalogue, in its order. Nothing is added later, so that finding one takes no lock.
    families: Vec<Family>,
    places: HashMap<&'static str, usize>,
    hooks: RwLock<Vec<Hook>>,
    overflow: Counter,
    exemplars: AtomicBool,
    rpc_names: RwLock<RpcNames>,
    /// Bytes of the last text, the next one's likely size.
    size: AtomicUsize,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        let families: Vec<Family> = catalogue::ALL.iter().map(|metric| Family::new(metric)).collect();
        let places = families.iter().enumerate();
        let mut inner = Inner {
            places: places.map(|(place, family)| (family.metric.name, place)).collect(),
            families,
            hooks: RwLock::default(),
            overflow: Counter::default(),
            exemplars: AtomicBool::new(true),
            rpc_names: RwLock::default(),
            size: AtomicUsize::new(16 * 1024),
        };
        let overflow = catalogue::TELEMETRY_METRIC_CARDINALITY_OVERFLOW_TOTAL.metric();
        if let (Value::Counter(overflow), _) = inner.value(overflow, &[]) {
            inner.overflow = overflow;
        }
        Self { inner: Arc::new(inner) }
    }

    /// The counter of these label values, in the order of the catalogue's entry; made with value 0 when it is new, so
    /// that the first increment is visible to `rate()`.
    ///
    /// There is no counter but of a handle from the catalogue, with as many values as it has labels:
    ///
    /// ```compile_fail,E0308
    /// telemetry::Metrics::new().counter("orders_created_total", []);
    /// ```
    /// ```compile_fail,E0308
    /// telemetry::Metrics::new().counter(catalogue::SAGA_STEPS_TOTAL, ["payment"]);
    /// ```
    /// ```compile_fail,E0308
    /// telemetry::Metrics::new().counter(catalogue::ORDERS_OPEN, []);
    /// ```
    pub fn counter<const N: usize>(&self, handle: catalogue::Counter<N>, labels: [&str; N]) -> Counter {
        match self.inner.checked(handle.metric(), &labels) {
            Value::Counter(counter) => counter,
            // The handle's type and the metric's kind are made by the same line of the catalogue.
            Value::Gauge(_) | Value::Histogram(_) => Counter::default(),
        }
    }

    /// The gauge of these label values.
    pub fn gauge<const N: usize>(&self, handle: catalogue::Gauge<N>, labels: [&str; N]) -> Gauge {
        match self.inner.checked(handle.metric(), &labels) {
            Value::Gauge(gauge) => gauge,
            Value::Counter(_) | Value::Histogram(_) => Gauge::default(),
        }
    }

    /// The histogram of these label values.
    pub fn histogram<const N: usize>(&self, handle: catalogue::Histogram<N>, labels: [&str; N]) -> Histogram {
        match self.inner.checked(handle.metric(), &labels) {
            Value::Histogram(histogram) => histogram,
            Value::Counter(_) | Value::Gauge(_) => Histogram::new(handle.metric().buckets),
        }
    }

    /// Runs `hook` before every scrape: for gauges that are read rather than counted.
    pub fn on_scrape(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.inner
            .hooks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::new(hook));
    }

    /// Everything as OpenMetrics 1.0 text, with exemplars.
    pub fn encode_openmetrics(&self) -> String {
        let exemplars = self.has_exemplars();
        self.encode_as(Format::OpenMetrics { exemplars })
    }

    /// Everything as the classic Prometheus text, format 0.0.4.
    pub fn encode(&self) -> String {
        self.encode_as(Format::Classic)
    }

    pub(crate) fn encode_as(&self, format: Format) -> String {
        self.read_hooks();
        let size = self.inner.size.load(Ordering::Relaxed);
        let mut out = String::with_capacity(size + size / 8);
        text::write(&mut out, self.inner.families.iter(), format);
        self.inner.size.store(out.len(), Ordering::Relaxed);
        out
    }

    /// Has everything read that is read rather than counted.
    fn read_hooks(&self) {
        // The lock is not held meanwhile: a hook may add another one.
        let hooks = self.inner.hooks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for hook in hooks {
            hook(self);
        }
    }

    /// Whether traces are to be put beside observations.
    pub(crate) fn has_exemplars(&self) -> bool {
        self.inner.exemplars.load(Ordering::Relaxed)
    }

    fn set_exemplars(&self, wanted: bool) {
        self.inner.exemplars.store(wanted, Ordering::Relaxed);
    }

    /// Names of gRPC calls that layers made from now on export too.
    pub(crate) fn rpc_names(&self) -> RpcNames {
        *self.inner.rpc_names.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_rpc_names(&self, names: RpcNames) {
        *self.inner.rpc_names.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    fn families(&self) -> &[Family] {
        &self.inner.families
    }
}

impl Inner {
    fn value(&self, metric: &'static Metric, labels: &[&str]) -> (Value, bool) {
        match self.places.get(metric.name) {
            Some(place) => self.families[*place].value(labels),
            // Unreachable: handles are of the catalogue's metrics. Counted nowhere rather than with a panic.
            None => Family::new(metric).value(labels),
        }
    }

    fn checked(&self, metric: &'static Metric, labels: &[&str]) -> Value {
        let (value, overflowed) = self.value(metric, labels);
        if overflowed {
            self.overflow.inc();
        }
        value
    }
}
