//! The layer by itself, for a program with a subscriber of its own and for those who come from the crate `tracing-loki`:
//! the same builder, labels, keys of lines and controller, so that one line of a program changes. The fields of its lines
//! differ in two ways: a key stands once (the event wins over extra fields, these over spans, an inner span over an outer
//! one), and `trace_id` and `span_id` are there when a trace is.

use std::collections::{BTreeMap, btree_map};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use opentelemetry::trace::{SpanId, TraceContextExt as _, TraceId};
use reqwest::Url;
use tokio::sync::oneshot;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::registry::LookupSpan;

use super::labels::{self, LabelError};
use super::{Loki, LokiSettings, Watchers};
use crate::InitError;
use crate::log::json::string;
use crate::log::line::Line;
use crate::log::waiting::{LineLane, Lines};
use crate::report::SinkCounts;
use crate::sink::Sink as _;
use crate::sink::queue::{Lost, Queue, Severity};
use crate::trace::kept::told;

/// Starts the description of a layer.
pub fn builder() -> Builder {
    Builder {
        settings: LokiSettings::default(),
        extra: BTreeMap::new(),
    }
}

/// Describes a layer; see [`builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    settings: LokiSettings,
    extra: BTreeMap<String, String>,
}

/// Why a layer cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The label cannot be used.
    #[error("a label cannot be used")]
    Label {
        /// Why.
        #[from]
        source: LabelError,
    },
    /// It was set before.
    #[error("the field `{name}` is set twice")]
    DuplicateField {
        /// Its name.
        name: String,
    },
    /// The sink cannot be made.
    #[error("the sink cannot be made")]
    Start {
        /// Why.
        #[source]
        source: InitError,
    },
}

impl Builder {
    /// Adds a label to every stream.
    ///
    /// # Errors
    /// When Loki would not take it, or it is set already.
    pub fn label(mut self, key: impl Into<String>, value: impl AsRef<str>) -> Result<Self, Error> {
        labels::add(&mut self.settings.labels, &key.into(), value.as_ref())?;
        Ok(self)
    }

    /// Adds a field to every line.
    ///
    /// # Errors
    /// When it is set already.
    pub fn extra_field(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, Error> {
        match self.extra.entry(key.into()) {
            btree_map::Entry::Occupied(known) => Err(Error::DuplicateField {
                name: known.key().clone(),
            }),
            btree_map::Entry::Vacant(free) => {
                free.insert(value.into());
                Ok(self)
            }
        }
    }

    /// Adds a header to every push.
    ///
    /// # Errors
    /// When it is set already. One that HTTP does not allow is an error when the layer is made.
    pub fn http_header(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Result<Self, Error> {
        let name = key.as_ref().to_ascii_lowercase();
        match self.settings.headers.entry(name) {
            btree_map::Entry::Occupied(known) => Err(Error::DuplicateField {
                name: known.key().clone(),
            }),
            btree_map::Entry::Vacant(free) => {
                free.insert(value.as_ref().to_owned());
                Ok(self)
            }
        }
    }

    /// Everything else, as [`Telemetry`](crate::Telemetry) takes it: the labels and headers set so far are kept.
    pub fn settings(mut self, settings: LokiSettings) -> Self {
        let Self { settings: known, .. } = self;
        self.settings = settings;
        self.settings.labels.extend(known.labels);
        self.settings.headers.extend(known.headers);
        self
    }

    /// The layer, and a future that ends when the layer was dropped and everything was delivered.
    ///
    /// # Errors
    /// See [`InitError`].
    pub fn build_url(self, loki_url: Url) -> Result<(Layer, BackgroundTask), Error> {
        let (layer, _, task) = self.build_controller_url(loki_url)?;
        Ok((layer, task))
    }

    /// The layer, what ends it, and a future that ends when it has ended. The future need not be spawned: a thread
    /// delivers.
    ///
    /// # Errors
    /// See [`InitError`].
    pub fn build_controller_url(
        mut self,
        loki_url: Url,
    ) -> Result<(Layer, BackgroundTaskController, BackgroundTask), Error> {
        self.settings.url = Some(loki_url.into());
        let queue = Queue::new("loki", self.settings.queue(), Some(Box::new(tell_of)));
        let (running, ended) = oneshot::channel::<Infallible>();
        let watchers = Watchers {
            alarm: Arc::new(|_, _| {}),
            took: None,
            running: Some(running),
        };
        let loki = Loki::start(&self.settings, "", "", Arc::clone(&queue), watchers)
            .map_err(|source| Error::Start { source })?;
        let loki = Arc::new(loki);
        let layer = Layer {
            queue,
            extra: self.extra.into_iter().collect(),
            _loki: Arc::clone(&loki),
        };
        Ok((layer, BackgroundTaskController { loki }, BackgroundTask { ended }))
    }
}

/// Makes lines of events and hands them to the sink.
#[derive(Debug)]
pub struct Layer {
    queue: Arc<Queue<LineLane>>,
    extra: Vec<(String, String)>,
    /// The sink lives as long as somebody can give it lines or end it.
    _loki: Arc<Loki>,
}

/// Ends a layer and tells what became of its lines.
#[derive(Debug, Clone)]
pub struct BackgroundTaskController {
    loki: Arc<Loki>,
}

impl BackgroundTaskController {
    /// Sends what waits, for at most 4 s.
    pub async fn shutdown(&self) {
        self.shutdown_within(Duration::from_secs(4)).await;
    }

    /// Sends what waits, for at most `limit`, and tells what became of every line. Later calls tell the same.
    pub async fn shutdown_within(&self, limit: Duration) -> SinkCounts {
        let loki = Arc::clone(&self.loki);
        match tokio::task::spawn_blocking(move || loki.close(limit)).await {
            Ok(counts) => counts,
            Err(_) => self.counts(),
        }
    }

    /// Waits at most `limit` until everything so far is delivered, refused or on disk.
    pub async fn flush(&self, limit: Duration) {
        let loki = Arc::clone(&self.loki);
        // An error would be a panic of the call, which does not panic.
        let _ = tokio::task::spawn_blocking(move || loki.flush(limit)).await;
    }

    /// What became of the lines so far.
    pub fn counts(&self) -> SinkCounts {
        self.loki.counts()
    }
}

/// Ends when a layer has ended. It does nothing: a thread delivers.
#[derive(Debug)]
#[must_use]
pub struct BackgroundTask {
    ended: oneshot::Receiver<Infallible>,
}

impl Future for BackgroundTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        pin!(&mut self.ended).poll(context).map(|_| ())
    }
}

