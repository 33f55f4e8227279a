//! YAML as we write it: the same bytes for the same tree, block scalars for what has lines, quotes only where a reader
//! would otherwise see something else. It reads nothing.

use std::fmt::Write as _;

/// A tree to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Yaml {
    /// A text on one line.
    Text(String),
    /// A text on lines of its own.
    Block(String),
    /// A number or a boolean, as it is to be written.
    Bare(String),
    /// Values by key, in this order.
    Map(Vec<(String, Yaml)>),
    /// Values in this order.
    List(Vec<Yaml>),
}

impl Yaml {
    /// A text on one line.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A map of these entries.
    pub fn map<K: Into<String>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }

    /// A map of texts.
    pub fn texts<K: Into<String>, V: Into<String>>(entries: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::map(entries.into_iter().map(|(key, value)| (key, Self::text(value))))
    }

    /// A list of texts.
    pub fn list<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// A document of its own, with comment lines at its top.
    pub fn document(&self, comment: &str) -> String {
        let mut out = String::new();
        for line in comment.lines() {
            out.push_str(format!("# {line}").trim_end());
            out.push('\n');
        }
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Self::Map(entries) => {
                for (key, value) in entries {
                    indent(out, depth);
                    value.entry(out, key, depth);
                }
            }
            Self::List(items) => {
                for item in items {
                    indent(out, depth);
                    out.push('-');
                    item.item(out, depth);
                }
            }
            scalar => scalar.scalar(out, depth),
        }
    }

    /// Behind a dash: a map begins on the same line.
    fn item(&self, out: &mut String, depth: usize) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index == 0 {
                        out.push(' ');
                    } else {
                        indent(out, depth + 1);
                    }
                    value.entry(out, key, depth + 1);
                }
            }
            Self::List(items) if !items.is_empty() => {
                out.push('\n');
                self.write(out, depth + 1);
            }
            other => {
                out.push(' ');
                other.scalar(out, depth);
            }
        }
    }

    fn entry(&self, out: &mut String, key: &str, depth: usize) {
        out.push_str(&quoted(key));
        out.push(':');
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                self.write(out, depth + 1);
            }
            Self::List(items) if !items.is_empty() => {
                out.push('\n');
                self.write(out, depth + 1);
            }
            scalar => {
                out.push(' ');
                scalar.scalar(out, depth);
            }
        }
    }

    fn scalar(&self, out: &mut String, depth: usize) {
        match self {
            Self::Bare(text) => out.push_str(text),
            Self::Block(text) if fits_a_block(text) => {
                out.push_str("|-");
                for line in text.lines() {
                    out.push('\n');
                    if !line.is_empty() {
                        indent(out, depth + 1);
                        out.push_str(line);
                    }
                }
            }
            Self::Text(text) | Self::Block(text) => out.push_str(&quoted(text)),
            Self::Map(_) => out.push_str("{}"),
            Self::List(_) => out.push_str("[]"),
        }
        out.push('\n');
    }
}

fn indent(out: &mut String, depth: usize) {
    for _ in 0..depth {
        out.push_str("  ");
    }
}

/// Whether a block scalar gives back every byte: its first line tells how deep all are, and what ends it is dropped.
fn fits_a_block(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with([' ', '\n'])
        && !text.ends_with('\n')
        && text.chars().all(|c| c == '\n' || !needs_an_escape(c))
}

fn needs_an_escape(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}')
        || ('\u{fffe}'..='\u{ffff}').contains(&c)
}

/// Plain where that is read as the same text, in single quotes where it holds double ones, else in double quotes.
fn quoted(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if text.chars().any(needs_an_escape) {
        let mut quoted = String::from("\"");
        for c in text.chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                c if needs_an_escape(c) => {
                    let _ = write!(quoted, "\\u{:04x}", c as u32);
                }
                c => quoted.push(c),
            }
        }
        quoted + "\""
    } else if text.contains(['"', '\\']) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("\"{text}\"")
    }
}

/// A word or words that no reader takes for anything but text.
fn is_plain(text: &str) -> bool {
    let words = [
        "true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf",
    ];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || " _-./:()".contains(c))
        && !words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests;
