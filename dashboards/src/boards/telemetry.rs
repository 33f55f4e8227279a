//! Telemetry about itself: whether lines, spans and metrics arrive. A board that is empty because its data is lost says
//! nothing; this one says so.

use manifest::landscape::Landscape;

use super::requests::quantile;
use super::sheet::{Plot, Sheet};
use super::{Draft, TELEMETRY, variables};
use crate::model::Unit;

pub(super) fn board(landscape: &Landscape) -> Option<Draft> {
    if landscape.services.is_empty() {
        return None;
    }
    Some(Draft {
        uid: TELEMETRY,
        title: "Telemetry",
        about: "Whether what the services tell arrives: every item is delivered, rejected, dropped, spooled or unknown.",
        from: "now-3h",
        variables: vec![variables::services(landscape)],
        sheet: Sheet::default()
            .row("Accounts", accounts())
            .row("Lines and labels", lines()),
    })
}

/// Items per second, by sink and one more label or none.
fn items(title: &str, metric: &str, reason: &str, about: &str) -> Plot {
    let labels = if reason.is_empty() {
        String::new()
    } else {
        format!(", {reason}")
    };
    let legend = if reason.is_empty() {
        String::new()
    } else {
        format!(" {{{{{reason}}}}}")
    };
    Plot::lines(title, Unit::PerSecond).about(about).ask(
        format!("sum by (job, sink{labels}) (rate({metric}{{SERVICE}}[$__rate_interval]))"),
        &format!("{{{{job}}}} {{{{sink}}}}{legend}"),
    )
}

fn accounts() -> [Plot; 9] {
    [
        items("Emitted", "telemetry_emitted_total", "", "Items handed to each sink."),
        items(
            "Delivered",
            "telemetry_delivered_total",
            "",
            "Items that a sink wrote or had acknowledged.",
        ),
        items(
            "Rejected",
            "telemetry_rejected_total",
            "reason",
            "Items that the receiver refused for good.",
        ),
        items(
            "Dropped",
            "telemetry_dropped_total",
            "reason",
            "Items that were lost here.",
        ),
        items(
            "Into the spool",
            "telemetry_spooled_total",
            "",
            "Items that wait on disk for their receiver.",
        ),
        items(
            "Unknown",
            "telemetry_unknown_total",
            "",
            "Items handed to a client that does not tell what became of them.",
        ),
        Plot::lines("In the spool", Unit::Count)
            .about("Items that lie on disk. They are delivered when the receiver is back.")
            .ask(
                "sum by (job, sink) (telemetry_spool_items{SERVICE})",
                "{{job}} {{sink}}",
            ),
        Plot::lines("In queues", Unit::Bytes)
            .about("Bytes that wait in memory, in the instance with the most.")
            .ask(
                "max by (job, sink) (telemetry_queue_bytes{SERVICE})",
                "{{job}} {{sink}}",
            ),
        Plot::lines("Duration of exports", Unit::Seconds)
            .about("95 of 100 writes or requests of a sink took no longer than this.")
            .ask(
                quantile(
                    "0.95",
                    "job, sink, le",
                    "telemetry_export_duration_seconds_bucket{SERVICE}",
                ),
                "{{job}} {{sink}}",
            ),
    ]
}

fn lines() -> [Plot; 4] {
    [
        Plot::lines("Lines by level", Unit::PerSecond)
            .about("Log lines per second.")
            .wide(6)
            .ask(
                "sum by (job, level) (rate(telemetry_log_lines_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{level}}",
            ),
        Plot::lines("Lines left out", Unit::PerSecond)
            .about("By a rate limit, so that one fault does not drown the others.")
            .wide(6)
            .ask(
                "sum by (job) (rate(telemetry_log_lines_suppressed_total{SERVICE}[$__rate_interval]))",
                "{{job}}",
            ),
        Plot::lines("Headers refused", Unit::PerSecond)
            .about("Incoming trace headers that were not as they should be. The caller's traces end here.")
            .wide(6)
            .ask(
                "sum by (job, reason) (rate(telemetry_propagation_invalid_total{SERVICE}[$__rate_interval]))",
                "{{job}} {{reason}}",
            ),
        Plot::lines("Observations without a series", Unit::PerSecond)
            .about("Put under `_overflow`: too many series, or a value outside of its list.")
            .wide(6)
            .ask(
                "sum by (job) (rate(telemetry_metric_cardinality_overflow_total{SERVICE}[$__rate_interval]))",
                "{{job}}",
            ),
    ]
}
