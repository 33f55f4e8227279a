//! The log layer: one JSON line for every event, made once on the caller's thread and handed to a bounded queue; a
//! thread of its own writes to stdout, so that a reader that does not read never stops the service.
//! Which lines exist is the filter's matter, and spans' export is `otlp`'s.

pub(crate) mod line;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::report::SinkCounts;
use crate::trace::kept::append_ids;

/// Longest value of one field in bytes.
const VALUE_LIMIT: usize = 8 * 1024;
/// Longest line in bytes.
const LINE_LIMIT: usize = 128 * 1024;
/// Keys that the line itself uses; a field of that name gets the prefix `field.`.
const RESERVED: [&str; 10] = [
    "timestamp",
    "level",
    "message",
    "target",
    "service",
    "env",
    "trace_id",
    "span_id",
    "trace_flags",
    "correlation_id",
];

/// Where finished lines go.
#[derive(Clone)]
pub(crate) enum Output {
    /// A queue that a thread empties.
    Queue(Arc<Queue>),
    /// A list in memory, for tests.
    Capture(Arc<Mutex<Vec<String>>>),
}

/// Makes lines from events.
pub(crate) struct LogLayer {
    output: Output,
    fixed: String,
    redact: Vec<String>,
    lines: Levels,
}

/// Counts of lines by level, readable while the layer is in use. Clones share.
#[derive(Clone, Default)]
pub(crate) struct Levels(Arc<[AtomicU64; 5]>);

impl Levels {
    /// Lines so far: ERROR, WARN, INFO, DEBUG, TRACE.
    pub(crate) fn read(&self) -> [u64; 5] {
        std::array::from_fn(|level| self.0[level].load(Ordering::Relaxed))
    }
}

impl LogLayer {
    /// `service` and `environment` stand in every line; values of keys that contain one of `redact` (lower case) are
    /// replaced.
    pub(crate) fn new(output: Output, service: &str, environment: &str, redact: Vec<String>) -> Self {
        let mut fixed = String::from(",\"service\":");
        string(&mut fixed, service);
        fixed.push_str(",\"env\":");
        string(&mut fixed, environment);
        Self {
            output,
            fixed,
            redact,
            lines: Levels::default(),
        }
    }

    /// The counts by level.
    pub(crate) fn levels(&self) -> Levels {
        self.lines.clone()
    }
}

/// A span's fields, already as JSON.
struct SpanFields(Vec<(&'static str, String)>);

struct Fields<'a> {
    redact: &'a [String],
    message: Option<String>,
    pairs: Vec<(&'static str, String)>,
}

impl Fields<'_> {
    fn put(&mut self, field: &Field, json: String) {
        let name = field.name().strip_prefix("r#").unwrap_or(field.name());
        if let Some(old) = self.pairs.iter_mut().find(|(known, _)| *known == name) {
            old.1 = json;
        } else {
            self.pairs.push((name, json));
        }
    }

    fn text(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = Some(value.to_owned());
            return;
        }
        let mut json = String::with_capacity(value.len() + 2);
        if self.is_secret(field.name()) {
            json.push_str("\"[redacted]\"");
        } else {
            string(&mut json, &without_user_info(limited(value)));
        }
        self.put(field, json);
    }

    fn is_secret(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.redact.iter().any(|secret| name.contains(secret.as_str()))
    }

    fn number(&mut self, field: &Field, value: String) {
        let value = if self.is_secret(field.name()) {
            "\"[redacted]\"".to_owned()
        } else {
            value
        };
        self.put(field, value);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(next) = source {
            let _ = write!(text, ": {next}");
            source = next.source();
        }
        self.text(field, &text);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value.to_string());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value.to_string());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value.to_string());
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.text(field, &value.to_string());
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.text(field, &value.to_string());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.number(field, value.to_string());
        } else {
            self.text(field, &value.to_string());
        }
    }
}

