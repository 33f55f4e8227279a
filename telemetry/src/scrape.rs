//! `/metrics`, and the metrics of telemetry itself.

mod accept;
mod listen;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::log::Volume;
use crate::log::rate::RateLimit;
use crate::metrics::Metrics;
use crate::report::{DropReason, RejectReason};
use crate::sink::Sink;
use crate::sink::queue::Severity;
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

/// Exports what the log layer and the sinks count.
pub(crate) fn watch_sinks(metrics: &Metrics, volume: Volume, rate: RateLimit, sinks: Vec<Arc<dyn Sink>>) {
    metrics.on_scrape(move |metrics| {
        for severity in Severity::ALL {
            metrics
                .counter(catalogue::TELEMETRY_LOG_LINES_TOTAL, [severity.name()])
                .set_total(volume.of(severity) as f64);
        }
        metrics
            .counter(catalogue::TELEMETRY_LOG_LINES_SUPPRESSED_TOTAL, [])
            .set_total(rate.suppressed() as f64);
        for sink in &sinks {
            show(metrics, &**sink);
        }
    });
}

fn show(metrics: &Metrics, sink: &dyn Sink) {
    let (name, counts) = (sink.name(), sink.counts());
    let totals = [
        (catalogue::TELEMETRY_EMITTED_TOTAL, counts.emitted),
        (catalogue::TELEMETRY_DELIVERED_TOTAL, counts.delivered),
        (catalogue::TELEMETRY_SPOOLED_TOTAL, counts.spooled_ever),
        (catalogue::TELEMETRY_UNKNOWN_TOTAL, counts.unknown),
    ];
    for (metric, count) in totals {
        metrics.counter(metric, [name]).set_total(count as f64);
    }
    for reason in RejectReason::ALL {
        metrics
            .counter(catalogue::TELEMETRY_REJECTED_TOTAL, [name, reason.name()])
            .set_total(counts.rejected_because(reason) as f64);
    }
    for reason in DropReason::ALL {
        metrics
            .counter(catalogue::TELEMETRY_DROPPED_TOTAL, [name, reason.name()])
            .set_total(counts.dropped_because(reason) as f64);
    }
    metrics
        .gauge(catalogue::TELEMETRY_SPOOL_ITEMS, [name])
        .set(counts.spooled as f64);
    metrics
        .gauge(catalogue::TELEMETRY_QUEUE_BYTES, [name])
        .set(sink.queued_bytes() as f64);
}
