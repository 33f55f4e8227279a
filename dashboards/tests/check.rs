//! Every check of boards finds what it is there for, and nothing in what is near it. The table changes one thing of a
//! board in which nothing is found (`check/base.json`).

use std::collections::BTreeSet;

use dashboards::check::{CHECKS, Context, check};
use lint::{Report, Severity};
use manifest::Manifest;
use serde_json::{Value, json};

const BASE: &str = include_str!("check/base.json");

fn look(files: &[(&str, &str)]) -> Report {
    let manifest = Manifest::built_in();
    let records = lint::flow::Records::default();
    let context = Context {
        manifest: &manifest,
        records: &records,
        scrape_interval: None,
    };
    check(
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
        context,
    )
}

/// The base with other values at some places; a place that is not there is made, `null` takes it away.
fn changed(changes: &[(&str, Value)]) -> String {
    let mut board: Value = serde_json::from_str(BASE).expect("the board is JSON");
    for (at, value) in changes {
        let (parent, name) = at.rsplit_once('/').expect("a place begins with a slash");
        let parent = board.pointer_mut(parent).unwrap_or_else(|| panic!("{at}"));
        match parent {
            Value::Array(items) => match name.parse::<usize>() {
                Ok(index) => items[index] = value.clone(),
                Err(_) => items.push(value.clone()),
            },
            Value::Object(fields) if value.is_null() => {
                fields.shift_remove(name);
            }
            _ => parent[name] = value.clone(),
        }
    }
    format!("{board:#}\n")
}

