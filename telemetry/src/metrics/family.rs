//! The series of one metric: found by their labels, checked against the catalogue, and at most so many.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use catalogue::{Kind, Metric, Unit};

use super::text;
use super::value::{Counter, Gauge, Histogram};

/// Series that one metric may have; later ones are counted under [`OVERFLOW`].
const SERIES_PER_METRIC: usize = 2000;
/// Longest value of a label in bytes; a longer one is text from a request and counts as [`OVERFLOW`].
const VALUE_BYTES: usize = 512;
/// Label value of whatever is over the cap or outside a closed list.
pub const OVERFLOW: &str = "_overflow";

/// All series of one metric.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) metric: &'static Metric,
    /// By their labels as they are scraped, so that the text is in order and needs no more work.
    series: RwLock<BTreeMap<Box<str>, Series>>,
}

/// One series: the values of its labels, and what it counts.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Box<[Box<str>]>,
    pub(crate) value: Value,
}

/// What a series counts.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Family {
    pub(crate) fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            series: RwLock::default(),
        }
    }

    /// The series of these labels, made at zero if it is new, and whether anything had to go under [`OVERFLOW`].
    pub(crate) fn value(&self, labels: &[&str]) -> (Value, bool) {
        let is_allowed =
            |(index, value): (usize, &&str)| value.len() <= VALUE_BYTES && self.metric.allows(index, value);
        if labels.iter().enumerate().all(is_allowed) {
            self.admit(labels)
        } else {
            let checked: Vec<&str> = labels
                .iter()
                .enumerate()
                .map(|label| if is_allowed(label) { *label.1 } else { OVERFLOW })
                .collect();
            (self.admit(&checked).0, true)
        }
    }

    /// The series of labels whose values are allowed, or the last one of all when there are too many.
    fn admit(&self, labels: &[&str]) -> (Value, bool) {
        let key = text::labels(self.metric, labels);
        if let Some(series) = self.read().get(key.as_str()) {
            return (series.value.clone(), false);
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() < SERIES_PER_METRIC || all.contains_key(key.as_str()) {
            return (self.insert(&mut all, key, labels), false);
        }
        let labels = vec![OVERFLOW; labels.len()];
        let key = text::labels(self.metric, &labels);
        (self.insert(&mut all, key, &labels), true)
    }

    fn insert(&self, all: &mut BTreeMap<Box<str>, Series>, key: String, labels: &[&str]) -> Value {
        let series = all.entry(key.into_boxed_str()).or_insert_with(|| Series {
            labels: labels.iter().map(|value| Box::from(*value)).collect(),
            value: self.zero(),
        });
        series.value.clone()
    }

    fn zero(&self) -> Value {
        match self.metric.kind {
            Kind::Counter => Value::Counter(Counter::new(self.metric.unit == Unit::Seconds)),
            Kind::Gauge => Value::Gauge(Gauge::default()),
            Kind::Histogram => Value::Histogram(Histogram::new(self.metric.buckets)),
        }
    }

    /// Every series by its labels as they are scraped.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Box<str>, Series>> {
        self.series.read().unwrap_or_else(PoisonError::into_inner)
    }
}
