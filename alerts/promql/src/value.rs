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

impl fmt::Display for ValueType {
    /// The words of Prometheus' documentation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "scalar",
            Self::Vector => "instant vector",
            Self::Matrix => "range vector",
            Self::String => "string",
        })
    }
}
