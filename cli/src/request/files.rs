//! Lines and spans from the files of the local platform: what every instance wrote, of those that are gone too, as far
//! back as the rotation keeps it.

use opsctl_platform::local::StateDir;
use opsctl_platform::local::logs::{Written, search};

use super::span::Span;
use super::{Line, Query, RequestId, otlp};
use crate::context::Context;
use crate::error::{self, Failure};

/// Lines with one of the ids.
pub(super) fn lines(
    context: &Context,
    state: &StateDir,
    ids: &[RequestId],
    query: Query<'_>,
) -> Result<Vec<Line>, Failure> {
    let wanted = |line: &str| ids.iter().any(|id| id.is_in(line));
    let found = search(state, query.services, query.instance, Written::Log, wanted)
        .map_err(|error| error::platform::failure("could not read the logs", &error))?;
    let oldest = query.since.and_then(|since| context.now().checked_sub(since).ok());
    Ok(found
        .into_iter()
        .map(|line| Line::new(line.service, line.instance, line.line))
        .filter(|line| oldest.is_none_or(|oldest| line.time.is_none_or(|time| time >= oldest)))
        .collect())
}

/// The spans of a trace.
pub(super) fn spans(state: &StateDir, trace: &str) -> Result<Vec<Span>, Failure> {
    let found = search(state, &[], None, Written::Spans, |line| line.contains(trace))
        .map_err(|error| error::platform::failure("could not read the spans", &error))?;
    let mut spans = Vec::new();
    for line in found {
        if let Ok(document) = serde_json::from_str(&line.line) {
            for mut span in otlp::spans(&document, trace) {
                // The file says whose it is, also where the service does not.
                span.instance.get_or_insert_with(|| line.instance.clone());
                spans.push(span);
            }
        }
    }
    Ok(spans)
}
