//! Tests of rules: promtool's unit test files, unchanged, with more that can be asked. Every evaluation is promtool's;
//! here it is decided which rules it needs, what it is asked, and how its answers are to be read.
//!
//! Beyond promtool: `match: partial`, `state: pending|firing|inactive`, `coverage`, and mistakes that promtool takes for
//! success (an alert that no rule has, a pattern that gives no file, a time between two evaluations).
//!
//! A test sees an error of a rule only where it needs the rule. [`Settings::whole`] runs all rules as promtool does.

mod answer;
mod coverage;
mod file;
mod generate;
mod glob;
mod judge;
mod needs;
mod plain;
mod promtool;
mod report;
mod rules;
mod slice;

use std::collections::{BTreeSet, HashMap};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use answer::Alert;
pub use coverage::{Coverage, Covered};
pub use file::{Case, Demand, Expected, Labels, Question, Sample, State, Test, TestFile};
pub use judge::{Difference, Verdict};
pub use plain::plain;
pub(crate) use report::escaped;
pub use report::{CaseReport, Count, FileReport, Problem, Report};

use crate::duration;
use rules::RuleFile;
use slice::RuleSet;

/// How tests are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The program.
    pub promtool: PathBuf,
    /// How many of it run at one time; at least one.
    pub processes: usize,
    /// How long one may run.
    pub limit: Duration,
    /// Takes what promtool takes: unknown alerts, patterns without files, times between evaluations.
    pub compatible: bool,
    /// promtool's `--enable-feature`.
    pub features: Vec<String>,
    /// Evaluates all rules of the files, needed or not.
    pub whole: bool,
    /// What every file must cover, beside what it says itself.
    pub coverage: Demand,
}

impl Settings {
    /// As many processes as there are cores, ten minutes each.
    pub fn new(promtool: impl Into<PathBuf>) -> Self {
        Self {
            promtool: promtool.into(),
            processes: std::thread::available_parallelism().map_or(1, usize::from),
            limit: Duration::from_mins(10),
            compatible: false,
            features: Vec::new(),
            whole: false,
            coverage: Demand::default(),
        }
    }
}