/// What is changed, in which the check finds something, and what is near it.
type Case = (&'static str, Vec<(&'static str, Value)>, Vec<(&'static str, Value)>);

const RATE: &str = "/panels/1/targets/0/expr";
const LEGEND: &str = "/panels/1/targets/0/legendFormat";
const DURATION: &str = "/panels/2/targets/0/expr";
const UNIT: &str = "/panels/2/fieldConfig/defaults/unit";
const QUESTION: &str = "/templating/list/1/query/query";

fn one(at: &'static str, value: Value) -> Vec<(&'static str, Value)> {
    vec![(at, value)]
}

fn cases() -> Vec<Case> {
    let panel = |grid: Value| json!({ "id": 9, "type": "text", "title": "Words", "gridPos": grid, "options": { "content": "x" } });
    let variable = |kind: &str, name: &str, query: &str| json!({ "type": kind, "name": name, "query": query });
    let asking = |title: &str, expr: &str| {
        json!({ "id": 8, "type": "timeseries", "title": title, "targets": [{ "refId": "A", "expr": expr,
            "datasource": { "type": "prometheus", "uid": "${datasource}" } }] })
    };
    let shown = |expr: &str, unit: &str| vec![(DURATION, json!(expr)), (UNIT, json!(unit))];
    let row = |y: u32| json!({ "id": 8, "type": "row", "title": "More", "gridPos": { "x": 0, "y": y, "w": 4, "h": 8 }, "panels": [] });
    let many = |count: usize| Value::Array(vec![asking("One of many", "up"); count]);
    vec![
        // The board.
        ("board-title", one("/title", json!(" ")), one("/title", json!("x"))),
        (
            "board-description",
            one("/description", json!("")),
            one("/description", json!("x")),
        ),
        ("board-uid", one("/uid", json!(null)), one("/uid", json!("x"))),
        (
            "board-uid-invalid",
            one("/uid", json!("no spaces")),
            one("/uid", json!("Under_score-9")),
        ),
        (
            "schema-old",
            one("/schemaVersion", json!(30)),
            one("/schemaVersion", json!(39)),
        ),
        (
            "schema-rows",
            one("/rows", json!([{ "title": "a", "panels": [] }])),
            one("/rows", json!([])),
        ),
        (
            "schema-version",
            one("/schemaVersion", json!("39")),
            one("/schemaVersion", json!(43)),
        ),
        (
            "schema-version",
            one("/schemaVersion", json!(99)),
            one("/schemaVersion", json!(42)),
        ),
        (
            "refresh-too-fast",
            one("/refresh", json!("5s")),
            one("/refresh", json!("10s")),
        ),
        (
            "time-range",
            one("/time/from", json!("yesterday")),
            one("/time/from", json!("now-1d/d")),
        ),
        (
            "time-range",
            one("/time/to", json!("now-2h")),
            one("/time/to", json!("now-30m")),
        ),
        (
            "time-range-fixed",
            one("/time/from", json!("2026-01-01T00:00:00Z")),
            one("/time/from", json!("now/d")),
        ),
        (
            "timezone",
            one("/timezone", json!("Europe/Berlin")),
            one("/timezone", json!("utc")),
        ),
        // Places and numbers.
        (
            "panel-overlap",
            one("/panels/-", panel(json!({ "x": 11, "y": 8, "w": 2, "h": 2 }))),
            one("/panels/-", panel(json!({ "x": 11, "y": 9, "w": 2, "h": 2 }))),
        ),
        // Rows are one line high, whatever they say.
        (
            "panel-overlap",
            vec![
                ("/panels/-", row(31)),
                ("/panels/-", panel(json!({ "x": 11, "y": 30, "w": 2, "h": 2 }))),
            ],
            vec![
                ("/panels/-", row(30)),
                ("/panels/-", panel(json!({ "x": 11, "y": 31, "w": 2, "h": 2 }))),
            ],
        ),
        (
            "panel-off-grid",
            one("/panels/-", panel(json!({ "x": 20, "y": 9, "w": 5, "h": 2 }))),
            one("/panels/-", panel(json!({ "x": 20, "y": 9, "w": 4, "h": 2 }))),
        ),
        (
            "duplicate-panel-id",
            one("/panels/2/id", json!(2)),
            one("/panels/2/id", json!(4)),
        ),
        // Panels.
        (
            "panel-title",
            one("/panels/1/title", json!("")),
            one("/panels/0/title", json!("")),
        ),
        (
            "panel-description",
            one("/panels/1/description", json!(null)),
            one("/panels/1/description", json!("x")),
        ),
        (
            "panel-unit",
            one("/panels/1/fieldConfig/defaults/unit", json!("")),
            one("/panels/1/fieldConfig/defaults/unit", json!("short")),
        ),
        (
            "duplicate-panel-title",
            one("/panels/2/title", json!("Rate")),
            one("/panels/2/title", json!("Rates")),
        ),
        (
            "panel-deprecated",
            one("/panels/1/type", json!("graph")),
            one("/panels/1/type", json!("barchart")),
        ),
        (
            "panel-empty",
            one("/panels/1/targets", json!([])),
            one("/panels/0/targets", json!([])),
        ),
        (
            "panel-hidden",
            one("/panels/1/targets/0/hide", json!(true)),
            one("/panels/1/targets/0/hide", json!(false)),
        ),
        (
            "duplicate-ref-id",
            one("/panels/1/targets/-", json!({ "refId": "A", "expr": "up" })),
            one("/panels/1/targets/-", json!({ "refId": "B", "expr": "up" })),
        ),
        (
            "instant-over-time",
            one("/panels/1/targets/0/instant", json!(true)),
            one("/panels/1/targets/0/range", json!(true)),
        ),
        ("too-many-panels", one("/panels", many(61)), one("/panels", many(60))),
        (
            "too-many-queries",
            one("/panels/1/targets", Value::Array(vec![json!({ "expr": "up" }); 150])),
            one("/panels/1/targets", Value::Array(vec![json!({ "expr": "up" }); 149])),
        ),
        (
            "threshold-order",
            one("/panels/2/fieldConfig/defaults/thresholds/steps/1/value", json!(2)),
            one("/panels/2/fieldConfig/defaults/thresholds/steps/1/value", json!(1)),
        ),
        (
            "threshold-range",
            one("/panels/2/fieldConfig/defaults/thresholds/steps/2/value", json!(11)),
            one("/panels/2/fieldConfig/defaults/thresholds/steps/2/value", json!(10)),
        ),
        // Sources.
        (
            "datasource-fixed",
            one("/panels/1/datasource", json!({ "type": "prometheus", "uid": "abc" })),
            one(
                "/panels/1/datasource",
                json!({ "type": "datasource", "uid": "-- Mixed --" }),
            ),
        ),
        (
            "datasource-bare",
            one("/panels/1/datasource", json!("$datasource")),
            one("/panels/1/datasource", json!(null)),
        ),
        (
            "datasource-unknown",
            one(
                "/panels/1/datasource",
                json!({ "type": "prometheus", "uid": "${prom}" }),
            ),
            one(
                "/panels/1/datasource",
                json!({ "type": "prometheus", "uid": "$datasource" }),
            ),
        ),
        // Left from what the panel was; a text asks nobody.
        (
            "datasource-unknown",
            one(
                "/panels/-",
                json!({ "id": 8, "type": "timeseries", "title": "More", "datasource": "${prom}" }),
            ),
            one(
                "/panels/-",
                json!({ "id": 8, "type": "text", "title": "More", "datasource": "${prom}" }),
            ),
        ),
        // Variables.
        (
            "variable-undefined",
            one(RATE, json!("sum by (http_route) (up{job=~\"$servise\"})")),
            one(
                RATE,
                json!("sum by (http_route) (up{job=~\"${service:regex}\", instance=~\"a$\"})"),
            ),
        ),
        (
            "variable-undefined",
            one(RATE, json!("sum by (http_route) (up{topic!~\"SYSTEM.*|$SYS.*\"})")),
            one(RATE, json!("sum by (http_route) (up{topic!~\"SYSTEM.*|\\\\$SYS.*\"})")),
        ),
        // What stands there still from when a Prometheus was asked.
        (
            "variable-undefined",
            one(RATE, json!("sum by (http_route) (up{job=~\"$servise\"})")),
            vec![
                (RATE, json!("sum by (http_route) (up{job=~\"$servise\"})")),
                ("/panels/1/datasource", json!({ "type": "influxdb", "uid": "abc" })),
                (
                    "/panels/1/targets/0/datasource",
                    json!({ "type": "influxdb", "uid": "abc" }),
                ),
            ],
        ),
        (
            "variable-unused",
            one("/templating/list/-", variable("custom", "size", "1,2")),
            vec![
                ("/templating/list/-", variable("custom", "size", "1,2")),
                ("/panels/1/title", json!("Rate of [[size]]")),
            ],
        ),
        (
            "variable-duplicate",
            one("/templating/list/-", variable("custom", "service", "1")),
            one("/templating/list/-", variable("custom", "other", "1")),
        ),
        (
            "variable-cycle",
            one(QUESTION, json!("label_values(build_info{job=\"$service\"}, service)")),
            one(QUESTION, json!("label_values(build_info, service)")),
        ),
        (
            "variable-query",
            one(QUESTION, json!("label_values(build_info, service")),
            one(QUESTION, json!(" label_values( build_info , service )")),
        ),
        (
            "variable-label",
            one(QUESTION, json!("label_values(build_info, outcome)")),
            one(QUESTION, json!("label_values(build_info, version)")),
        ),
        (
            "variable-all",
            one("/templating/list/1/allValue", json!(null)),
            one("/templating/list/1/includeAll", json!(false)),
        ),
        // A copy of a repeated panel that was saved with the board.
        (
            "variable-equality",
            one(RATE, json!("sum by (http_route) (up{job=\"$service\"})")),
            vec![
                (RATE, json!("sum by (http_route) (up{job=\"$service\"})")),
                ("/panels/1/repeatPanelId", json!(2)),
            ],
        ),
        (
            "variable-equality",
            one(RATE, json!("sum by (http_route) (up{job=\"$service\"})")),
            vec![
                (RATE, json!("sum by (http_route) (up{job=\"$service\"})")),
                ("/panels/1/repeat", json!("service")),
            ],
        ),
        (
            "variable-repeat",
            one("/panels/1/repeat", json!("servise")),
            one("/panels/1/repeat", json!("service")),
        ),
        // Questions.
        (
            "query-syntax",
            one(RATE, json!("sum by (http_route (up)")),
            one(RATE, json!("sum by (http_route) (up) # all")),
        ),
        (
            "query-unfinished",
            one(RATE, json!("rate(x{%(matchers)s}[5m])")),
            one(RATE, json!("up % 2")),
        ),
        (
            "rate-interval",
            one(
                RATE,
                json!("sum by (http_route) (rate(http_server_request_duration_seconds_count[5m]))"),
            ),
            one(
                RATE,
                json!("sum by (http_route) (increase(http_server_request_duration_seconds_count[1h]))"),
            ),
        ),
        (
            "interval-for-rate",
            one(
                RATE,
                json!("sum by (http_route) (rate(http_server_request_duration_seconds_count[$__interval]))"),
            ),
            one(RATE, json!("max by (http_route) (max_over_time(up[$__interval]))")),
        ),
        (
            "interval-for-rate",
            one(RATE, json!("sum by (http_route) (increase(orders_total[$__interval]))")),
            vec![
                (RATE, json!("sum by (http_route) (increase(orders_total[$__interval]))")),
                ("/panels/1/interval", json!("1m")),
            ],
        ),
        (
            "counter-shown",
            one(
                RATE,
                json!("sum by (http_route) (http_server_request_duration_seconds_count)"),
            ),
            vec![
                (
                    RATE,
                    json!("sum by (http_route) (http_server_request_duration_seconds_count)"),
                ),
                ("/panels/1/type", json!("stat")),
            ],
        ),
        (
            "legend-label",
            one(LEGEND, json!("{{http_route}} {{ job }}")),
            one(LEGEND, json!("of {{http_route}}")),
        ),
        (
            "legend-label",
            one(LEGEND, json!("{{job}}")),
            vec![(LEGEND, json!("{{job}}")), ("/panels/1/type", json!("heatmap"))],
        ),
        ("unit-mismatch", one(UNIT, json!("ms")), one(UNIT, json!("dtdurations"))),
        ("unit-mismatch", one(UNIT, json!("bytes")), one(UNIT, json!("short"))),
        (
            "unit-mismatch",
            shown("a_request_seconds", "bytes"),
            shown("a_rate_kb_per_seconds", "KBs"),
        ),
        (
            "unit-mismatch",
            shown("a_hit_bytes", "kbytes"),
            shown("a_hit_kbytes_out_bytes_total", "kbytes"),
        ),
        // Three replicas are no unit, a thousand is.
        (
            "unit-mismatch",
            shown("a_kept_bytes / 1000", "bytes"),
            shown("a_kept_bytes / 3", "bytes"),
        ),
        (
            "unit-mismatch",
            shown("a_hit_ratio * 100", "percentunit"),
            shown("a_hit_ratio", "percent"),
        ),
        (
            "unit-mismatch",
            shown("a_kept_bytes", "dateTimeAsIso"),
            shown("a_certificate_expiry_seconds * 1000", "dateTimeAsIso"),
        ),
        (
            "unit-mismatch",
            shown("increase(a_sent_bytes_total[5m])", "Bps"),
            shown("rate(a_sent_bytes_total[5m])", "Bps"),
        ),
        // As axes were written until Grafana 7.
        (
            "unit-mismatch",
            [
                shown("a_request_seconds", "s"),
                vec![
                    ("/panels/2/type", json!("graph")),
                    ("/panels/2/yaxes", json!([{ "format": "ms" }])),
                ],
            ]
            .concat(),
            [
                shown("a_request_seconds", "ms"),
                vec![
                    ("/panels/2/type", json!("graph")),
                    ("/panels/2/yaxes", json!([{ "format": "s" }])),
                ],
            ]
            .concat(),
        ),
        (
            "unit-mismatch",
            vec![
                (DURATION, json!("time() - process_start_time_seconds")),
                (UNIT, json!("dateTimeFromNow")),
            ],
            vec![
                (DURATION, json!("process_start_time_seconds * 1000")),
                (UNIT, json!("dateTimeFromNow")),
            ],
        ),
        (
            "unit-mismatch",
            vec![
                (
                    DURATION,
                    json!("process_resident_memory_bytes / node_memory_MemTotal_bytes * 100"),
                ),
                (UNIT, json!("percentunit")),
            ],
            vec![
                (
                    DURATION,
                    json!("process_resident_memory_bytes / node_memory_MemTotal_bytes * 100"),
                ),
                (UNIT, json!("percent")),
            ],
        ),
        // Links.
        (
            "link-empty",
            one("/panels/1/links/0/url", json!("")),
            one("/panels/1/links/0/url", json!("/a")),
        ),
        (
            "link-variable",
            one("/panels/1/links/0/url", json!("/a?x=$servise")),
            one("/panels/1/links/0/url", json!("/a?${__url_time_range}")),
        ),
        // What single expressions have is found on boards too, at its place.
        (
            "metric-unknown",
            one(RATE, json!("opsctl_backup_sizes_bytes")),
            one(RATE, json!("opsctl_backup_size_bytes")),
        ),
        (
            "label-unknown",
            one(
                RATE,
                json!("rate(saga_steps_total{http_route=\"x\"}[$__rate_interval])"),
            ),
            one(
                RATE,
                json!("rate(saga_steps_total{step=\"payment\"}[$__rate_interval])"),
            ),
        ),
        (
            "le-dropped",
            one(
                DURATION,
                json!("histogram_quantile(0.9, sum(rate(saga_duration_seconds_bucket[$__rate_interval])))"),
            ),
            one(
                DURATION,
                json!("histogram_quantile(0.9, sum by (le) (rate(saga_duration_seconds_bucket[$__rate_interval])))"),
            ),
        ),
        (
            "metric-unknown",
            one(QUESTION, json!("label_values(opsctl_proofs, datastore)")),
            one(QUESTION, json!("label_values(opsctl_backup_snapshots, datastore)")),
        ),
    ]
}

#[test]
fn nothing_is_found_in_the_base() {
    let report = look(&[("base.json", BASE)]);
    assert_eq!(report.findings, []);
}

#[test]
fn every_check_finds_what_it_is_for_and_nothing_near_it() {
    for (name, found, near) in cases() {
        let text = changed(&found);
        let report = look(&[("board.json", &text)]);
        assert!(
            report.findings.iter().any(|finding| finding.check.name == name),
            "{name} finds nothing in {found:?}"
        );
        let text = changed(&near);
        let report = look(&[("board.json", &text)]);
        let wrong: Vec<_> = report
            .findings
            .iter()
            .filter(|finding| finding.check.name == name)
            .collect();
        assert!(wrong.is_empty(), "{name} in {near:?}: {wrong:?}");
    }
}

#[test]
fn every_check_has_a_case() {
    let mut tried: BTreeSet<&str> = cases().iter().map(|case| case.0).collect();
    // Those have tests of their own below.
    tried.extend([
        "not-json",
        "not-a-board",
        "duplicate-field",
        "duplicate-uid",
        "duplicate-title",
        "v1-over-v2",
        "link-unknown-board",
        "more-findings",
    ]);
    let missing: Vec<&str> = CHECKS
        .iter()
        .map(|check| check.name)
        .filter(|name| !tried.contains(name))
        .collect();
    assert_eq!(missing, [""; 0]);
    assert!(CHECKS.len() >= 25, "{}", CHECKS.len());
}

/// What is found: the check, where, and the bytes.
fn places(files: &[(&str, &str)]) -> Vec<String> {
    let report = look(files);
    let place = |finding: &lint::Finding| {
        let text = &report.file(&finding.file).expect("a file that was checked").text()[finding.span.clone()];
        format!(
            "{} {}:{}:{} {text}",
            finding.check.name, finding.file, finding.start.line, finding.start.column
        )
    };
    report.findings.iter().map(place).collect()
}

#[test]
fn boards_are_held_against_each_other() {
    let other = changed(&[("/panels/1/links/0/url", json!("/d/base/x?a=b"))]);
    let files = [("a/one.json", BASE), ("a/two.json", &*other)];
    assert_eq!(places(&files), ["duplicate-uid a/two.json:2:10 \"base\""]);
    let other = changed(&[
        ("/uid", json!("other")),
        ("/panels/1/links/0/url", json!("/d/nobody/x?a=b")),
    ]);
    let files = [("a/one.json", BASE), ("b/two.json", &*other)];
    assert_eq!(places(&files), ["link-unknown-board b/two.json:116:22 nobody"]);
    let files = [("a/one.json", BASE), ("a/two.json", &*other)];
    assert!(
        places(&files)[0].starts_with("duplicate-title a/two.json"),
        "{:?}",
        places(&files)
    );
    let v2 = r#"{ "apiVersion": "dashboard.grafana.app/v2", "kind": "Dashboard", "metadata": { "name": "base" },
        "spec": { "title": "Base", "description": "x", "elements": {}, "layout": { "kind": "GridLayout", "spec": { "items": [] } } } }"#;
    assert_eq!(
        places(&[("a.json", BASE), ("b.json", v2)]),
        ["v1-over-v2 b.json:1:88 \"base\""]
    );
}

