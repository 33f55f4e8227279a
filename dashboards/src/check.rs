//! What is wrong with boards: a table of checks, each with the places where it found something. It reads no files and
//! asks no server; what metrics there are it is told by a manifest.
//!
//! A finding of error level means that something on the board does not do what it is there for: a question that Prometheus
//! refuses, a metric that nobody exports, a variable that nobody defines.

mod board;
mod fix;
mod layout;
mod links;
mod panels;
mod queries;
mod question;
mod set;
mod sources;
pub mod table;
mod units;
mod variables;

use std::ops::Range;
use std::time::Duration;

use lint::flow::Records;
use lint::{Check, Finding, Report};
use manifest::Manifest;

use crate::read::{Board, Document, Node, Panel, Unreadable};

pub use table::CHECKS;

use question::{Question, Unread};

/// What boards are held against.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// What is known of metrics.
    pub manifest: &'a Manifest,
    /// What is known of recorded series.
    pub records: &'a Records,
    /// How often targets are scraped, where somebody said so.
    pub scrape_interval: Option<Duration>,
}

/// Everything that is wrong with these files, each a name and a text. The files of one folder of Grafana belong together:
/// uids and links are looked at across them.
pub fn check(files: impl IntoIterator<Item = (String, String)>, context: Context<'_>) -> Report {
    let mut report = Report::default();
    let mut documents = Vec::new();
    for (name, text) in files {
        match Document::new(name, text) {
            Ok(document) => documents.push(document),
            Err((file, why)) => {
                let span = match &why {
                    Unreadable::NotJson { span, .. } => span.clone(),
                    _ => 0..0,
                };
                report
                    .findings
                    .push(Finding::new(&table::NOT_JSON, &file, span, sentence(&why)));
                report.files.push(file);
            }
        }
    }
    let mut boards = Vec::new();
    for document in &documents {
        match document.board() {
            Ok(board) => boards.push(board),
            Err(why) => {
                let start = document.root.span.start;
                let finding = Finding::new(&table::NOT_A_BOARD, &document.file, start..start, sentence(&why));
                report.findings.push(finding);
            }
        }
    }
    let uids = boards.iter().filter_map(|board| board.uid?.text()).collect();
    for board in &boards {
        let (questions, unreadable) = question::all(board, context);
        let mut look = Look {
            board,
            context,
            uids: &uids,
            questions: &questions,
            unreadable: &unreadable,
            findings: Vec::new(),
        };
        for part in PARTS {
            part(&mut look);
        }
        if look.findings.len() > MOST {
            let what = format!("{} more places are not shown.", look.findings.len() - MOST);
            look.findings.truncate(MOST);
            look.findings
                .push(Finding::new(&table::MORE_FINDINGS, &board.document.file, 0..0, what));
        }
        report.findings.append(&mut look.findings);
    }
    set::across(&boards, &mut report.findings);
    drop(boards);
    report.files.extend(documents.into_iter().map(|document| document.file));
    report.sort();
    report
}

/// An error as a sentence of a finding.
fn sentence(why: &Unreadable) -> String {
    let text = why.to_string();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| {
        format!("{}{}.", first.to_uppercase(), letters.as_str())
    })
}

/// More findings of one file than anybody reads.
const MOST: usize = 1000;

/// Checks of one kind of thing on a board.
type Part = fn(&mut Look<'_>);

/// The gravest first: of a file with too many findings those are shown.
const PARTS: &[Part] = &[
    board::repeated_fields,
    board::identity,
    board::age,
    board::time,
    variables::definitions,
    variables::uses,
    variables::equality,
    queries::unreadable,
    queries::expressions,
    sources::all,
    units::of_panels,
    panels::targets,
    panels::kinds,
    panels::amounts,
    panels::thresholds,
    queries::rates,
    queries::counters,
    queries::legends,
    layout::places,
    layout::numbers,
    links::all,
    panels::words,
];

/// A board that is looked at, and what was found so far.
struct Look<'a> {
    board: &'a Board<'a>,
    context: Context<'a>,
    /// Uids of all boards that are looked at.
    uids: &'a Vec<&'a str>,
    /// What is asked of a Prometheus, as far as it can be read.
    questions: &'a [Question<'a>],
    /// What cannot be read.
    unreadable: &'a [Unread<'a>],
    findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    /// A finding at `span`; more can be said of it.
    fn find(&mut self, check: &'static Check, span: Range<usize>, what: impl Into<String>) -> &mut Finding {
        let at = self.findings.len();
        // Where something stands is counted from the beginning of its line, which may be the whole file.
        let span = if at < MOST { span } else { 0..0 };
        self.findings
            .push(Finding::new(check, &self.board.document.file, span, what));
        &mut self.findings[at]
    }

    /// A finding about a panel.
    fn find_in(
        &mut self,
        panel: &Panel<'_>,
        check: &'static Check,
        span: Range<usize>,
        what: impl Into<String>,
    ) -> &mut Finding {
        let finding = self.find(check, span, what);
        finding.subject = panel.name();
        finding
    }

    fn panels(&self) -> &'a [Panel<'a>] {
        &self.board.panels
    }

    /// Where an object is named: its title, else its beginning.
    fn head(node: &Node) -> Range<usize> {
        node.text_node("title")
            .map_or(node.span.start..node.span.start + 1, |title| title.span.clone())
    }
}
