//! Answers that were recorded, in a versioned file, so that a board is seen before anything runs; and who records them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Data, DataError, Exemplar, Labels, Series, Span};

const SCHEMA: &str = "opsctl.board_data/v1";
/// No file of answers is larger.
const LARGEST: usize = 64 << 20;

/// Why a file of answers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// It is larger than any recording.
    #[error("the file has more than {} MB", LARGEST >> 20)]
    TooLarge,
    /// It is of another kind or version.
    #[error("this is no document of schema {SCHEMA}")]
    Schema,
    /// It cannot be read.
    #[error("this is no recording of a board's data")]
    Read(#[from] serde_json::Error),
}

/// Recorded answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fixture {
    schema: String,
    /// The stretch that was recorded, in seconds since 1970.
    from: f64,
    to: f64,
    answers: Vec<Answer>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Answer {
    #[serde(flatten)]
    question: Question,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    series: Vec<Row>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

/// What was asked. Not when: a recording is of one stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "asked", rename_all = "snake_case")]
enum Question {
    Range {
        expr: String,
    },
    Instant {
        expr: String,
    },
    Values {
        label: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        selector: Option<String>,
    },
    Exemplars {
        expr: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    labels: Labels,
    points: Vec<Point>,
}

/// Time and value. JSON has no numbers for what is none; those are words, as Prometheus has them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Point {
    Number(f64, f64),
    Word(f64, String),
}

impl Point {
    fn new((at, value): (f64, f64)) -> Self {
        if value.is_finite() {
            Self::Number(at, value)
        } else {
            let word = if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            };
            Self::Word(at, word.to_owned())
        }
    }

    fn pair(&self) -> (f64, f64) {
        match self {
            Self::Number(at, value) => (*at, *value),
            Self::Word(at, word) => {
                let value = match word.as_str() {
                    "+Inf" => f64::INFINITY,
                    "-Inf" => f64::NEG_INFINITY,
                    _ => f64::NAN,
                };
                (*at, value)
            }
        }
    }
}

impl Fixture {
    /// Reads a file of answers.
    pub fn read(text: &str) -> Result<Self, FixtureError> {
        #[derive(Deserialize)]
        struct Head {
            schema: Option<String>,
        }
        if text.len() > LARGEST {
            return Err(FixtureError::TooLarge);
        }
        let head: Head = serde_json::from_str(text)?;
        if head.schema.as_deref() != Some(SCHEMA) {
            return Err(FixtureError::Schema);
        }
        Ok(serde_json::from_str(text)?)
    }

    /// A recording of a stretch in which nothing was asked.
    pub fn empty(from: f64, to: f64) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            from,
            to,
            answers: Vec::new(),
        }
    }

    /// The file: the same answers give the same bytes.
    pub fn write(&self) -> String {
        let mut text = format!(
            "{{\"schema\":\"{SCHEMA}\",\"from\":{},\"to\":{},\"answers\":[\n",
            self.from, self.to
        );
        // A line for each question: what changed can be seen.
        let lines: Vec<String> = self
            .answers
            .iter()
            .filter_map(|answer| serde_json::to_string(answer).ok())
            .collect();
        text.push_str(&lines.join(",\n"));
        text.push_str("\n]}\n");
        text
    }

    /// The stretch that was recorded, in seconds since 1970.
    pub fn span(&self) -> (f64, f64) {
        (self.from, self.to)
    }

    fn answer(&self, question: &Question) -> Result<&Answer, DataError> {
        let found = self.answers.iter().find(|answer| answer.question == *question);
        found.ok_or(DataError::NotRecorded)
    }

    fn series(&self, question: &Question) -> Result<Vec<Series>, DataError> {
        let rows = self.answer(question)?.series.iter();
        let mut all: Vec<Series> = rows
            .map(|row| {
                let mut points: Vec<(f64, f64)> = row.points.iter().map(Point::pair).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                Series {
                    labels: row.labels.clone(),
                    points,
                }
            })
            .collect();
        all.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(all)
    }
}

