//! What holds for checks of any expression: they find what lies in it, and what they mend is a query afterwards.

use std::cmp::Reverse;
use std::sync::LazyLock;

use fixtures::fuzzing::Target;
use lint::expression::{Context, Purpose, check};
use lint::flow::Records;
use manifest::Manifest;
use promql::Dialect;

use super::language;

/// The targets of this file.
pub const TARGETS: &[Target] = &[Target {
    name: "expression",
    seeds,
    property: expression,
    odd: language::ODD,
}];

/// Asks for what the catalogue has, so that more is found than that nobody knows it.
const SOUND: &[&str] = &[
    "sum(rate(http_server_request_duration_seconds_bucket{le=\"0.1\"}[5m])) by (job) / 0 > 0.999",
    "histogram_quantile(0.99, sum by (le) (rate(http_server_request_duration_seconds_bucket[1m]))) > 60",
    "http_server_request_duration_seconds_count > 5 and rate(circuit_breaker_state[5m]) == 1",
    "increase(grpc_server_handled_total{grpc_code!~\"OK.*\"}[5m]) / on (job) group_left grpc_server_handled_total",
    "sum(outbox_oldest_age_seconds) > 60 unless up{job=~\"^orders$\"} == 0",
];

static MANIFEST: LazyLock<Manifest> = LazyLock::new(Manifest::catalogue);

fn seeds() -> Vec<Vec<u8>> {
    let all = SOUND.iter().chain(language::SOUND);
    all.map(|text| text.as_bytes().to_vec()).collect()
}

fn expression(input: &[u8]) {
    let text = language::text(input);
    let records = Records::default();
    for (dialect, purpose) in [
        (Dialect::prometheus(), Purpose::Alert),
        (Dialect::prometheus(), Purpose::Record),
        (Dialect::grafana(), Purpose::Panel),
    ] {
        let Ok(query) = dialect.parse(&text) else { continue };
        let context = Context {
            manifest: &MANIFEST,
            records: &records,
            purpose,
            scrape_interval: None,
        };
        for found in check(&query, context) {
            assert!(
                text.get(found.span.range()).is_some(),
                "{text:?}: {found:?} lies outside"
            );
            assert!(!found.what.is_empty(), "{text:?}: {found:?}");
            let Some(remedy) = found.fix.as_ref().filter(|remedy| remedy.safe) else {
                continue;
            };
            let mut mended = text.clone().into_owned();
            let mut edits = remedy.edits.clone();
            edits.sort_by_key(|(span, _)| Reverse(span.start));
            for (span, by) in &edits {
                mended.replace_range(span.range(), by);
            }
            assert!(
                dialect.parse(&mended).is_ok(),
                "{text:?} is mended to {mended:?}: {found:?}"
            );
        }
    }
}
