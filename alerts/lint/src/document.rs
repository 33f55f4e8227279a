//! YAML, and so JSON, as a tree in which every value knows its bytes in the file. What the values mean is said elsewhere.
//!
//! Foreign files: size, depth, the number of values and what aliases and merge keys may unfold to are limited, and a key
//! that is there twice is refused.

mod build;
mod offsets;

use std::ops::Range;

pub use build::{LIMITS, Limits, read};
pub use offsets::Offsets;

/// A file's documents and its comments.
#[derive(Debug)]
pub struct Documents {
    /// The documents, in their order.
    pub documents: Vec<Node>,
    /// Comments with their `#`, in their order.
    pub comments: Vec<Range<usize>>,
}

/// A value with its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The bytes of the file, without white space behind them. What an alias stands for has the bytes of its anchor.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, a number, a word. Which of these it is the reader says.
    Scalar {
        /// Without quotes, escapes and folds.
        text: String,
        /// How it is written.
        style: Style,
    },
    /// A list.
    List(Vec<Node>),
    /// A map, in the file's order, without repeated keys.
    Map(Vec<(Node, Node)>),
}

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// `'…'`
    SingleQuoted,
    /// `"…"`
    DoubleQuoted,
    /// `|`
    Literal,
    /// `>`
    Folded,
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unreadable {
    /// What is wrong.
    pub what: String,
    /// Where.
    pub at: usize,
}

impl Node {
    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing: `null`, `~`, or left out.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, style } => {
                *style == Style::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            _ => false,
        }
    }

    /// The entries of a map; of anything else, none.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; of anything else, none.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The value under that key of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|(name, _)| name.text() == Some(key))
            .map(|(_, value)| value)
    }

    /// `a map`, `a list`, `nothing`, `text`.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Map(_) => "a map",
            Value::List(_) => "a list",
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "text",
        }
    }

    /// Where the bytes of a scalar's text stand in `source`, the text of its file.
    pub fn offsets(&self, source: &str) -> Offsets {
        match &self.value {
            Value::Scalar { text, style } => Offsets::new(text, *style, self.span.clone(), source),
            _ => Offsets::whole(self.span.clone()),
        }
    }
}