#[async_trait]
impl Data for Fixture {
    async fn range(&self, expr: &str, _: Span) -> Result<Vec<Series>, DataError> {
        self.series(&Question::Range { expr: expr.to_owned() })
    }

    async fn instant(&self, expr: &str, _: f64) -> Result<Vec<Series>, DataError> {
        self.series(&Question::Instant { expr: expr.to_owned() })
    }

    async fn values(&self, label: &str, selector: Option<&str>, _: Span) -> Result<Vec<String>, DataError> {
        let question = Question::Values {
            label: label.to_owned(),
            selector: selector.map(str::to_owned),
        };
        Ok(self.answer(&question)?.values.clone())
    }

    async fn exemplars(&self, expr: &str, _: Span) -> Result<Vec<Exemplar>, DataError> {
        let all = self.series(&Question::Exemplars { expr: expr.to_owned() })?;
        let each = all.into_iter().flat_map(|series| {
            let labels = series.labels;
            let one = move |(at, value)| Exemplar {
                labels: labels.clone(),
                at,
                value,
            };
            series.points.into_iter().map(one)
        });
        Ok(each.collect())
    }
}

/// Asks somebody else and keeps the answers.
pub struct Recorder<'a> {
    source: &'a dyn Data,
    answers: Mutex<BTreeMap<Question, Answer>>,
}

impl std::fmt::Debug for Recorder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl<'a> Recorder<'a> {
    /// Records what `source` answers.
    pub fn new(source: &'a dyn Data) -> Self {
        Self {
            source,
            answers: Mutex::default(),
        }
    }

    /// What was answered, as a recording of a stretch of time.
    pub fn fixture(self, from: f64, to: f64) -> Fixture {
        let answers = self.answers.into_inner().unwrap_or_else(PoisonError::into_inner);
        Fixture {
            answers: answers.into_values().collect(),
            ..Fixture::empty(from, to)
        }
    }

    fn keep(&self, question: Question, series: Vec<Row>, values: Vec<String>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(
            question.clone(),
            Answer {
                question,
                series,
                values,
            },
        );
    }
}

fn rows(series: &[Series]) -> Vec<Row> {
    let row = |series: &Series| Row {
        labels: series.labels.clone(),
        points: series.points.iter().copied().map(Point::new).collect(),
    };
    series.iter().map(row).collect()
}

#[async_trait]
impl Data for Recorder<'_> {
    async fn range(&self, expr: &str, span: Span) -> Result<Vec<Series>, DataError> {
        let series = self.source.range(expr, span).await?;
        self.keep(Question::Range { expr: expr.to_owned() }, rows(&series), Vec::new());
        Ok(series)
    }

    async fn instant(&self, expr: &str, at: f64) -> Result<Vec<Series>, DataError> {
        let series = self.source.instant(expr, at).await?;
        self.keep(Question::Instant { expr: expr.to_owned() }, rows(&series), Vec::new());
        Ok(series)
    }

    async fn values(&self, label: &str, selector: Option<&str>, span: Span) -> Result<Vec<String>, DataError> {
        let values = self.source.values(label, selector, span).await?;
        let question = Question::Values {
            label: label.to_owned(),
            selector: selector.map(str::to_owned),
        };
        self.keep(question, Vec::new(), values.clone());
        Ok(values)
    }

    async fn exemplars(&self, expr: &str, span: Span) -> Result<Vec<Exemplar>, DataError> {
        let exemplars = self.source.exemplars(expr, span).await?;
        let row = |one: &Exemplar| Row {
            labels: one.labels.clone(),
            points: vec![Point::new((one.at, one.value))],
        };
        let rows = exemplars.iter().map(row).collect();
        self.keep(Question::Exemplars { expr: expr.to_owned() }, rows, Vec::new());
        Ok(exemplars)
    }
}