/// The fields of a span, as JSON.
struct Fields(Vec<(&'static str, String)>);

impl Fields {
    fn put(&mut self, field: &Field, json: String) {
        // What the crate `log` says of itself is told by the keys with an underscore.
        if field.name().starts_with("log.") {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == field.name()) {
            Some((_, old)) => *old = json,
            None => self.0.push((field.name(), json)),
        }
    }

    fn text(&mut self, field: &Field, text: &str) {
        let mut json = String::with_capacity(text.len() + 2);
        string(&mut json, text);
        self.put(field, json);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &value.to_string());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.to_string());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.to_string());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.to_string());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity.
        let json = if value.is_finite() {
            value.to_string()
        } else {
            "null".to_owned()
        };
        self.put(field, json);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Layer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: tracing_subscriber::layer::Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields(Vec::new());
        attributes.record(&mut fields);
        span.extensions_mut().replace(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: tracing_subscriber::layer::Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(fields) = extensions.get_mut::<Fields>() {
            values.record(fields);
        } else {
            // The span is older than the layer.
            let mut fields = Fields(Vec::new());
            values.record(&mut fields);
            extensions.insert(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: tracing_subscriber::layer::Context<'_, S>) {
        let now = crate::wall_clock();
        // What came through the crate `log` says where it was made in fields.
        let of_log = event.normalized_metadata();
        let metadata = of_log.as_ref().unwrap_or(event.metadata());
        let mut fields = Fields(Vec::new());
        event.record(&mut fields);
        let mut line = Json::new();
        for (name, json) in &fields.0 {
            line.put(name, json);
        }
        for (name, value) in &self.extra {
            line.text(name, value);
        }
        let mut spans = Vec::new();
        // From the inside out.
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(Fields(fields)) = span.extensions().get::<Fields>() {
                for (name, json) in fields {
                    line.put(name, json);
                }
            }
            spans.push(span.name());
        }
        // Of our own span layer, else of another's.
        let own = context.event_span(event);
        let own = own.and_then(|span| told(&span, |ids, _| (ids.trace_id, ids.span_id)));
        if let Some((trace, span)) = own.or_else(current_of_opentelemetry) {
            line.text("trace_id", &trace.to_string());
            line.text("span_id", &span.to_string());
        }
        line.spans(&spans);
        line.text("_target", metadata.target());
        line.text_or_null("_module_path", metadata.module_path());
        line.text_or_null("_file", metadata.file());
        let number = metadata.line();
        line.put(
            "_line",
            &number.map_or_else(|| "null".to_owned(), |number| number.to_string()),
        );
        let nanos = u64::try_from(now.as_nanosecond()).unwrap_or_default();
        self.queue
            .push(Line::new(&line.finish(), nanos, metadata.level().into()));
    }
}

/// A JSON object in which each key stands once: the first that was put.
struct Json {
    text: String,
    keys: Vec<String>,
}

impl Json {
    fn new() -> Self {
        Self {
            text: String::with_capacity(256),
            keys: Vec::new(),
        }
    }

    fn put(&mut self, name: &str, json: &str) {
        if self.keys.iter().any(|known| known == name) {
            return;
        }
        self.keys.push(name.to_owned());
        key(&mut self.text, name);
        self.text.push_str(json);
    }

    fn text(&mut self, name: &str, value: &str) {
        let mut json = String::with_capacity(value.len() + 2);
        string(&mut json, value);
        self.put(name, &json);
    }

    fn text_or_null(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => self.put(name, "null"),
        }
    }

    /// From the inside out they came, from the outside in they stand.
    fn spans(&mut self, spans: &[&str]) {
        let mut json = String::from("[");
        for (index, name) in spans.iter().rev().enumerate() {
            if index > 0 {
                json.push(',');
            }
            string(&mut json, name);
        }
        json.push(']');
        self.put("_spans", &json);
    }

    fn finish(mut self) -> String {
        self.text.push_str("}\n");
        self.text
    }
}

/// The ids of the span that OpenTelemetry's API says is current.
fn current_of_opentelemetry() -> Option<(TraceId, SpanId)> {
    opentelemetry::Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        span.is_valid().then(|| (span.trace_id(), span.span_id()))
    })
}

/// Puts the line that tells of lost ones, when there is room again.
fn tell_of(lost: Lost, lines: &mut Lines) {
    let mut line = Json::new();
    line.text("message", &format!("lost {} lines since {}", lost.items, lost.since));
    line.put("lost", &lost.items.to_string());
    line.spans(&[]);
    line.text("_target", "telemetry::loki");
    lines.push(Line::new(&line.finish(), crate::wall_nanos(), Severity::Warn));
}

fn key(text: &mut String, name: &str) {
    text.push(if text.is_empty() { '{' } else { ',' });
    string(text, name);
    text.push(':');
}
