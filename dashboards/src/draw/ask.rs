//! What a board asks, and the asking: so many questions at one time, each once, and all of them within a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::board::{Board, Target, text};
use super::data::{Data, DataError, Exemplar, Series, Span};
use super::variables::{Chosen, Variables};
use super::{Progress, Settings};

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// Over time; the step in milliseconds.
    Range(String, u64),
    Instant(String),
    Exemplars(String),
}

/// What came back.
#[derive(Debug)]
pub(super) enum Answer {
    Series(Vec<Series>),
    Exemplars(Vec<Exemplar>),
    Failed(DataError),
}

/// All answers by question.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<Question, Answer>);

impl Answers {
    /// The series that answer a question.
    pub fn series(&self, question: &Question) -> Result<&[Series], &DataError> {
        match self.0.get(question) {
            Some(Answer::Series(series)) => Ok(series),
            Some(Answer::Failed(error)) => Err(error),
            _ => Ok(&[]),
        }
    }

    /// The exemplars that answer a question; a failure is none.
    pub fn exemplars(&self, question: &Question) -> &[Exemplar] {
        match self.0.get(question) {
            Some(Answer::Exemplars(exemplars)) => exemplars,
            _ => &[],
        }
    }

    /// What went wrong, each once, with how often.
    pub fn failures(&self) -> Vec<(String, usize)> {
        let mut failures: BTreeMap<String, usize> = BTreeMap::new();
        for answer in self.0.values() {
            if let Answer::Failed(error) = answer {
                *failures.entry(error.to_string()).or_default() += 1;
            }
        }
        failures.into_iter().collect()
    }
}

/// How far samples of a target are apart: as many as a picture has use for, and no nearer than it asks.
pub(super) fn step(span: Span, target: &Target) -> f64 {
    span.step.max(target.step.unwrap_or(0.0)).min(span.to - span.from)
}

/// The question that a target is, over time or at the end of it.
pub(super) fn question(target: &Target, instant: bool, variables: &Variables, span: Span) -> Question {
    if instant {
        return Question::Instant(expr(target, variables, span));
    }
    Question::Range(expr(target, variables, span), (step(span, target) * 1e3) as u64)
}

/// Its expression, with values for variables.
pub(super) fn expr(target: &Target, variables: &Variables, span: Span) -> String {
    if target.step.is_none() {
        return variables.fill(&target.expr);
    }
    let mut own = variables.clone();
    let span = Span {
        step: step(span, target),
        ..span
    };
    own.clock(span, span.step);
    own.fill(&target.expr)
}

/// Asks all questions, and gives up those that are left when the time is over.
pub(super) async fn ask(
    questions: Vec<Question>,
    data: &dyn Data,
    span: Span,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
) -> Answers {
    let deadline = Instant::now() + settings.patience;
    let total = questions.len();
    let mut answers = Answers::default();
    let one = |question: Question| async move {
        let answer = timeout_at(deadline, answer(&question, data, span)).await;
        let answer = answer.unwrap_or(Answer::Failed(DataError::TimeOut));
        (question, answer)
    };
    let mut coming = stream::iter(questions)
        .map(one)
        .buffer_unordered(settings.at_once.max(1));
    while let Some((question, answer)) = coming.next().await {
        answers.0.insert(question, answer);
        progress(Progress {
            answered: answers.0.len(),
            questions: total,
        });
    }
    answers
}

async fn answer(question: &Question, data: &dyn Data, span: Span) -> Answer {
    let series = match question {
        Question::Range(expr, step) => {
            let step = *step as f64 / 1e3;
            data.range(expr, Span { step, ..span }).await
        }
        Question::Instant(expr) => data.instant(expr, span.to).await,
        Question::Exemplars(expr) => {
            return match data.exemplars(expr, span).await {
                Ok(exemplars) => Answer::Exemplars(exemplars),
                Err(error) => Answer::Failed(error),
            };
        }
    };
    series.map_or_else(Answer::Failed, Answer::Series)
}

/// Values that a variable may have, of one that is asked for.
const VALUES: usize = 200;
/// No variable waits longer for its values.
const PATIENCE: Duration = Duration::from_secs(15);

