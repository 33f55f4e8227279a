//! A board with each kind of panel, drawn from a recording.

use std::path::Path;

use dashboards::draw::data::{Fixture, FixtureError};
use dashboards::draw::{Board, Drawing, NotABoard, Settings, draw, page};
use pictures::{Theme, png};

use crate::judged;

const BOARD: &str = include_str!("boards/kinds.json");
const DATA: &str = include_str!("boards/kinds.data.json");

async fn drawn(settings: impl FnOnce(&mut Settings)) -> Drawing {
    let data = Fixture::read(DATA).unwrap();
    let (from, to) = data.span();
    let mut own = Settings::new(from, to);
    settings(&mut own);
    draw(&Board::parse(BOARD).unwrap(), &data, &own, &|_| {}).await
}

#[tokio::test]
async fn each_kind_of_panel_shows_what_was_recorded() {
    let drawing = drawn(|_| {}).await;
    let words = judged(drawing.svg.as_str());
    assert_eq!(drawing.failures, [("no answer was recorded".to_owned(), 1)]);
    for expected in [
        // The title, with the values of variables in it.
        "Orders in eu, us",
        "service: orders   region: eu, us",
        // Lines: the template of the legend, the unit, the threshold, the deploy.
        "Place",
        "15\u{a0}req/s",
        "deploys",
        // A number whose steps colour it, and one that a mapping writes.
        "99.5%",
        "closed",
        // Bars, gauges, tables.
        "/checkout",
        "62%",
        "12\u{a0}MiB",
        "pod",
        "Memory",
        // Buckets, states, text.
        "+Inf",
        "half open",
        "What to do first",
        // What is left away is said.
        "Panels of kind nodeGraph are not drawn.",
        "This panel asks loki; only Prometheus is asked here.",
        "no data",
        "without the transformations calculateField",
        // A folded row, and a panel that is repeated for each region.
        "Details",
        "1 panel, folded",
        "Errors in eu",
        "Errors in us",
    ] {
        assert!(
            words.iter().any(|word| word == expected),
            "{expected} is not in {words:#?}"
        );
    }
    assert!(!words.iter().any(|word| word.contains("Folded away")));
    let unfolded = drawn(|settings| settings.unfold = true).await;
    assert!(
        judged(unfolded.svg.as_str())
            .iter()
            .any(|word| word.contains("Folded away"))
    );
}

#[tokio::test]
async fn the_same_board_gives_the_same_bytes_and_a_png() {
    for theme in [Theme::Light, Theme::Dark] {
        let one = drawn(|settings| settings.theme = theme).await.svg;
        assert_eq!(one, drawn(|settings| settings.theme = theme).await.svg);
        let bytes = png(&one, 1.0).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        let name = format!("board-{theme:?}");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
        std::fs::write(folder.join(format!("{name}.svg")), one.as_str()).unwrap();
    }
}

#[tokio::test]
async fn a_page_links_its_boards() {
    let mut boards = Vec::new();
    for id in ["a", "b"] {
        let set = |settings: &mut Settings| {
            settings.theme = Theme::Page;
            id.clone_into(&mut settings.id);
        };
        boards.push(drawn(set).await);
    }
    let page = page("Boards", &boards, "drawn in a test");
    assert!(page.contains("href=\"#section-2\"") && page.contains("id=\"section-2\""));
    assert!(page.contains("not answered: no answer was recorded (1)"));
    assert!(!page.contains("<script"));
    assert_eq!(
        page.matches(&format!(">{}</text>", boards[0].title)).count(),
        0,
        "the headings say it"
    );
    let mut ids: Vec<&str> = page
        .split(" id=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id is there twice");
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("boards.html"), page).unwrap();
}

/// The same panels, with the layout apart as Grafana's version 2 has it.
#[tokio::test]
async fn a_board_of_version_2_is_drawn_as_its_classic_form() {
    let query = serde_json::json!({
        "kind": "PanelQuery",
        "spec": {
            "refId": "A",
            "query": {
                "kind": "DataQuery", "group": "prometheus", "datasource": { "name": "${datasource}" },
                "spec": { "expr": "availability{service=\"$service\"}" },
            },
        },
    });
    let element = serde_json::json!({
        "kind": "Panel",
        "spec": {
            "title": "Availability of $service",
            "data": { "kind": "QueryGroup", "spec": { "queries": [query] } },
            "vizConfig": {
                "kind": "VizConfig", "group": "stat",
                "spec": { "fieldConfig": { "defaults": { "unit": "percentunit" }, "overrides": [] } },
            },
        },
    });
    let item = serde_json::json!({
        "kind": "GridLayoutItem",
        "spec": { "x": 0, "y": 0, "width": 8, "height": 4, "element": { "kind": "ElementReference", "name": "panel-1" } },
    });
    let row = serde_json::json!({
        "kind": "RowsLayoutRow",
        "spec": { "title": "Objectives", "layout": { "kind": "GridLayout", "spec": { "items": [item] } } },
    });
    let board = serde_json::json!({
        "apiVersion": "dashboard.grafana.app/v2",
        "spec": {
            "title": "Version 2",
            "variables": [{ "kind": "ConstantVariable", "spec": { "name": "service", "query": "orders" } }],
            "elements": { "panel-1": element },
            "layout": { "kind": "RowsLayout", "spec": { "rows": [row] } },
        },
    });
    let data = Fixture::read(DATA).unwrap();
    let (from, to) = data.span();
    let board = Board::read(&board).unwrap();
    let drawing = draw(&board, &data, &Settings::new(from, to), &|_| {}).await;
    let words = judged(drawing.svg.as_str());
    for expected in ["Version 2", "Objectives", "Availability of orders", "99.5%"] {
        assert!(
            words.iter().any(|word| word == expected),
            "{expected} is not in {words:?}"
        );
    }
}

#[test]
fn what_is_no_recording_and_no_board_is_refused() {
    assert!(matches!(Fixture::read("{}"), Err(FixtureError::Schema)));
    assert!(matches!(
        Fixture::read("{\"schema\":\"opsctl.board_data/v2\"}"),
        Err(FixtureError::Schema)
    ));
    assert!(matches!(Fixture::read("no"), Err(FixtureError::Read(_))));
    assert!(matches!(Board::parse("[]"), Err(NotABoard::Shape)));
    assert!(matches!(Board::parse("{"), Err(NotABoard::Json(_))));
    assert_eq!(
        Board::parse("{\"spec\":{\"title\":\"x\",\"panels\":[{}]}}")
            .unwrap()
            .panels(),
        1
    );
    assert!(matches!(Board::parse(&"[".repeat(100_000)), Err(NotABoard::Json(_))));
    let back = Fixture::read(DATA).unwrap();
    assert_eq!(Fixture::read(&back.write()).unwrap(), back);
}
