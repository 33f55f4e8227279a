//! Findings about rules and boards: what, why, and the fix. What is found in whole files is found in `alerts` and
//! `dashboards`.
//!
//! A [`Check`] is a row of a table: its name, how grave it is, what it looks for and why that matters. A [`Finding`] is
//! one place where it found something, with the bytes that it is about and, where there is one, a [`Fix`]. Findings are
//! collected in a [`Report`], which [`output`] writes as text, JSON, JUnit or SARIF.

mod check;
pub mod document;
pub mod expression;
mod finding;
mod fix;
pub mod flow;
pub mod output;
mod report;
mod source;
pub mod suppression;

pub use check::{Check, Severity};
pub use finding::Finding;
pub use fix::{Edit, Fix, Overlap, apply};
pub use report::Report;
pub use source::{Position, SourceFile};
pub use suppression::Suppression;
