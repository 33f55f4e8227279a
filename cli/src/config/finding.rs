//! What reading a configuration finds: errors with their place, and every value with its origin.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

use super::document::Origin;

/// One error and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Diagnostic {
    /// Where.
    pub(crate) origin: Origin,
    /// What is wrong, and what was expected.
    pub(crate) message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// One value in effect, for `config show`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Shown {
    /// Dotted path, for example `service.orders.local.replicas`.
    pub(crate) path: String,
    /// The value as TOML; secrets as their source, never as their value.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

/// Collects while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    diagnostics: RefCell<Vec<Diagnostic>>,
    shown: RefCell<Vec<Shown>>,
}

impl Findings {
    /// Records an error.
    pub(super) fn error(&self, origin: &Origin, message: impl Into<String>) {
        self.diagnostics.borrow_mut().push(Diagnostic {
            origin: origin.clone(),
            message: message.into(),
        });
    }

    /// Records a value.
    pub(super) fn show(&self, path: String, value: String, origin: &Origin) {
        self.shown.borrow_mut().push(Shown {
            path,
            value,
            origin: origin.clone(),
        });
    }

    /// All errors so far, sorted by place, each once.
    pub(super) fn take(&self) -> Vec<Diagnostic> {
        let mut diagnostics = std::mem::take(&mut *self.diagnostics.borrow_mut());
        diagnostics.sort();
        diagnostics.dedup();
        diagnostics
    }

    /// All values recorded, and all errors, sorted by place, each once.
    pub(super) fn finish(self) -> (Vec<Shown>, Vec<Diagnostic>) {
        let diagnostics = self.take();
        (self.shown.into_inner(), diagnostics)
    }
}
