//! A line for people at a terminal, made of the JSON line.

use std::fmt::Write as _;

use serde_json::Value;

use super::json;

/// How pretty lines look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pretty {
    /// With ANSI colours.
    pub(crate) colours: bool,
}

impl Pretty {
    /// Turns a JSON line into `12:03:04.567 INFO  orders: message name=value`, with a line feed.
    pub(crate) fn show(self, line: &str) -> String {
        let mut out = String::with_capacity(line.len());
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
            // Our own lines are objects.
            return format!("{line}\n");
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let level = text("level");
        let colour = match level {
            "ERROR" => "31",
            "WARN" => "33",
            "INFO" => "32",
            "DEBUG" => "34",
            _ => "35",
        };
        // Of 2026-01-02T03:04:05.000000006Z the time of day in milliseconds.
        self.paint(&mut out, "2", text("timestamp").get(11..23).unwrap_or_default());
        out.push(' ');
        self.paint(&mut out, colour, &format!("{level:5}"));
        out.push(' ');
        self.paint(&mut out, "2", &format!("{}:", escaped(text("target"))));
        out.push(' ');
        out.push_str(&escaped(text("message")));
        for (name, value) in &fields {
            if matches!(
                name.as_str(),
                "timestamp" | "level" | "target" | "message" | "service" | "env" | "trace_flags"
            ) {
                continue;
            }
            out.push(' ');
            self.paint(&mut out, "2", &format!("{}=", escaped(name)));
            match value {
                Value::String(text) if text.is_empty() || text.contains(char::is_whitespace) => {
                    json::string(&mut out, text);
                }
                Value::String(text) => out.push_str(&escaped(text)),
                other => {
                    let _ = write!(out, "{other}");
                }
            }
        }
        out.push('\n');
        out
    }

    fn paint(self, out: &mut String, colour: &str, text: &str) {
        if self.colours {
            let _ = write!(out, "\u{1b}[{colour}m{text}\u{1b}[0m");
        } else {
            out.push_str(text);
        }
    }
}

/// Without anything that moves the cursor or ends the line; quotes and backslashes read better as they are.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(['"', '\\']) {
        let plain = piece.trim_end_matches(['"', '\\']);
        json::escape(&mut out, plain);
        out.push_str(&piece[plain.len()..]);
    }
    out
}

#[cfg(test)]
mod tests {
    //! What a line looks like, and that a user's text stays inside of it.

    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-01-02T03:04:05.678901234Z","level":"WARN","message":"say \"hi\"\n\u001b[31m","target":"shop","service":"s","env":"dev","trace_id":"ab","path":"C:\\x","note":"two words","n":3}"#;

    #[test]
    fn a_line_for_people() {
        let plain = Pretty { colours: false }.show(LINE);
        let wanted = r#"03:04:05.678 WARN  shop: say "hi"\n\u001b[31m trace_id=ab path=C:\x note="two words" n=3"#;
        assert_eq!(plain, format!("{wanted}\n"));
    }

    #[test]
    fn colours_are_ours_alone() {
        let line = Pretty { colours: true }.show(LINE);
        assert!(line.contains("\u{1b}[33mWARN \u{1b}[0m"), "{line:?}");
        assert!(!line.contains("\u{1b}[31m"), "{line:?}");
    }
}