#[test]
fn a_place_is_exact_inside_of_escapes() {
    let text = changed(&[(RATE, json!("# \"ü\"\nup{job=~\"\\\\d$servise\"}"))]);
    let found = places(&[("b.json", &text)]);
    let undefined: Vec<&String> = found
        .iter()
        .filter(|place| place.starts_with("variable-undefined"))
        .collect();
    assert_eq!(undefined.len(), 1, "{found:?}");
    assert!(undefined[0].ends_with(" $servise"), "{undefined:?}");
}

#[test]
fn fixes_that_are_safe_mend_what_they_are_for() {
    for (at, value, name) in [
        (
            RATE,
            json!("sum by (http_route) (up{job = \"$service\"})"),
            "variable-equality",
        ),
        ("/schemaVersion", json!("39"), "schema-version"),
        ("/panels/1/datasource", json!("$datasource"), "datasource-bare"),
    ] {
        let text = changed(&[(at, value)]);
        let report = look(&[("b.json", &text)]);
        let fixed = report.fixed();
        assert_eq!(fixed.len(), 1, "{name}");
        let again = look(&[("b.json", &fixed[0].1)]);
        assert!(
            again.findings.iter().all(|finding| finding.check.name != name),
            "{name}: {}",
            fixed[0].1
        );
        let finding = report
            .findings
            .iter()
            .find(|finding| finding.check.name == name)
            .unwrap();
        let diff = finding.fix.as_ref().unwrap().diff(report.file("b.json").unwrap());
        assert!(diff.contains("\n-") && diff.contains("\n+"), "{diff}");
    }
}

