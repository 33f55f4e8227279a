//! How a report tells of the alerts that were expected, and of those that were not.

use pictures::Page;

use crate::expectation::{AlertReport, Predicted, Unexpected};
use crate::figures::duration;

/// Seconds from the effect to a moment of an alert; `None` when it never came.
type Moment = fn(&AlertReport) -> Option<f64>;

/// What is told of each: the moments, in order.
const MOMENTS: [(&str, Moment); 6] = [
    ("pending", |alert| alert.pending_seconds),
    ("firing", |alert| alert.firing_seconds),
    ("received", |alert| alert.received_seconds),
    ("suppressed", |alert| alert.suppressed_seconds),
    ("told", |alert| alert.notified_seconds),
    ("resolved", |alert| alert.resolved_seconds),
];

/// Label and value for a terminal.
pub(super) fn rows(alerts: &[AlertReport]) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    for alert in alerts {
        let moments: Vec<String> = MOMENTS
            .iter()
            .filter_map(|(word, at)| Some(format!("{word} {}", duration(at(alert)?))))
            .collect();
        if !moments.is_empty() {
            rows.push((
                format!("alert {}", alert.name()),
                format!(
                    "{} after the effect (± {})",
                    moments.join(", "),
                    duration(alert.resolution_seconds)
                ),
            ));
        }
        rows.push((format!("predicted {}", alert.name()), alert.predicted.text()));
    }
    rows
}

/// The alerts' part of a page.
pub(super) fn section(page: Page, alerts: &[AlertReport], unexpected: &[Unexpected]) -> Page {
    let mut page = page;
    if !alerts.is_empty() {
        let heads = [
            "Alert",
            "",
            "Pending",
            "Firing",
            "Received",
            "Suppressed",
            "Told",
            "Resolved",
            "Predicted",
        ];
        let rows = alerts.iter().map(|alert| {
            let mut row = vec![alert.name(), alert.proof.as_str().to_owned()];
            let told = MOMENTS.iter().map(|(_, at)| at(alert));
            row.extend(told.map(|at| at.map_or_else(|| "–".to_owned(), duration)));
            row.push(duration(alert.predicted.floor_seconds));
            row
        });
        page = page.section("Alerts").table(&heads, rows.collect());
        for alert in alerts {
            page = page.text(&format!(
                "{}: {}. Times are since the first observed effect, each late by at most {}. Predicted: {}.",
                alert.name(),
                alert.why,
                duration(alert.resolution_seconds),
                alert.predicted.text()
            ));
        }
    }
    if !unexpected.is_empty() {
        let rows = unexpected.iter().map(|one| {
            let at = one.firing_seconds.map_or_else(|| "–".to_owned(), duration);
            vec![one.name(), at]
        });
        page = page
            .section("Alerts that were not expected")
            .table(&["Alert", "Firing"], rows.collect());
    }
    page
}

impl Predicted {
    /// The floor and its parts, in words.
    pub fn text(&self) -> String {
        let parts = [
            ("scrape", self.scrape_seconds),
            ("evaluation", self.evaluation_seconds),
            ("ramp", self.ramp_seconds),
            ("for", self.for_seconds),
            ("group wait", self.group_wait_seconds),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, seconds)| *seconds > 0.0)
            .map(|(word, seconds)| format!("{word} {}", duration(*seconds)))
            .collect();
        let parts = if parts.is_empty() {
            String::new()
        } else {
            format!(" ({})", parts.join(" + "))
        };
        let most = self.most_seconds();
        let range = if most > self.floor_seconds + 0.05 {
            format!(", up to {} while its range fills", duration(most))
        } else {
            String::new()
        };
        format!("{}{parts}{range}", duration(self.floor_seconds))
    }
}

impl Unexpected {
    /// Its name, with what tells it from others.
    pub fn name(&self) -> String {
        let labels: Vec<String> = self
            .labels
            .iter()
            .filter(|(name, _)| *name != "alertname")
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        let alert = self.labels.get("alertname").map_or("?", String::as_str);
        if labels.is_empty() {
            alert.to_owned()
        } else {
            format!("{alert}{{{}}}", labels.join(", "))
        }
    }

    /// One line.
    pub fn text(&self) -> String {
        let after = self
            .firing_seconds
            .map(|seconds| format!(" after {}", duration(seconds)));
        format!(
            "{} fired{} and was not expected",
            self.name(),
            after.unwrap_or_default()
        )
    }
}