impl<S> Layer<S> for LogLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields {
            redact: &self.redact,
            message: None,
            pairs: Vec::new(),
        };
        attributes.record(&mut fields);
        span.extensions_mut().insert(SpanFields(fields.pairs));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let known = extensions
            .get_mut::<SpanFields>()
            .map(|known| std::mem::take(&mut known.0))
            .unwrap_or_default();
        let mut fields = Fields {
            redact: &self.redact,
            message: None,
            pairs: known,
        };
        values.record(&mut fields);
        extensions.replace(SpanFields(fields.pairs));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields {
            redact: &self.redact,
            message: None,
            pairs: Vec::new(),
        };
        event.record(&mut fields);
        let mut line = String::with_capacity(256);
        let timestamp = format!("{:.9}", crate::wall_clock());
        line.push_str("{\"timestamp\":\"");
        line.push_str(&timestamp);
        line.push_str("\",\"level\":\"");
        line.push_str(metadata.level().as_str());
        line.push_str("\",\"message\":");
        string(
            &mut line,
            &without_user_info(limited(fields.message.as_deref().unwrap_or_default())),
        );
        line.push_str(",\"target\":");
        string(&mut line, metadata.target());
        line.push_str(&self.fixed);
        let mut of_span = String::new();
        ids(&mut of_span, event, &context);
        line.push_str(&of_span);
        let mut seen: Vec<&'static str> = Vec::new();
        let mut put = |line: &mut String, name: &'static str, json: &str| {
            if seen.contains(&name) {
                return;
            }
            seen.push(name);
            line.push_str(",\"");
            if RESERVED.contains(&name) {
                line.push_str("field.");
            }
            escape(line, name);
            line.push_str("\":");
            line.push_str(json);
        };
        for (name, json) in &fields.pairs {
            put(&mut line, name, json);
        }
        // From the inside out: the event wins over its span, the inner span over the outer one.
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(known) = span.extensions().get::<SpanFields>() {
                    for (name, json) in &known.0 {
                        put(&mut line, name, json);
                    }
                }
            }
        }
        line.push('}');
        if line.len() > LINE_LIMIT {
            line = shortened(
                &timestamp,
                line.len(),
                &fields,
                *metadata.level(),
                &self.fixed,
                &of_span,
            );
        }
        let level = match *metadata.level() {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            Level::DEBUG => 3,
            Level::TRACE => 4,
        };
        self.lines.0[level].fetch_add(1, Ordering::Relaxed);
        match &self.output {
            Output::Queue(queue) => {
                line.push('\n');
                queue.push(line, level > 1);
            }
            Output::Capture(lines) => lines.lock().unwrap_or_else(PoisonError::into_inner).push(line),
        }
    }
}

/// Appends the ids of the event's span and request.
fn ids<S>(line: &mut String, event: &Event<'_>, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    if let Some(span) = context.event_span(event) {
        append_ids(line, &span);
    }
}

/// A line that was too long, with its message and ids alone.
fn shortened(timestamp: &str, bytes: usize, fields: &Fields<'_>, level: Level, fixed: &str, ids: &str) -> String {
    let mut short = format!(
        "{{\"timestamp\":\"{timestamp}\",\"level\":\"{}\",\"message\":",
        level.as_str()
    );
    string(&mut short, limited(fields.message.as_deref().unwrap_or_default()));
    short.push_str(fixed);
    short.push_str(ids);
    let _ = write!(short, ",\"truncated\":true,\"line_bytes\":{bytes}}}");
    short
}

