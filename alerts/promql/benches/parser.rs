//! How fast queries are read: megabytes of real rules a second, on one core, and the same by another parser of the
//! language. Prints JSON. Without the real rules beside the project it reads a few of its own.

use std::{fs, hint::black_box, path::Path, time::Instant};

/// Read where no real rules are.
const OWN: &[&str] = &[
    "sum by (service) (rate(http_requests_total{code=~\"5..\", job=\"api\"}[5m])) / sum by (service) (rate(http_requests_total{job=\"api\"}[5m])) > 0.01",
    "histogram_quantile(0.99, sum by (le, service) (rate(http_request_duration_seconds_bucket{job=\"api\"}[5m]))) > 0.5",
    "predict_linear(node_filesystem_avail_bytes{fstype!~\"tmpfs|ramfs\", mountpoint=\"/\"}[6h], 24 * 3600) < 0 and on (instance) up == 1",
    "absent(up{job=\"api\"}) or kube_pod_status_ready{condition=\"true\"} unless ignoring (condition) kube_pod_status_phase",
];
/// Rounds, of which the fastest counts: whatever else the machine does only ever slows one down.
const ROUNDS: usize = 60;

/// The expressions of the rule files, one block scalar or plain line each: what a query needs is looked at elsewhere.
fn real() -> Vec<String> {
    let folder = std::env::var_os("OPSCTL_SHARED").unwrap_or_else(|| "../shared/data".into());
    let mut texts = Vec::new();
    for mixin in fs::read_dir(Path::new(&folder).join("mixins"))
        .into_iter()
        .flatten()
        .flatten()
    {
        for file in ["alerts.yaml", "rules.yaml"] {
            let text = fs::read_to_string(mixin.path().join(file)).unwrap_or_default();
            if let Ok(file) = serde_saphyr::from_str::<serde_json::Value>(&text) {
                let groups = file["groups"].as_array().cloned().unwrap_or_default();
                let rules = groups
                    .iter()
                    .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default());
                texts.extend(rules.filter_map(|rule| rule["expr"].as_str().map(str::to_owned)));
            }
        }
    }
    texts
}

/// The rate of the fastest round, in megabytes a second.
fn rate(texts: &[String], mut read: impl FnMut(&str)) -> f64 {
    let bytes: usize = texts.iter().map(String::len).sum();
    let round = |_| {
        let start = Instant::now();
        texts.iter().for_each(|text| read(text));
        start.elapsed().as_secs_f64()
    };
    let fastest = (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    bytes as f64 / fastest / 1e6
}

#[expect(clippy::print_stdout, reason = "what it measured is what it is for")]
fn main() {
    let mut texts = real();
    if texts.is_empty() {
        texts = OWN.iter().map(ToString::to_string).collect::<Vec<_>>().repeat(200);
    }
    texts.retain(|text| promql::parse(text).is_ok());
    let ours = rate(&texts, |text| drop(black_box(promql::parse(black_box(text)))));
    let grafana = rate(&texts, |text| {
        drop(black_box(promql::Dialect::grafana().parse(black_box(text))))
    });
    let other = rate(&texts, |text| {
        drop(black_box(promql_parser::parser::parse(black_box(text))))
    });
    let document = serde_json::json!({
        "expressions": texts.len(),
        "bytes": texts.iter().map(String::len).sum::<usize>(),
        "megabytes_per_second": {"promql": ours, "promql with variables": grafana, "promql-parser": other},
    });
    println!("{document:#}");
}
