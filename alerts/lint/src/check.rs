//! What a check is, and the table that checks are rows of. What a check does stands where its table does.

use std::fmt;

use serde::Serialize;

/// A row of a table of checks.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, in kebab case, as suppressions write it.
    pub name: &'static str,
    /// How grave a finding of it is, unless the finding says otherwise.
    pub severity: Severity,
    /// What it looks for, one line.
    pub what: &'static str,
    /// Why that matters, one line.
    pub why: &'static str,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, but not as one would wish.
    Warning,
    /// Does not do what it is there for.
    Error,
}

impl Severity {
    /// `note`, `warning`, `error`: the words of SARIF.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Writes a table of checks: a static for every row, and the list of them all under the name that stands first.
///
/// ```
/// lint::checks! {
///     /// All checks of this example.
///     pub ALL;
///     TOO_LONG, "too-long", Warning, "A name is long.", "Nobody reads it.";
/// }
/// assert_eq!(ALL[0].name, TOO_LONG.name);
/// ```
#[macro_export]
macro_rules! checks {
    ($(#[$doc:meta])* $visibility:vis $all:ident;
     $($check:ident, $name:literal, $severity:ident, $what:literal, $why:literal;)*) => {
        $(
            #[doc = $what]
            $visibility static $check: $crate::Check = $crate::Check {
                name: $name,
                severity: $crate::Severity::$severity,
                what: $what,
                why: $why,
            };
        )*

        $(#[$doc])*
        $visibility static $all: &[&$crate::Check] = &[$(&$check),*];
    };
}
