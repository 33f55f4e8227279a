//! A capture of `/metrics` as a manifest: Prometheus' text format 0.0.4 and OpenMetrics 1.0, UTF-8 names included.
//!
//! A capture proves that something is there. It proves nothing absent: a labelled metric has no series until its first
//! use. It is foreign: its size, its lines and the number of its names are limited.

mod line;

use std::collections::{BTreeMap, HashSet};

pub use line::{Sample, sample};

use crate::{Kind, Label, Manifest, Metric, Source, Unit, Values};

/// What a capture may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Bytes of a line.
    pub line: usize,
    /// Metrics.
    pub metrics: usize,
    /// Labels of a metric.
    pub labels: usize,
}

/// Limits that every service keeps by far.
pub const LIMITS: Limits = Limits {
    bytes: 100 << 20,
    line: 1 << 20,
    metrics: 100_000,
    labels: 100,
};

/// Values of a label that are remembered; a label with more is taken for one without a list.
const VALUES: usize = 50;

/// Why a capture is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Unreadable {
    /// The line, from 1; 0 when it is about the whole.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a capture; `name` is the file or address that findings name.
pub fn read(text: &str, name: &str, limits: Limits) -> Result<Manifest, Unreadable> {
    if text.len() > limits.bytes {
        let what = format!(
            "{} MB are more than the {} that are read",
            text.len() >> 20,
            limits.bytes >> 20
        );
        return Err(Unreadable { line: 0, what });
    }
    let mut families = Families {
        source: Source::Capture(name.to_owned()),
        limits,
        by_name: BTreeMap::new(),
        counters: HashSet::new(),
    };
    for (index, text) in text.split('\n').enumerate() {
        let refused = |what: String| Unreadable { line: index + 1, what };
        if text.len() > limits.line {
            return Err(refused(format!("{} bytes are more than a line may have", text.len())));
        }
        families.line(text.trim_end_matches('\r')).map_err(refused)?;
    }
    Ok(families.manifest())
}

/// The metrics seen so far.
struct Families {
    source: Source,
    limits: Limits,
    by_name: BTreeMap<String, Metric>,
    /// Counters that are declared as OpenMetrics does, without `_total`.
    counters: HashSet<String>,
}

impl Families {
    fn line(&mut self, text: &str) -> Result<(), String> {
        if let Some(comment) = text.strip_prefix('#') {
            return self.comment(comment.trim_start());
        }
        if text.trim().is_empty() {
            return Ok(());
        }
        let sample = line::sample(text)?;
        self.sample(&sample)
    }

    /// `TYPE name kind`, `HELP name text`, `UNIT name unit`; all else is a comment.
    fn comment(&mut self, text: &str) -> Result<(), String> {
        let Some((keyword, rest)) = text.split_once(' ') else {
            return Ok(());
        };
        if !matches!(keyword, "TYPE" | "HELP" | "UNIT") {
            return Ok(());
        }
        let (name, rest) = line::name(rest.trim_start())?;
        let said = rest.trim();
        let metric = self.family(&name)?;
        match keyword {
            "HELP" => said.clone_into(&mut metric.help),
            "UNIT" => metric.unit = unit(said).unwrap_or(metric.unit),
            _ => {
                metric.kind = kind(said);
                if said == "counter" && !name.ends_with("_total") {
                    self.counters.insert(name);
                }
            }
        }
        Ok(())
    }

    fn family(&mut self, name: &str) -> Result<&mut Metric, String> {
        if !self.by_name.contains_key(name) {
            if self.by_name.len() >= self.limits.metrics {
                return Err(format!("there are more than {} metrics", self.limits.metrics));
            }
            let metric = Metric::new(name, Kind::Unknown, self.source.clone());
            self.by_name.insert(name.to_owned(), metric);
        }
        self.by_name.get_mut(name).ok_or_else(|| "a metric is lost".to_owned())
    }

    /// The family that a series belongs to: its own name, or that name without the suffix of a part.
    fn family_of(&self, series: &str) -> String {
        let parts = ["_bucket", "_sum", "_count", "_created", "_gsum", "_gcount", "_info"];
        let declared = |name: &&str| {
            let metric = self.by_name.get(*name);
            metric.is_some_and(|metric| !matches!(metric.kind, Kind::Unknown | Kind::Counter | Kind::Gauge))
        };
        parts
            .iter()
            .find_map(|suffix| series.strip_suffix(suffix).filter(declared))
            .unwrap_or(series)
            .to_owned()
    }

    fn sample(&mut self, sample: &line::Sample) -> Result<(), String> {
        let limit = self.limits.labels;
        // OpenMetrics declares `x` and exports `x_total`, which is what a Prometheus stores.
        if let Some(declared) = sample
            .name
            .strip_suffix("_total")
            .filter(|name| self.counters.contains(*name))
        {
            let known = self.by_name.get(declared).cloned();
            let metric = self.family(&sample.name)?;
            metric.kind = Kind::Counter;
            if let Some(known) = known.filter(|_| metric.help.is_empty()) {
                metric.help = known.help;
            }
        }
        let family = self.family_of(&sample.name);
        let metric = self.family(&family)?;
        for (label, value) in &sample.labels {
            if label == "le" && matches!(metric.kind, Kind::Histogram) {
                let bound: f64 = value
                    .parse()
                    .map_err(|_| format!("`{value}` is no bound of a bucket"))?;
                if bound.is_finite() && !metric.buckets.contains(&bound) && metric.buckets.len() < 1000 {
                    metric.buckets.push(bound);
                }
                continue;
            }
            if let Some(known) = metric.labels.iter_mut().find(|known| known.name == *label) {
                see(&mut known.values, value);
                continue;
            }
            if metric.labels.len() >= limit {
                return Err(format!("`{family}` has more than {limit} labels"));
            }
            metric.labels.push(Label {
                name: label.clone(),
                values: Values::Seen(vec![value.clone()]),
                optional: false,
            });
        }
        Ok(())
    }

    fn manifest(self) -> Manifest {
        let mut manifest = Manifest::new();
        for (name, mut metric) in self.by_name {
            // What was declared without `_total` is stored with it, and under no other name.
            if self.counters.contains(&name) && metric.labels.is_empty() {
                let total = format!("{name}_total");
                if manifest.get(&total).is_none() {
                    metric.name = total;
                    manifest.add(metric);
                }
                continue;
            }
            metric.buckets.sort_by(f64::total_cmp);
            manifest.add(metric);
        }
        manifest
    }
}

fn see(values: &mut Values, value: &str) {
    if let Values::Seen(known) = values
        && !known.iter().any(|other| other == value)
    {
        if known.len() < VALUES {
            known.push(value.to_owned());
        } else {
            *values = Values::Bounded;
        }
    }
}

fn kind(word: &str) -> Kind {
    match word {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" | "gaugehistogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        "info" => Kind::Info,
        "stateset" => Kind::StateSet,
        _ => Kind::Unknown,
    }
}

fn unit(word: &str) -> Option<Unit> {
    match word {
        "seconds" => Some(Unit::Seconds),
        "milliseconds" => Some(Unit::Milliseconds),
        "bytes" => Some(Unit::Bytes),
        "ratio" => Some(Unit::Ratio),
        _ => None,
    }
}