#[test]
fn what_is_no_board_is_said_with_its_place() {
    let cases = [
        ("", "not-json b.json:1:1 "),
        ("{ \"a\": tru }", "not-json b.json:1:8 t"),
        ("{\n  \"a\": 01 }", "not-json b.json:2:8 01"),
        ("{ \"a\": 1,}", "not-json b.json:1:10 }"),
        ("{ \"a\": \"\\x\" }", "not-json b.json:1:9 \\x"),
        ("{} {}", "not-json b.json:1:4 {"),
        ("{ \"a\": 1, é}", "not-json b.json:1:11 é"),
        ("[1, 2]", "not-a-board b.json:1:1 "),
        ("{ \"kind\": \"Pod\" }", "not-a-board b.json:1:1 "),
        ("{ \"panels\": { \"a\": 1 } }", "not-a-board b.json:1:1 "),
        ("null", "not-a-board b.json:1:1 "),
    ];
    for (text, expected) in cases {
        assert_eq!(places(&[("b.json", text)]), [expected], "{text}");
    }
    let twice = BASE.replacen("\"uid\": \"base\",", "\"uid\": \"base\", \"title\": \"Base\",", 1);
    assert_eq!(places(&[("b.json", &twice)]), ["duplicate-field b.json:2:18 \"title\""]);
}

