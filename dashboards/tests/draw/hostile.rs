//! Servers that hang, lie, send too much or send elsewhere; boards that mean harm.

use std::time::Duration;

use dashboards::draw::data::{Data as _, DataError, Fixture, Prometheus, Span};
use dashboards::draw::{Board, Settings, draw};
use endpoint::Access;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::{BEGIN, judged};

const SPAN: Span = Span {
    from: BEGIN,
    to: BEGIN + 600.0,
    step: 15.0,
};

/// What a server says to whoever comes.
#[derive(Clone, Copy)]
enum Says {
    /// This, and no more.
    Text(&'static str),
    /// Nothing, for ever.
    Nothing,
    /// The head, then a byte now and then.
    Drips,
    /// A hundred megabytes.
    TooMuch,
}

async fn server(says: Says) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                match says {
                    Says::Text(text) => {
                        let _ = stream.write_all(text.as_bytes()).await;
                    }
                    Says::Nothing => std::future::pending::<()>().await,
                    Says::Drips => {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                            .await;
                        let mut tick = tokio::time::interval(Duration::from_millis(50));
                        while stream.write_all(b" ").await.is_ok() {
                            tick.tick().await;
                        }
                    }
                    Says::TooMuch => {
                        let _ = stream
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n")
                            .await;
                        let chunk = vec![b'['; 1 << 20];
                        for _ in 0..100 {
                            if stream.write_all(&chunk).await.is_err() {
                                break;
                            }
                        }
                    }
                }
            });
        }
    });
    format!("http://{address}")
}

async fn answer(says: Says) -> Result<Vec<dashboards::draw::data::Series>, DataError> {
    let data = Prometheus::new(&server(says).await, Access::Open, Duration::from_secs(2), None).unwrap();
    data.range("up", SPAN).await
}

fn body(text: &'static str) -> Says {
    let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    Says::Text(Box::leak(whole.into_boxed_str()))
}

#[tokio::test]
async fn a_server_that_hangs_or_floods_is_left() {
    assert_eq!(answer(Says::Nothing).await, Err(DataError::TimeOut));
    assert_eq!(answer(Says::Drips).await, Err(DataError::TimeOut));
    assert_eq!(answer(Says::TooMuch).await, Err(DataError::TooLarge(32)));
    let nobody = Prometheus::new("http://127.0.0.1:1", Access::Open, Duration::from_secs(2), None).unwrap();
    assert!(matches!(
        nobody.instant("up", BEGIN).await,
        Err(DataError::Unreachable(_))
    ));
}

#[tokio::test]
async fn a_server_that_lies_is_not_believed() {
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert!(matches!(answer(Says::Text(moved)).await, Err(DataError::Refused(_))));
    for garbled in [
        "",
        "<html>",
        "[]",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":7}}",
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{},\"values\":[[1]]}]}}",
    ] {
        assert!(
            matches!(answer(body(garbled)).await, Err(DataError::Garbled(_))),
            "{garbled}"
        );
    }
    let refused = answer(body("{\"status\":\"error\",\"error\":\"no <b>such</b> thing\"}")).await;
    assert_eq!(refused, Err(DataError::Refused("no <b>such</b> thing".to_owned())));
    // Out of order, out of all range, and not numbers: what can be used is used, in order.
    let odd = answer(body(
        "{\"status\":\"success\",\"data\":{\"resultType\":\"matrix\",\"result\":[{\"metric\":{\"a\":\"</svg>\"},\
         \"values\":[[1795392030,\"2\"],[1795392000,\"1\"],[1795392015,\"x\"],[1795392045,\"+Inf\"]]}]}}",
    ))
    .await
    .unwrap();
    assert_eq!(odd[0].points[..2], [(BEGIN, 1.0), (BEGIN + 30.0, 2.0)]);
    assert_eq!(odd[0].points.len(), 3);
}

/// A server may say again what it was sent, and anything else that a terminal should not be told.
#[tokio::test]
async fn what_the_server_is_sent_is_shown_to_nobody() {
    let echo = "{\"status\":\"error\",\"error\":\"no \\u001b[2J for hunter2\"}";
    let address = server(body(echo)).await;
    let access = Access::Bearer("hunter2".to_owned());
    let data = Prometheus::new(&address, access, Duration::from_secs(2), None).unwrap();
    let refused = data.instant("up", BEGIN).await;
    assert_eq!(refused, Err(DataError::Refused("no  [2J for …".to_owned())));
    assert!(!format!("{data:?}").contains("hunter"), "{data:?}");
}

