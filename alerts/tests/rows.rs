//! Six common alerts as people write them, each with the faults that it has: all are found, with what, why and a fix.

use std::collections::BTreeSet;

use alerts::check::{Options, check};
use lint::{Severity, SourceFile};
use manifest::Manifest;

/// A rule as it is written, what must be found in it as an error, what besides, and what a fix must put there.
struct Row {
    name: &'static str,
    rule: &'static str,
    errors: &'static [&'static str],
    others: &'static [&'static str],
    fix: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        name: "a ratio of series by themselves",
        rule: "alert: HighErrorRate\nexpr: rate(grpc_server_handled_total{grpc_code!=\"OK\"}[5m]) / rate(grpc_server_handled_total[5m]) > 0.05\nfor: 5m",
        errors: &["same-series"],
        others: &["client-errors"],
        fix: "sum by (job) (rate(grpc_server_handled_total[5m]))",
    },
    Row {
        name: "a ratio without `by`",
        rule: "alert: HighErrorRate\nexpr: sum(rate(grpc_server_handled_total{grpc_code=\"Internal\"}[5m])) / sum(rate(grpc_server_handled_total[5m])) > 0.05\nfor: 5m\nannotations: {summary: \"{{ $labels.service }} fails\"}",
        errors: &["label-dropped"],
        others: &["one-for-all"],
        fix: "sum by (service) (rate",
    },
    Row {
        name: "nothing divided by nothing",
        rule: "alert: HighErrorRate\nexpr: sum by (job) (rate(grpc_server_handled_total{grpc_code=\"Internal\"}[5m])) / sum by (job) (rate(grpc_server_handled_total[5m])) > 0.05\nfor: 5m",
        errors: &[],
        others: &["no-zero-guard", "no-data"],
        fix: "(sum by (job) (rate(grpc_server_handled_total[5m])) > 0)",
    },
    Row {
        name: "callers' mistakes",
        rule: "alert: HighErrorRate\nexpr: sum by (job) (rate(grpc_server_handled_total{grpc_code!=\"OK\"}[5m])) > 1\nfor: 5m",
        errors: &[],
        others: &["client-errors"],
        fix: "grpc_code=~\"Unknown|DeadlineExceeded|ResourceExhausted|Unimplemented|Internal|Unavailable|DataLoss\"",
    },
    Row {
        name: "a quantile without buckets",
        rule: "alert: SlowRequests\nexpr: histogram_quantile(0.95, sum by (service) (rate(grpc_server_handling_seconds_bucket[5m]))) > 1\nfor: 5m",
        errors: &["le-dropped"],
        others: &[],
        fix: "sum by (le, service)",
    },
    Row {
        name: "a threshold above the top bucket",
        rule: "alert: SlowRequests\nexpr: histogram_quantile(0.95, sum by (le) (rate(grpc_server_handling_seconds_bucket[5m]))) > 30\nfor: 5m",
        errors: &["above-top-bucket"],
        others: &[],
        fix: "",
    },
    Row {
        name: "a threshold beside the buckets",
        rule: "alert: SlowRequests\nexpr: histogram_quantile(0.95, sum by (le) (rate(grpc_server_handling_seconds_bucket[5m]))) > 2\nfor: 5m",
        errors: &[],
        others: &["off-bucket"],
        fix: "> 2.5",
    },
    Row {
        name: "a state that is none",
        rule: "alert: CircuitBreakerOpen\nexpr: circuit_breaker_state{state=\"opened\"} == 1",
        errors: &["label-value"],
        others: &["no-for"],
        fix: "state=\"open\"",
    },
    Row {
        name: "a label that is not there",
        rule: "alert: CircuitBreakerOpen\nexpr: circuit_breaker_failure_ratio{state=\"open\"} == 1",
        errors: &["label-unknown"],
        others: &["no-for"],
        fix: "for: 5m",
    },
    Row {
        name: "an age per saga",
        rule: "alert: SagaStuck\nexpr: max by (saga_id) (saga_started_timestamp_seconds) > 600\nfor: 5m",
        errors: &["identity-label", "timestamp-raw"],
        others: &["no-data"],
        fix: "absent(saga_started_timestamp_seconds)",
    },
    Row {
        name: "one table, counted by every replica",
        rule: "alert: OutboxBacklog\nexpr: sum by (job) (outbox_pending) > 100\nfor: 5m",
        errors: &[],
        others: &["shared-sum"],
        fix: "max by (job) (outbox_pending)",
    },
    Row {
        name: "sides with other labels",
        rule: "alert: HighDBConnectionUsage\nexpr: pg_stat_activity_count / pg_settings_max_connections > 0.8\nfor: 5m",
        errors: &["vector-matching"],
        others: &[],
        fix: "sum by (job, instance, server) (pg_settings_max_connections)",
    },
    Row {
        name: "a name from before it had its unit",
        rule: "alert: DiskFull\nexpr: node_filesystem_free{mountpoint=\"/\"} < 1e9\nfor: 5m",
        errors: &["metric-unknown"],
        others: &[],
        fix: "node_filesystem_free_bytes{",
    },
    Row {
        name: "a word that other programs have as well",
        rule: "alert: ConsumerLag\nexpr: consumer_lag > 1000",
        errors: &[],
        others: &["metric-unknown"],
        fix: "for: 5m",
    },
    Row {
        name: "a metric that many programs export, with a label of one of them",
        rule: "alert: Errors\nexpr: rate(http_server_request_duration_seconds_count{status=\"500\"}[5m]) > 1",
        errors: &[],
        others: &["label-unknown"],
        fix: "",
    },
    Row {
        name: "many to one",
        rule: "alert: HighDBConnectionUsage\nexpr: pg_stat_activity_count / ignoring (datname, state) pg_settings_max_connections > 0.8\nfor: 5m",
        errors: &["many-to-one"],
        others: &[],
        fix: "group_left ()",
    },
];

