//! What a run of tests came to: a document, and the same as text and as JUnit's XML. Decides nothing but what it counts.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::coverage::Coverage;
use super::judge::{Difference, Verdict, show};

/// All test files of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the document.
    pub schema: &'static str,
    /// One a test file, as given.
    pub files: Vec<FileReport>,
    /// Over all files.
    pub coverage: Coverage,
}

/// One test file.
#[derive(Debug, Clone, Serialize)]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with the file itself.
    pub problems: Vec<Problem>,
    /// Its cases, in its order.
    pub cases: Vec<CaseReport>,
    /// The alerts of its rule files.
    pub coverage: Coverage,
}

/// Something wrong with a test file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where; 0 for the file as a whole.
    pub line: usize,
    /// What.
    pub what: String,
}

/// One case.
#[derive(Debug, Clone, Serialize)]
pub struct CaseReport {
    /// Where it stands.
    pub line: usize,
    /// The test's name, or where it begins.
    pub test: String,
    /// When it looks, such as `15m`.
    pub at: String,
    /// What it asks.
    pub what: String,
    /// How it ended.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How many cases ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// As expected.
    pub passed: usize,
    /// Not as expected.
    pub failed: usize,
    /// Without an answer, problems of files among them.
    pub errors: usize,
}

impl Report {
    /// Whether every case passed, no file has a problem, and enough is covered.
    pub fn passed(&self) -> bool {
        let count = self.count();
        count.failed == 0 && count.errors == 0
    }

    /// How many cases ended how.
    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for file in &self.files {
            count.errors += file.problems.len();
            for case in &file.cases {
                match case.verdict {
                    Verdict::Passed => count.passed += 1,
                    Verdict::Failed { .. } => count.failed += 1,
                    Verdict::Error { .. } => count.errors += 1,
                }
            }
        }
        count
    }

    /// For people: every case that did not pass, then the numbers.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for file in &self.files {
            let path = file.path.display();
            for problem in &file.problems {
                let _ = writeln!(text, "{}: {}", place(&path, problem.line), problem.what);
            }
            for case in &file.cases {
                let word = match case.verdict {
                    Verdict::Passed => continue,
                    Verdict::Failed { .. } => "failed",
                    Verdict::Error { .. } => "error",
                };
                let _ = writeln!(
                    text,
                    "{path}:{}: {word}: {} at {} ({})",
                    case.line, case.what, case.at, case.test
                );
                for line in details(&case.verdict) {
                    let _ = writeln!(text, "  {line}");
                }
            }
        }
        let count = self.count();
        let _ = writeln!(
            text,
            "{} passed, {} failed, {} errors",
            count.passed, count.failed, count.errors
        );
        let covered = &self.coverage;
        if !covered.alerts.is_empty() {
            let _ = writeln!(
                text,
                "of {} alerts {} are shown to fire and {} to stay silent",
                covered.alerts.len(),
                covered.alerts.iter().filter(|alert| alert.fires).count(),
                covered.alerts.iter().filter(|alert| alert.silent).count(),
            );
            for alert in covered.alerts.iter().filter(|alert| !alert.fires) {
                let _ = writeln!(
                    text,
                    "  never fires: {} ({}:{})",
                    alert.name,
                    alert.file.display(),
                    alert.line
                );
            }
        }
        text
    }

    /// For machines that read tests' results.
    pub fn junit(&self) -> String {
        let count = self.count();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        let all = count.passed + count.failed + count.errors;
        let _ = writeln!(
            xml,
            "<testsuites tests=\"{all}\" failures=\"{}\" errors=\"{}\">",
            count.failed, count.errors
        );
        for file in &self.files {
            let path = file.path.display().to_string();
            let of = |wanted: fn(&Verdict) -> bool| file.cases.iter().filter(|case| wanted(&case.verdict)).count();
            let _ = writeln!(
                xml,
                "<testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\">",
                escaped(&path),
                file.cases.len() + file.problems.len(),
                of(|verdict| matches!(verdict, Verdict::Failed { .. })),
                of(|verdict| matches!(verdict, Verdict::Error { .. })) + file.problems.len(),
            );
            for problem in &file.problems {
                let name = format!("{path}:{}", problem.line);
                let what = escaped(&problem.what);
                let _ = writeln!(
                    xml,
                    "<testcase name=\"{}\"><error message=\"{what}\"/></testcase>",
                    escaped(&name)
                );
            }
            for case in &file.cases {
                let _ = write!(
                    xml,
                    "<testcase classname=\"{}\" name=\"{}\" file=\"{}\" line=\"{}\">",
                    escaped(&case.test),
                    escaped(&format!("{} at {}", case.what, case.at)),
                    escaped(&path),
                    case.line,
                );
                let words = escaped(&details(&case.verdict).join("\n"));
                let _ = match &case.verdict {
                    Verdict::Passed => Ok(()),
                    Verdict::Failed { .. } => write!(xml, "<failure message=\"not as expected\">{words}</failure>"),
                    Verdict::Error { .. } => write!(xml, "<error message=\"no answer\">{words}</error>"),
                };
                xml.push_str("</testcase>\n");
            }
            xml.push_str("</testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}

fn place(path: &dyn std::fmt::Display, line: usize) -> String {
    if line == 0 {
        path.to_string()
    } else {
        format!("{path}:{line}")
    }
}

fn details(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Passed => Vec::new(),
        Verdict::Error { why } => why.lines().map(str::to_owned).collect(),
        Verdict::Failed {
            difference: Difference::Samples { expected, got },
        } => vec![format!("expected {expected}"), format!("got      {got}")],
        Verdict::Failed {
            difference: Difference::Alerts { expected, got, how },
        } => {
            let list = |word: &str, alerts: &[super::Alert]| -> Vec<String> {
                alerts
                    .iter()
                    .flat_map(|alert| {
                        let annotations = (!alert.annotations.is_empty()).then(|| {
                            format!(
                                "{:word$}  annotations {}",
                                "",
                                show(&alert.annotations),
                                word = word.len()
                            )
                        });
                        std::iter::once(format!("{word} {}", show(&alert.labels))).chain(annotations)
                    })
                    .collect()
            };
            [list("expected", expected), list("got     ", got), how.clone()].concat()
        }
    }
}

/// Text as XML has it; what XML cannot say at all is replaced.
pub(crate) fn escaped(text: &str) -> String {
    let mut xml = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '"' => xml.push_str("&quot;"),
            '\n' => xml.push_str("&#10;"),
            '\t' => xml.push_str("&#9;"),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => xml.push('\u{fffd}'),
            other => xml.push(other),
        }
    }
    xml
}
