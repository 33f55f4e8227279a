//! A span, whichever server or file it came from: the part of OpenTelemetry's data model that a person reads.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

/// One step of a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Span {
    /// 16 lower-case hexadecimal digits.
    #[serde(rename = "span_id")]
    pub(crate) id: String,
    /// The span that caused it; `None` for a root.
    #[serde(rename = "parent_span_id")]
    pub(crate) parent: Option<String>,
    /// The service that did it.
    pub(crate) service: String,
    /// Its instance.
    pub(crate) instance: Option<String>,
    /// What was done.
    pub(crate) name: String,
    /// On which side of a call.
    pub(crate) kind: Kind,
    /// When it began, in nanoseconds since 1970.
    #[serde(rename = "started_at", serialize_with = "as_time")]
    pub(crate) start: i64,
    /// How long it took, in nanoseconds.
    #[serde(rename = "duration_seconds", serialize_with = "as_seconds")]
    pub(crate) duration: i64,
    /// How it ended.
    pub(crate) status: Status,
    /// Why it failed, if it says so.
    pub(crate) message: Option<String>,
    /// What else it tells.
    pub(crate) attributes: Map<String, Value>,
    /// What happened meanwhile.
    pub(crate) events: Vec<SpanEvent>,
}

/// Something that happened within a span.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct SpanEvent {
    /// When, in nanoseconds since 1970.
    #[serde(rename = "at", serialize_with = "as_time")]
    pub(crate) time: i64,
    /// What.
    pub(crate) name: String,
    /// What else is told of it.
    pub(crate) attributes: Map<String, Value>,
}

/// On which side of a call a span stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// On none.
    #[default]
    Internal,
    /// Answers it.
    Server,
    /// Makes it.
    Client,
    /// Sends a message.
    Producer,
    /// Takes a message.
    Consumer,
}

impl Kind {
    /// Every kind, in the order of OTLP's numbers (1 to 5).
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("internal", Self::Internal),
        ("server", Self::Server),
        ("client", Self::Client),
        ("producer", Self::Producer),
        ("consumer", Self::Consumer),
    ];

    /// The kind in a word.
    pub(crate) fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(word, _)| word)
    }

    /// The kind of a word, in any case.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        let known = Self::ALL.iter().find(|(known, _)| word.eq_ignore_ascii_case(known));
        known.map(|(_, kind)| *kind)
    }
}

/// How a span ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It does not say.
    #[default]
    Unset,
    /// Well.
    Ok,
    /// It failed.
    Error,
}

impl Span {
    /// When it was over, in nanoseconds since 1970.
    pub(crate) fn end(&self) -> i64 {
        self.start.saturating_add(self.duration)
    }

    /// Why it failed, by its status or by the exception that it tells of.
    pub(crate) fn why(&self) -> Option<&str> {
        let exception = || {
            let event = self.events.iter().find(|event| event.name == "exception")?;
            event.attributes.get("exception.message")?.as_str()
        };
        self.message.as_deref().or_else(exception).filter(|why| !why.is_empty())
    }
}

/// By start, each span once: a batch that was sent twice is kept twice by some servers.
pub(super) fn tidy(spans: &mut Vec<Span>) {
    spans.sort_by(|a, b| (a.start, &a.id, &a.service).cmp(&(b.start, &b.id, &b.service)));
    spans.dedup_by(|a, b| a.id == b.id && a.service == b.service && a.start == b.start && a.kind == b.kind);
}

/// Nanoseconds since 1970 as a time.
pub(crate) fn time(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn as_time<S: serde::Serializer>(nanoseconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    time(*nanoseconds).serialize(serializer)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference to the field")]
fn as_seconds<S: serde::Serializer>(nanoseconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*nanoseconds as f64 / 1e9)
}
