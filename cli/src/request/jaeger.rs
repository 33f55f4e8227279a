//! Spans from what Jaeger's query service answers to `/api/traces/{id}`: the form that its own page reads.
//! Source: `model/json/model.go` of Jaeger 1.

use serde_json::{Map, Value};

use super::span::{Kind, Span, SpanEvent, Status};

/// Whether a document is of this form at all: also the one that says that there is no such trace.
pub(super) fn is_jaeger(document: &Value) -> bool {
    document.get("data").is_some() && document.get("errors").is_some()
}

/// The spans of a trace.
pub(super) fn spans(document: &Value, trace: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for found in list(document, "data") {
        let processes = found.get("processes");
        for span in list(found, "spans") {
            let of = text(span, "traceID").map(|id| long(&id, 32));
            if of.as_deref() == Some(trace) {
                spans.extend(self::span(span, processes));
            }
        }
    }
    spans
}

fn span(span: &Value, processes: Option<&Value>) -> Option<Span> {
    let process = processes.and_then(|processes| processes.get(span.get("processID")?.as_str()?));
    let of_process = process.map(|process| tags(process, "tags")).unwrap_or_default();
    let mut attributes = tags(span, "tags");
    let word = |key: &str| attributes.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = Kind::of_word(word("span.kind")).unwrap_or_default();
    let failed = attributes
        .get("error")
        .is_some_and(|error| error == true || error == "true");
    let status = match word("otel.status_code") {
        "ERROR" => Status::Error,
        _ if failed => Status::Error,
        "OK" => Status::Ok,
        _ => Status::Unset,
    };
    let message = Some(word("otel.status_description").to_owned()).filter(|text| !text.is_empty());
    for told in [
        "span.kind",
        "otel.status_code",
        "otel.status_description",
        "error",
        "internal.span.format",
    ] {
        attributes.remove(told);
    }
    let parent =
        list(span, "references").find(|reference| reference.get("refType").is_some_and(|kind| kind == "CHILD_OF"));
    Some(Span {
        id: long(&text(span, "spanID")?, 16),
        parent: parent.and_then(|parent| text(parent, "spanID")).map(|id| long(&id, 16)),
        service: process
            .and_then(|process| text(process, "serviceName"))
            .unwrap_or_else(|| "unknown".to_owned()),
        instance: of_process
            .get("service.instance.id")
            .and_then(Value::as_str)
            .map(str::to_owned),
        name: text(span, "operationName").unwrap_or_default(),
        kind,
        start: microseconds(span, "startTime")?,
        duration: microseconds(span, "duration").unwrap_or(0).max(0),
        status,
        message,
        attributes,
        events: list(span, "logs").map(event).collect(),
    })
}

fn event(log: &Value) -> SpanEvent {
    let mut attributes = tags(log, "fields");
    let name = attributes.remove("event");
    SpanEvent {
        time: microseconds(log, "timestamp").unwrap_or(0),
        name: name
            .and_then(|name| Some(name.as_str()?.to_owned()))
            .unwrap_or_default(),
        attributes,
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

fn microseconds(value: &Value, key: &str) -> Option<i64> {
    value.get(key)?.as_i64()?.checked_mul(1000)
}

/// Ids with the zeros at their beginning that older versions leave out.
fn long(id: &str, digits: usize) -> String {
    format!("{:0>digits$}", id.to_ascii_lowercase())
}

fn tags(value: &Value, key: &str) -> Map<String, Value> {
    list(value, key)
        .filter_map(|tag| Some((text(tag, "key")?, tag.get("value")?.clone())))
        .collect()
}
