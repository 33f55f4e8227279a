//! The fields of an event or a span as JSON, written once: secrets taken out, long values cut, every name once. Which of
//! them end up in a line is [`super::maker`]'s matter.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};

use super::json;
use super::names::{Name, Names};
use crate::redact::{REDACTED, Redact, limited};

/// Longest value of one field in bytes, before it is escaped.
const VALUE_LIMIT: usize = 8 * 1024;
/// Longest text that a `Debug` or `Display` may make; the rest of it is not looked at.
const SCRATCH_LIMIT: usize = 64 * 1024;

/// Fields as `,"name":value` one after the other.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    json: String,
    entries: Vec<Entry>,
    /// Whether a value was cut.
    pub(crate) truncated: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    name: &'static str,
    /// Where `,"name":value` begins and ends.
    start: usize,
    end: usize,
}

impl Fields {
    pub(crate) fn clear(&mut self) {
        self.json.clear();
        self.entries.clear();
        self.truncated = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that are kept for the next use.
    pub(crate) fn capacity(&self) -> usize {
        self.json.capacity()
    }

    /// All of them.
    pub(crate) fn json(&self) -> &str {
        &self.json
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }

    /// Each field: its name, and `,"name":value`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let text = |entry: &Entry| (entry.name, &self.json[entry.start..entry.end]);
        self.entries.iter().map(text)
    }

    /// Puts the later fields in the place of the earlier ones of their names, and behind the others.
    pub(crate) fn update(&mut self, later: &Self) {
        let mut all = Self {
            truncated: self.truncated || later.truncated,
            ..Self::default()
        };
        let kept = self.iter().filter(|(name, _)| !later.has(name));
        for (name, json) in kept.chain(later.iter()) {
            let start = all.json.len();
            all.json.push_str(json);
            let end = all.json.len();
            all.entries.push(Entry { name, start, end });
        }
        *self = all;
    }

    /// Leaves out what is beyond so many bytes.
    pub(crate) fn cut(&mut self, room: usize) {
        if self.json.len() > room {
            let all = std::mem::take(self);
            self.add_outer(&all, room);
        }
    }

    /// Adds those of the span around, but for names that are known and for what is beyond so many bytes.
    pub(crate) fn add_outer(&mut self, outer: &Self, room: usize) {
        self.truncated |= outer.truncated;
        let fits = self.json.len() + outer.json.len() <= room;
        if fits && !outer.names().any(|name| self.has(name)) {
            let begin = self.json.len();
            self.json.push_str(&outer.json);
            let moved = |entry: &Entry| Entry {
                start: begin + entry.start,
                end: begin + entry.end,
                ..*entry
            };
            self.entries.extend(outer.entries.iter().map(moved));
            return;
        }
        for (name, json) in outer.iter() {
            if self.has(name) {
                continue;
            }
            let start = self.json.len();
            if start + json.len() > room {
                self.truncated = true;
                continue;
            }
            self.json.push_str(json);
            let end = self.json.len();
            self.entries.push(Entry { name, start, end });
        }
    }

    fn put(&mut self, name: &Name, write: impl FnOnce(&mut String)) {
        if self.has(name.text) {
            return;
        }
        let start = self.json.len();
        self.json.push_str(&name.key);
        write(&mut self.json);
        let end = self.json.len();
        let name = name.text;
        self.entries.push(Entry { name, start, end });
    }
}

/// Writes what an event or span records.
pub(crate) struct Recorder<'a> {
    pub(crate) redact: &'a Redact,
    pub(crate) names: &'a mut Names,
    pub(crate) fields: &'a mut Fields,
    /// Where the text of the field `message` goes, escaped; in a span it is a field like any other.
    pub(crate) message: Option<&'a mut String>,
    pub(crate) scratch: &'a mut String,
    /// Whether the fields `log.*` of the bridge from the crate `log` are left out.
    pub(crate) of_log: bool,
}

impl Recorder<'_> {
    fn is_left_out(&self, field: &Field) -> bool {
        self.of_log && field.name().starts_with("log.")
    }

    fn text(&mut self, field: &Field, value: &str) {
        if self.is_left_out(field) {
            return;
        }
        let name = self.names.of(field.name(), self.redact);
        let message = self.message.as_deref_mut().filter(|_| name.is_message);
        if message.is_none() && name.is_secret {
            return self.fields.put(name, |out| json::string(out, REDACTED));
        }
        // Most texts are short and harmless.
        let plain = value.len() <= VALUE_LIMIT && json::is_plain(value);
        let clean = if plain { value.into() } else { self.redact.clean(value) };
        let cut = limited(&clean, VALUE_LIMIT);
        self.fields.truncated |= cut.len() < clean.len();
        let escape = if plain { String::push_str } else { json::escape };
        match message {
            Some(message) => escape(message, cut),
            None => self.fields.put(name, |out| {
                out.push('"');
                escape(out, cut);
                out.push('"');
            }),
        }
    }

    fn shown(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        if let Some(text) = value.as_str() {
            return self.text(field, text);
        }
        let mut scratch = std::mem::take(self.scratch);
        scratch.clear();
        let mut limit = Limit(&mut scratch);
        // A `Debug` that fails leaves what it wrote so far.
        let _ = limit.write_fmt(value);
        self.text(field, &scratch);
        *self.scratch = scratch;
    }

    /// A value that is JSON as it stands.
    fn plain(&mut self, field: &Field, json: &str) {
        if self.is_left_out(field) {
            return;
        }
        let name = self.names.of(field.name(), self.redact);
        if name.is_message && self.message.is_some() {
            self.text(field, json);
        } else if name.is_secret {
            self.fields.put(name, |out| json::string(out, REDACTED));
        } else {
            self.fields.put(name, |out| out.push_str(json));
        }
    }
}

impl Visit for Recorder<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.shown(field, format_args!("{value:?}"));
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.shown(field, format_args!("{}", Chain(value)));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, if value { "true" } else { "false" });
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, itoa::Buffer::new().format(value));
    }
    // Numbers that JSON's readers would round are text.
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.text(field, itoa::Buffer::new().format(value));
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.text(field, itoa::Buffer::new().format(value));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        if !value.is_finite() {
            self.shown(field, format_args!("{value}"));
        } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
            self.plain(field, &format!("{value:e}"));
        } else {
            self.plain(field, &value.to_string());
        }
    }
}

/// An error and what caused it.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(next) = source {
            write!(f, ": {next}")?;
            source = next.source();
        }
        Ok(())
    }
}

/// Takes no more than [`SCRATCH_LIMIT`]; what is beyond is forgotten, not refused, since a `Display` need not expect
/// that writing fails.
struct Limit<'a>(&'a mut String);

impl fmt::Write for Limit<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = SCRATCH_LIMIT - self.0.len().min(SCRATCH_LIMIT);
        self.0.push_str(limited(text, room));
        Ok(())
    }
}
