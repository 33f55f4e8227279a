//! The value types of `opsctl.toml`: how a string or number becomes a percentage, a time span, a rate, a list; and how
//! each is written back. A new kind of value is one `FromNode` here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Node, Value};
use super::finding::Findings;

/// A value that can be read from one node. Errors go to `findings`; `None` means that there was one.
pub(super) trait FromNode: Sized {
    /// Reads the value.
    fn from_node(node: &Node, findings: &Findings) -> Option<Self>;
    /// Writes it as TOML.
    fn shown(&self) -> String;
}

fn expected<T>(node: &Node, findings: &Findings, what: &str) -> Option<T> {
    findings.error(&node.origin, format!("expected {what}, found {}", node.value.kind()));
    None
}

impl FromNode for String {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => expected(node, findings, "a string"),
        }
    }
    fn shown(&self) -> String {
        quoted(self)
    }
}

impl FromNode for bool {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Boolean(value) => Some(value),
            _ => expected(node, findings, "true or false"),
        }
    }
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FromNode for f64 {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Integer(number) => Some(number as Self),
            Value::Float(number) if number.is_finite() => Some(number),
            _ => expected(node, findings, "a finite number"),
        }
    }
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FromNode for u32 {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Integer(number) => Self::try_from(number)
                .map_err(|_| {
                    findings.error(
                        &node.origin,
                        format!("{number} is out of range: expected 0 to {}", Self::MAX),
                    );
                })
                .ok(),
            _ => expected(node, findings, "a whole number"),
        }
    }
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl FromNode for u16 {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match node.value {
            Value::Integer(number) => Self::try_from(number).ok().filter(|port| *port > 0).or_else(|| {
                findings.error(&node.origin, format!("{number} is no port: expected 1 to 65535"));
                None
            }),
            _ => expected(node, findings, "a port number"),
        }
    }
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match &node.value {
            Value::Array(items) => items.iter().map(|item| T::from_node(item, findings)).collect(),
            _ => expected(node, findings, "an array"),
        }
    }
    fn shown(&self) -> String {
        format!("[{}]", self.iter().map(T::shown).collect::<Vec<_>>().join(", "))
    }
}

impl FromNode for BTreeMap<String, String> {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        match &node.value {
            Value::Table(table) => table
                .entries
                .iter()
                .map(|(key, (_, node))| Some((key.clone(), String::from_node(node, findings)?)))
                .collect(),
            _ => expected(node, findings, "a table of strings"),
        }
    }
    fn shown(&self) -> String {
        // Values of the services' environment may be secrets that somebody wrote there in spite of everything.
        format!(
            "{{ {} }}",
            self.keys()
                .map(|key| format!("{key} = …"))
                .collect::<Vec<_>>()
                .join(", ")
        )
    }
}

/// A path, relative to the folder of the file that names it.
impl FromNode for PathBuf {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let path = Self::from(String::from_node(node, findings)?);
        Some(
            node.origin
                .folder()
                .map_or_else(|| path.clone(), |folder| folder.join(&path)),
        )
    }
    fn shown(&self) -> String {
        quoted(&self.display().to_string())
    }
}

/// A time span such as `15m`, `300ms`, `35d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span(pub(super) Duration);

impl FromNode for Span {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let Value::String(text) = &node.value else {
            return expected(node, findings, "a time such as \"15m\"");
        };
        match humantime::parse_duration(text) {
            Ok(span) if !span.is_zero() => Some(Self(span)),
            _ => {
                findings.error(
                    &node.origin,
                    format!("`{text}` is no time: expected a number with a unit, such as \"300ms\" or \"15m\""),
                );
                None
            }
        }
    }
    fn shown(&self) -> String {
        quoted(&humantime::format_duration(self.0).to_string())
    }
}

