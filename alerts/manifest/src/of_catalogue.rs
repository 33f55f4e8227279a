//! The catalogue as a manifest: a complete declaration of our own metrics.

use crate::{Kind, Label, Manifest, Metric, Scope, Source, Unit, Values};

impl Manifest {
    /// Every metric that opsctl and the reference services export.
    pub fn catalogue() -> Self {
        let mut manifest = Self::new();
        for entry in catalogue::ALL {
            manifest.add(of(entry));
        }
        for prefix in owned_prefixes() {
            manifest.own(prefix, Source::Catalogue);
        }
        manifest
    }
}

/// Labels that say nothing when there is nothing to say: no error, no collection.
const MAY_BE_EMPTY: [&str; 3] = ["error_type", "db_collection_name", "db_operation_name"];

fn of(entry: &catalogue::Metric) -> Metric {
    Metric {
        name: entry.name.to_owned(),
        kind: match entry.kind {
            catalogue::Kind::Counter => Kind::Counter,
            catalogue::Kind::Gauge => Kind::Gauge,
            catalogue::Kind::Histogram => Kind::Histogram,
        },
        unit: match (Unit::of_name(entry.name), entry.unit) {
            (Unit::Timestamp, _) => Unit::Timestamp,
            (_, catalogue::Unit::One) => Unit::One,
            (_, catalogue::Unit::Seconds) => Unit::Seconds,
            (_, catalogue::Unit::Milliseconds) => Unit::Milliseconds,
            (_, catalogue::Unit::Bytes) => Unit::Bytes,
            (_, catalogue::Unit::Ratio) => Unit::Ratio,
        },
        help: entry.help.to_owned(),
        labels: entry
            .labels
            .iter()
            .map(|label| Label {
                name: label.name.to_owned(),
                values: match label.values {
                    catalogue::Values::Closed(values) => {
                        Values::Closed(values.iter().map(|&value| value.to_owned()).collect())
                    }
                    catalogue::Values::Bounded => Values::Bounded,
                },
                optional: MAY_BE_EMPTY.contains(&label.name),
            })
            .collect(),
        complete: true,
        buckets: entry.buckets.to_vec(),
        scope: match entry.scope {
            catalogue::Scope::Instance => Scope::Instance,
            catalogue::Scope::Shared => Scope::Shared,
        },
        source: Source::Catalogue,
    }
}

/// The words that names of ours begin with, but for those that other programs begin theirs with as well.
fn owned_prefixes() -> impl Iterator<Item = String> {
    const OF_OTHERS_TOO: [&str; 14] = [
        "http",
        "rpc",
        "grpc",
        "db",
        "process",
        "build",
        "tokio",
        "health",
        "notifications",
        "orders",
        "payments",
        "proxy",
        "identity",
        "schedule",
    ];
    let mut words: Vec<&str> = catalogue::ALL
        .iter()
        .filter_map(|entry| entry.name.split('_').next())
        .filter(|word| !OF_OTHERS_TOO.contains(word))
        .collect();
    words.sort_unstable();
    words.dedup();
    let whole = [
        "http_server_request_duration",
        "grpc_server_handl",
        "grpc_client_handl",
        "db_pool_",
    ];
    words
        .into_iter()
        .map(|word| format!("{word}_"))
        .chain(whole.map(str::to_owned))
}
