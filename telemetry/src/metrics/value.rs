//! What a series counts: a counter, a gauge, a histogram with its exemplars. Each is a handle on a few atomics, without
//! a lock on the way of whoever counts. Names and labels are not here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use crate::{SpanExt as _, SpanIds};

/// A counter of one series. Keep it instead of asking again where it is counted often. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Counter {
    /// A whole number, or the bits of an `f64` that is never negative.
    cell: Arc<AtomicU64>,
    is_float: bool,
}

impl Counter {
    pub(crate) fn new(is_float: bool) -> Self {
        Self {
            cell: Arc::default(),
            is_float,
        }
    }

    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `n`.
    pub fn inc_by(&self, n: u64) {
        if self.is_float {
            add(&self.cell, n as f64);
        } else {
            self.cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The count so far.
    pub fn get(&self) -> f64 {
        let bits = self.cell.load(Ordering::Relaxed);
        if self.is_float {
            f64::from_bits(bits)
        } else {
            bits as f64
        }
    }

    /// The count if it is a whole number by its kind.
    pub(crate) fn whole(&self) -> Option<u64> {
        (!self.is_float).then(|| self.cell.load(Ordering::Relaxed))
    }

    /// Takes over a total that is counted elsewhere (a snapshot). A smaller one than is known changes nothing: of two
    /// snapshots that are taken over at one time, the later one stays, and a reader never sees the counter fall.
    pub fn set_total(&self, total: f64) {
        let total = total.max(0.0);
        // Floats that are not negative are ordered as their bits are.
        let bits = if self.is_float { total.to_bits() } else { total as u64 };
        self.cell.fetch_max(bits, Ordering::Relaxed);
    }
}

/// A gauge of one series. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Adds, or takes away when negative.
    pub fn add(&self, value: f64) {
        add(&self.0, value);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// A histogram of one series. Clones share.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// Observations by bucket, the last one above every bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The newest exemplar by bucket, once there is one.
    exemplars: OnceLock<Box<[Mutex<Option<Seen>>]>>,
}

/// The trace of an observation, so that a reader gets from a figure to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exemplar {
    trace_id: u128,
    span_id: u64,
}

impl Exemplar {
    /// The trace of this span, if it is sampled: one that nobody stored would lead nowhere.
    pub fn of(span: &tracing::Span) -> Option<Self> {
        span.ids().and_then(Self::sampled)
    }

    /// The trace of the current span, if it is sampled.
    pub fn current() -> Option<Self> {
        crate::trace::current_ids().and_then(Self::sampled)
    }

    fn sampled(ids: SpanIds) -> Option<Self> {
        ids.sampled.then(|| Self {
            trace_id: u128::from_be_bytes(ids.trace_id.to_bytes()),
            span_id: u64::from_be_bytes(ids.span_id.to_bytes()),
        })
    }

    /// 32 characters of lower hex.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// 16 characters of lower hex.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    pub(crate) fn trace_bytes(&self) -> [u8; 16] {
        self.trace_id.to_be_bytes()
    }

    pub(crate) fn span_bytes(&self) -> [u8; 8] {
        self.span_id.to_be_bytes()
    }
}

/// An exemplar with what was observed, and when in milliseconds of Unix time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) exemplar: Exemplar,
    pub(crate) value: f64,
    pub(crate) at_millis: i64,
}

/// A histogram at one moment: observations by bucket (not added up), their sum, and the exemplars by bucket.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) counts: Vec<u64>,
    pub(crate) sum: f64,
    pub(crate) exemplars: Vec<Option<Seen>>,
}

impl Histogram {
    pub(crate) fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            exemplars: OnceLock::new(),
        }))
    }

    /// Observes a value in the metric's unit. What is not a number is left out: it would spoil the sum for good.
    pub fn observe(&self, value: f64) {
        self.observe_with(value, None);
    }

    /// Observes a duration of a metric in seconds.
    pub fn observe_duration(&self, value: Duration) {
        self.observe(value.as_secs_f64());
    }

    /// Observes a value with the trace in which it came about; each bucket shows its newest one.
    pub fn observe_with(&self, value: f64, exemplar: Option<Exemplar>) {
        if value.is_nan() {
            return;
        }
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        add(&self.0.sum, value);
        if let Some(exemplar) = exemplar {
            self.remember(bucket, value, exemplar);
        }
    }

    fn remember(&self, bucket: usize, value: f64, exemplar: Exemplar) {
        let exemplars = self
            .0
            .exemplars
            .get_or_init(|| (0..=self.0.bounds.len()).map(|_| Mutex::new(None)).collect());
        let seen = Seen {
            exemplar,
            value,
            at_millis: crate::wall_clock().as_millisecond(),
        };
        // Another thread that is just putting one there has as good a one: nobody waits.
        match exemplars[bucket].try_lock() {
            Ok(mut place) => *place = Some(seen),
            Err(TryLockError::Poisoned(place)) => *place.into_inner() = Some(seen),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    pub(crate) fn bounds(&self) -> &'static [f64] {
        self.0.bounds
    }

    /// All at one moment, as near as it gets without stopping those who count: the number of observations is the sum
    /// over the buckets, so that both always agree.
    pub(crate) fn observed(&self) -> Observed {
        Observed {
            counts: self
                .0
                .counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .collect(),
            sum: f64::from_bits(self.0.sum.load(Ordering::Relaxed)),
            exemplars: self.0.exemplars.get().map_or_else(Vec::new, |all| {
                all.iter()
                    .map(|one| *one.lock().unwrap_or_else(PoisonError::into_inner))
                    .collect()
            }),
        }
    }
}

/// Adds to the `f64` whose bits the cell holds.
fn add(cell: &AtomicU64, value: f64) {
    let mut old = cell.load(Ordering::Relaxed);
    loop {
        let new = (f64::from_bits(old) + value).to_bits();
        match cell.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(seen) => old = seen,
        }
    }
}
