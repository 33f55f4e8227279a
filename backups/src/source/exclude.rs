//! Which paths a source leaves out.

use std::path::Path;

/// Compiled patterns.
#[derive(Debug, Clone, Default)]
pub struct Excludes {
    patterns: Vec<String>,
}

/// A pattern that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern {pattern:?} {problem}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Excludes {
    /// Compiles patterns.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        Ok(Self { patterns: patterns.into_iter().map(|pattern| pattern.as_ref().to_owned()).collect() })
    }

    /// The patterns as given.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Whether this path (relative to the root that is saved) is left out.
    pub fn matches(&self, path: &Path) -> bool {
        let _ = path;
        unimplemented!()
    }
}