/// The first [`VALUE_LIMIT`] bytes, cut between characters.
fn limited(text: &str) -> &str {
    if text.len() <= VALUE_LIMIT {
        return text;
    }
    let mut end = VALUE_LIMIT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Takes `user:password@` out of URLs.
fn without_user_info(text: &str) -> std::borrow::Cow<'_, str> {
    let Some(first) = text.find("://") else {
        return text.into();
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut next = Some(first);
    while let Some(start) = next {
        let (head, tail) = rest.split_at(start + 3);
        out.push_str(head);
        let authority = tail.find(|c: char| c == '/' || c == '?' || c == '#' || c == '"' || c.is_whitespace());
        let authority = &tail[..authority.unwrap_or(tail.len())];
        rest = match authority.rfind('@') {
            Some(at) => {
                out.push_str("[redacted]");
                &tail[at..]
            }
            None => tail,
        };
        next = rest.find("://");
    }
    out.push_str(rest);
    out.into()
}

/// Appends `text` as a JSON string. Control characters, also DEL and C1, are escaped: a line stays one line, and a
/// terminal that shows it stays unharmed.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    escape(out, text);
    out.push('"');
}

fn escape(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() || matches!(control, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
}

/// Lines that wait for the writer, bounded by bytes. Full: DEBUG, TRACE and INFO lines go first, each counted.
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    limit: usize,
    emitted: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    important: VecDeque<(u64, String)>,
    ordinary: VecDeque<(u64, String)>,
    next: u64,
    bytes: usize,
    /// Lines that the writer took and has not counted yet.
    taken: usize,
    closed: bool,
    idle: bool,
}

