//! A finished line, made once and shared by every sink that takes lines.

use std::sync::Arc;

use crate::sink::queue::{Item, Severity};

/// One line. Clones share the text.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    text: Arc<str>,
    nanos: u64,
    severity: Severity,
}

impl Line {
    /// A line of `text`, which ends with a line feed and has no other. `nanos`: its time stamp since the Unix epoch.
    pub(crate) fn new(text: &str, nanos: u64, severity: Severity) -> Self {
        debug_assert!(text.ends_with('\n'), "a line ends");
        Self {
            text: text.into(),
            nanos,
            severity,
        }
    }

    /// The same line in another form.
    pub(crate) fn as_text(&self, text: &str) -> Self {
        Self::new(text, self.nanos, self.severity)
    }

    /// The JSON object alone.
    pub(crate) fn text(&self) -> &str {
        self.text.trim_end_matches('\n')
    }

    /// With the line feed behind it.
    pub(crate) fn with_line_feed(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Nanoseconds since the Unix epoch, as in `timestamp`.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos
    }
}

impl Item for Line {
    fn bytes(&self) -> usize {
        // With its place in the queue.
        self.text.len() + size_of::<(u64, Self)>()
    }

    fn severity(&self) -> Severity {
        self.severity
    }
}
