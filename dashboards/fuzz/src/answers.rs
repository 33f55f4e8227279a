//! What holds for a Prometheus and a Grafana that answer with anything, over real sockets: a board is drawn and a push planned
//! and done or not, what is said of it fits on a terminal, and no secret is in it.

use std::error::Error;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use dashboards::draw::data::{Access, Prometheus};
use dashboards::draw::{Board, Settings, draw};
use dashboards::push::{self, Folder, Http, PushError};
use fixtures::fuzzing::Target;
use fixtures::liar::Liar;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::boards::{BEGIN, JSON};
use super::judge;

/// The targets of this file.
pub const TARGETS: &[Target] = &[
    Target {
        name: "figures",
        seeds: figures_seeds,
        property: figures,
        odd: ODD,
    },
    Target {
        name: "grafana",
        seeds: grafana_seeds,
        property: grafana,
        odd: JSON,
    },
];

/// What means something in an answer of a Prometheus.
const ODD: &[&str] = &[
    "\"NaN\"",
    "\"+Inf\"",
    "\"1e308\"",
    "\"-1e308\"",
    "\"0x1\"",
    "\"\"",
    "1e308",
    "-1",
    "1795392000",
    "[[",
    "]]",
    ",",
    "null",
    "\"resultType\":\"vector\"",
    "\"resultType\":\"scalar\"",
    "\"le\":\"+Inf\"",
    "\\u001b[2J",
    "\\u0000",
    "</svg>",
    "hunter2",
    "\n503 ",
    "\n302 ",
    "\n401 ",
    "\"status\":\"error\",\"error\":\"",
];

/// The token that is sent, which nobody may be shown.
const SECRET: &str = "hunter2";

/// A server and its clients, asked one input after the other.
struct Asked {
    liar: Liar,
    runtime: Runtime,
    prometheus: Prometheus,
    grafana: Http,
    board: Board,
}

static ASKED: LazyLock<Mutex<Asked>> = LazyLock::new(|| {
    let liar = Liar::start();
    let board = include_str!("../../tests/draw/boards/kinds.json");
    let access = Access::Bearer(SECRET.to_owned());
    Mutex::new(Asked {
        runtime: Builder::new_current_thread().enable_all().build().expect("a runtime"),
        prometheus: Prometheus::new(liar.address(), access, Duration::from_secs(5), None).expect("a client"),
        grafana: Http::new(liar.address(), Some(SECRET.to_owned()), "default", None).expect("a client"),
        board: Board::parse(board).expect("a board"),
        liar,
    })
});

fn figures_seeds() -> Vec<Vec<u8>> {
    let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"a","job":"b","le":"0.1"},"values":[[1795392000,"1"],[1795392015,"NaN"],[1795392030.5,"2e3"]]},{"metric":{"le":"+Inf"},"values":[[1795392000,"3"]]}]}}"#;
    let vector = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"b"},"value":[1795392000,"1"]},{"metric":{"job":"c"},"value":[1795392000,"+Inf"]}]}}"#;
    let values = r#"{"status":"success","data":["a","b","c"]}"#;
    let exemplars = r#"{"status":"success","data":[{"seriesLabels":{},"exemplars":[{"labels":{"trace_id":"ab"},"value":"0.5","timestamp":1795392010.1}]}]}"#;
    vec![
        [matrix, vector, values, exemplars].join("\n").into_bytes(),
        [vector, matrix, exemplars, values].join("\n").into_bytes(),
        matrix.as_bytes().to_vec(),
        vector.as_bytes().to_vec(),
        b"503 {\"status\":\"error\",\"error\":\"you said Bearer hunter2\"}\n302 \n<html>".to_vec(),
    ]
}

fn figures(input: &[u8]) {
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.liar.says(input);
    let settings = Settings::new(BEGIN, BEGIN + 1800.0);
    let drawing = draw(&asked.board, &asked.prometheus, &settings, &|_| {});
    let drawing = asked.runtime.block_on(drawing);
    judge::judge(drawing.svg.as_str());
    for (why, _) in &drawing.failures {
        fits(why);
        assert!(!why.contains(SECRET), "{why:?}");
    }
}

fn grafana_seeds() -> Vec<Vec<u8>> {
    let groups = r#"{"groups":[{"name":"dashboard.grafana.app","versions":[{"version":"v1"}]}]}"#;
    let object = r#"{"title":"F","metadata":{"name":"a","resourceVersion":"7","annotations":{"grafana.app/folder":"f","grafana.app/managedBy":""}},"spec":{"title":"A","schemaVersion":42,"panels":[{"id":1,"title":"P","targets":[{"refId":"A","expr":"up"}]}]},"status":{"conversion":{"storedVersion":"v2"}},"dashboard":{"version":3,"title":"A","panels":[]},"meta":{"folderUid":"f","provisioned":false}}"#;
    vec![
        [groups, object].join("\n").into_bytes(),
        [object, "404 {}", groups].join("\n").into_bytes(),
        object.as_bytes().to_vec(),
        [
            "412 {\"message\":\"you said hunter2\",\"status\":\"version-mismatch\"}",
            object,
        ]
        .join("\n")
        .into_bytes(),
        b"403 hunter2\n302 \n500 <html>hunter2\n406 {\"message\":\"use /apis/x/v2beta1/y\"}".to_vec(),
    ]
}

fn grafana(input: &[u8]) {
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.liar.says(input);
    let board = |uid: &str| push::Board {
        uid: uid.to_owned(),
        title: "A".to_owned(),
        spec: json!({ "uid": uid, "title": "A", "schemaVersion": 42, "panels": [{ "id": 1, "title": "P" }] }),
    };
    let folder = Folder {
        uid: "f".to_owned(),
        title: "F".to_owned(),
    };
    let said = |error: &PushError| {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(source) = cause {
            words = format!("{words}: {source}");
            cause = source.source();
        }
        fits(&words);
        assert!(!words.contains(SECRET), "{words:?}");
    };
    asked.runtime.block_on(async {
        let plan = match push::plan(&asked.grafana, vec![board("a"), board("b/../c")], folder).await {
            Ok(plan) => plan,
            Err(error) => return said(&error),
        };
        for (_, refusal) in plan.refused() {
            fits(&refusal.to_string());
        }
        match push::apply(&asked.grafana, &plan).await {
            Ok(outcomes) => {
                let failed = outcomes
                    .iter()
                    .filter_map(|outcome| outcome.result.as_ref()?.as_ref().err());
                failed.for_each(said);
            }
            Err(error) => said(&error),
        }
    });
}

/// What is shown is short and moves no cursor.
fn fits(words: &str) {
    assert!(words.len() < 2000 && !words.chars().any(char::is_control), "{words:?}");
}
