//! A finished line: made once, and handed to the queue of every sink.

use super::waiting::Header;
use crate::sink::queue::{Item, Severity};

/// One line, in somebody's buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    text: &'a str,
    nanos: u64,
    severity: Severity,
}

impl<'a> Line<'a> {
    /// A line of `text`, which ends with a line feed and has no other. `nanos`: its time stamp since the Unix epoch.
    pub(crate) fn new(text: &'a str, nanos: u64, severity: Severity) -> Self {
        debug_assert!(text.ends_with('\n'), "a line ends");
        Self { text, nanos, severity }
    }

    /// The same line in another form.
    pub(crate) fn as_text<'b>(&self, text: &'b str) -> Line<'b> {
        Line::new(text, self.nanos, self.severity)
    }

    /// The JSON object alone.
    pub(crate) fn text(&self) -> &'a str {
        self.text.trim_end_matches('\n')
    }

    /// With the line feed behind it.
    pub(crate) fn with_line_feed(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    /// What stands before it where lines wait.
    pub(super) fn header(&self, number: u64) -> Header {
        Header {
            number,
            nanos: self.nanos,
            length: self.text.len(),
            severity: self.severity,
        }
    }
}

impl Item for Line<'_> {
    fn bytes(&self) -> usize {
        Header::BYTES + self.text.len()
    }

    fn severity(&self) -> Severity {
        self.severity
    }
}
