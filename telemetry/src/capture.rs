//! Telemetry for tests: lines and spans of the current thread, kept in memory. Nothing is written or sent.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tracing_subscriber::layer::SubscriberExt as _;

use crate::{Telemetry, trace};

/// Result of [`Telemetry::test`]. It captures on the thread that made it, while it lives: use a current-thread runtime.
#[derive(Debug)]
pub struct TestTelemetry {
    telemetry: Telemetry,
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<Mutex<Vec<CapturedSpan>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

/// A span that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedSpan {
    /// Its name (`otel.name` if that was given).
    pub name: String,
    /// Lower hex, 32 characters.
    pub trace_id: String,
    /// Lower hex, 16 characters.
    pub span_id: String,
    /// Span id of the parent, zeros for a root.
    pub parent_span_id: String,
    /// 1 internal, 2 server, 3 client, 4 producer, 5 consumer, as in OTLP.
    pub kind: i32,
    /// Whether the status is an error.
    pub is_error: bool,
    /// Its attributes, in order, values as text.
    pub attributes: Vec<(String, String)>,
    /// Names of its events, in order.
    pub events: Vec<String>,
    /// Span ids of its links, in order.
    pub links: Vec<String>,
}

impl TestTelemetry {
    /// Every line so far, parsed.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or(serde_json::Value::Null))
            .collect()
    }

    /// Every line so far, as it would be written.
    pub fn text(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every span that ended.
    pub fn spans(&self) -> Vec<CapturedSpan> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::ops::Deref for TestTelemetry {
    type Target = Telemetry;
    fn deref(&self) -> &Telemetry {
        &self.telemetry
    }
}

pub(crate) fn start() -> TestTelemetry {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let spans = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&spans);
    let traces = trace::captured(move |span| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(captured(span));
    });
    let parts = Telemetry::builder("test")
        .filter("trace")
        .captured(Arc::clone(&lines), traces);
    let (layer, telemetry) = parts
        .into_layer(false)
        .expect("the filter is a constant and nothing else can fail");
    let subscriber = tracing_subscriber::registry().with(layer);
    TestTelemetry {
        telemetry,
        lines,
        spans,
        _guard: tracing::subscriber::set_default(subscriber),
    }
}

fn captured(span: Span) -> CapturedSpan {
    let id = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    };
    CapturedSpan {
        name: span.name,
        trace_id: id(&span.trace_id),
        span_id: id(&span.span_id),
        // A root has none; here it is zeros, as for the API.
        parent_span_id: format!("{:0>16}", id(&span.parent_span_id)),
        kind: span.kind,
        is_error: span
            .status
            .is_some_and(|status| status.code == StatusCode::Error as i32),
        attributes: span.attributes.iter().filter_map(shown).collect(),
        events: span.events.into_iter().map(|event| event.name).collect(),
        links: span.links.iter().map(|link| id(&link.span_id)).collect(),
    }
}

fn shown(attribute: &KeyValue) -> Option<(String, String)> {
    let value = match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    Some((attribute.key.clone(), value))
}