impl Queue {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            limit,
            emitted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Starts the thread that writes to `out`.
    pub(crate) fn start(self: &Arc<Self>, out: impl Write + Send + 'static) -> std::io::Result<()> {
        let queue = Arc::clone(self);
        std::thread::Builder::new()
            .name("telemetry-stdout".to_owned())
            .spawn(move || queue.write_to(out))
            .map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: String, ordinary: bool) {
        self.emitted.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if state.closed {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        while state.bytes + line.len() > self.limit {
            let Some((_, gone)) = state.ordinary.pop_front() else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            };
            state.bytes -= gone.len();
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        state.bytes += line.len();
        let number = state.next;
        state.next += 1;
        if ordinary {
            state.ordinary.push_back((number, line));
        } else {
            state.important.push_back((number, line));
        }
        let idle = state.idle;
        drop(state);
        if idle {
            self.wake.notify_all();
        }
    }

    fn write_to(&self, mut out: impl Write) {
        let mut batch = Vec::with_capacity(64 * 1024);
        loop {
            let mut lines = 0;
            {
                let mut state = self.lock();
                while state.bytes == 0 {
                    if state.closed {
                        drop(state);
                        self.wake.notify_all();
                        return;
                    }
                    state.idle = true;
                    state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                state.idle = false;
                while batch.len() < 64 * 1024 {
                    let first_important = match (state.important.front(), state.ordinary.front()) {
                        (Some((a, _)), Some((b, _))) => a < b,
                        (Some(_), None) => true,
                        (None, Some(_)) => false,
                        (None, None) => break,
                    };
                    let line = if first_important {
                        state.important.pop_front()
                    } else {
                        state.ordinary.pop_front()
                    };
                    if let Some((_, line)) = line {
                        state.bytes -= line.len();
                        batch.extend_from_slice(line.as_bytes());
                        lines += 1;
                    }
                }
                state.taken = lines;
            }
            // A reader that went away must not end the service: the lines are counted as dropped.
            let written = out.write_all(&batch).and_then(|()| out.flush());
            let count = if written.is_ok() {
                &self.delivered
            } else {
                &self.dropped
            };
            count.fetch_add(lines as u64, Ordering::Relaxed);
            self.lock().taken = 0;
            self.wake.notify_all();
            batch.clear();
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Waits at most `limit` until everything is written. What is left then stays queued and is counted as dropped by
    /// [`Queue::close`].
    pub(crate) fn flush(&self, limit: Duration) {
        let state = self.lock();
        let (state, _) = self
            .wake
            .wait_timeout_while(state, limit, |state| state.bytes > 0 || state.taken > 0)
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
    }

    /// Takes no more lines, waits at most `limit` for the rest, and counts what is left as dropped.
    pub(crate) fn close(&self, limit: Duration) -> SinkCounts {
        self.lock().closed = true;
        self.wake.notify_all();
        self.flush(limit);
        let mut state = self.lock();
        let left = state.important.len() + state.ordinary.len();
        state.important.clear();
        state.ordinary.clear();
        state.bytes = 0;
        self.dropped.fetch_add(left as u64, Ordering::Relaxed);
        drop(state);
        self.wake.notify_all();
        let mut counts = self.counts();
        // Lines inside a write that does not return are lost for this process, whatever the kernel does with them.
        counts.dropped = counts.emitted.saturating_sub(counts.delivered);
        counts
    }

    /// Counts so far.
    pub(crate) fn counts(&self) -> SinkCounts {
        SinkCounts {
            emitted: self.emitted.load(Ordering::Relaxed),
            delivered: self.delivered.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            ..SinkCounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    //! The queue against writers that hang, fail and work. (What lines look like is tested from outside.)

    use std::sync::mpsc;

    use super::*;

    /// A writer that waits for a go-ahead before each write.
    struct Gate(mpsc::Receiver<bool>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            match self.0.recv() {
                Ok(true) => Ok(bytes.len()),
                Ok(false) | Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
            }
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn everything_is_delivered_to_a_writer_that_works() {
        let queue = Queue::new(1 << 20);
        queue.start(std::io::sink()).unwrap();
        for _ in 0..10_000 {
            queue.push("line\n".to_owned(), true);
        }
        let counts = queue.close(Duration::from_secs(10));
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (10_000, 10_000, 0));
    }

    #[test]
    fn a_full_queue_drops_the_oldest_ordinary_lines_and_counts_them() {
        let queue = Queue::new(100);
        for _ in 0..10 {
            queue.push("x".repeat(10), true);
        }
        for _ in 0..4 {
            queue.push("E".repeat(10), false);
        }
        assert_eq!((queue.bytes(), queue.counts().dropped), (100, 4));
        for _ in 0..10 {
            queue.push("E".repeat(10), false);
        }
        // Nothing ordinary is left to give up: later lines are lost, and counted.
        assert_eq!((queue.bytes(), queue.counts().dropped), (100, 14));
        queue.start(std::io::sink()).unwrap();
        let counts = queue.close(Duration::from_secs(10));
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (24, 10, 14));
    }

    #[test]
    fn a_writer_that_hangs_holds_up_neither_callers_nor_the_end() {
        let (go, gate) = mpsc::channel();
        let queue = Queue::new(1 << 20);
        queue.start(Gate(gate)).unwrap();
        for _ in 0..100 {
            queue.push("line\n".to_owned(), true);
        }
        let counts = queue.close(Duration::from_millis(50));
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (100, 0, 100));
        assert!(counts.is_exact());
        drop(go);
    }

    #[test]
    fn a_reader_that_went_away_costs_lines_and_nothing_else() {
        let (go, gate) = mpsc::channel();
        let queue = Queue::new(1 << 20);
        queue.push("one\n".to_owned(), true);
        go.send(false).unwrap();
        go.send(true).unwrap();
        queue.start(Gate(gate)).unwrap();
        queue.flush(Duration::from_secs(10));
        queue.push("two\n".to_owned(), true);
        let counts = queue.close(Duration::from_secs(10));
        assert_eq!((counts.emitted, counts.delivered, counts.dropped), (2, 1, 1));
    }

    #[test]
    fn user_info_is_taken_out_of_every_url() {
        for (text, wanted) in [
            ("no url", "no url"),
            ("http://host/a@b", "http://host/a@b"),
            ("x://u:p@h and y://:p@h2/z", "x://[redacted]@h and y://[redacted]@h2/z"),
            ("://", "://"),
            ("a://u:p@w@h", "a://[redacted]@h"),
        ] {
            assert_eq!(without_user_info(text), wanted);
        }
    }
}
