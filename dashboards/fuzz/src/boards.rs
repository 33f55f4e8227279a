//! What holds for boards, whoever wrote them and of whatever age: they are read as every other reader of JSON does, judged
//! in bounded time, mended for the better, and drawn; and for those that are derived from a landscape.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::sync::LazyLock;

use dashboards::boards;
use dashboards::check::{Context, check};
use dashboards::draw::data::Fixture;
use dashboards::draw::{Board, Settings, draw};
use dashboards::provision::{Sources, TraceStore, Traces, config_maps, tree};
use dashboards::read::{Document, Node, Value, json};
use fixtures::fuzzing::{Target, halves};
use lint::SourceFile;
use lint::flow::Records;
use manifest::Manifest;
use manifest::landscape::Landscape;
use tokio::runtime::Builder;

use super::{findings, judge};

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "json",
        seeds: boards_of_others,
        property: same_as_others,
        odd: JSON,
    },
    Target {
        name: "board",
        seeds: boards_of_others,
        property: board,
        odd: JSON,
    },
    Target {
        name: "drawing",
        seeds: boards_of_others,
        property: drawing,
        odd: JSON,
    },
    Target {
        name: "recording",
        seeds: recordings,
        property: recording,
        odd: JSON,
    },
    Target {
        name: "derived",
        seeds: landscapes,
        property: derived,
        odd: NAMES,
    },
];

/// What means something in a board.
pub const JSON: &[&str] = &[
    "\"panels\":[",
    "\"rows\":[",
    "\"type\":\"row\"",
    "\"elements\":{",
    "\"spec\":{",
    "\"repeat\":\"v\"",
    "\"expr\":\"up\"",
    "\"$v\"",
    "\"${v:regex}\"",
    "\"[[v]]\"",
    "\"{{x}}\"",
    "\"now-1h\"",
    "\"1h\"",
    "\\u0000",
    "\\ud83d",
    "\\u001b[2J",
    "\\\\",
    "</svg>",
    "1e308",
    "-1e308",
    "1e-320",
    "-0",
    "9007199254740993",
    "true",
    ",",
    ":",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\u{feff}",
    "é",
    "\"title\":\"x\",",
    "\"schemaVersion\":\"39\"",
    "\"datasource\":null",
    "\"unit\":\"s\"",
    "\"w\":1e9",
    "\"y\":-5",
];

/// What means something where names of a landscape are put.
const NAMES: &[&str] = &[
    "$x",
    "${x}",
    "[[x]]",
    "{{x}}",
    "../",
    "/",
    "\\\\",
    "\\\"",
    "'",
    "\\n",
    "\\u0000",
    "#",
    ": ",
    "\"}) or vector(1) #",
    "é",
    " ",
    "null",
    "[]",
    "0",
    "1e18",
    "</script>",
    "|",
    "%2e%2e/",
];

/// 2026-11-23 00:00:00 UTC.
pub const BEGIN: f64 = 1_795_392_000.0;

static MANIFEST: LazyLock<Manifest> = LazyLock::new(Manifest::catalogue);

fn boards_of_others() -> Vec<Vec<u8>> {
    let files: [&[u8]; 5] = [
        include_bytes!("../../tests/check/base.json"),
        include_bytes!("../../tests/draw/boards/kinds.json"),
        include_bytes!("../seeds/rows.json"),
        include_bytes!("../seeds/elements.json"),
        include_bytes!("../seeds/answer.json"),
    ];
    files.map(<[u8]>::to_vec).to_vec()
}

fn landscapes() -> Vec<Vec<u8>> {
    let files: [&[u8]; 2] = [
        include_bytes!("../../tests/ours/local.json"),
        include_bytes!("../../tests/ours/kubernetes.json"),
    ];
    files.map(<[u8]>::to_vec).to_vec()
}

/// What is JSON to `serde_json` is JSON here, and everything in it stands where it says.
fn same_as_others(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let ours = json::parse(text);
    // Numbers that nothing can hold are infinite here and refused there; half of a pair is taken here, as in browsers.
    if serde_json::from_str::<serde_json::Value>(text).is_ok() {
        assert!(ours.is_ok(), "{text:?}: {ours:?}");
    }
    let Ok(root) = ours else { return };
    let mut nodes: Vec<&Node> = vec![&root];
    while let Some(node) = nodes.pop() {
        let written = text.get(node.span.clone());
        let written = written.unwrap_or_else(|| panic!("{text:?}: {node:?} lies outside"));
        match &node.value {
            Value::Text(content) => {
                assert!(
                    written.starts_with('"') && written.ends_with('"'),
                    "{text:?}: {written:?}"
                );
                for (at, character) in content.char_indices().take(100) {
                    let place = json::inside(text, node, at..at + character.len_utf8());
                    assert!(text.get(place.clone()).is_some(), "{text:?}: {place:?}");
                }
            }
            Value::Number(_) => assert!(written.parse::<f64>().is_ok(), "{text:?}: {written:?}"),
            _ => {}
        }
        nodes.extend(node.items());
        nodes.extend(node.fields().iter().map(|field| &field.value));
    }
}

