//! Telemetry for tests: lines and spans of the current thread, kept in memory. Nothing is written or sent.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use crate::Telemetry;
use crate::builder::with_processor;
use crate::log::Output;

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
    /// Whether the status is an error.
    pub is_error: bool,
    /// Names of its events, in order.
    pub events: Vec<String>,
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
    let (subscriber, telemetry) = Telemetry::builder("test")
        .filter("trace")
        .assemble(
            Output::Capture(Arc::clone(&lines)),
            None,
            None,
            Some(with_processor(Keep(Arc::clone(&spans)))),
        )
        .expect("the filter is a constant and nothing else can fail");
    TestTelemetry {
        telemetry,
        lines,
        spans,
        _guard: tracing::subscriber::set_default(subscriber),
    }
}

#[derive(Debug)]
struct Keep(Arc<Mutex<Vec<CapturedSpan>>>);

impl SpanProcessor for Keep {
    fn on_start(&self, _span: &mut Span, _context: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        let kept = CapturedSpan {
            name: span.name.into_owned(),
            trace_id: span.span_context.trace_id().to_string(),
            span_id: span.span_context.span_id().to_string(),
            parent_span_id: span.parent_span_id.to_string(),
            is_error: matches!(span.status, opentelemetry::trace::Status::Error { .. }),
            events: span.events.iter().map(|event| event.name.to_string()).collect(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}
