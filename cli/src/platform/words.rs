//! Runs in words: states, undo steps and events for people.

use opsctl_platform::run::{Event, Loss, Outcome, Phase, RunRecord, StepResult, UndoStep};
use serde_json::Value;

use crate::output::Style;

/// What a run acts on, without its kind.
pub(crate) fn target(record: &RunRecord) -> &str {
    record
        .target
        .split_once('/')
        .map_or(record.target.as_str(), |(_, name)| name)
}

/// Where a run is or how it ended.
pub(crate) fn state(record: &RunRecord) -> (String, Style) {
    match (record.outcome, record.phase) {
        (Some(outcome), _) => {
            let (word, style) = ended(outcome);
            (word.to_owned(), style)
        }
        (None, Phase::Preparing) => ("preparing".to_owned(), Style::Hint),
        (None, Phase::Active) if record.step.is_empty() => ("active".to_owned(), Style::Hint),
        (None, Phase::Active) => (format!("active: {}", record.step), Style::Hint),
        (None, Phase::Undoing) => ("undoing".to_owned(), Style::Warning),
        (None, Phase::Closed) => ("closed".to_owned(), Style::Faint),
    }
}

/// How a run ended, in a word.
pub(crate) fn ended(outcome: Outcome) -> (&'static str, Style) {
    match outcome {
        Outcome::Passed => ("passed", Style::Done),
        Outcome::Failed => ("failed", Style::Error),
        Outcome::Inconclusive => ("inconclusive", Style::Warning),
        Outcome::Refused => ("refused", Style::Warning),
        Outcome::Aborted => ("aborted", Style::Warning),
        Outcome::Lost => ("lost, undone", Style::Warning),
        Outcome::Locked => ("locked out", Style::Warning),
        Outcome::Error => ("error", Style::Error),
        Outcome::UndoIncomplete => ("undo incomplete", Style::Error),
    }
}

/// Why nobody works on a run any more.
pub(crate) fn loss(loss: Loss) -> &'static str {
    match loss {
        Loss::Dead => "its worker is dead",
        Loss::Expired => "its worker does not answer",
        Loss::UndoIncomplete => "some of its changes could not be undone",
    }
}

/// What came of undoing a step.
pub(crate) fn undo(step: &UndoStep) -> String {
    match &step.result {
        None => "is to be undone".to_owned(),
        Some(StepResult::Undone) => "is as it was".to_owned(),
        Some(StepResult::Conflict { actual }) => {
            format!(
                "was changed by somebody else and left alone: it is {}",
                actual.as_ref().unwrap_or(&Value::Null)
            )
        }
        Some(StepResult::Failed { message }) => format!("could not be undone: {message}"),
    }
}

/// One event as a line; `None` for those that only machines want.
pub(crate) fn event_line(event: &Event) -> Option<String> {
    match event.kind.as_str() {
        // Written several times a second.
        "look" | "sample" | "run_taken" | "change" => None,
        _ => Some(self::event(event)),
    }
}

/// One event as a line: the sentence that it brings, or its kind and facts.
pub(crate) fn event(event: &Event) -> String {
    if let Some(text) = event.data["text"].as_str() {
        return text.to_owned();
    }
    let mut line = event.kind.replace('_', " ");
    if let Value::Object(data) = &event.data {
        let facts: Vec<String> = data
            .iter()
            .filter_map(|(key, value)| match value {
                Value::Null | Value::Array(_) | Value::Object(_) => None,
                Value::String(text) => Some(format!("{}: {text}", key.replace('_', " "))),
                value => Some(format!("{}: {value}", key.replace('_', " "))),
            })
            .collect();
        if !facts.is_empty() {
            line.push_str("  ");
            line.push_str(&facts.join(", "));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_is_its_sentence_or_its_facts() {
        let event = |data: Value| Event {
            schema: "opsctl.event/v1".to_owned(),
            ts: jiff::Timestamp::UNIX_EPOCH,
            run: "run-1".to_owned(),
            seq: 1,
            phase: "watch".to_owned(),
            kind: "step_started".to_owned(),
            data,
        };
        let sentence = json!({ "at_seconds": 6.630_707_915, "text": "2 instances ready" });
        assert_eq!(super::event(&event(sentence)), "2 instances ready");
        assert_eq!(
            super::event(&event(json!({ "percent": 10 }))),
            "step started  percent: 10"
        );
        assert_eq!(super::event(&event(Value::Null)), "step started");
    }
}
