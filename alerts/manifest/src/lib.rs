//! What services export, and what is promised of them: what rules and boards are derived from and checked against.
//!
//! A [`Manifest`] is a set of metrics with what is known of each: type, unit, labels, closed values, buckets, and whether
//! every replica exports the same number. It comes from the catalogue ([`Manifest::catalogue`]), from a capture of
//! `/metrics` ([`capture`]), from what is known of common exporters ([`exporters`]), or from a live Prometheus
//! ([`live`]). It asks nobody anything: whoever has a server's answer hands it in.
//!
//! ```
//! let manifest = manifest::Manifest::catalogue();
//! let found = manifest.lookup("grpc_server_handling_seconds_bucket").expect("our own metric");
//! assert_eq!(found.metric.kind, manifest::Kind::Histogram);
//! assert_eq!(found.part, manifest::Part::Bucket);
//! assert!(manifest.lookup("grpc_server_handled").is_none());
//! ```

pub mod capture;
pub mod exporters;
pub mod landscape;
pub mod live;
mod metric;
mod names;
mod of_catalogue;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use metric::{Kind, Label, Metric, Part, Scope, Source, Unit, Values};
pub use names::{closest, is_typo};

/// Metrics by name, and for which names it can be said that there are no others.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    metrics: BTreeMap<String, Metric>,
    /// Beginnings of names of which every metric is known, and who says so. A capture has none: a labelled metric is
    /// absent until its first use.
    owned: Vec<(String, Source)>,
    /// Labels that scraping puts on every series (`job`, `instance` and what the configuration adds).
    target_labels: Vec<String>,
    /// The labels of all metrics that a source declares completely, but those that scraping puts on every series.
    vocabularies: BTreeMap<Source, Arc<BTreeSet<String>>>,
}

/// A series name, found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found<'a> {
    /// The metric that the series is of.
    pub metric: &'a Metric,
    /// Which of its series the name stands for.
    pub part: Part,
}

impl Manifest {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric, or what another source knows of it: types and closed values of a declaration stand above what a
    /// capture has seen.
    pub fn add(&mut self, metric: Metric) {
        if metric.complete {
            let vocabulary = Arc::make_mut(self.vocabularies.entry(metric.source.clone()).or_default());
            let names = metric.labels.iter().map(|label| &label.name);
            vocabulary.extend(names.filter(|name| !self.target_labels.contains(name)).cloned());
            if metric.kind == Kind::Histogram {
                vocabulary.insert("le".to_owned());
            }
        }
        match self.metrics.get_mut(&metric.name) {
            None => {
                self.metrics.insert(metric.name.clone(), metric);
            }
            Some(known) => known.learn(metric),
        }
    }

    /// Says that every metric whose name begins with `prefix` is in here, according to `source`.
    pub fn own(&mut self, prefix: impl Into<String>, source: Source) {
        let prefix = prefix.into();
        if !self.owned.iter().any(|(known, _)| *known == prefix) {
            self.owned.push((prefix, source));
        }
    }

    /// Names a label that scraping puts on every series.
    pub fn target_label(&mut self, name: impl Into<String>) {
        let name = name.into();
        if !self.target_labels.contains(&name) {
            for vocabulary in self.vocabularies.values_mut() {
                Arc::make_mut(vocabulary).remove(&name);
            }
            self.target_labels.push(name);
        }
    }

    /// Labels beyond `job` and `instance` that are on every series, as far as somebody said so.
    pub fn target_labels(&self) -> &[String] {
        &self.target_labels
    }

    /// Puts all of `other` in here.
    pub fn merge(&mut self, other: Self) {
        for (_, metric) in other.metrics {
            self.add(metric);
        }
        for (prefix, source) in other.owned {
            self.own(prefix, source);
        }
        for label in other.target_labels {
            self.target_label(label);
        }
    }

    /// The metric of that very name, without looking at suffixes.
    pub fn get(&self, name: &str) -> Option<&Metric> {
        self.metrics.get(name)
    }

    /// The metric that a series of that name belongs to: `x_bucket`, `x_sum` and `x_count` are parts of `x`.
    pub fn lookup(&self, series: &str) -> Option<Found<'_>> {
        if let Some(metric) = self.metrics.get(series) {
            let part = Part::Value;
            return Some(Found { metric, part });
        }
        Part::SUFFIXES.iter().find_map(|&(suffix, part)| {
            let metric = self.metrics.get(series.strip_suffix(suffix)?)?;
            metric.has(part).then_some(Found { metric, part })
        })
    }

    /// Who says that all metrics are known of the family that `series` belongs to. `None` means that an unknown name
    /// proves nothing.
    pub fn owner(&self, series: &str) -> Option<&Source> {
        self.owned
            .iter()
            .filter(|(prefix, _)| series.starts_with(prefix.as_str()))
            .max_by_key(|(prefix, _)| prefix.len())
            .map(|(_, source)| source)
    }

    /// The labels that a source puts on any of the metrics that it declares, and `le`, but those that scraping puts on
    /// every series. One of them that a metric of the source lacks is not the target's: who scrapes it names its labels
    /// otherwise.
    pub fn vocabulary(&self, source: &Source) -> Arc<BTreeSet<String>> {
        self.vocabularies.get(source).cloned().unwrap_or_default()
    }

    /// All metrics by name.
    pub fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.metrics.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.metrics.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Names of series like `series`, nearest first, three at most: for "did you mean".
    pub fn like(&self, series: &str) -> Vec<String> {
        let names = self.metrics.values().flat_map(Metric::series);
        closest(series, names, 3)
    }
}
