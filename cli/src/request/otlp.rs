//! Spans from OTLP as JSON: lines of span files, and what Tempo answers. Lenient where writers differ: ids as hexadecimal
//! digits (OTLP) or base64 (protobuf's own JSON, as Tempo writes), numbers as numbers or texts, enums as numbers or names.
//! Sources: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>, Tempo's API pages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::span::{Kind, Span, SpanEvent, Status};

/// The spans of one trace in an export request, a Tempo trace (`batches`), or either within `trace` (Tempo's second API).
pub(super) fn spans(document: &Value, trace: &str) -> Vec<Span> {
    let document = document.get("trace").unwrap_or(document);
    let mut spans = Vec::new();
    for group in list(document, &["resourceSpans", "batches"]) {
        let resource = attributes(group.get("resource"));
        for scope in list(group, &["scopeSpans", "instrumentationLibrarySpans"]) {
            for span in list(scope, &["spans"]) {
                if id(span, "traceId", 16).as_deref() == Some(trace) {
                    spans.extend(self::span(span, &resource));
                }
            }
        }
    }
    spans
}

/// Whether a document is of this form at all.
pub(super) fn is_otlp(document: &Value) -> bool {
    let document = document.get("trace").unwrap_or(document);
    ["resourceSpans", "batches"]
        .iter()
        .any(|key| document.get(key).is_some_and(Value::is_array))
}

fn list<'a>(value: &'a Value, keys: &[&str]) -> impl Iterator<Item = &'a Value> + use<'a> {
    let found = keys.iter().find_map(|key| value.get(*key)?.as_array());
    found.into_iter().flatten()
}

fn span(span: &Value, resource: &Map<String, Value>) -> Option<Span> {
    let of_resource = |key: &str| Some(resource.get(key)?.as_str()?.to_owned());
    let start = number(span.get("startTimeUnixNano"))?;
    let end = number(span.get("endTimeUnixNano")).unwrap_or(start);
    let status = span.get("status");
    let code = status.and_then(|status| status.get("code"));
    Some(Span {
        id: id(span, "spanId", 8)?,
        parent: id(span, "parentSpanId", 8).filter(|id| id.bytes().any(|byte| byte != b'0')),
        service: of_resource("service.name").unwrap_or_else(|| "unknown".to_owned()),
        instance: of_resource("service.instance.id"),
        name: text(span, "name").unwrap_or_default(),
        kind: kind(span.get("kind")),
        start,
        duration: end.saturating_sub(start).max(0),
        status: match (number(code), code.and_then(Value::as_str)) {
            (Some(1), _) | (_, Some("STATUS_CODE_OK")) => Status::Ok,
            (Some(2), _) | (_, Some("STATUS_CODE_ERROR")) => Status::Error,
            _ => Status::Unset,
        },
        message: status
            .and_then(|status| text(status, "message"))
            .filter(|text| !text.is_empty()),
        attributes: attributes(Some(span)),
        events: list(span, &["events"])
            .map(|event| SpanEvent {
                time: number(event.get("timeUnixNano")).unwrap_or(start),
                name: text(event, "name").unwrap_or_default(),
                attributes: attributes(Some(event)),
            })
            .collect(),
    })
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key)?.as_str().map(str::to_owned)
}

/// A whole number, written as one or as a text.
fn number(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// An id of `bytes` bytes as lower-case hexadecimal digits.
fn id(value: &Value, key: &str, bytes: usize) -> Option<String> {
    let text = value.get(key)?.as_str()?;
    if text.len() == 2 * bytes && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    let raw = BASE64.decode(text).ok().filter(|raw| raw.len() == bytes)?;
    Some(raw.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn kind(value: Option<&Value>) -> Kind {
    let by_number = number(value).and_then(|number| Kind::ALL.get(usize::try_from(number - 1).ok()?));
    let by_name = || Kind::of_word(value?.as_str()?.strip_prefix("SPAN_KIND_")?);
    by_number.map(|(_, kind)| *kind).or_else(by_name).unwrap_or_default()
}

/// `attributes` of a resource, span or event, as plain JSON.
fn attributes(value: Option<&Value>) -> Map<String, Value> {
    let Some(value) = value else { return Map::new() };
    list(value, &["attributes"])
        .filter_map(|pair| Some((text(pair, "key")?, plain(pair.get("value")?, 0))))
        .collect()
}

/// The deepest that values nest.
const DEEPEST: usize = 8;

fn plain(value: &Value, depth: usize) -> Value {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    let values = || list(inner, &["values"]);
    match kind.as_str() {
        "intValue" => number(Some(inner)).map_or(Value::Null, Value::from),
        "arrayValue" if depth < DEEPEST => values().map(|value| plain(value, depth + 1)).collect(),
        "kvlistValue" if depth < DEEPEST => values()
            .filter_map(|pair| Some((text(pair, "key")?, plain(pair.get("value")?, depth + 1))))
            .collect::<Map<_, _>>()
            .into(),
        "arrayValue" | "kvlistValue" => Value::Null,
        _ => inner.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::spans;
    use crate::request::{Kind, Status};

    const TRACE: &str = "5b8efff798038103d269b633813fc60c";

    #[test]
    fn hexadecimal_digits_and_base64_numbers_and_names_mean_the_same() {
        let of =
            |key: &str, trace: &str, span: &str, parent: &str, kind: serde_json::Value, code: serde_json::Value| {
                json!({ key: [{
                "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "orders" } }] },
                "scopeSpans": [{ "spans": [{
                    "traceId": trace, "spanId": span, "parentSpanId": parent, "name": "POST /orders", "kind": kind,
                    "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1_544_712_661_000_000_000_u64,
                    "attributes": [{ "key": "n", "value": { "intValue": "3" } }],
                    "status": { "code": code, "message": "no" },
                }] }],
            }] })
            };
        let hex = of(
            "resourceSpans",
            &TRACE.to_uppercase(),
            "eee19b7ec3c1b174",
            "",
            json!(2),
            json!(2),
        );
        let base64 = of(
            "batches",
            "W47/95gDgQPSabYzgT/GDA==",
            "7uGbfsPBsXQ=",
            "AAAAAAAAAAA=",
            json!("SPAN_KIND_SERVER"),
            json!("STATUS_CODE_ERROR"),
        );
        let read = spans(&hex, TRACE);
        assert_eq!(read.len(), 1);
        assert_eq!(read, spans(&base64, TRACE));
        assert_eq!(read, spans(&json!({ "trace": hex }), TRACE));
        assert_eq!(
            (read[0].kind, read[0].status, read[0].duration),
            (Kind::Server, Status::Error, 1_000_000_000)
        );
        assert_eq!(read[0].parent, None);
        assert_eq!(read[0].attributes["n"], 3);
        assert_eq!(spans(&hex, "0af7651916cd43dd8448eb211c80319c"), []);
    }

    #[test]
    fn what_is_no_span_is_left_out() {
        for wrong in [
            json!(null),
            json!([]),
            json!({ "resourceSpans": 5 }),
            json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [{ "traceId": TRACE }, 7, { "traceId": "zz" }] }] }] }),
        ] {
            assert_eq!(spans(&wrong, TRACE), []);
        }
    }
}
