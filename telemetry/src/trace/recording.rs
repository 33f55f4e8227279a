//! A recorded span while it lives: what `tracing` says of it becomes OTLP's span with typed attributes, events, links
//! and a status. Whether a span is recorded is the layer's matter, and where it goes that of the exporters.
//!
//! | field of the span | becomes |
//! |---|---|
//! | `otel.name` | the name |
//! | `otel.kind` | the kind: `server`, `client`, `producer`, `consumer`, `internal` |
//! | `otel.status_code`, `otel.status_description` | the status: `OK` or `ERROR` |
//! | `error` | the attribute, and the status ERROR with it as description (`false` does nothing) |
//! | any other | an attribute |
//!
//! An event becomes an event of the span with `level` and `target`; one that carries an error (a field `error`, or any
//! recorded as `&dyn Error`) becomes an `exception` as the semantic conventions have it
//! (<https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/>), and one at ERROR sets the status.

use opentelemetry::trace::SpanId;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Record};

use crate::trace::kept::SpanIds;
use crate::trace::limits::Limits;

/// A span that is being recorded.
pub(crate) struct Recording {
    span: Span,
    began: Instant,
    /// What the API of `opentelemetry` sees while the span is entered; made when it first is.
    pub(crate) context: Option<opentelemetry::Context>,
}

impl Recording {
    /// Begins it with the fields that it has at its start.
    pub(crate) fn begin(attributes: &Attributes<'_>, limits: &Limits) -> Box<Self> {
        let mut recording = Self::begin_late(attributes.metadata().name());
        recording.span.attributes.reserve(attributes.metadata().fields().len());
        attributes.record(&mut Visitor(SpanFields {
            span: &mut recording.span,
            limits,
        }));
        recording
    }

    /// Begins a span of which only the name is known, since its fields were not kept.
    pub(crate) fn begin_late(name: &str) -> Box<Self> {
        Box::new(Self {
            span: Span {
                name: name.to_owned(),
                kind: SpanKind::Internal as i32,
                start_time_unix_nano: crate::wall_nanos(),
                ..Span::default()
            },
            began: Instant::now(),
            context: None,
        })
    }

    /// More fields, or new values.
    pub(crate) fn record(&mut self, values: &Record<'_>, limits: &Limits) {
        values.record(&mut Visitor(SpanFields {
            span: &mut self.span,
            limits,
        }));
    }

    /// An event inside.
    pub(crate) fn event(&mut self, event: &tracing::Event<'_>, limits: &Limits) {
        let metadata = event.metadata();
        if self.span.events.len() >= limits.events {
            self.span.dropped_events_count += 1;
            // What the span came to is still told.
            if *metadata.level() != tracing::Level::ERROR {
                return;
            }
        }
        let mut fields = Visitor(EventFields {
            message: None,
            error: None,
            attributes: Vec::with_capacity(metadata.fields().len() + 2),
            dropped: 0,
            limits,
        });
        event.record(&mut fields);
        let EventFields {
            message,
            error,
            mut attributes,
            dropped,
            ..
        } = fields.0;
        if *metadata.level() == tracing::Level::ERROR && self.span.status.is_none() {
            let text = message
                .clone()
                .or_else(|| error.as_ref().map(|error| error.message.clone()));
            self.status(StatusCode::Error, text.unwrap_or_default());
        }
        if self.span.events.len() >= limits.events {
            return;
        }
        attributes.push(text("level", metadata.level().as_str()));
        attributes.push(text("target", metadata.target()));
        let name = if let Some(error) = error {
            attributes.push(text("exception.message", error.message));
            if let Some(causes) = error.causes {
                attributes.push(text("exception.stacktrace", causes));
            }
            if let Some(message) = message {
                attributes.push(text("message", message));
            }
            "exception".to_owned()
        } else {
            message.unwrap_or_else(|| metadata.name().to_owned())
        };
        self.span.events.push(Event {
            time_unix_nano: self.now(),
            name,
            attributes,
            dropped_attributes_count: dropped,
        });
    }

