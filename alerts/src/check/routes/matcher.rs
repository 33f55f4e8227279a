//! Matchers of routes: how they are written, what follows from one, what two cannot both be.

use std::fmt;

/// `severity=~"page|ticket"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matcher {
    label: String,
    negative: bool,
    value: Value,
}

/// What a label is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    /// One of these.
    OneOf(Vec<String>),
    /// A regular expression that is more than a list.
    Regex(String),
}

impl Matcher {
    /// A matcher that is not negated.
    pub(super) fn new(label: &str, regex: bool, value: &str) -> Self {
        Self::any(label, false, regex, value)
    }

    fn any(label: &str, negative: bool, regex: bool, value: &str) -> Self {
        const META: [char; 13] = ['\\', '.', '+', '*', '?', '(', ')', '[', ']', '{', '}', '^', '$'];
        let value = match regex {
            false => Value::OneOf(vec![value.to_owned()]),
            true if value.contains(META) => Value::Regex(value.to_owned()),
            true => Value::OneOf(value.split('|').map(str::to_owned).collect()),
        };
        Self {
            label: label.to_owned(),
            negative,
            value,
        }
    }

    /// Whether whatever this matches is matched by `other` too.
    pub(super) fn implies(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        if self.label != other.label {
            return false;
        }
        let (Value::OneOf(mine), Value::OneOf(others)) = (&self.value, &other.value) else {
            // `x="a"` is also `x=~".+"`.
            return matches!((self, &other.value), (Self { negative: false, value: Value::OneOf(mine), .. }, Value::Regex(regex))
                if !other.negative && (regex == ".*" || regex == ".+" && !mine.iter().any(String::is_empty)));
        };
        match (self.negative, other.negative) {
            (false, false) => mine.iter().all(|value| others.contains(value)),
            (false, true) => mine.iter().all(|value| !others.contains(value)),
            (true, true) => others.iter().all(|value| mine.contains(value)),
            (true, false) => false,
        }
    }

    /// Whether nothing can match both.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        let (Value::OneOf(mine), Value::OneOf(others)) = (&self.value, &other.value) else {
            return false;
        };
        self.label == other.label
            && match (self.negative, other.negative) {
                (false, false) => !mine.iter().any(|value| others.contains(value)),
                (false, true) => mine.iter().all(|value| others.contains(value)),
                (true, false) => others.iter().all(|value| mine.contains(value)),
                (true, true) => false,
            }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match (&self.value, self.negative) {
            (Value::OneOf(values), false) if values.len() == 1 => "=",
            (Value::OneOf(values), true) if values.len() == 1 => "!=",
            (_, false) => "=~",
            (_, true) => "!~",
        };
        let value = match &self.value {
            Value::OneOf(values) => values.join("|"),
            Value::Regex(regex) => regex.clone(),
        };
        write!(f, "{}{sign}\"{value}\"", self.label)
    }
}

/// Reads a matcher, or several in braces.
pub(super) fn read(text: &str) -> Option<Vec<Matcher>> {
    let text = text.trim();
    let inner = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or(text);
    let mut out = Vec::new();
    let mut rest = inner.trim();
    while !rest.is_empty() {
        let (matcher, after) = one(rest)?;
        out.push(matcher);
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(out)
}

fn one(text: &str) -> Option<(Matcher, &str)> {
    let (label, rest) = match text.strip_prefix('"') {
        Some(_) => quoted(text)?,
        None => {
            let end = text.find(['=', '!'])?;
            (text[..end].trim().to_owned(), &text[end..])
        }
    };
    let rest = rest.trim_start();
    let (length, negative, regex) = match rest.as_bytes() {
        [b'=', b'~', ..] => (2, false, true),
        [b'!', b'~', ..] => (2, true, true),
        [b'!', b'=', ..] => (2, true, false),
        [b'=', ..] => (1, false, false),
        _ => return None,
    };
    let rest = rest[length..].trim_start();
    let (value, rest) = if rest.starts_with('"') {
        quoted(rest)?
    } else {
        let end = rest.find(',').unwrap_or(rest.len());
        (rest[..end].trim().to_owned(), &rest[end..])
    };
    (!label.is_empty()).then(|| (Matcher::any(&label, negative, regex, &value), rest))
}

/// Text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => out.push('\n'),
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    None
}
