//! What a live Prometheus tells of metrics, as a manifest. Whoever asks it hands the answers in; nothing is asked here.

use crate::{Kind, Label, Manifest, Metric, Source, Unit, Values};

/// An entry of `/api/v1/metadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The family's name.
    pub metric: String,
    /// `counter`, `gauge` and so on.
    pub kind: String,
    /// `# HELP`.
    pub help: String,
}

/// The labels of a series, of `/api/v1/series`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The series' name.
    pub name: String,
    /// Its labels with their values.
    pub labels: Vec<(String, String)>,
}

/// What a Prometheus at `address` has answered. It knows what is there now; what is not there may come.
pub fn manifest(address: &str, metadata: &[Metadata], series: &[Series]) -> Manifest {
    let source = Source::Live(address.to_owned());
    let mut manifest = Manifest::new();
    for entry in metadata {
        let kind = match entry.kind.as_str() {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" | "gaugehistogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            "info" => Kind::Info,
            "stateset" => Kind::StateSet,
            _ => Kind::Unknown,
        };
        let mut metric = Metric::new(entry.metric.as_str(), kind, source.clone());
        metric.help.clone_from(&entry.help);
        manifest.add(metric);
    }
    for one in series {
        let found = manifest
            .lookup(&one.name)
            .map(|found| (found.metric.name.clone(), found.metric.kind));
        let (name, kind) = found.unwrap_or_else(|| (one.name.clone(), Kind::Unknown));
        let mut metric = Metric::new(name.as_str(), kind, source.clone());
        metric.unit = Unit::of_name(&name);
        for (label, value) in &one.labels {
            match (label.as_str(), value.parse::<f64>()) {
                ("le", Ok(bound)) if bound.is_finite() => metric.buckets.push(bound),
                ("le" | "__name__", _) => {}
                _ => metric.labels.push(Label {
                    name: label.clone(),
                    values: Values::Seen(vec![value.clone()]),
                    optional: false,
                }),
            }
        }
        manifest.add(metric);
    }
    manifest
}
