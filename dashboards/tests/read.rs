//! The reader of JSON: it takes what `serde_json` takes, makes the same of it, and knows where everything stands. And the
//! ways in which boards of all ages name panels, sources and questions.

use std::fmt::Write as _;

use dashboards::read::{Document, Form, Language, Node, Query, Value};
use proptest::prelude::*;

/// What `serde_json` would have made.
fn theirs(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => (*number).into(),
        Value::Text(text) => (**text).into(),
        Value::List(items) => items.iter().map(theirs).collect::<Vec<_>>().into(),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|field| (field.name.to_string(), theirs(&field.value)));
            serde_json::Value::Object(fields.collect())
        }
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        // Exact in both readers.
        (-1_000_000_000..1_000_000_000_i32).prop_map(|number| (f64::from(number) / 4.0).into()),
        "(\\PC|[\u{0}-\u{1f}\"\\\\/]|é|𝄞){0,12}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            prop::collection::btree_map("[a-z\"\\\\é]{1,4}", inner, 0..5)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Escapes as a program might that escapes more than it has to.
fn escaped(text: &str, every: usize) -> String {
    let mut out = String::from("\"");
    for (at, character) in text.chars().enumerate() {
        if at % every == 0 {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            let plain = serde_json::Value::from(character.to_string()).to_string();
            out.push_str(&plain[1..plain.len() - 1]);
        }
    }
    out + "\""
}

proptest! {
    #[test]
    fn what_is_read_is_what_is_there(value in json(), pretty: bool) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let document = Document::new("a.json", text.as_str()).map_err(|(_, why)| TestCaseError::fail(why.to_string()))?;
        prop_assert_eq!(theirs(&document.root), value);
        // Everything stands where it says.
        let mut pending = vec![&document.root];
        while let Some(node) = pending.pop() {
            let again: serde_json::Value = serde_json::from_str(&text[node.span.clone()]).unwrap();
            prop_assert_eq!(again, theirs(node));
            pending.extend(node.items());
            pending.extend(node.fields().iter().map(|field| &field.value));
        }
    }

    #[test]
    fn any_text_is_refused_or_read_like_the_other_reader_does(text in "[\\[\\]{}\",:0-9eE+.\\- \ntruefalsn\\\\ud8é]{0,24}") {
        let ours = Document::new("a.json", text.as_str());
        let other = serde_json::from_str::<serde_json::Value>(&text);
        if let Ok(other) = &other {
            prop_assert!(ours.is_ok(), "{} is {}", text, other);
        }
        if let Ok(document) = &ours {
            // Half of a pair is taken, as browsers do; numbers too large to hold are infinite there.
            prop_assert!(other.is_ok() || text.contains("\\u") || text.contains(['e', 'E']), "{} {:?}", text, document.root);
        }
    }

    #[test]
    fn a_part_of_a_text_is_found_in_the_file(text in "(\\PC|[\n\t\"\\\\]|𝄞){1,20}", every in 1..5_usize, from: prop::sample::Index, to: prop::sample::Index) {
        let file = format!("[{}]", escaped(&text, every));
        let document = Document::new("a.json", file.as_str()).unwrap();
        let node = &document.root.items()[0];
        prop_assert_eq!(node.text(), Some(text.as_str()));
        let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let (from, to) = (ends[from.index(ends.len())], ends[to.index(ends.len())]);
        ends.clear();
        let range = from.min(to)..from.max(to);
        let place = document.inside(node, range.clone());
        if !range.is_empty() {
            let part: String = serde_json::from_str(&format!("\"{}\"", &file[place])).unwrap();
            prop_assert_eq!(part, &text[range]);
        }
    }
}

#[test]
fn rows_of_old_boards_and_nested_panels_are_found() {
    let old = r#"{ "title": "Old", "schemaVersion": 14, "rows": [
        { "title": "a", "repeat": "node", "panels": [{ "id": 1, "type": "graph", "span": 6, "datasource": "$ds", "targets": [{ "expr": "up" }] }] },
        { "title": "b", "panels": [{ "id": 2, "type": "singlestat", "span": 12 }] }],
        "templating": { "list": [{ "name": "ds", "type": "datasource", "query": "prometheus" }] } }"#;
    let document = Document::new("old.json", old).unwrap();
    let board = document.board().unwrap();
    let kinds: Vec<&str> = board.panels.iter().map(|panel| panel.kind).collect();
    assert_eq!(kinds, ["row", "graph", "row", "singlestat"]);
    assert_eq!(board.panels[0].repeat.and_then(Node::text), Some("node"));
    assert_eq!(board.panels[1].targets[0].language, Language::Prometheus);
    assert_ne!(board.panels[1].container, board.panels[3].container);
    let folded = r#"{ "panels": [{ "type": "row", "collapsed": true, "panels": [{ "type": "stat", "title": "in" }] }, { "type": "text" }] }"#;
    let document = Document::new("folded.json", folded).unwrap();
    let board = document.board().unwrap();
    let kinds: Vec<(&str, usize)> = board.panels.iter().map(|panel| (panel.kind, panel.container)).collect();
    assert_eq!(kinds, [("row", 0), ("stat", 1), ("text", 0)]);
}

#[test]
fn envelopes_are_opened() {
    let inner = r#""title": "T", "panels": []"#;
    for (text, form, uid) in [
        (format!("{{ \"uid\": \"u\", {inner} }}"), Form::Classic, Some("u")),
        (
            format!("{{ \"meta\": {{}}, \"dashboard\": {{ \"uid\": \"u\", {inner} }} }}"),
            Form::Classic,
            Some("u"),
        ),
        (
            format!(
                "{{ \"apiVersion\": \"dashboard.grafana.app/v1beta1\", \"metadata\": {{ \"name\": \"n\" }}, \"spec\": {{ {inner} }} }}"
            ),
            Form::V1,
            Some("n"),
        ),
        (
            "{ \"title\": \"T\", \"elements\": {}, \"layout\": {} }".to_owned(),
            Form::V2,
            None,
        ),
    ] {
        let document = Document::new("b.json", text.as_str()).unwrap();
        let board = document.board().unwrap();
        assert_eq!(
            (board.form, board.uid.and_then(Node::text), board.name()),
            (form, uid, "T"),
            "{text}"
        );
    }
}

#[test]
fn the_question_of_a_variable_is_understood() {
    let question = |text: &str| {
        let file = serde_json::json!({ "panels": [], "templating": { "list": [{ "type": "query", "name": "a", "query": text }] } });
        let document = Document::new("b.json", file.to_string()).unwrap();
        document.board().unwrap().variables[0].question()
    };
    let part = |text: &str, at: usize| (text.to_owned(), at..at + text.len());
    assert_eq!(
        question("label_values(job)"),
        Some(Query::Label { label: part("job", 13) })
    );
    assert_eq!(
        question("label_values(up{a=\"b,c\"}, job)"),
        Some(Query::LabelOf {
            series: part("up{a=\"b,c\"}", 13),
            label: part("job", 26)
        })
    );
    assert_eq!(
        question("query_result(sum(up) by (job))"),
        Some(Query::Result {
            expr: part("sum(up) by (job)", 13)
        })
    );
    assert_eq!(question("metrics(node_.*)"), Some(Query::Names));
    assert_eq!(question("node_"), Some(Query::Unknown));
    assert_eq!(question("label_values(up, job"), None);
    assert_eq!(question("label_values)"), Some(Query::Unknown));
}