fn board(input: &[u8]) {
    let records = Records::default();
    let context = Context {
        manifest: &MANIFEST,
        records: &records,
        scrape_interval: None,
    };
    let look = |file: SourceFile| check([(file.name().to_owned(), file.text().to_owned())], context);
    let reads = |text: &str| Document::new("b.json", text).is_ok_and(|document| document.board().is_ok());
    let file = SourceFile::new("b.json", String::from_utf8_lossy(input));
    findings::mend(&file, &look, &reads);
}

fn drawn(board: &Board, fixture: &Fixture, unfold: bool) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut settings = Settings::new(BEGIN, BEGIN + 1800.0);
    settings.unfold = unfold;
    let drawing = runtime.block_on(draw(board, fixture, &settings, &|_| {}));
    judge::judge(drawing.svg.as_str());
}

/// The recording of all kinds of panels.
static KINDS: LazyLock<Fixture> = LazyLock::new(|| {
    let text = include_str!("../../tests/draw/boards/kinds.data.json");
    Fixture::read(text).expect("the recording is read")
});

fn drawing(input: &[u8]) {
    if let Ok(board) = Board::parse(&String::from_utf8_lossy(input)) {
        drawn(&board, &KINDS, input.len().is_multiple_of(2));
    }
}

/// A short recording for the board of all kinds, so that mutations are near something that is drawn.
fn recordings() -> Vec<Vec<u8>> {
    let rest = include_str!("../../tests/draw/boards/kinds.data.json");
    let mut value: serde_json::Value = serde_json::from_str(rest).expect("it is JSON");
    let answers = value["answers"].as_array_mut().into_iter().flatten();
    for series in answers.filter_map(|answer| answer["series"].as_array_mut()).flatten() {
        if let Some(points) = series["points"].as_array_mut() {
            points.truncate(5);
        }
    }
    vec![serde_json::to_vec(&value).expect("it is JSON")]
}

/// What is read is written and read again, to the last digit but one, and drawn whatever the figures are.
fn recording(input: &[u8]) {
    let Ok(fixture) = Fixture::read(&String::from_utf8_lossy(input)) else {
        return;
    };
    let written = fixture.write();
    let again = Fixture::read(&written).expect("what is written is read");
    assert_eq!(again.write().lines().count(), written.lines().count());
    let board = Board::parse(include_str!("../../tests/draw/boards/kinds.json")).expect("a board");
    drawn(&board, &fixture, true);
}

/// Boards of any landscape are JSON and YAML below the folder, and ask only what a Prometheus takes.
fn derived(input: &[u8]) {
    let (folder, _) = halves(input);
    let Ok(landscape) = serde_json::from_slice::<Landscape>(input) else {
        return;
    };
    let boards = boards::of(&landscape);
    let sources = Sources {
        prometheus: String::from_utf8_lossy(folder).into_owned(),
        scrape_interval: 15,
        loki: None,
        traces: Some(Traces {
            kind: TraceStore::Tempo,
            url: "http://tempo:3200".to_owned(),
        }),
    };
    let mut texts = BTreeSet::new();
    for (path, text) in tree(&boards, "opsctl", &sources).expect("a tree is written") {
        let below = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        assert!(below, "{path:?} leads elsewhere");
        if path.starts_with("dashboards/") {
            assert!(texts.insert(text), "{path} is there twice");
        }
    }
    let maps = config_maps(&boards, "opsctl", "monitoring", Some(&sources)).expect("objects are written");
    assert!(lint::document::read(&maps, lint::document::LIMITS).is_ok(), "{maps}");
    let records = Records::default();
    let context = Context {
        manifest: &MANIFEST,
        records: &records,
        scrape_interval: None,
    };
    let files = texts
        .into_iter()
        .enumerate()
        .map(|(number, text)| (format!("{number}.json"), text));
    let report = check(files, context);
    for finding in &report.findings {
        let broken = ["not-json", "not-a-board", "query-syntax"].contains(&finding.check.name);
        assert!(!broken, "{finding:?}");
    }
}
