//! `/metrics`, and the metrics of telemetry itself.

mod accept;
mod listen;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::log::{Levels, Queue};
use crate::metrics::Metrics;
use crate::report::SinkCounts;
use crate::sink::Sink;
pub use listen::MetricsServer;

/// `GET` and `HEAD` of `/metrics`.
pub(crate) fn router<S: Clone + Send + Sync + 'static>(metrics: Metrics) -> Router<S> {
    Router::new().route("/metrics", get(scrape)).with_state(metrics)
}

async fn scrape(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let (kind, text) = if accept::wants_openmetrics(&headers) {
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            metrics.encode_openmetrics(),
        )
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", metrics.encode())
    };
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Exports what the sinks count.
pub(crate) fn watch_sinks(metrics: &Metrics, levels: Levels, queue: Option<Arc<Queue>>, sinks: Vec<Arc<dyn Sink>>) {
    metrics.on_scrape(move |metrics| {
        const NAMES: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
        for (name, count) in NAMES.into_iter().zip(levels.read()) {
            metrics
                .counter(catalogue::TELEMETRY_LOG_LINES_TOTAL, [name])
                .set_total(count as f64);
        }
        if let Some(queue) = &queue {
            show(metrics, "stdout", queue.counts());
            metrics
                .gauge(catalogue::TELEMETRY_QUEUE_BYTES, ["stdout"])
                .set(queue.bytes() as f64);
        }
        for sink in &sinks {
            show(metrics, sink.name(), sink.counts());
            metrics
                .gauge(catalogue::TELEMETRY_QUEUE_BYTES, [sink.name()])
                .set(sink.queued_bytes() as f64);
        }
    });
}

fn show(metrics: &Metrics, sink: &str, counts: SinkCounts) {
    metrics
        .counter(catalogue::TELEMETRY_EMITTED_TOTAL, [sink])
        .set_total(counts.emitted as f64);
    metrics
        .counter(catalogue::TELEMETRY_DELIVERED_TOTAL, [sink])
        .set_total(counts.delivered as f64);
    metrics
        .counter(catalogue::TELEMETRY_REJECTED_TOTAL, [sink, "refused"])
        .set_total(counts.rejected as f64);
    metrics
        .counter(catalogue::TELEMETRY_DROPPED_TOTAL, [sink, "queue_full"])
        .set_total(counts.dropped as f64);
}
