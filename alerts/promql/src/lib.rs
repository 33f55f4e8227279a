//! PromQL as a tree with positions: reads what Prometheus reads, and prints it back. It evaluates nothing.
//!
//! [`parse`] takes the text of a rule, [`Dialect::parse`] also that of a panel with Grafana's variables in it.

pub mod ast;
mod check;
mod error;
mod function;
mod lexer;
mod literal;
mod parser;
pub mod print;
mod regex;
mod span;
mod value;
mod variable;

pub use error::{ErrorKind, Feature, ParseError};
pub use function::{Arity, FUNCTIONS, Function};
pub use span::{Span, line_and_column};
pub use value::ValueType;
pub use variable::{Variable, variables};

use ast::Expr;

/// Which queries are read. [`Dialect::prometheus`] is Prometheus as it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// Grafana's variables, wherever its replacement of text may put something.
    pub variables: bool,
    /// Experimental functions and aggregations.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

/// A query that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The text, to which all places refer.
    pub text: Box<str>,
    /// The tree.
    pub expr: Expr,
    /// Where the comments are, each from its `#` to the end of the line.
    pub comments: Vec<Span>,
}

impl Query {
    /// The query over several lines, as Prometheus prints it, with its comments on lines of their own.
    pub fn pretty(&self) -> String {
        print::pretty(self)
    }
}

impl Dialect {
    /// Prometheus without feature flags.
    pub const fn prometheus() -> Self {
        Self {
            variables: false,
            experimental_functions: false,
            extended_range_selectors: false,
            fill_modifiers: false,
        }
    }

    /// Prometheus with all feature flags that concern the language.
    pub const fn all_features() -> Self {
        Self {
            experimental_functions: true,
            extended_range_selectors: true,
            fill_modifiers: true,
            ..Self::prometheus()
        }
    }

    /// Queries of panels: all features, and Grafana's variables.
    pub const fn grafana() -> Self {
        Self {
            variables: true,
            ..Self::all_features()
        }
    }

    /// Reads a query.
    ///
    /// # Errors
    /// When Prometheus would refuse it, and when it is larger or nested deeper than is read here.
    pub fn parse(self, text: &str) -> Result<Query, ParseError> {
        let (expr, comments) = parser::parse(text, self)?;
        check::check(text, &expr)?;
        Ok(Query {
            text: text.into(),
            expr,
            comments,
        })
    }
}

/// Reads a query as Prometheus without feature flags does.
///
/// # Errors
/// When Prometheus would refuse it, and when it is larger or nested deeper than is read here.
pub fn parse(text: &str) -> Result<Query, ParseError> {
    Dialect::prometheus().parse(text)
}
