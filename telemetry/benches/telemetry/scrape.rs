//! One scrape of a thousand series, beside what prometheus-client asks for the same text.

use std::hint::black_box;

use measure::Candidate;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use telemetry::Metrics;

const SCRAPE: &str = "/metrics of 1000 series";
const SERIES: u64 = 1000;

pub fn candidates() -> Vec<Candidate> {
    vec![
        Candidate::new(SCRAPE, "telemetry", || {
            let metrics = ours();
            move || _ = black_box(metrics.encode())
        })
        .alone(),
        Candidate::new(SCRAPE, "prometheus-client", || {
            let registry = theirs();
            move || {
                let mut text = String::new();
                encode(&mut text, &registry).expect("a string takes everything");
                black_box(&text);
            }
        })
        .alone(),
    ]
}

fn ours() -> Metrics {
    let metrics = Metrics::new();
    for instance in 0..SERIES {
        let instance = instance.to_string();
        metrics
            .counter(catalogue::PROXY_ERRORS_TOTAL, ["orders", &instance])
            .inc();
    }
    metrics
}

fn theirs() -> Registry {
    let mut registry = Registry::default();
    let family = Family::<Vec<(String, String)>, Counter>::default();
    for instance in 0..SERIES {
        let labels = vec![
            ("service".to_owned(), "orders".to_owned()),
            ("version".to_owned(), instance.to_string()),
        ];
        family.get_or_create(&labels).inc();
    }
    registry.register("proxy_errors", "Requests that failed", family);
    registry
}
