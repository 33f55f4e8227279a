//! What lines look like, and that whoever used `tracing-loki` finds them as they were.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::gate::Gate;
use crate::real;
use crate::sender::{Sender, quick};

const LIMIT: Duration = Duration::from_secs(10);

fn log() {
    let outer = tracing::info_span!("outer", who = "outer", depth = 1, user = tracing::field::Empty);
    let _outer = outer.enter();
    outer.record("user", "ann");
    let inner = tracing::info_span!("inner", depth = 2);
    let _inner = inner.enter();
    tracing::warn!(who = "event", float = 0.5, yes = true, "quoted \"text\"\n{}", 7);
}

#[tokio::test]
async fn keys_labels_and_precedence() {
    let Some(tenant) = real::tenant("keys_labels_and_precedence").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let mut settings = quick();
    settings.labels.insert("place".to_owned(), "a \"b\" ü".to_owned());
    let mut sender = Sender::own(&gate, &tenant, settings);
    sender.log(1, log);
    sender.end(LIMIT).await;
    let lines = tenant.lines().await;
    let [(labels, line)] = &lines[..] else {
        panic!("one line: {lines:?}")
    };
    assert_eq!(
        (labels["level"].as_str(), labels["place"].as_str()),
        (Some("warn"), Some("a \"b\" ü"))
    );
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["message"], "quoted \"text\"\n7");
    assert_eq!(
        (&line["who"], &line["depth"], &line["user"]),
        (&"event".into(), &2.into(), &"ann".into())
    );
    assert_eq!((&line["float"], &line["yes"]), (&0.5.into(), &true.into()));
    assert_eq!(line["_spans"], serde_json::json!(["outer", "inner"]));
    assert_eq!(line["_target"], "loki::lines");
    assert!(line["_file"].as_str().unwrap().ends_with("lines.rs") && line["_line"].is_u64());
}

/// The same program with the other crate: the same keys and the same labels.
#[tokio::test]
async fn one_line_is_changed_and_lines_are_the_same() {
    let Some(tenant) = real::tenant("one_line_is_changed").await else {
        return;
    };
    let gate = Gate::open(tenant.loki).await;
    let senders = [Sender::other(&gate, &tenant), Sender::own(&gate, &tenant, quick())];
    for (mut sender, stored) in senders.into_iter().zip(1..) {
        sender.log(1, log);
        // The other one loses what its task has not seen when it ends.
        assert_eq!(tenant.stored_at_least(stored, LIMIT).await, stored);
        sender.end(LIMIT).await;
    }
    let keys = |(labels, line): &(serde_json::Value, String)| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        (keys(labels), keys(&line))
    };
    let lines = tenant.lines().await;
    assert_eq!(keys(&lines[0]), keys(&lines[1]), "{lines:?}");
}
