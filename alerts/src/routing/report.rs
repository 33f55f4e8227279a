//! What a run of routing tests came to: a document, and the same as text and as JUnit's XML.

use std::fmt::Write;
use std::path::PathBuf;

use serde::Serialize;

use crate::test::escaped;

/// All suites of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the document.
    pub schema: &'static str,
    /// One a suite, as given.
    pub suites: Vec<SuiteReport>,
}

/// One suite.
#[derive(Debug, Clone, Serialize)]
pub struct SuiteReport {
    /// Its file.
    pub path: PathBuf,
    /// What is wrong with the suite or its configuration; too few routes reached, among others.
    pub problems: Vec<String>,
    /// Its tests, in its order.
    pub tests: Vec<TestReport>,
    /// Routes that no test reached.
    pub never_reached: Vec<String>,
    /// How many routes there are.
    pub routes: usize,
}

/// One test.
#[derive(Debug, Clone, Serialize)]
pub struct TestReport {
    /// Where it stands.
    pub line: usize,
    /// What it is called.
    pub name: String,
    /// The routes that the alert took.
    pub routes: Vec<String>,
    /// What is not as expected; empty when it passed.
    pub wrong: Vec<String>,
}

impl Report {
    /// Whether every test passed and nothing is wrong with a suite.
    pub fn passed(&self) -> bool {
        self.suites
            .iter()
            .all(|suite| suite.problems.is_empty() && suite.tests.iter().all(|test| test.wrong.is_empty()))
    }

    /// For people: what is wrong, then the numbers.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let (mut passed, mut failed) = (0, 0);
        for suite in &self.suites {
            let path = suite.path.display();
            for problem in &suite.problems {
                let _ = writeln!(text, "{path}: {problem}");
            }
            for test in &suite.tests {
                if test.wrong.is_empty() {
                    passed += 1;
                    continue;
                }
                failed += 1;
                let _ = writeln!(text, "{path}:{}: failed: {}", test.line, test.name);
                for line in &test.wrong {
                    let _ = writeln!(text, "  {line}");
                }
                let _ = writeln!(text, "  took {}", test.routes.join(" and "));
            }
            for route in &suite.never_reached {
                let _ = writeln!(text, "{path}: never reached: {route}");
            }
        }
        let _ = writeln!(text, "{passed} passed, {failed} failed");
        text
    }

    /// For machines that read tests' results.
    pub fn junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for suite in &self.suites {
            let path = escaped(&suite.path.display().to_string());
            let failures = suite.tests.iter().filter(|test| !test.wrong.is_empty()).count();
            let _ = writeln!(
                xml,
                "<testsuite name=\"{path}\" tests=\"{}\" failures=\"{failures}\" errors=\"{}\">",
                suite.tests.len() + suite.problems.len(),
                suite.problems.len()
            );
            for problem in &suite.problems {
                let what = escaped(problem);
                let _ = writeln!(xml, "<testcase name=\"{path}\"><error message=\"{what}\"/></testcase>");
            }
            for test in &suite.tests {
                let name = escaped(&test.name);
                let _ = write!(xml, "<testcase name=\"{name}\" file=\"{path}\" line=\"{}\">", test.line);
                if !test.wrong.is_empty() {
                    let words = escaped(&test.wrong.join("\n"));
                    let _ = write!(xml, "<failure message=\"not as expected\">{words}</failure>");
                }
                xml.push_str("</testcase>\n");
            }
            xml.push_str("</testsuite>\n");
        }
        xml.push_str("</testsuites>\n");
        xml
    }
}