/// However many questions hang, a board is drawn when its time is over.
#[tokio::test]
async fn a_board_is_drawn_when_its_time_is_over() {
    let data = Prometheus::new(
        &server(Says::Nothing).await,
        Access::Open,
        Duration::from_secs(30),
        None,
    )
    .unwrap();
    let panels: Vec<Value> = (0..40)
        .map(|n| json!({ "type": "timeseries", "title": n.to_string(), "targets": [{ "refId": "A", "expr": format!("up{n}") }] }))
        .collect();
    let board = Board::read(&json!({ "title": "slow", "panels": panels })).unwrap();
    let mut settings = Settings::new(BEGIN, BEGIN + 600.0);
    settings.patience = Duration::from_millis(500);
    let drawing = tokio::time::timeout(Duration::from_secs(10), draw(&board, &data, &settings, &|_| {}))
        .await
        .unwrap();
    assert_eq!(drawing.failures, [("there was no answer in time".to_owned(), 40)]);
    assert!(
        judged(drawing.svg.as_str())
            .iter()
            .any(|word| word.contains("no answer in time"))
    );
}

#[tokio::test]
async fn a_board_that_means_harm_is_a_board() {
    let evil = "</text><script>alert(1)</script>\u{202e}";
    let many: Vec<Value> = (0..2000)
        .map(|n| {
            json!({
                "type": "text", "title": evil, "repeat": "v", "gridPos": { "x": -5, "y": 1e300, "w": 1e9, "h": 1e9 },
                "options": { "content": format!("{evil} {n} ${{v:raw}}") },
            })
        })
        .collect();
    let values: Vec<String> = (0..1000).map(|n| format!("{n}{evil}$v")).collect();
    let board = json!({
        "title": evil, "description": evil,
        "templating": { "list": [
            { "name": "v", "type": "custom", "query": values.join(","), "multi": true, "includeAll": true },
            { "name": "loop", "type": "constant", "query": "$loop$loop$loop" },
        ]},
        "panels": many,
    });
    let board = Board::read(&board).unwrap();
    let empty = Fixture::empty(BEGIN, BEGIN + 600.0);
    let settings = Settings::new(BEGIN, BEGIN + 600.0);
    let drawing = draw(&board, &empty, &settings, &|_| {}).await;
    let words = judged(drawing.svg.as_str());
    assert!(
        words.iter().any(|word| word.contains("more panels have no room")),
        "{:?}",
        &words[..5]
    );
    assert!(drawing.svg.as_str().len() < 4_000_000);
}

#[test]
fn boards_that_are_deep_or_large_are_refused_or_read() {
    for text in [
        "[".repeat(1 << 20),
        "{\"panels\":[".repeat(100_000),
        "{\"a\":".repeat(1 << 20),
    ] {
        assert!(Board::parse(&text).is_err(), "{}", &text[..20]);
    }
    let panel = format!("{{\"type\":\"text\",\"title\":\"{}\"}}", "x".repeat(1000));
    let text = format!("{{\"panels\":[{}]}}", vec![panel; (10 << 20) / 1000].join(","));
    assert!(Board::parse(&text).is_ok());
}

/// Any JSON in the place of any part of a board.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        prop::sample::select(vec![
            "",
            "now-1h",
            "$v",
            "${v:regex}",
            "timeseries",
            "stat",
            "table",
            "heatmap",
            "gauge",
            "state-timeline",
            "row",
            "up",
            "{{job}}",
            "value",
            "fixed",
            "#12",
            "rgb(1,2)",
            "/(/",
            "byRegexp",
            "{{",
            "0",
            "-1",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let keys = prop::sample::select(vec![
            "panels",
            "type",
            "title",
            "targets",
            "expr",
            "gridPos",
            "x",
            "y",
            "w",
            "h",
            "fieldConfig",
            "defaults",
            "overrides",
            "matcher",
            "options",
            "id",
            "properties",
            "value",
            "custom",
            "thresholds",
            "steps",
            "color",
            "mappings",
            "templating",
            "list",
            "name",
            "query",
            "current",
            "repeat",
            "rows",
            "span",
            "yaxes",
            "annotations",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..8).prop_map(|entries| entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_refused_or_drawn(panels in prop::collection::vec(anything(), 0..6), other in anything(), from in any::<f64>()) {
        let mut json = json!({ "panels": panels });
        if let (Value::Object(board), Value::Object(other)) = (&mut json, other) {
            for (key, value) in other {
                board.entry(key).or_insert(value);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        if let Ok(board) = Board::read(&json) {
            let empty = Fixture::empty(BEGIN, BEGIN);
            let drawing = runtime.block_on(draw(&board, &empty, &Settings::new(from, BEGIN), &|_| {}));
            judged(drawing.svg.as_str());
        }
    }
}
