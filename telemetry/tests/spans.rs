//! What `tracing` says becomes what OpenTelemetry shows: names, kinds, typed attributes, events, links, status, parents.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::HashMap;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use telemetry::propagation::messages::{self, Channel};
use telemetry::{CapturedSpan, SpanExt as _, Telemetry, TestTelemetry};
use tracing::Instrument as _;

fn only(telemetry: &TestTelemetry) -> CapturedSpan {
    let mut spans = telemetry.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    spans.pop().unwrap()
}

fn named(telemetry: &TestTelemetry, name: &str) -> CapturedSpan {
    let spans = telemetry.spans();
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {spans:?}")).clone()
}

fn attributes(span: &CapturedSpan) -> HashMap<&str, &str> {
    let pairs = span.attributes.iter();
    pairs.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("the card was declined")]
struct Declined(#[source] std::io::Error);

fn declined() -> Declined {
    Declined(std::io::Error::other("limit"))
}

fn remote(flags: u8) -> opentelemetry::Context {
    let context = SpanContext::new(
        TraceId::from(7_u128),
        SpanId::from(9_u64),
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    );
    opentelemetry::Context::new().with_remote_span_context(context)
}

#[test]
fn fields_become_name_kind_status_and_typed_attributes() {
    let telemetry = Telemetry::test();
    let span = tracing::info_span!(
        "work",
        otel.name = "GET /orders",
        otel.kind = "SERVER",
        text = "a",
        whole = -3,
        large = u64::MAX,
        part = 0.5,
        yes = true,
        debug = ?Some(1),
        late = tracing::field::Empty,
        never = tracing::field::Empty,
    );
    span.record("late", 1);
    span.record("late", 2);
    drop(span);
    let span = only(&telemetry);
    assert_eq!(
        (span.name.as_str(), span.kind, span.is_error),
        ("GET /orders", 2, false)
    );
    let found = attributes(&span);
    for (key, wanted) in [
        ("text", "a"),
        ("whole", "-3"),
        ("large", "18446744073709551615"),
        ("part", "0.5"),
        ("yes", "true"),
        ("debug", "Some(1)"),
        ("late", "2"),
    ] {
        assert_eq!(found[key], wanted, "{key}");
    }
    assert_eq!(
        found.len(),
        7,
        "no attribute for what is empty or has a meaning of its own: {found:?}"
    );
}

#[test]
fn errors_set_the_status_and_are_exceptions() {
    for (make, wanted) in [
        (
            (|| tracing::info_span!("s", otel.status_code = "ERROR")) as fn() -> tracing::Span,
            true,
        ),
        (|| tracing::info_span!("s", otel.status_code = "Ok"), false),
        (|| tracing::info_span!("s", error = true), true),
        (|| tracing::info_span!("s", error = false), false),
        (|| tracing::info_span!("s", error = "broken"), true),
        (
            || tracing::info_span!("s", error = &declined() as &dyn std::error::Error),
            true,
        ),
        (|| tracing::info_span!("s", fine = "broken"), false),
    ] {
        let telemetry = Telemetry::test();
        drop(make());
        assert_eq!(only(&telemetry).is_error, wanted, "{:?}", only(&telemetry));
    }
    let telemetry = Telemetry::test();
    tracing::info_span!("request").in_scope(|| {
        tracing::info!("first");
        tracing::warn!(error = &declined() as &dyn std::error::Error, "second");
    });
    tracing::info_span!("failed").in_scope(|| tracing::error!("it broke"));
    let warned = named(&telemetry, "request");
    assert_eq!(warned.events, ["first", "exception"]);
    assert!(!warned.is_error, "a warning is no failure");
    assert!(named(&telemetry, "failed").is_error);
}

#[test]
fn secrets_are_not_shown_and_long_values_are_cut() {
    let telemetry = Telemetry::test();
    tracing::info_span!(
        "call",
        password = "hunter2",
        session_token = 1234,
        url = "postgres://bob:hunter2@db/orders",
        long = "ä".repeat(10_000),
    )
    .in_scope(|| tracing::info!(api_key = "hunter2", "calling http://a:hunter2@b/"));
    let span = only(&telemetry);
    let all = format!("{span:?}");
    assert!(!all.contains("hunter2") && !all.contains("1234"), "{all}");
    assert_eq!(attributes(&span)["long"].len(), 8192);
}

#[test]
fn children_follow_their_parents_explicit_ones_too() {
    let telemetry = Telemetry::test();
    let root = tracing::info_span!("root");
    let child = tracing::info_span!(parent: &root, "child");
    root.in_scope(|| {
        let _apart = tracing::info_span!(parent: None, "apart");
        let _inside = tracing::info_span!("inside");
    });
    let linked = tracing::info_span!("linked");
    linked.follows_from(&root);
    tracing::info!(parent: &child, "for the child");
    let ids = root.ids().unwrap();
    drop((root, child, linked));
    let root = named(&telemetry, "root");
    assert_eq!(
        (root.trace_id.clone(), root.span_id.clone()),
        (ids.trace_id.to_string(), ids.span_id.to_string())
    );
    assert_eq!(root.parent_span_id, "0000000000000000");
    for name in ["child", "inside"] {
        let span = named(&telemetry, name);
        assert_eq!(
            (&span.trace_id, &span.parent_span_id),
            (&root.trace_id, &root.span_id),
            "{name}"
        );
    }
    assert_eq!(named(&telemetry, "child").events, ["for the child"]);
    let apart = named(&telemetry, "apart");
    assert_ne!(apart.trace_id, root.trace_id);
    assert_eq!(named(&telemetry, "linked").links, [root.span_id]);
}

#[test]
fn a_parent_may_be_set_before_a_span_is_entered() {
    let telemetry = Telemetry::test();
    let span = tracing::info_span!("request", otel.kind = "server", kept = 1);
    span.set_parent(&remote(1)).unwrap();
    span.in_scope(|| {
        let _child = tracing::info_span!("child");
        tracing::info!("inside");
    });
    drop(span);
    let span = named(&telemetry, "request");
    assert_eq!(span.trace_id, format!("{:032x}", 7));
    assert_eq!(span.parent_span_id, format!("{:016x}", 9));
    assert_eq!(attributes(&span)["kept"], "1");
    assert_eq!(named(&telemetry, "child").trace_id, span.trace_id);
    assert_eq!(telemetry.lines()[0]["trace_id"], span.trace_id.as_str());
    // An unsampled caller takes it out.
    let unsampled = tracing::info_span!("unsampled");
    unsampled.set_parent(&remote(0)).unwrap();
    unsampled.in_scope(|| drop(tracing::info_span!("below")));
    drop(unsampled);
    assert_eq!(telemetry.spans().len(), 2);
    // And a sampled one brings in a span of an unsampled trace, whose fields are kept where it says its kind.
    let off = telemetry.sampling().clone();
    off.set(0.0, std::time::Duration::from_secs(60)).unwrap();
    let entry = tracing::info_span!("entry", otel.kind = "consumer", kept = 2);
    entry.set_parent(&remote(1)).unwrap();
    let forgotten = tracing::info_span!("forgotten", otel.kind = "server");
    drop((entry, forgotten));
    assert_eq!(attributes(&named(&telemetry, "entry"))["kept"], "2");
    assert_eq!(telemetry.spans().len(), 3);
    assert!(tracing::Span::none().set_parent(&remote(1)).is_err());
}

#[test]
fn the_api_of_opentelemetry_sees_the_same_trace() {
    let telemetry = Telemetry::test();
    let outer = tracing::info_span!("outer");
    outer.in_scope(|| {
        let seen = opentelemetry::Context::current();
        assert_eq!(seen.span().span_context().trace_id(), outer.ids().unwrap().trace_id);
        tracing::info_span!("inner").in_scope(|| {
            let seen = opentelemetry::Context::current();
            assert_ne!(seen.span().span_context().span_id(), outer.ids().unwrap().span_id);
        });
        let seen = opentelemetry::Context::current();
        assert_eq!(seen.span().span_context().span_id(), outer.ids().unwrap().span_id);
    });
    assert!(!opentelemetry::Context::current().span().span_context().is_valid());
    assert_eq!(
        outer.context().span().span_context().span_id(),
        outer.ids().unwrap().span_id
    );
    // The other way round: who attached a context there is continued here.
    let attached = remote(1).attach();
    drop(tracing::info_span!("continued"));
    drop(attached);
    assert_eq!(named(&telemetry, "continued").trace_id, format!("{:032x}", 7));
}

#[test]
fn more_can_be_said_of_a_span_than_fields() {
    let telemetry = Telemetry::test();
    let span = tracing::info_span!("work");
    span.set_attribute("rows", 7);
    span.add_event("cache miss", vec![KeyValue::new("key", "a")]);
    span.add_link(remote(1).span().span_context());
    drop(span);
    let span = only(&telemetry);
    assert_eq!(attributes(&span)["rows"], "7");
    assert_eq!(span.events, ["cache miss"]);
    assert_eq!(span.links, [format!("{:016x}", 9)]);
}

#[test]
fn a_span_holds_no_more_than_its_limits() {
    let telemetry = Telemetry::test();
    let span = tracing::info_span!("busy");
    for number in 0..200_i64 {
        span.set_attribute(format!("key {number}"), number);
        span.in_scope(|| tracing::info!("event"));
        span.add_link(remote(1).span().span_context());
    }
    drop(span);
    let span = only(&telemetry);
    assert_eq!(
        (span.attributes.len(), span.events.len(), span.links.len()),
        (128, 128, 128)
    );
}

#[test]
fn an_unsampled_trace_has_ids_for_lines_and_nothing_else() {
    let telemetry = Telemetry::test();
    telemetry
        .sampling()
        .set(0.0, std::time::Duration::from_secs(60))
        .unwrap();
    let root = tracing::info_span!("root").entered();
    let child = tracing::info_span!("child").entered();
    tracing::info!("one");
    tracing::info!("two");
    let ids = child.ids().unwrap();
    drop(child);
    tracing::info!("three");
    drop(root);
    let lines = telemetry.lines();
    assert!(telemetry.spans().is_empty());
    assert_eq!(lines[0]["span_id"], ids.span_id.to_string());
    assert_eq!(lines[0]["span_id"], lines[1]["span_id"], "an id stays the same");
    assert_ne!(lines[0]["span_id"], lines[2]["span_id"]);
    assert!(
        lines
            .iter()
            .all(|line| line["trace_id"] == ids.trace_id.to_string() && line["trace_flags"] == "00")
    );
    assert!(!ids.sampled);
}

#[tokio::test(flavor = "current_thread")]
async fn tasks_that_take_turns_do_not_mix_their_traces() {
    let telemetry = Telemetry::test();
    let work = |number: u64| {
        let span = tracing::info_span!("request", number);
        async move {
            for _ in 0..5 {
                tracing::info!(number, "step");
                tokio::task::yield_now().await;
                let inner = opentelemetry::Context::current();
                let ids = tracing::Span::current().ids().unwrap();
                assert_eq!(inner.span().span_context().span_id(), ids.span_id);
            }
        }
        .instrument(span)
    };
    tokio::join!(work(0), work(1), work(2));
    let spans = telemetry.spans();
    assert_eq!(spans.len(), 3);
    for span in spans {
        assert_eq!(span.events.len(), 5);
        let number: u64 = attributes(&span)["number"].parse().unwrap();
        let own = telemetry.lines().into_iter().filter(|line| line["number"] == number);
        assert!(own.into_iter().all(|line| line["trace_id"] == span.trace_id.as_str()));
    }
}

#[test]
fn messages_have_producers_consumers_and_links() {
    const ORDERS: Channel<'_> = Channel {
        system: "kafka",
        destination: "orders",
    };
    let telemetry = Telemetry::test();
    let sent: Vec<Vec<(String, Vec<u8>)>> = (0..3)
        .map(|_| {
            let mut headers = Vec::new();
            tracing::info_span!("request").in_scope(|| messages::send(ORDERS, &mut headers));
            headers
        })
        .collect();
    let producers: Vec<_> = telemetry.spans().into_iter().filter(|span| span.kind == 4).collect();
    assert_eq!(producers.len(), 3);
    // One message is handled in its sender's trace, whatever runs around it.
    let _loop = tracing::info_span!("consumer loop").entered();
    drop(messages::process(ORDERS, &sent[0]));
    let processed = named(&telemetry, "process orders");
    assert_eq!((processed.kind, &processed.trace_id), (5, &producers[0].trace_id));
    assert_eq!(processed.parent_span_id, producers[0].span_id);
    assert_eq!(attributes(&processed)["messaging.destination.name"], "orders");
    // A batch has many senders.
    drop(messages::receive(ORDERS, &sent));
    let received = named(&telemetry, "receive orders");
    assert_eq!(received.kind, 5);
    assert_eq!(
        received.links,
        producers.iter().map(|span| span.span_id.clone()).collect::<Vec<_>>()
    );
    assert_eq!(attributes(&received)["messaging.batch.message_count"], "3");
}
