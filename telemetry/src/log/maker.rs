//! Puts a line together: the keys that every line has, the ids, the fields of the event and of the spans around it. The
//! event wins over its span, and an inner span over an outer one.

use std::cell::Cell;
use std::fmt::Display;

use super::clock::Stamps;
use super::fields::Fields;
use super::ids::IdText;
use super::json;
use super::line::Line;
use super::names::Names;
use super::rate::Suppressed;
use crate::redact::Redact;
use crate::sink::queue::{Lost, Severity};

/// Longest line in bytes.
const LINE_LIMIT: usize = 128 * 1024;
/// What the ids (with a correlation id of the greatest length) and the end of a line need.
const RESERVED: usize = 320;
/// Target of lines that telemetry writes of itself.
pub(crate) const TARGET: &str = "telemetry";
/// Larger buffers are not kept.
const KEPT: usize = 256 * 1024;

/// What is the same in all lines of a process.
#[derive(Debug)]
pub(crate) struct LineMaker {
    /// `,"service":…,"env":…`
    fixed: String,
    pub(crate) redact: Redact,
}

/// What a thread needs to make lines, kept between them.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    pub(crate) stamps: Stamps,
    pub(crate) ids: IdText,
    pub(crate) names: Names,
    pub(crate) line: String,
    pub(crate) message: String,
    pub(crate) fields: Fields,
    pub(crate) scratch: String,
}

thread_local! {
    static BUFFERS: Cell<Option<Box<Buffers>>> = const { Cell::new(None) };
}

impl Buffers {
    /// Lends the thread's buffers. A `Debug` that logs while it is logged, and a thread that ends, get new ones.
    pub(crate) fn lend<R>(with: impl FnOnce(&mut Self) -> R) -> R {
        let kept = BUFFERS.try_with(Cell::take).ok().flatten();
        let mut buffers = kept.unwrap_or_default();
        buffers.line.clear();
        buffers.message.clear();
        buffers.fields.clear();
        let result = with(&mut buffers);
        let texts = [&buffers.line, &buffers.message, &buffers.scratch];
        let held: usize = texts.iter().map(|text| text.capacity()).sum();
        let held = held + buffers.fields.capacity();
        if held <= KEPT {
            let _ = BUFFERS.try_with(|kept| kept.set(Some(buffers)));
        }
        result
    }
}

/// The head of a line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(crate) at: u64,
    pub(crate) severity: Severity,
    pub(crate) target: &'a str,
}

impl LineMaker {
    pub(crate) fn new(service: &str, environment: &str, redact: Redact) -> Self {
        let mut fixed = String::from(",\"service\":");
        json::string(&mut fixed, service);
        fixed.push_str(",\"env\":");
        json::string(&mut fixed, environment);
        Self { fixed, redact }
    }

    /// Begins `buffers.line`, up to where the ids come.
    pub(crate) fn begin(&self, buffers: &mut Buffers, head: Head<'_>) {
        let Buffers {
            stamps, line, message, ..
        } = buffers;
        line.push_str("{\"timestamp\":\"");
        stamps.append(line, head.at);
        line.push_str("\",\"level\":\"");
        line.push_str(head.severity.name());
        line.push_str("\",\"message\":\"");
        line.push_str(message);
        line.push_str("\",\"target\":\"");
        json::escape(line, head.target);
        line.push('"');
        line.push_str(&self.fixed);
    }

    /// Bytes that there are for the fields of a line that was begun.
    pub(crate) fn room(begun: &str) -> usize {
        LINE_LIMIT.saturating_sub(begun.len() + RESERVED)
    }

    /// Ends `buffers.line` with the fields.
    pub(crate) fn end(buffers: &mut Buffers) {
        let Buffers { line, fields, .. } = buffers;
        line.push_str(fields.json());
        line.push_str(if fields.truncated {
            ",\"truncated\":true}\n"
        } else {
            "}\n"
        });
    }

    /// Makes a line that telemetry writes of itself, for `then`.
    pub(crate) fn own(
        &self,
        severity: Severity,
        target: &str,
        message: &str,
        fields: &[(&str, &dyn Display)],
        then: impl FnOnce(Line<'_>),
    ) {
        Buffers::lend(|buffers| {
            let at = crate::wall_nanos();
            json::escape(&mut buffers.message, &self.redact.clean(message));
            self.begin(buffers, Head { at, severity, target });
            for (name, value) in fields {
                buffers.line.push_str(",\"");
                buffers.line.push_str(name);
                buffers.line.push_str("\":");
                json::string(&mut buffers.line, &value.to_string());
            }
            buffers.line.push_str("}\n");
            then(Line::new(&buffers.line, at, severity));
        });
    }

    /// Makes the line that tells of lines that a sink lost.
    pub(crate) fn lost(&self, sink: &str, lost: Lost, then: impl FnOnce(Line<'_>)) {
        let message = format!("lost {} lines since {:.3}", lost.items, lost.since);
        let fields: [(&str, &dyn Display); 2] = [("sink", &sink), ("lost", &lost.items)];
        self.own(Severity::Warn, TARGET, &message, &fields, then);
    }

    /// Makes the line that tells of lines that a rate limit left out.
    pub(crate) fn suppressed(&self, suppressed: Suppressed, then: impl FnOnce(Line<'_>)) {
        let metadata = suppressed.metadata;
        let message = format!("suppressed {} lines", suppressed.lines);
        let place = format!(
            "{}:{}",
            metadata.file().unwrap_or(metadata.target()),
            metadata.line().unwrap_or_default()
        );
        let fields: [(&str, &dyn Display); 2] = [("place", &place), ("suppressed", &suppressed.lines)];
        self.own(metadata.level().into(), metadata.target(), &message, &fields, then);
    }
}