/// The variables of a board: what was chosen, what is stored, else all or the first of what there is.
pub(super) async fn variables(board: &Board, data: &dyn Data, span: Span, settings: &Settings) -> Variables {
    let mut variables = Variables::default();
    variables.clock(span, settings.scrape);
    let deadline = Instant::now() + settings.patience.min(PATIENCE);
    for variable in board.variables.iter().take(100) {
        let name = text(variable, "name");
        if let Some(values) = settings.variables.get(&name) {
            let several = values.len() > 1 || variable["multi"] == true || variable["includeAll"] == true;
            let values = values.clone();
            variables.set(
                &name,
                Chosen {
                    values,
                    all: None,
                    several,
                },
            );
            continue;
        }
        let offered = match variable["type"].as_str() {
            Some("query") => {
                let asked = asked(variable, &variables, data, span);
                let mut values = timeout_at(deadline, asked).await.unwrap_or_default();
                values.truncate(VALUES);
                values
            }
            Some("custom" | "interval") => text(variable, "query")
                .split(',')
                .map(|value| value.rsplit(" : ").next().unwrap_or(value).trim().to_owned())
                .filter(|value| !value.is_empty())
                .collect(),
            Some("constant" | "textbox") => vec![text(variable, "query")],
            _ => Vec::new(),
        };
        variables.set(&name, choose(variable, offered));
    }
    variables
}

/// The values that a query variable has.
async fn asked(variable: &Value, variables: &Variables, data: &dyn Data, span: Span) -> Vec<String> {
    let query = variable["query"].as_str().or(variable["query"]["query"].as_str());
    let query = query.or(variable["definition"].as_str()).unwrap_or_default();
    let query = variables.fill(query);
    let inner = query
        .trim()
        .strip_prefix("label_values(")
        .and_then(|rest| rest.strip_suffix(')'));
    let Some(inner) = inner else {
        return Vec::new();
    };
    // The label stands behind the last comma that is outside of braces.
    let (selector, label) = match inner.rsplit_once(',') {
        Some((selector, label)) if !label.contains(['}', '"']) => (Some(selector.trim()), label.trim()),
        _ => (None, inner.trim()),
    };
    let mut values = data.values(label, selector, span).await.unwrap_or_default();
    if let Some(pattern) = variable["regex"].as_str().filter(|pattern| !pattern.is_empty())
        && let Some(pattern) = super::field::pattern(&variables.fill(pattern))
    {
        let kept = values.iter().filter_map(|value| {
            let found = pattern.captures(value)?;
            let group = found.get(1).or_else(|| found.get(0))?;
            Some(group.as_str().to_owned())
        });
        values = kept.collect();
        values.sort();
        values.dedup();
    }
    values
}

fn choose(variable: &Value, offered: Vec<String>) -> Chosen {
    let includes_all = variable["includeAll"] == true;
    let several = includes_all || variable["multi"] == true;
    let current = &variable["current"]["value"];
    let stored: Vec<String> = match current {
        Value::String(value) => vec![value.clone()],
        Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let stored: Vec<String> = stored
        .into_iter()
        .filter(|value| !value.is_empty() && value != "$__auto")
        .collect();
    let all_stored = stored.iter().any(|value| value == "$__all");
    let known = |value: &String| offered.is_empty() || offered.contains(value);
    if !stored.is_empty() && !all_stored && stored.iter().all(known) {
        return Chosen {
            values: stored,
            all: None,
            several,
        };
    }
    if includes_all {
        let all = variable["allValue"]
            .as_str()
            .filter(|all| !all.is_empty())
            .map(str::to_owned);
        // Without a list of what there is, everything.
        let all = all.or_else(|| (offered.is_empty() || offered.len() >= VALUES).then(|| ".*".to_owned()));
        return Chosen {
            values: offered,
            all,
            several,
        };
    }
    let values = offered.into_iter().take(1).collect();
    Chosen {
        values,
        all: None,
        several,
    }
}

/// The annotations of a board that a Prometheus can answer: name and question.
pub(super) fn annotations(board: &Board, variables: &Variables, span: Span) -> Vec<(String, Question)> {
    board
        .annotations
        .iter()
        .filter(|annotation| annotation["enable"] != false)
        .take(10)
        .filter_map(|annotation| {
            let expr = annotation["expr"].as_str().or(annotation["target"]["expr"].as_str())?;
            let plugin = annotation["datasource"]["type"].as_str();
            let ours = !expr.is_empty() && plugin.is_none_or(|plugin| plugin == "prometheus");
            let step = (span.step * 1e3) as u64;
            ours.then(|| (text(annotation, "name"), Question::Range(variables.fill(expr), step)))
        })
        .collect()
}