#[test]
fn what_is_counted_is_not_changed_by_a_fix() {
    let options = Options::new(Manifest::built_in(), "2026-11-23".parse().expect("a day"));
    for (expr, is_fixed) in [
        ("count(count by (version) (build_info)) > 1", false),
        ("sum by (job) (rate(panics_total[5m])) > 0", true),
    ] {
        let rule = format!("alert: A\nexpr: {expr}\nfor: 5m\nannotations: {{summary: \"{{{{ $labels.instance }}}}\"}}");
        let report = check(vec![file(&rule)], &options);
        let mut dropped = report.open().filter(|finding| finding.check.name == "label-dropped");
        let fix = dropped.next().expect("the label is dropped").fix.as_ref();
        assert_eq!(fix.is_some(), is_fixed, "{expr}");
    }
}

/// The rule in a file of its own.
fn file(rule: &str) -> SourceFile {
    let text = format!("groups:\n- name: a\n  rules:\n  - {}\n", rule.replace('\n', "\n    "));
    // What begins with a quote or a brace inside of a plain value is written as a block.
    let text = text.replace("expr: ", "expr: |\n      ");
    SourceFile::new("rules.yml", text)
}

#[test]
fn every_fault_is_found_with_what_why_and_a_fix() {
    let mut manifest = Manifest::built_in();
    let saga = "# TYPE saga_started_timestamp_seconds gauge\nsaga_started_timestamp_seconds{saga_id=\"b2c\"} 1.7e9\n";
    manifest.merge(manifest::capture::read(saga, "saga.prom", manifest::capture::LIMITS).expect("it reads"));
    let options = Options::new(manifest, "2026-11-23".parse().expect("a day"));
    for row in ROWS {
        let report = check(vec![file(row.rule)], &options);
        let shown = lint::output::text(&report);
        let of = |wanted: fn(Severity) -> bool| -> BTreeSet<&str> {
            report
                .open()
                .filter(|finding| wanted(finding.severity))
                .map(|finding| finding.check.name)
                .collect()
        };
        let errors = of(|severity| severity == Severity::Error);
        assert_eq!(errors, row.errors.iter().copied().collect(), "{}:\n{shown}", row.name);
        let others = of(|severity| severity != Severity::Error);
        for other in row.others {
            assert!(others.contains(other), "{}: no {other} in\n{shown}", row.name);
        }
        for finding in report.open() {
            assert!(!finding.what.is_empty() && !finding.why.is_empty());
        }
        let diffs: String = report
            .open()
            .filter_map(|finding| finding.fix.as_ref())
            .map(|fix| fix.diff(&report.files[0]))
            .collect();
        let added = diffs
            .lines()
            .any(|line| line.starts_with('+') && line.contains(row.fix));
        assert!(added, "{}: nothing adds `{}` in\n{diffs}", row.name, row.fix);
    }
}
