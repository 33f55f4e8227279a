//! Why a text is no query.

use std::fmt;

use crate::span::{Span, line_and_column};

/// A query that is refused: what is wrong with it, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ParseError {
    /// Where: what is named in the message, or the point at which something is missing.
    pub span: Span,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in bytes.
    pub column: u32,
    /// What sort of fault it is.
    pub kind: ErrorKind,
    /// What is wrong and what was expected instead.
    pub message: Box<str>,
}

/// What sort of fault a query has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It cannot be read.
    Syntax,
    /// It can be read, but what it says fits together with nothing: types, numbers of arguments, labels.
    Meaning,
    /// It needs something that Prometheus has only with a feature flag, which the dialect does not have.
    Feature(Feature),
    /// It is larger, or nested deeper, than is read here.
    Limit,
}

/// What Prometheus has only with a feature flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Experimental functions and aggregations.
    ExperimentalFunctions,
    /// `anchored` and `smoothed`.
    ExtendedRangeSelectors,
    /// `fill`, `fill_left`, `fill_right`.
    FillModifiers,
}

impl Feature {
    /// What is written after `--enable-feature=`.
    pub const fn flag(self) -> &'static str {
        match self {
            Self::ExperimentalFunctions => "promql-experimental-functions",
            Self::ExtendedRangeSelectors => "promql-extended-range-selectors",
            Self::FillModifiers => "promql-binop-fill-modifiers",
        }
    }
}

impl ParseError {
    pub(crate) fn new(source: &str, span: Span, kind: ErrorKind, message: String) -> Self {
        let (line, column) = line_and_column(source, span.start);
        Self {
            span,
            line,
            column,
            kind,
            message: message.into_boxed_str(),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}
