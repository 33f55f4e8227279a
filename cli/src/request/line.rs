//! A line that a service wrote, and what can be read off it: time and ids of a JSON line, the time of others.

use jiff::Timestamp;
use serde_json::Value;

/// What stands in every line.
const COMMON: [&str; 17] = [
    "timestamp",
    "time",
    "ts",
    "@timestamp",
    "level",
    "severity",
    "message",
    "msg",
    "target",
    "logger",
    "service",
    "env",
    "instance",
    "trace_id",
    "span_id",
    "trace_flags",
    "correlation_id",
];

/// A line of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The service, as far as it is known.
    pub(crate) service: String,
    /// The instance, as far as it is known.
    pub(crate) instance: String,
    /// When it was written, as it says itself, else as the server that keeps it says.
    pub(crate) time: Option<Timestamp>,
    /// The trace that it names.
    pub(crate) trace_id: Option<String>,
    /// The span that it names.
    pub(crate) span_id: Option<String>,
    /// The line as it is, without its end.
    pub(crate) text: String,
}

impl Line {
    /// Reads what the line says of itself.
    pub(crate) fn new(service: impl Into<String>, instance: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let fields = fields_of(&text);
        let field = |name: &str| Some(fields.as_ref()?.get(name)?.as_str()?.to_owned());
        Self {
            service: service.into(),
            instance: instance.into(),
            time: time_of(&text),
            trace_id: field("trace_id"),
            span_id: field("span_id"),
            text,
        }
    }

    /// `LEVEL message field=value …` without the fields that stand in every line and those of the spans around it (they
    /// have dots in their names); a line that is not JSON whole.
    pub(crate) fn brief(&self) -> String {
        let Some(Value::Object(fields)) = fields_of(&self.text) else {
            return self.text.clone();
        };
        let field = |names: &[&str]| {
            let found = names.iter().find_map(|name| fields.get(*name)?.as_str());
            found.unwrap_or_default().to_owned()
        };
        let message = field(&["message", "msg"]);
        if message.is_empty() {
            return self.text.clone();
        }
        let mut brief = format!("{} {message}", field(&["level", "severity"]).to_uppercase());
        for (key, value) in fields
            .iter()
            .filter(|(key, _)| !COMMON.contains(&key.as_str()) && !key.contains('.'))
        {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            brief.push_str(&format!(" {key}={value}"));
        }
        brief.trim_start().to_owned()
    }

    /// Whether it says that something failed.
    pub(crate) fn is_error(&self) -> bool {
        let level = fields_of(&self.text).and_then(|fields| Some(fields.get("level")?.as_str()?.to_uppercase()));
        level.is_some_and(|level| level == "ERROR" || level == "FATAL")
    }
}

fn fields_of(text: &str) -> Option<Value> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// The time that a line says it is of: a field of a JSON line, or its first word.
pub(crate) fn time_of(line: &str) -> Option<Timestamp> {
    if line.starts_with('{') {
        let fields = fields_of(line)?;
        return ["timestamp", "time", "ts", "@timestamp"]
            .iter()
            .find_map(|key| fields.get(key)?.as_str()?.parse().ok());
    }
    line.split_whitespace().next()?.trim_matches(['[', ']']).parse().ok()
}

/// By time; what has none stays behind the line before it.
pub(super) fn sort(lines: &mut Vec<Line>) {
    let mut last = Timestamp::MIN;
    let mut keyed: Vec<(Timestamp, Line)> = std::mem::take(lines)
        .into_iter()
        .map(|line| {
            last = line.time.unwrap_or(last);
            (last, line)
        })
        .collect();
    keyed.sort_by_key(|(time, _)| *time);
    lines.extend(keyed.into_iter().map(|(_, line)| line));
}

#[cfg(test)]
mod tests {
    use super::{Line, sort, time_of};

    #[test]
    fn finds_the_time_of_a_line() {
        let time = "2026-03-14T09:26:53Z".parse().ok();
        assert_eq!(time_of(r#"{"timestamp":"2026-03-14T09:26:53Z","message":"x"}"#), time);
        assert_eq!(time_of("2026-03-14T09:26:53Z INFO x"), time);
        assert_eq!(time_of("panicked at"), None);
    }

    #[test]
    fn lines_are_in_order_and_those_without_a_time_go_with_the_one_before() {
        let line = |text: &str| Line::new("a", "a-1", text);
        let mut lines = vec![
            line("2026-03-14T09:00:02Z two"),
            line("more of two"),
            line("2026-03-14T09:00:01Z one"),
        ];
        sort(&mut lines);
        let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(
            texts,
            ["2026-03-14T09:00:01Z one", "2026-03-14T09:00:02Z two", "more of two"]
        );
    }

    #[test]
    fn a_line_in_brief() {
        let json = r#"{"level":"WARN","message":"card refused","amount":5}"#;
        assert_eq!(Line::new("a", "", json).brief(), "WARN card refused amount=5");
        assert_eq!(Line::new("a", "", r#"{"event":1}"#).brief(), r#"{"event":1}"#);
        assert_eq!(Line::new("a", "", "plain").brief(), "plain");
    }
}
