//! The ids in a line. Lines of one span follow each other, so the text of the last ids is kept.

use crate::propagation::CorrelationId;
use crate::trace::SpanIds;
use crate::trace::ids::push_hex;

/// Writes ids; one for each thread.
#[derive(Debug, Default)]
pub(crate) struct IdText {
    of: Option<SpanIds>,
    text: String,
}

impl IdText {
    /// Appends `,"trace_id":"…","span_id":"…","trace_flags":"01"` and, if there is one, `,"correlation_id":"…"`.
    pub(crate) fn append(&mut self, line: &mut String, ids: SpanIds, correlation: Option<&CorrelationId>) {
        if self.of != Some(ids) {
            let text = &mut self.text;
            text.clear();
            text.push_str(",\"trace_id\":\"");
            push_hex(text, &ids.trace_id.to_bytes());
            text.push_str("\",\"span_id\":\"");
            push_hex(text, &ids.span_id.to_bytes());
            text.push_str("\",\"trace_flags\":\"");
            text.push_str(if ids.sampled { "01\"" } else { "00\"" });
            self.of = Some(ids);
        }
        line.push_str(&self.text);
        if let Some(id) = correlation {
            // Its form leaves nothing to escape.
            line.push_str(",\"correlation_id\":\"");
            line.push_str(id.as_str());
            line.push('"');
        }
    }
}
