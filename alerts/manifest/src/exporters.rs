//! What common exporters export, as far as it is the same in all their present versions. Tables of names, types and
//! labels; a family is said to be known as a whole (`own`) only where it is.
//!
//! A table has a line per metric: `kind name: label, label?, label=value/value`. A label with a question mark may be
//! missing or empty. A name that ends in `*` stands for a metric with labels of its own that are not known.

use crate::{Kind, Label, Manifest, Metric, Scope, Source, Unit, Values};

/// An exporter that is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exporter {
    /// What it is called.
    pub name: &'static str,
    table: &'static str,
}

/// All exporters that are known.
pub const ALL: &[Exporter] = &[
    Exporter {
        name: "node_exporter",
        table: include_str!("exporters/node.txt"),
    },
    Exporter {
        name: "postgres_exporter",
        table: include_str!("exporters/postgres.txt"),
    },
    Exporter {
        name: "kubelet and cAdvisor",
        table: include_str!("exporters/kubelet.txt"),
    },
    Exporter {
        name: "kube-state-metrics",
        table: include_str!("exporters/kube-state-metrics.txt"),
    },
    Exporter {
        name: "Traefik",
        table: include_str!("exporters/traefik.txt"),
    },
    Exporter {
        name: "Prometheus",
        table: include_str!("exporters/prometheus.txt"),
    },
];

impl Exporter {
    /// What it exports.
    pub fn manifest(self) -> Manifest {
        let mut manifest = Manifest::new();
        let source = Source::Exporter(self.name.to_owned());
        for line in self.table.lines().map(str::trim) {
            if let Some(prefixes) = line.strip_prefix("own ") {
                for prefix in prefixes.split_whitespace() {
                    manifest.own(prefix, source.clone());
                }
            } else if let Some(metric) = metric(line, &source) {
                manifest.add(metric);
            }
        }
        manifest
    }
}

impl Manifest {
    /// The catalogue and all exporters that are known.
    pub fn built_in() -> Self {
        let mut manifest = Self::catalogue();
        for exporter in ALL {
            manifest.merge(exporter.manifest());
        }
        manifest
    }
}

/// A line of a table; comments and empty lines are none.
fn metric(line: &str, source: &Source) -> Option<Metric> {
    let (kind, rest) = line.split_once(' ').filter(|(kind, _)| !kind.starts_with('#'))?;
    let kind = match kind {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        "info" => Kind::Info,
        "stateset" => Kind::StateSet,
        _ => Kind::Unknown,
    };
    let (name, labels) = rest.split_once(':').unwrap_or((rest, ""));
    let open = name.ends_with('*');
    let name = name.trim_end_matches('*').trim();
    let mut labels: Vec<Label> = labels
        .split(',')
        .map(str::trim)
        .filter(|label| !label.is_empty())
        .map(|label| {
            let (name, values) = match label.split_once('=') {
                Some((name, values)) => (name, Values::Closed(values.split('/').map(str::to_owned).collect())),
                None => (label, Values::Bounded),
            };
            Label {
                optional: name.ends_with('?'),
                name: name.trim_end_matches('?').to_owned(),
                values,
            }
        })
        .collect();
    if kind == Kind::Summary {
        labels.push(Label {
            name: "quantile".to_owned(),
            values: Values::Bounded,
            optional: true,
        });
    }
    Some(Metric {
        name: name.to_owned(),
        kind,
        unit: Unit::of_name(name),
        help: String::new(),
        labels,
        complete: !open,
        buckets: Vec::new(),
        scope: Scope::Instance,
        source: source.clone(),
    })
}