/// A number of bytes such as `100MB` or `1.5 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl FromNode for Size {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = match &node.value {
            Value::String(text) => text.clone(),
            Value::Integer(bytes) => bytes.to_string(),
            _ => return expected(node, findings, "a size such as \"100MB\""),
        };
        let text = text.trim();
        let digits = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: Option<f64> = match unit.trim() {
            "" | "B" => Some(1.0),
            "kB" | "KB" => Some(1e3),
            "MB" => Some(1e6),
            "GB" => Some(1e9),
            "TB" => Some(1e12),
            "K" | "KiB" => Some(1024_f64),
            "M" | "MiB" => Some(1024_f64.powi(2)),
            "G" | "GiB" => Some(1024_f64.powi(3)),
            "T" | "TiB" => Some(1024_f64.powi(4)),
            _ => None,
        };
        let bytes = number
            .parse::<f64>()
            .ok()
            .zip(factor)
            .map(|(number, factor)| number * factor);
        if let Some(bytes) = bytes.filter(|bytes| *bytes < 9e18) {
            return Some(Self(bytes as u64));
        }
        findings.error(
            &node.origin,
            format!("`{text}` is no size: expected a number with a unit, such as \"100MB\" or \"1GiB\""),
        );
        None
    }
    fn shown(&self) -> String {
        quoted(&format!("{}B", self.0))
    }
}

/// A ratio written as a percentage such as `99.9%`; kept as 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(super) struct Percent(pub(super) f64);

impl FromNode for Percent {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let Value::String(text) = &node.value else {
            return expected(node, findings, "a percentage in quotes, such as \"99.9%\"");
        };
        let number = text
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok());
        match number {
            Some(number) if number > 0.0 && number < 100.0 => Some(Self(number / 100.0)),
            _ => {
                findings.error(
                    &node.origin,
                    format!("`{text}` is no objective: expected more than 0 % and less than 100 %, such as \"99.9%\""),
                );
                None
            }
        }
    }
    fn shown(&self) -> String {
        let number = format!("{:.6}", self.0 * 100.0);
        quoted(&format!("{}%", number.trim_end_matches('0').trim_end_matches('.')))
    }
}

/// A rate such as `20/s` or `1000/min`, kept as written once it is known to be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rate(pub(super) String);

impl FromNode for Rate {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let Value::String(text) = &node.value else {
            return expected(node, findings, "a rate such as \"20/s\"");
        };
        let valid = text.split_once('/').is_some_and(|(number, unit)| {
            number
                .trim()
                .parse::<f64>()
                .is_ok_and(|number| number > 0.0 && number.is_finite())
                && ["s", "sec", "second", "m", "min", "minute", "h", "hour"].contains(&unit.trim())
        });
        if !valid {
            findings.error(
                &node.origin,
                format!("`{text}` is no rate: expected for example \"20/s\" or \"1000/min\""),
            );
            return None;
        }
        Some(Self(text.clone()))
    }
    fn shown(&self) -> String {
        quoted(&self.0)
    }
}

/// An address such as `https://loki.internal`, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(pub(super) String);

impl FromNode for Address {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        let wrong = match reqwest::Url::parse(&text) {
            Ok(url) if !matches!(url.scheme(), "http" | "https") => "expected http:// or https://",
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                "a password is never written here: use `user` and `password = { file = … }`"
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => "expected no more than a path",
            Ok(_) => return Some(Self(text.trim_end_matches('/').to_owned())),
            Err(_) => "expected for example \"https://loki.internal\"",
        };
        // The text may hold a password.
        findings.error(&node.origin, format!("this is no address of a server: {wrong}"));
        None
    }
    fn shown(&self) -> String {
        quoted(&self.0)
    }
}

/// The name of a label, as Prometheus and Loki have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label(pub(super) String);

impl Label {
    /// Whether a text is the name of a label.
    pub(super) fn is_one(text: &str) -> bool {
        let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        !text.is_empty() && text.chars().all(part) && !text.starts_with(|c: char| c.is_ascii_digit())
    }
}

impl FromNode for Label {
    fn from_node(node: &Node, findings: &Findings) -> Option<Self> {
        let text = String::from_node(node, findings)?;
        if !Self::is_one(&text) {
            findings.error(&node.origin, format!("`{text}` is no name of a label"));
            return None;
        }
        Some(Self(text))
    }
    fn shown(&self) -> String {
        quoted(&self.0)
    }
}

/// A TOML basic string.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