/// Why tests cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A test file cannot be read.
    #[error("the test file {} cannot be read", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A test file is too large.
    #[error("the test file {} is larger than {limit} bytes", .path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A test file is no YAML, or not of the expected form.
    #[error("{}:{line}: {what}", .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// The folder for what promtool reads cannot be written.
    #[error("files for promtool cannot be written")]
    Scratch(#[source] std::io::Error),
    /// promtool cannot be started.
    #[error("promtool ({}) cannot be started", .path.display())]
    Promtool {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl TestError {
    fn yaml(path: &Path, error: serde_saphyr::Error) -> Self {
        let line = error.location().map_or(0, |location| location.line() as usize);
        let error = error.without_snippet();
        Self::Wrong {
            path: path.to_owned(),
            line,
            what: error.to_string(),
        }
    }
}

/// Runs test files.
///
/// # Errors
/// [`TestError::Scratch`], [`TestError::Promtool`]. What is wrong with a test file stands in the report.
pub async fn run(paths: &[PathBuf], settings: &Settings) -> Result<Report, TestError> {
    let mut reports = Vec::new();
    let mut files = Vec::new();
    // Of each path either the file or what is wrong with it.
    let mut read: HashMap<PathBuf, Option<Arc<RuleFile>>> = HashMap::new();
    for path in paths {
        let file = match TestFile::read(path) {
            Ok(file) => file,
            Err(error) => {
                reports.push(Err(broken(path, error)));
                continue;
            }
        };
        let mut problems = Vec::new();
        let rules = RuleSet::new(rule_files(&file, &mut read, settings, &mut problems));
        reports.push(Ok((files.len(), problems)));
        files.push((file, rules));
    }
    let mut jobs = Vec::new();
    let mut refused: HashMap<(usize, usize, usize), String> = HashMap::new();
    for (f, (file, rules)) in files.iter().enumerate() {
        for (t, test) in file.tests.iter().enumerate() {
            let mut skip = BTreeSet::new();
            for (c, case) in test.cases.iter().enumerate() {
                if let Some(why) = refusal(case, file, rules).filter(|_| !settings.compatible) {
                    skip.insert(c);
                    refused.insert((f, t, c), why);
                }
            }
            jobs.extend(generate::jobs((f, t), file, rules, settings.whole, &skip));
        }
    }
    let outcomes = promtool::run(&jobs, &files, settings).await?;
    let mut told: HashMap<(usize, usize, usize), Vec<_>> = HashMap::new();
    for (job, outcome) in jobs.iter().zip(&outcomes) {
        for ask in &job.asks {
            told.entry((job.test.0, job.test.1, ask.case))
                .or_default()
                .push((ask, outcome));
        }
    }
    let verdict = |id: (usize, usize, usize), case: &Case| match refused.get(&id) {
        Some(why) => Verdict::Error { why: why.clone() },
        None => judge::verdict(case, told.get(&id).map_or(&[], Vec::as_slice)),
    };
    let mut all = Coverage::default();
    let reports: Vec<FileReport> = reports
        .into_iter()
        .map(|report| {
            let (f, problems) = match report {
                Ok(known) => known,
                Err(broken) => return broken,
            };
            let report = file_report(f, &files[f], problems, settings, &verdict);
            all.add(&report.coverage);
            report
        })
        .collect();
    Ok(Report {
        schema: "opsctl.xyz/v1",
        files: reports,
        coverage: all,
    })
}

fn file_report(
    f: usize,
    (file, rules): &(TestFile, RuleSet),
    mut problems: Vec<Problem>,
    settings: &Settings,
    verdict: &impl Fn((usize, usize, usize), &Case) -> Verdict,
) -> FileReport {
    let mut cases = Vec::new();
    let mut ended = Vec::new();
    for (t, test) in file.tests.iter().enumerate() {
        for (c, case) in test.cases.iter().enumerate() {
            let verdict = verdict((f, t, c), case);
            ended.push((case, verdict.clone()));
            cases.push(CaseReport {
                line: case.line,
                test: if test.name.is_empty() {
                    format!("test of line {}", test.line)
                } else {
                    test.name.clone()
                },
                at: duration::show(case.at),
                what: case.question.to_string(),
                verdict,
            });
        }
    }
    let coverage = Coverage::of(rules, ended.iter().map(|(case, verdict)| (*case, verdict)));
    for demand in [file.coverage, settings.coverage] {
        problems.extend(coverage.lacks(demand).into_iter().map(|what| Problem { line: 0, what }));
    }
    problems.dedup();
    FileReport {
        path: file.path.clone(),
        problems,
        cases,
        coverage,
    }
}

fn broken(path: &Path, error: TestError) -> FileReport {
    let (line, what) = match error {
        TestError::Wrong { line, what, .. } => (line, what),
        TestError::Unreadable { source, .. } => (0, format!("cannot be read: {source}")),
        other => (0, other.to_string()),
    };
    FileReport {
        path: path.to_owned(),
        problems: vec![Problem { line, what }],
        cases: Vec::new(),
        coverage: Coverage::default(),
    }
}

/// The rule files that a test file names, each read once in a run.
fn rule_files(
    file: &TestFile,
    read: &mut HashMap<PathBuf, Option<Arc<RuleFile>>>,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Vec<(PathBuf, Option<Arc<RuleFile>>)> {
    let folder = file.path.parent().unwrap_or(Path::new(""));
    let mut files = Vec::new();
    for (line, pattern) in &file.rule_files {
        let found: Vec<PathBuf> = glob::glob(&folder.join(pattern)).into_iter().map(short).collect();
        if found.is_empty() && !settings.compatible {
            problems.push(Problem {
                line: *line,
                what: format!("`{pattern}` gives no rule file"),
            });
        }
        for path in found {
            let rules = read
                .entry(path.clone())
                .or_insert_with(|| rules::read(&path).map(Arc::new));
            files.push((path, rules.clone()));
        }
    }
    files
}

/// The path without `folder/..`, where that leads to the same file.
fn short(path: PathBuf) -> PathBuf {
    let mut short = PathBuf::new();
    for part in path.components() {
        let below = matches!(short.components().next_back(), Some(Component::Normal(_)));
        if part == Component::ParentDir && below {
            short.pop();
        } else {
            short.push(part);
        }
    }
    match (short.canonicalize(), path.canonicalize()) {
        (Ok(one), Ok(other)) if one == other => short,
        _ => path,
    }
}

/// Why a case would pass without having tested anything.
fn refusal(case: &Case, file: &TestFile, rules: &RuleSet) -> Option<String> {
    let Question::Alerts { name, .. } = &case.question else {
        return None;
    };
    if rules.understood() && !rules.alerts().any(|alert| alert == name) {
        let near = rules
            .alerts()
            .filter(|alert| alert.eq_ignore_ascii_case(name) || distance(alert, name) <= 3);
        let near = near.min_by_key(|alert| (distance(alert, name), (*alert).to_owned()));
        let hint = near.map(|near| format!("; there is `{near}`")).unwrap_or_default();
        return Some(format!("no rule file has an alert `{name}`{hint}"));
    }
    (!case.at.is_multiple_of(file.interval)).then(|| {
        format!(
            "eval_time {} is between two evaluations (every {}): what is seen is the state of {}",
            duration::show(case.at),
            duration::show(file.interval),
            duration::show(case.at / file.interval * file.interval)
        )
    })
}

/// How many letters must be changed (Levenshtein); long names are not compared.
fn distance(one: &str, other: &str) -> usize {
    if one.len().max(other.len()) > 200 {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = corner + usize::from(a != *b);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[other.len()]
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Samples { expr, .. } => write!(f, "`{}`", expr.trim()),
            Self::Alerts { name, state, .. } => {
                let state = match state {
                    State::Firing => "fires",
                    State::Pending => "is pending",
                    State::Inactive => "is inactive",
                };
                write!(f, "{name} {state}")
            }
        }
    }
}
