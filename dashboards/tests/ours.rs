//! Our own boards: nothing is found in them, every metric of the catalogue is on one, a real Prometheus takes every
//! question, the same landscape makes the same bytes, and all three forms say the same.

use std::collections::{BTreeMap, BTreeSet};

use dashboards::boards;
use dashboards::check::{Context, check};
use dashboards::model::{Dashboard, Format, Target, envelope};
use dashboards::provision::{Sources, TraceStore, Traces, config_maps, tree};
use dashboards::read::{Document, Form, Node};
use lint::flow::Records;
use manifest::Manifest;
use manifest::landscape::{Board, Landscape};
use serde_json::{Value, json};

const LOCAL: &str = include_str!("ours/local.json");
const KUBERNETES: &str = include_str!("ours/kubernetes.json");

fn boards_of(landscape: &str) -> Vec<Dashboard> {
    let landscape: Landscape = serde_json::from_str(landscape).expect("the landscape is JSON");
    boards::of(&landscape)
}

fn all() -> Vec<Dashboard> {
    [LOCAL, KUBERNETES].into_iter().flat_map(boards_of).collect()
}

/// Every question to a Prometheus, of panels, annotations and variables.
fn questions(boards: &[Dashboard]) -> Vec<String> {
    let mut all = Vec::new();
    for board in boards {
        for chart in board.charts() {
            let asked = chart
                .targets
                .iter()
                .filter(|target| matches!(target, Target::Prometheus(_)));
            all.extend(asked.map(|target| target.expr().to_owned()));
        }
        all.extend(board.annotations.list.iter().filter_map(|of| of.expr.clone()));
    }
    all
}

#[test]
fn nothing_is_found_in_ours_in_any_form() {
    let (manifest, records) = (Manifest::built_in(), Records::default());
    let context = Context {
        manifest: &manifest,
        records: &records,
        scrape_interval: None,
    };
    for landscape in [LOCAL, KUBERNETES] {
        for format in [Format::Classic, Format::V1, Format::V2] {
            let file = |board: &Dashboard| (format!("{}.json", board.uid), envelope::write(board, format));
            let report = check(boards_of(landscape).iter().map(file), context);
            let shown: Vec<String> = report
                .findings
                .iter()
                .map(|finding| {
                    format!(
                        "{} {} [{}] {}",
                        finding.check.name, finding.file, finding.subject, finding.what
                    )
                })
                .collect();
            assert_eq!(shown, [""; 0], "{format:?}");
        }
    }
}

#[test]
fn every_metric_of_the_catalogue_is_on_a_board() {
    let mut shown = BTreeSet::new();
    for text in questions(&all()) {
        let query = promql::Dialect::grafana().parse(&text).unwrap();
        shown.extend(
            query
                .expr
                .selectors()
                .iter()
                .filter_map(|selector| Some(selector.name.as_ref()?.text.to_string())),
        );
    }
    let manifest = Manifest::catalogue();
    let on_boards: BTreeSet<&str> = shown
        .iter()
        .filter_map(|name| Some(manifest.lookup(name)?.metric.name.as_str()))
        .collect();
    let missing: Vec<&str> = catalogue::ALL
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !on_boards.contains(name))
        .collect();
    assert_eq!(missing, [""; 0], "a new metric wants a panel");
}

#[test]
fn every_board_that_alerts_lead_to_is_there() {
    for landscape in [LOCAL, KUBERNETES] {
        let uids: Vec<String> = boards_of(landscape).into_iter().map(|board| board.uid).collect();
        for board in Board::ALL {
            assert!(uids.iter().any(|uid| uid == board.uid()), "{}", board.uid());
        }
    }
}

#[test]
fn the_same_landscape_makes_the_same_bytes_and_a_new_panel_keeps_numbers() {
    for (first, second) in all().iter().zip(&all()) {
        assert_eq!(first.to_json(), second.to_json());
        assert!(first.to_json().ends_with("}\n"));
        let ids: Vec<u32> = first.charts().map(|chart| chart.id).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{}", first.uid);
    }
    // Local and Kubernetes differ in their panels; what both have has one number.
    let numbers = |landscape| -> BTreeMap<(String, String), u32> {
        let boards = boards_of(landscape);
        let charts = boards.iter().flat_map(|board| {
            board
                .charts()
                .map(|chart| ((board.uid.clone(), chart.title.clone()), chart.id))
        });
        charts.collect()
    };
    let (local, kubernetes) = (numbers(LOCAL), numbers(KUBERNETES));
    let common: Vec<_> = local
        .iter()
        .filter(|(name, _)| kubernetes.contains_key(*name) && name.0 != "opsctl-canary")
        .collect();
    assert!(common.len() > 50);
    for (name, id) in common {
        assert_eq!(kubernetes[name], *id, "{name:?}");
    }
}