    /// An event that is not one of `tracing`.
    pub(crate) fn add_event(&mut self, name: String, attributes: Vec<KeyValue>, limits: &Limits) {
        if self.span.events.len() >= limits.events {
            self.span.dropped_events_count += 1;
            return;
        }
        self.span.events.push(Event {
            time_unix_nano: self.now(),
            name,
            attributes,
            dropped_attributes_count: 0,
        });
    }

    /// A link to another span.
    pub(crate) fn link(&mut self, to: SpanIds, trace_state: Option<&str>, attributes: Vec<KeyValue>, limits: &Limits) {
        if self.span.links.len() >= limits.links {
            self.span.dropped_links_count += 1;
            return;
        }
        self.span.links.push(Link {
            trace_id: to.trace_id.to_bytes().to_vec(),
            span_id: to.span_id.to_bytes().to_vec(),
            trace_state: trace_state.unwrap_or_default().to_owned(),
            attributes,
            dropped_attributes_count: 0,
            flags: u32::from(to.sampled),
        });
    }

    /// Sets an attribute, or a new value of it.
    pub(crate) fn attribute(&mut self, attribute: KeyValue, limits: &Limits) {
        put(&mut self.span, attribute, limits);
    }

    fn status(&mut self, code: StatusCode, message: String) {
        set_status(&mut self.span, code, message);
    }

    /// Nanoseconds since 1970, on a clock that does not jump within one span.
    fn now(&self) -> u64 {
        self.span.start_time_unix_nano + self.began.elapsed().as_nanos() as u64
    }

    /// Ends it.
    pub(crate) fn end(mut self, ids: SpanIds, parent: SpanId, remote: bool, trace_state: Option<&str>) -> Span {
        self.span.end_time_unix_nano = self.now();
        self.span.trace_id = ids.trace_id.to_bytes().to_vec();
        self.span.span_id = ids.span_id.to_bytes().to_vec();
        if parent != SpanId::INVALID {
            self.span.parent_span_id = parent.to_bytes().to_vec();
        }
        // Bit 8 says that bit 9, "the parent is in another process", is known.
        self.span.flags = u32::from(ids.sampled) | 0x100 | if remote { 0x200 } else { 0 };
        trace_state.unwrap_or_default().clone_into(&mut self.span.trace_state);
        self.span
    }
}

/// `OK` or an error sticks; an error's description is the first that was given.
fn set_status(span: &mut Span, code: StatusCode, message: String) {
    let status = span.status.get_or_insert_with(Status::default);
    status.code = code as i32;
    if code == StatusCode::Ok {
        status.message.clear();
    } else if status.message.is_empty() {
        status.message = message;
    }
}

fn put(span: &mut Span, attribute: KeyValue, limits: &Limits) {
    if let Some(known) = span.attributes.iter_mut().find(|known| known.key == attribute.key) {
        known.value = attribute.value;
    } else if span.attributes.len() < limits.attributes {
        span.attributes.push(attribute);
    } else {
        span.dropped_attributes_count += 1;
    }
}

pub(crate) fn text(key: impl Into<String>, value: impl Into<String>) -> KeyValue {
    pair(key.into(), Value::StringValue(value.into()))
}

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue {
        key,
        value: Some(AnyValue { value: Some(value) }),
        key_strindex: 0,
    }
}

/// An attribute of the API's type.
pub(crate) fn attribute(of: opentelemetry::KeyValue) -> KeyValue {
    use opentelemetry::Value as Theirs;
    let value = match of.value {
        Theirs::Bool(value) => Value::BoolValue(value),
        Theirs::I64(value) => Value::IntValue(value),
        Theirs::F64(value) => Value::DoubleValue(value),
        // Lists are rare here, and are shown as text.
        other => Value::StringValue(other.to_string()),
    };
    pair(of.key.as_str().to_owned(), value)
}

fn name(field: &Field) -> &'static str {
    field.name().strip_prefix("r#").unwrap_or(field.name())
}

/// A number as OTLP has it: integers are signed there.
fn unsigned(value: u64) -> Value {
    i64::try_from(value).map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue)
}

/// Takes fields by what OTLP has for them.
trait Fields {
    fn string(&mut self, field: &Field, value: &str);
    fn typed(&mut self, field: &Field, value: Value);
    fn error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static));
}

