//! Label matchers as PromQL writes them: what the series of a service have in common.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Is.
    #[serde(rename = "=")]
    Equal,
    /// Is not.
    #[serde(rename = "!=")]
    NotEqual,
    /// Matches as a whole.
    #[serde(rename = "=~")]
    Matches,
    /// Does not match as a whole.
    #[serde(rename = "!~")]
    NotMatches,
}

impl Op {
    /// The sign.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

/// What one label has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// Name of the label.
    pub label: String,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: String,
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.label, self.op.as_str(), string(&self.value))
    }
}

/// What labels of a series have to be; shown without the braces, `job="orders"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selector(pub Vec<Matcher>);

impl Selector {
    /// Of a service that is a job of its own, as in the Prometheus that is deployed beside containers and on one machine.
    pub fn job(name: &str) -> Self {
        Self::default().equal("job", name)
    }

    /// Of the pods of a Deployment and of the one with its canary, whatever the job is called that scrapes them.
    pub fn pods(namespace: &str, deployment: &str) -> Self {
        let pods = format!("{}(-canary)?-[a-z0-9]+-[a-z0-9]{{5}}", regex_escape(deployment));
        Self::default().equal("namespace", namespace).matching("pod", &pods)
    }

    /// And this label is `value`.
    #[must_use]
    pub fn equal(self, label: &str, value: &str) -> Self {
        self.with(label, Op::Equal, value)
    }

    /// And this label matches `pattern` as a whole.
    #[must_use]
    pub fn matching(self, label: &str, pattern: &str) -> Self {
        self.with(label, Op::Matches, pattern)
    }

    /// And this label is not `value`.
    #[must_use]
    pub fn not_equal(self, label: &str, value: &str) -> Self {
        self.with(label, Op::NotEqual, value)
    }

    fn with(mut self, label: &str, op: Op, value: &str) -> Self {
        self.0.push(Matcher {
            label: label.to_owned(),
            op,
            value: value.to_owned(),
        });
        self
    }

    /// The selector of a metric: `up{job="orders"}`.
    pub fn of(&self, metric: &str) -> String {
        if self.0.is_empty() {
            metric.to_owned()
        } else {
            format!("{metric}{{{self}}}")
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, matcher) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            matcher.fmt(f)?;
        }
        Ok(())
    }
}

/// A text as a string of PromQL, in double quotes.
pub fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", c as u32);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A text as a regular expression that matches it alone.
pub fn regex_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