#[test]
fn hostile_files_are_refused_or_read_in_bounded_time() {
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(places(&[("b.json", &deep)])[0].starts_with("not-json"));
    let rows = format!(
        "{{\"panels\":{}{}}}",
        "[{\"type\":\"row\",\"panels\":".repeat(60),
        "[]".to_owned() + &"}]".repeat(60)
    );
    look(&[("b.json", &rows)]);
    // Ten mebibytes of panels, and of one expression; more panels than anybody has.
    let started = tokio::time::Instant::now();
    let panel = |words: usize| {
        let target = json!({ "expr": "sum(rate(up[5m]))" });
        json!({ "type": "timeseries", "title": "x", "description": "x ".repeat(words), "targets": [target] })
            .to_string()
    };
    for (words, count) in [(1000, 5000), (1, 10_000)] {
        let panels = vec![panel(words); count].join(",");
        let found = places(&[("b.json", &format!("{{\"title\":\"x\",\"panels\":[{panels}]}}"))]);
        assert!(
            found.iter().any(|place| place.starts_with("more-findings")) && found.len() < 1100,
            "{}",
            found.len()
        );
    }
    let long = "a + ".repeat((10 << 20) / 4) + "a";
    look(&[("b.json", &changed(&[(RATE, json!(long))]))]);
    let parentheses = format!("{}up{}", "(".repeat(100_000), ")".repeat(100_000));
    look(&[("b.json", &changed(&[(RATE, json!(parentheses))]))]);
    let same =
        vec![json!({ "type": "text", "id": 1, "title": "x", "gridPos": { "x": 0, "y": 0, "w": 24, "h": 5 } }); 20_000];
    look(&[("b.json", &changed(&[("/panels", Value::Array(same))]))]);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

#[test]
fn errors_say_what_prometheus_would_refuse() {
    let text = changed(&[(RATE, json!("sum(rate(up[5m])"))]);
    let report = look(&[("b.json", &text)]);
    let finding = report
        .findings
        .iter()
        .find(|finding| finding.check.name == "query-syntax")
        .unwrap();
    assert_eq!((finding.severity, &*finding.subject), (Severity::Error, "Rate"));
    assert!(
        finding.what.ends_with('.') && !finding.what.is_empty(),
        "{}",
        finding.what
    );
}