struct Visitor<F>(F);

impl<F: Fields> Visit for Visitor<F> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.string(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.string(field, &format!("{value:?}"));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.error(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.typed(field, Value::BoolValue(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.typed(field, Value::IntValue(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.typed(field, unsigned(value));
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.string(field, &value.to_string());
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.string(field, &value.to_string());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.typed(field, Value::DoubleValue(value));
    }
}

struct SpanFields<'a> {
    span: &'a mut Span,
    limits: &'a Limits,
}

impl Fields for SpanFields<'_> {
    fn string(&mut self, field: &Field, value: &str) {
        match name(field) {
            "otel.name" => value.clone_into(&mut self.span.name),
            "otel.kind" => {
                if let Some(kind) = kind(value) {
                    self.span.kind = kind as i32;
                }
            }
            "otel.status_code" => match value {
                _ if value.eq_ignore_ascii_case("ok") => set_status(self.span, StatusCode::Ok, String::new()),
                _ if value.eq_ignore_ascii_case("error") => set_status(self.span, StatusCode::Error, String::new()),
                _ => {}
            },
            "otel.status_description" | "otel.status_message" => {
                let status = self.span.status.get_or_insert_with(Status::default);
                value.clone_into(&mut status.message);
            }
            key => {
                let clean = self.limits.clean(key, value);
                if key == "error" {
                    set_status(self.span, StatusCode::Error, clean.clone().into_owned());
                }
                put(self.span, text(key, clean), self.limits);
            }
        }
    }

    fn typed(&mut self, field: &Field, value: Value) {
        let key = name(field);
        if key == "error" && value == Value::BoolValue(true) {
            set_status(self.span, StatusCode::Error, String::new());
        }
        if self.limits.is_secret(key) {
            return put(self.span, text(key, Limits::HIDDEN), self.limits);
        }
        put(self.span, pair(key.to_owned(), value), self.limits);
    }

    fn error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        self.string(field, &with_causes(error));
    }
}

fn kind(text: &str) -> Option<SpanKind> {
    let known = [
        ("server", SpanKind::Server),
        ("client", SpanKind::Client),
        ("producer", SpanKind::Producer),
        ("consumer", SpanKind::Consumer),
        ("internal", SpanKind::Internal),
    ];
    known
        .into_iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
        .map(|(_, kind)| kind)
}

struct Exception {
    message: String,
    /// The chain of causes, one a line.
    causes: Option<String>,
}

struct EventFields<'a> {
    message: Option<String>,
    error: Option<Exception>,
    attributes: Vec<KeyValue>,
    dropped: u32,
    limits: &'a Limits,
}

impl EventFields<'_> {
    fn put(&mut self, attribute: KeyValue) {
        if self.attributes.len() < self.limits.attributes {
            self.attributes.push(attribute);
        } else {
            self.dropped += 1;
        }
    }
}

impl Fields for EventFields<'_> {
    fn string(&mut self, field: &Field, value: &str) {
        let key = name(field);
        let clean = self.limits.clean(key, value).into_owned();
        match key {
            "message" => self.message = Some(clean),
            "error" => {
                self.error = Some(Exception {
                    message: clean,
                    causes: None,
                });
            }
            // What the crate `log` adds to its records is known from the target.
            _ if key.starts_with("log.") => {}
            _ => self.put(text(key, clean)),
        }
    }

    fn typed(&mut self, field: &Field, value: Value) {
        let key = name(field);
        if self.limits.is_secret(key) {
            return self.put(text(key, Limits::HIDDEN));
        }
        if !key.starts_with("log.") {
            self.put(pair(key.to_owned(), value));
        }
    }

    fn error(&mut self, field: &Field, error: &(dyn std::error::Error + 'static)) {
        let key = name(field);
        let message = self.limits.clean(key, &error.to_string()).into_owned();
        let causes = error
            .source()
            .map(|_| self.limits.clean(key, &with_causes(error)).into_owned());
        self.error = Some(Exception { message, causes });
    }
}

/// An error and what caused it, in one line.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