#[test]
fn the_three_forms_say_the_same() {
    for board in all() {
        let read = |format| {
            let document = Document::new("b.json", envelope::write(&board, format)).unwrap();
            let board = document.board().unwrap();
            let asked: Vec<_> = board
                .panels
                .iter()
                .filter(|panel| !panel.is_row())
                .map(|panel| {
                    let place = panel.grid.map(|grid| (grid.x as u32, grid.w as u32, grid.h as u32));
                    let exprs: Vec<_> = panel.targets.iter().filter_map(|target| target.expr?.text()).collect();
                    (
                        panel.name(),
                        panel.kind.to_owned(),
                        place,
                        format!("{exprs:?}"),
                        panel.unit().and_then(Node::text).map(str::to_owned),
                    )
                })
                .collect();
            let variables: Vec<_> = board
                .variables
                .iter()
                .map(|variable| variable.name().unwrap().to_owned())
                .collect();
            (
                board.form,
                board.uid.and_then(Node::text).map(str::to_owned),
                asked,
                variables,
                board.annotations.len(),
            )
        };
        let (classic, v1, v2) = (read(Format::Classic), read(Format::V1), read(Format::V2));
        assert_eq!((classic.0, v1.0, v2.0), (Form::Classic, Form::V1, Form::V2));
        assert_eq!(
            (&classic.1, &classic.2, &classic.3, classic.4),
            (&v1.1, &v1.2, &v1.3, v1.4)
        );
        assert_eq!(
            (&classic.1, &classic.2, &classic.3, classic.4),
            (&v2.1, &v2.2, &v2.3, v2.4),
            "{}",
            board.uid
        );
    }
}

#[test]
fn promtool_takes_every_question() {
    let Some(promtool) = peers::peer("promtool", "promtool_takes_every_question") else {
        return;
    };
    let asked = questions(&all());
    assert!(asked.len() > 200);
    let filled = |text: &str| {
        let mut out = String::new();
        let mut at = 0;
        for variable in promql::variables(text) {
            out.push_str(&text[at..variable.span.range().start]);
            out.push_str(if variable.name.starts_with("__") { "1m" } else { "x" });
            at = variable.span.range().end;
        }
        out + &text[at..]
    };
    let rules: Vec<Value> = asked
        .iter()
        .enumerate()
        .map(|(at, text)| json!({ "record": format!("question:{at}"), "expr": filled(text) }))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(
        &file,
        json!({ "groups": [{ "name": "questions", "rules": rules }] }).to_string(),
    )
    .unwrap();
    let output = std::process::Command::new(promtool)
        .args(["check", "rules"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn sources(kind: TraceStore) -> Sources {
    Sources {
        prometheus: "http://prometheus:9090".to_owned(),
        scrape_interval: 15,
        loki: Some("http://loki:3100".to_owned()),
        traces: Some(Traces {
            kind,
            url: "http://traces:16686".to_owned(),
        }),
    }
}

#[test]
fn a_click_leads_from_exemplar_to_trace_to_lines_and_back() {
    for kind in [TraceStore::Jaeger, TraceStore::Tempo] {
        let files = tree(&boards_of(LOCAL), "opsctl", &sources(kind)).unwrap();
        let of: Value = serde_saphyr::from_str(&files["provisioning/datasources/opsctl.yaml"]).unwrap();
        let of = of["datasources"].as_array().unwrap();
        let by_uid = |uid: &Value| of.iter().find(|source| source["uid"] == *uid).unwrap();
        let prometheus = by_uid(&json!("prometheus"));
        let exemplar = &prometheus["jsonData"]["exemplarTraceIdDestinations"][0];
        assert_eq!(exemplar["name"], "trace_id");
        let traces = by_uid(&exemplar["datasourceUid"]);
        assert_eq!(
            traces["type"],
            if kind == TraceStore::Tempo { "tempo" } else { "jaeger" }
        );
        let lines = &traces["jsonData"]["tracesToLogsV2"];
        assert_eq!(lines["tags"], json!([{ "key": "service.name", "value": "service" }]));
        let loki = by_uid(&lines["datasourceUid"]);
        let field = &loki["jsonData"]["derivedFields"][0];
        assert_eq!(
            (&field["datasourceUid"], loki["type"].as_str()),
            (&exemplar["datasourceUid"], Some("loki"))
        );
        // As a line of `telemetry` has it.
        assert_eq!(field["matcherRegex"], "\"trace_id\":\"([0-9a-f]{32})\"");
        assert_eq!(prometheus["isDefault"], true);
        // A lone dollar would be taken for a variable of the environment.
        let text = &files["provisioning/datasources/opsctl.yaml"];
        assert!(!text.replace("$$", "").contains('$'), "{text}");
    }
}

#[test]
fn the_tree_and_the_config_maps_hold_every_board_as_it_is() {
    let boards = boards_of(LOCAL);
    let files = tree(&boards, "opsctl", &sources(TraceStore::Jaeger)).unwrap();
    assert_eq!(files.len(), boards.len() + 2);
    let provider: Value = serde_saphyr::from_str(&files["provisioning/dashboards/opsctl.yaml"]).unwrap();
    assert_eq!(provider["providers"][0]["allowUiUpdates"], false);
    assert_eq!(provider["providers"][0]["options"]["foldersFromFilesStructure"], true);
    let text = config_maps(&boards, "opsctl", "observe", Some(&sources(TraceStore::Tempo))).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    assert_eq!(objects.len(), boards.len() + 1);
    for (object, board) in objects.iter().zip(&boards) {
        assert_eq!(
            (&object["kind"], &object["metadata"]["namespace"]),
            (&json!("ConfigMap"), &json!("observe"))
        );
        assert_eq!(object["metadata"]["labels"]["grafana_dashboard"], "1");
        let file = format!("{}.json", board.uid);
        assert_eq!(object["data"][&file], board.to_json());
        assert_eq!(files[&format!("dashboards/opsctl/{file}")], board.to_json());
    }
    let last = objects.last().unwrap();
    assert_eq!(last["metadata"]["labels"]["grafana_datasource"], "1");
}
