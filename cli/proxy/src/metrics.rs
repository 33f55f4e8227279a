//! The proxy's figures as OpenMetrics text, under the catalogue's names. Probes are contained: a drill that is its own
//! traffic must be able to make an alert fire.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use catalogue::Metric;
use tokio::time::Instant;

use crate::counters::{BUCKETS, CODES};
use crate::fault::KINDS;
use crate::route::LiveRoute;

/// Renders all routes.
pub(crate) fn render<'a>(routes: impl Iterator<Item = &'a Arc<LiveRoute>>) -> String {
    let routes: Vec<_> = routes.collect();
    let now = Instant::now();
    let mut text = Text::default();
    text.family(catalogue::PROXY_REQUESTS_TOTAL.metric());
    for route in &routes {
        route.counters.each_version(|version, cells| {
            for (code, count) in CODES.iter().zip(&cells.codes) {
                let count = count.load(Relaxed);
                if count > 0 {
                    text.sample("", &[&route.service, version, code], &[], count as f64);
                }
            }
        });
    }
    for (metric, slow) in [
        (catalogue::PROXY_ERRORS_TOTAL.metric(), false),
        (catalogue::PROXY_OVER_OBJECTIVE_TOTAL.metric(), true),
    ] {
        text.family(metric);
        for route in &routes {
            route.counters.each_version(|version, cells| {
                let (errors, over) = cells.totals();
                let count = if slow { over } else { errors };
                text.sample("", &[&route.service, version], &[], count as f64);
            });
        }
    }
    text.family(catalogue::PROXY_REQUEST_DURATION_SECONDS.metric());
    for route in &routes {
        route.counters.each_version(|version, cells| {
            let labels = [route.service.as_str(), version];
            let mut total = 0;
            for (index, bucket) in cells.buckets.iter().enumerate() {
                total += bucket.load(Relaxed);
                let bound = BUCKETS.get(index).map_or("+Inf".to_owned(), f64::to_string);
                text.sample("_bucket", &labels, &[("le", &bound)], total as f64);
            }
            let seconds = cells.duration_micros.load(Relaxed) as f64 / 1e6;
            text.sample("_sum", &labels, &[], seconds);
            text.sample("_count", &labels, &[], total as f64);
        });
    }
    text.family(catalogue::PROXY_IN_FLIGHT.metric());
    for route in &routes {
        let in_flight: u64 = route
            .counters
            .each_version(|_, cells| cells.in_flight.load(Relaxed))
            .iter()
            .sum();
        text.sample("", &[&route.service], &[], in_flight as f64);
    }
    text.family(catalogue::PROXY_HELD_TOTAL.metric());
    for route in &routes {
        let (held, probes, ..) = route.counters.rejected();
        text.sample("", &[&route.service], &[], (held + probes) as f64);
    }
    text.family(catalogue::PROXY_WEIGHT_RATIO.metric());
    for route in &routes {
        if let Some(weight) = route.picture.load().weight.as_ref().map(|weight| weight.show(now)) {
            let ratio = f64::from(weight.percent) / 100.0;
            text.sample("", &[&route.service, &weight.version], &[], ratio);
        }
    }
    text.family(catalogue::PROXY_FAULTS_INJECTED_TOTAL.metric());
    for route in &routes {
        for (kind, hits) in KINDS.iter().zip(route.faults.hits()) {
            if hits > 0 {
                text.sample("", &[&route.service, kind], &[], hits as f64);
            }
        }
    }
    text.out.push_str("# EOF\n");
    text.out
}

#[derive(Default)]
struct Text {
    out: String,
    metric: Option<&'static Metric>,
}

impl Text {
    fn family(&mut self, metric: &'static Metric) {
        self.metric = Some(metric);
        // OpenMetrics names a counter's family without the suffix of its samples.
        let family = metric.name.strip_suffix("_total").unwrap_or(metric.name);
        let _ = writeln!(self.out, "# TYPE {family} {}", metric.kind.as_str());
        let _ = writeln!(self.out, "# HELP {family} {}", escape(metric.help));
    }

    fn sample(&mut self, suffix: &str, values: &[&str], more: &[(&str, &str)], value: f64) {
        let Some(metric) = self.metric else { return };
        let names = metric.labels.iter().map(|label| label.name);
        let labels: Vec<String> = names
            .zip(values.iter().copied())
            .chain(more.iter().copied())
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        let _ = writeln!(self.out, "{}{suffix}{{{}}} {value}", metric.name, labels.join(","));
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
