//! The four types of values that PromQL has.

use std::fmt;

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// One number.
    Scalar,
    /// An instant vector: one sample for each series.
    Vector,
    /// A range vector: samples over time for each series.
    Matrix,
    /// A text.
    String,
}

impl ValueType {
    /// The words of Prometheus' documentation, as they stand in a sentence.
    pub const fn with_article(self) -> &'static str {
        match self {
            Self::Scalar => "a scalar",
            Self::Vector => "an instant vector",
            Self::Matrix => "a range vector",
            Self::String => "a string",
        }
    }
}

impl fmt::Display for ValueType {
    /// The words of Prometheus' documentation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, words) = self.with_article().split_once(' ').unwrap_or_default();
        f.write_str(words)
    }
}
