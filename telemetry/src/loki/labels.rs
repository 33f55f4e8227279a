//! The labels of Loki's streams: service, environment and level, and what the settings add. All are known at the start:
//! a sink has at most one stream a level, and one more for what came too late for it, so that no line can make a stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;

use crate::sink::queue::Severity;

/// Loki's own limits on a stream's labels, as they are set by default.
const MOST_LABELS: usize = 15;
const LONGEST_VALUE: usize = 2048;

/// Why a label cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// Loki takes `[A-Za-z_][A-Za-z0-9_]*`, and keeps names that begin with two underscores to itself.
    #[error("`{name}` cannot be the name of a Loki label")]
    Name {
        /// The name.
        name: String,
    },
    /// The sink sets this label itself.
    #[error("the label `{name}` is set for each line and cannot be fixed")]
    Reserved {
        /// The name.
        name: String,
    },
    /// It was set before.
    #[error("the label `{name}` is set twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Longer than Loki takes.
    #[error("the value of the label `{name}` has more than {LONGEST_VALUE} bytes")]
    Value {
        /// The name.
        name: String,
    },
    /// More than Loki takes.
    #[error("a stream can have {MOST_LABELS} labels, not {count}")]
    Many {
        /// How many there are, with those that the sink sets.
        count: usize,
    },
}

/// The labels of every stream of a sink, as Loki reads them.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    /// By level: the usual stream, and that of late lines.
    texts: [[Bytes; 2]; 5],
}

/// Adds a label, if Loki will take it.
pub(crate) fn add(labels: &mut BTreeMap<String, String>, name: &str, value: &str) -> Result<(), LabelError> {
    let name = name.to_owned();
    let mut letters = name.bytes();
    let starts = letters
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts || !letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') || name.starts_with("__") {
        return Err(LabelError::Name { name });
    }
    if matches!(name.as_str(), "level" | "replay") {
        return Err(LabelError::Reserved { name });
    }
    if value.len() > LONGEST_VALUE {
        return Err(LabelError::Value { name });
    }
    if labels.contains_key(&name) {
        return Err(LabelError::Duplicate { name });
    }
    labels.insert(name, value.to_owned());
    Ok(())
}

impl Streams {
    /// Streams with these labels and the level.
    pub(crate) fn new(labels: &BTreeMap<String, String>) -> Result<Self, LabelError> {
        let count = labels.len() + 2;
        if count > MOST_LABELS {
            return Err(LabelError::Many { count });
        }
        let mut fixed = String::new();
        // Loki drops labels without a value.
        for (name, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(fixed, "{name}=");
            quote(&mut fixed, value);
            fixed.push_str(", ");
        }
        let text = |level: &str, late: &str| Bytes::from(format!("{{{fixed}level=\"{level}\"{late}}}"));
        Ok(Self {
            texts: LEVELS.map(|(_, level)| [text(level, ""), text(level, ", replay=\"true\"")]),
        })
    }

    /// The labels of the stream for lines of this level, or for late ones of it.
    pub(crate) fn text(&self, level: Severity, late: bool) -> Bytes {
        self.texts[level as usize][usize::from(late)].clone()
    }
}

/// The values of the label `level`, in the order of [`Severity`].
pub(crate) const LEVELS: [(Severity, &str); 5] = [
    (Severity::Trace, "trace"),
    (Severity::Debug, "debug"),
    (Severity::Info, "info"),
    (Severity::Warn, "warn"),
    (Severity::Error, "error"),
];

/// Appends a label's value as a string of Go, which is how Loki reads it.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for character in value.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    //! Names that Loki takes and refuses, and values in Go's syntax.

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Result<BTreeMap<String, String>, LabelError> {
        let mut labels = BTreeMap::new();
        for (name, value) in pairs {
            add(&mut labels, name, value)?;
        }
        Ok(labels)
    }

    #[test]
    fn names_are_those_that_loki_takes() {
        for good in ["a", "_a", "A1_b", "service"] {
            assert!(labels(&[(good, "x")]).is_ok(), "{good}");
        }
        for bad in ["", "1a", "a-b", "a b", "ä", "__name__", "a\"", "a{"] {
            let name = bad.to_owned();
            assert_eq!(labels(&[(bad, "x")]), Err(LabelError::Name { name }));
        }
        let reserved = |name: &str| LabelError::Reserved { name: name.to_owned() };
        assert_eq!(labels(&[("level", "x")]), Err(reserved("level")));
        assert_eq!(labels(&[("replay", "x")]), Err(reserved("replay")));
        assert!(matches!(
            labels(&[("a", "x"), ("a", "x")]),
            Err(LabelError::Duplicate { .. })
        ));
        assert!(labels(&[("a", &"x".repeat(2048))]).is_ok());
        assert!(matches!(
            labels(&[("a", &"x".repeat(2049))]),
            Err(LabelError::Value { .. })
        ));
    }

    #[test]
    fn values_are_strings_of_go() {
        let labels = labels(&[("b", "a\"b\\c\nd\u{301}\u{7}\u{85}ü"), ("a", ""), ("c", "{}")]).unwrap();
        let streams = Streams::new(&labels).unwrap();
        assert_eq!(
            streams.text(Severity::Info, false),
            "{b=\"a\\\"b\\\\c\\nd\u{301}\\u0007\\u0085ü\", c=\"{}\", level=\"info\"}".as_bytes()
        );
        assert_eq!(
            streams.text(Severity::Error, true),
            "{b=\"a\\\"b\\\\c\\nd\u{301}\\u0007\\u0085ü\", c=\"{}\", level=\"error\", replay=\"true\"}".as_bytes()
        );
    }

    #[test]
    fn there_are_no_more_labels_than_loki_takes() {
        let mut all = BTreeMap::new();
        for number in 0..13 {
            add(&mut all, &format!("l{number}"), "x").unwrap();
        }
        assert!(Streams::new(&all).is_ok());
        add(&mut all, "more", "x").unwrap();
        assert_eq!(Streams::new(&all).unwrap_err(), LabelError::Many { count: 16 });
    }
}
