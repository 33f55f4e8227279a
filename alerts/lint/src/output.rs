//! A report as text, JSON, JUnit or SARIF. It writes strings and prints nothing.

mod json;
mod junit;
mod sarif;
mod text;

pub use json::json;
pub use junit::junit;
pub use sarif::sarif;
pub use text::text;
