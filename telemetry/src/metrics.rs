//! The registry: series of the metrics in `catalogue`, with their labels checked and their number capped, and the text
//! that is scraped. What is measured is decided by who takes a handle; nothing is measured here.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use catalogue::{Kind, Metric};
use prometheus_client::metrics::counter::Counter as Counting;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge as Gauging;
use prometheus_client::metrics::histogram::Histogram as Observing;
use prometheus_client::registry::Registry;

/// Series that one metric may have; later ones are counted under [`OVERFLOW`].
const SERIES_PER_METRIC: usize = 2000;
/// Label value of whatever is over the cap or outside a closed list.
pub const OVERFLOW: &str = "_overflow";

type Labels = Vec<(&'static str, String)>;
type FloatCounter = Counting<f64, AtomicU64>;
type FloatGauge = Gauging<f64, AtomicU64>;

/// A counter of one series. Keep it instead of asking again where it is counted often. Clones share.
#[derive(Debug, Clone)]
pub struct Counter(CounterOf);

#[derive(Debug, Clone)]
enum CounterOf {
    Whole(Counting),
    Float(FloatCounter),
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        match &self.0 {
            CounterOf::Whole(counter) => {
                counter.inc_by(n);
            }
            CounterOf::Float(counter) => {
                counter.inc_by(n as f64);
            }
        }
    }

    /// The count so far.
    pub fn get(&self) -> f64 {
        match &self.0 {
            CounterOf::Whole(counter) => counter.get() as f64,
            CounterOf::Float(counter) => counter.get(),
        }
    }

    /// Takes over a total that is counted elsewhere (a snapshot); it must never shrink.
    pub fn set_total(&self, total: f64) {
        match &self.0 {
            CounterOf::Whole(counter) => counter.inner().store(total as u64, Ordering::Relaxed),
            CounterOf::Float(counter) => counter.inner().store(total.to_bits(), Ordering::Relaxed),
        }
    }
}

/// A gauge of one series. Clones share.
#[derive(Debug, Clone)]
pub struct Gauge(FloatGauge);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds, or takes away when negative.
    pub fn add(&self, value: f64) {
        self.0.inc_by(value);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

/// A histogram of one series. Clones share.
#[derive(Debug, Clone)]
pub struct Histogram(Observing);

impl Histogram {
    /// Observes a value in the metric's unit.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }

    /// Observes a duration of a metric in seconds.
    pub fn observe_duration(&self, value: Duration) {
        self.0.observe(value.as_secs_f64());
    }
}

/// Makes histograms with the buckets of one metric.
#[derive(Debug, Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Observing> for Buckets {
    fn new_metric(&self) -> Observing {
        Observing::new(self.0.iter().copied())
    }
}

#[derive(Debug)]
enum Series {
    Counter(Family<Labels, Counting>),
    FloatCounter(Family<Labels, FloatCounter>),
    Gauge(Family<Labels, FloatGauge>),
    Histogram(Family<Labels, Observing, Buckets>),
}

/// A metric's series and the label sets that it has, which `Family` does not tell.
#[derive(Debug)]
struct Known {
    series: Series,
    labels: RwLock<HashSet<Labels>>,
}

impl Known {
    /// Whether a series of these labels is there or may be made.
    fn admits(&self, labels: &Labels) -> bool {
        if self
            .labels
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(labels)
        {
            return true;
        }
        let mut known = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SERIES_PER_METRIC && !known.contains(labels) {
            return false;
        }
        known.insert(labels.clone());
        true
    }
}

