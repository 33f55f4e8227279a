//! One place where a check found something. How findings are shown is `output`.

use std::ops::Range;

use crate::suppression::Suppressed;
use crate::{Check, Fix, Position, Severity, SourceFile};

/// One place where a check found something.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What was looked for.
    pub check: &'static Check,
    /// The check's own, unless this case is graver or less grave.
    pub severity: Severity,
    /// The rule or panel that it is about, empty when it is about the file.
    pub subject: String,
    /// What is wrong here: one sentence with the names of this place.
    pub what: String,
    /// Why that matters here; the check's own reason unless more can be said.
    pub why: String,
    /// Who says so, where it rests on what a metric is: the catalogue, an exporter's manifest, a capture, a server.
    pub according_to: Option<String>,
    /// Name of the file.
    pub file: String,
    /// The bytes of the file that it is about.
    pub span: Range<usize>,
    /// Where they begin.
    pub start: Position,
    /// Where they end.
    pub end: Position,
    /// How to mend it.
    pub fix: Option<Fix>,
    /// Set when a comment in the file says that it is known and meant.
    pub suppressed: Option<Suppressed>,
}

impl Finding {
    /// A finding of `check` at `span` of `file`, with the check's own severity and reason.
    pub fn new(check: &'static Check, file: &SourceFile, span: Range<usize>, what: impl Into<String>) -> Self {
        Self {
            check,
            severity: check.severity,
            subject: String::new(),
            what: what.into(),
            why: check.why.to_owned(),
            according_to: None,
            file: file.name().to_owned(),
            start: file.position(span.start),
            end: file.position(span.end),
            span,
            fix: None,
            suppressed: None,
        }
    }

    /// The rule or panel that it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Another reason than the check's own.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Another severity than the check's own.
    #[must_use]
    pub fn graded(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// Who says so.
    #[must_use]
    pub fn according_to(mut self, source: impl ToString) -> Self {
        self.according_to = Some(source.to_string());
        self
    }

    /// How to mend it.
    #[must_use]
    pub fn fixed_by(mut self, fix: impl Into<Option<Fix>>) -> Self {
        self.fix = fix.into();
        self
    }
}
