//! What reading a query costs, beside another parser of the language, on real rules where they lie beside the project
//! and on a few of its own otherwise. Not a test: it judges nothing and prints one JSON document, with processor time as
//! all benchmarks measure it and the megabytes a second that follow.
//!
//! `cargo bench -p promql --bench parser`

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{fs, hint::black_box, path::Path, sync::Arc};

use measure::Candidate;
use promql::Dialect;
use serde_json::Value;

/// Read where no real rules are.
const OWN: &[&str] = &[
    "sum by (service) (rate(http_requests_total{code=~\"5..\", job=\"api\"}[5m])) / sum by (service) (rate(http_requests_total{job=\"api\"}[5m])) > 0.01",
    "histogram_quantile(0.99, sum by (le, service) (rate(http_request_duration_seconds_bucket{job=\"api\"}[5m]))) > 0.5",
    "predict_linear(node_filesystem_avail_bytes{fstype!~\"tmpfs|ramfs\", mountpoint=\"/\"}[6h], 24 * 3600) < 0 and on (instance) up == 1",
    "absent(up{job=\"api\"}) or kube_pod_status_ready{condition=\"true\"} unless ignoring (condition) kube_pod_status_phase",
];

fn main() {
    let mut texts = real();
    if texts.is_empty() {
        texts = OWN.iter().map(ToString::to_string).collect();
    }
    texts.retain(|text| promql::parse(text).is_ok());
    let (count, bytes) = (texts.len(), texts.iter().map(String::len).sum::<usize>());
    let texts: Arc<[String]> = texts.into();
    let candidates = [
        all("rules", "promql", &texts, |text| drop(black_box(promql::parse(text)))),
        all("rules", "promql-parser", &texts, |text| {
            drop(black_box(promql_parser::parser::parse(text)));
        }),
        all("rules, variables on", "promql", &texts, |text| {
            drop(black_box(Dialect::grafana().parse(text)));
        }),
    ];
    let mut document = measure::measure(&candidates);
    for figure in document["figures"].as_array_mut().into_iter().flatten() {
        figure["megabytes_per_second"] = figure["ns"].as_f64().map(|ns| bytes as f64 / ns * 1e3).into();
    }
    document["expressions"] = count.into();
    document["bytes"] = bytes.into();
    println!("{document:#}");
}

/// All expressions in one call: some are long, and a part of them would be no measure.
fn all(what: &str, who: &'static str, texts: &Arc<[String]>, read: fn(&str)) -> Candidate {
    let texts = Arc::clone(texts);
    let call = move || {
        let texts = Arc::clone(&texts);
        move || texts.iter().for_each(|text| read(black_box(text)))
    };
    Candidate::new(what, who, call).alone()
}

/// The expressions of the rule files beside the project.
fn real() -> Vec<String> {
    let shared = std::env::var_os("OPSCTL_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        Into::into,
    );
    let mut texts = Vec::new();
    for mixin in fs::read_dir(shared.join("mixins")).into_iter().flatten().flatten() {
        for file in ["alerts.yaml", "rules.yaml"] {
            let text = fs::read_to_string(mixin.path().join(file)).unwrap_or_default();
            let rules: Value = serde_saphyr::from_str(&text).unwrap_or_default();
            collect(&rules, &mut texts);
        }
    }
    texts
}

fn collect(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        Value::Object(fields) => {
            texts.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect(field, texts));
        }
        _ => {}
    }
}