type Hook = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of one process. Clones share.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    families: RwLock<HashMap<&'static str, Arc<Known>>>,
    hooks: RwLock<Vec<Hook>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of these label values, in the order of the catalogue's entry; made with value 0 when it is new, so
    /// that the first increment is visible to `rate()`.
    pub fn counter<const N: usize>(&self, handle: catalogue::Counter<N>, labels: [&str; N]) -> Counter {
        let (family, labels) = self.series(handle.metric(), &labels);
        Counter(match &family.series {
            Series::Counter(family) => CounterOf::Whole(family.get_or_create_owned(&labels)),
            Series::FloatCounter(family) => CounterOf::Float(family.get_or_create_owned(&labels)),
            // The handle's type and the metric's kind are made by the same line of the catalogue.
            Series::Gauge(_) | Series::Histogram(_) => CounterOf::Whole(Counting::default()),
        })
    }

    /// The gauge of these label values.
    pub fn gauge<const N: usize>(&self, handle: catalogue::Gauge<N>, labels: [&str; N]) -> Gauge {
        let (family, labels) = self.series(handle.metric(), &labels);
        Gauge(match &family.series {
            Series::Gauge(family) => family.get_or_create_owned(&labels),
            _ => FloatGauge::default(),
        })
    }

    /// The histogram of these label values.
    pub fn histogram<const N: usize>(&self, handle: catalogue::Histogram<N>, labels: [&str; N]) -> Histogram {
        let (family, labels) = self.series(handle.metric(), &labels);
        Histogram(match &family.series {
            Series::Histogram(family) => family.get_or_create_owned(&labels),
            _ => Observing::new(std::iter::empty()),
        })
    }

    /// Runs `hook` before every scrape: for gauges that are read rather than counted.
    pub fn on_scrape(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        self.inner
            .hooks
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(hook));
    }

    /// The family of a metric and the labels under which to count.
    fn series(&self, metric: &'static Metric, values: &[&str]) -> (Arc<Known>, Labels) {
        let family = self.family(metric);
        let mut overflow = false;
        let mut labels: Labels = Vec::with_capacity(values.len());
        for (index, label) in metric.labels.iter().enumerate() {
            let value = values[index];
            let allowed = metric.allows(index, value);
            overflow |= !allowed;
            labels.push((label.name, if allowed { value.to_owned() } else { OVERFLOW.to_owned() }));
        }
        if !overflow && !labels.is_empty() {
            overflow = !family.admits(&labels);
            if overflow {
                for (_, value) in &mut labels {
                    OVERFLOW.clone_into(value);
                }
            }
        }
        if overflow {
            self.counter(catalogue::TELEMETRY_METRIC_CARDINALITY_OVERFLOW_TOTAL, [])
                .inc();
        }
        (family, labels)
    }

    fn family(&self, metric: &'static Metric) -> Arc<Known> {
        if let Some(family) = self
            .inner
            .families
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(metric.name)
        {
            return Arc::clone(family);
        }
        let mut families = self.inner.families.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(family) = families.get(metric.name) {
            return Arc::clone(family);
        }
        let mut registry = self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // The encoder adds `_total` and the full stop by itself.
        let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let help = metric.help.trim_end_matches('.');
        let series = match metric.kind {
            Kind::Counter if metric.unit == catalogue::Unit::Seconds => {
                let family = Family::default();
                registry.register(name, help, Family::clone(&family));
                Series::FloatCounter(family)
            }
            Kind::Counter => {
                let family = Family::default();
                registry.register(name, help, Family::clone(&family));
                Series::Counter(family)
            }
            Kind::Gauge => {
                let family = Family::default();
                registry.register(name, help, Family::clone(&family));
                Series::Gauge(family)
            }
            Kind::Histogram => {
                let family = Family::new_with_constructor(Buckets(metric.buckets));
                registry.register(name, help, Family::clone(&family));
                Series::Histogram(family)
            }
        };
        let family = Arc::new(Known {
            series,
            labels: RwLock::default(),
        });
        families.insert(metric.name, Arc::clone(&family));
        family
    }

    /// Everything as OpenMetrics 1.0 text.
    pub fn encode_openmetrics(&self) -> String {
        for hook in &*self.inner.hooks.read().unwrap_or_else(PoisonError::into_inner) {
            hook(self);
        }
        let registry = self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(16 * 1024);
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    /// Everything as the classic Prometheus text, format 0.0.4.
    pub fn encode(&self) -> String {
        classic(&self.encode_openmetrics())
    }
}

/// Turns OpenMetrics into the classic format, which names a counter's family with `_total` and has no `# EOF`.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")) {
            let word = &line[..7];
            let (name, tail) = rest.split_once(' ').unwrap_or((rest, ""));
            let total = format!("{name}_total");
            let name = if catalogue::find(name).is_none() && catalogue::find(&total).is_some() {
                &total
            } else {
                name
            };
            let _ = writeln!(text, "{word}{name} {tail}");
        } else if line.starts_with('#') {
            // `# EOF` and `# UNIT` are OpenMetrics' own.
        } else {
            // Whole numbers and bare names read better, and mean the same.
            let line = line.strip_suffix(".0").unwrap_or(line);
            match line.split_once("{} ") {
                Some((name, value)) if !name.contains('{') => {
                    let _ = writeln!(text, "{name} {value}");
                }
                _ => {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
    }
    text
}
