//! Checks of whole rule files: expressions, templates, labels, holding times, what rules have to do with each other, and
//! the routes that alerts take. Pure: files and what is known come in, findings go out.
//!
//! ```
//! use alerts::check::{Options, check};
//!
//! let text = "groups:\n- name: a\n  rules:\n  - alert: Down\n    expr: sum(up) == 0\n    for: 5m\n    labels: {severity: page}\n    annotations: {summary: '{{ $labels.job }} is down'}\n";
//! let file = lint::SourceFile::new("a.yml", text);
//! let report = check(vec![file], &Options::new(manifest::Manifest::catalogue(), "2026-11-23".parse().expect("a day")));
//! assert!(report.findings.iter().any(|finding| finding.check.name == "label-dropped"));
//! ```

mod across;
mod alert;
mod expression;
mod pages;
pub mod routes;
mod table;
pub mod template;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::civil::Date;
use lint::expression::{Context, Purpose};
use lint::flow::{Flow, Flows};
use lint::{Check, Finding, Report, SourceFile, suppression};
use manifest::Manifest;
use promql::Query;

use crate::rules::{Group, Rule, RuleFile, RuleKind, read};

/// Findings of a file that are shown. Once there are so many, the file's other rules are not looked at one by one.
const MOST: usize = 1000;

/// What is known when rules are checked.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is known of metrics.
    pub manifest: Manifest,
    /// How often targets are scraped, where somebody said so.
    pub scrape_interval: Option<Duration>,
    /// How often groups without an interval of their own are evaluated, where somebody said so.
    pub evaluation_interval: Option<Duration>,
    /// The values that the label `severity` may have; empty means that any will do.
    pub severities: Vec<String>,
    /// The day on which suppressions are judged.
    pub today: Date,
}

impl Options {
    /// Without any intervals, and the common severities.
    pub fn new(manifest: Manifest, today: Date) -> Self {
        let severities = [
            "critical", "page", "warning", "ticket", "info", "none", "error", "high", "medium", "low",
        ];
        Self {
            manifest,
            scrape_interval: None,
            evaluation_interval: None,
            severities: severities.map(str::to_owned).to_vec(),
            today,
        }
    }
}

/// Every check that there is, of files, rules, expressions, routes and suppressions.
pub fn checks() -> Vec<&'static Check> {
    [
        crate::rules::CHECKS,
        table::CHECKS,
        lint::expression::CHECKS,
        routes::CHECKS,
        suppression::CHECKS,
    ]
    .concat()
}

/// A rule with what was read of it.
struct Read<'a> {
    file: &'a SourceFile,
    group: &'a Group,
    rule: &'a Rule,
    query: Query,
    /// The labels of its result. Those of its parts are not kept: in a long expression they are many times as much.
    flow: Flow,
}

impl Read<'_> {
    fn is_alert(&self) -> bool {
        self.rule.kind == RuleKind::Alert
    }

    fn name(&self) -> &str {
        &self.rule.name.value
    }
}

/// Checks the rules in `files` together: recorded series of one are known in the others. A file with routes is taken for
/// an Alertmanager's configuration.
pub fn check(files: Vec<SourceFile>, options: &Options) -> Report {
    let mut findings: Vec<Finding> = Vec::new();
    let sets: Vec<RuleFile> = files
        .iter()
        .map(|file| {
            let (rules, found) = match routes::read(file) {
                Some(found) => (RuleFile::default(), found),
                None => read(file),
            };
            findings.extend(found);
            rules
        })
        .collect();

    let mut queries = expression::queries(&files, &sets, &mut findings);
    let records = expression::records(&queries, &options.manifest);
    let mut all: Vec<Read<'_>> = Vec::with_capacity(queries.len());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, group, rule, query) in queries.drain(..) {
        let flows = Flows::new(&query, &options.manifest, &records);
        let read = Read {
            file,
            group,
            rule,
            flow: flows.of(&query.expr).clone(),
            query,
        };
        let (count, before) = (counts.entry(file.name()).or_default(), findings.len());
        if *count >= MOST {
            all.push(read);
            continue;
        }
        let context = Context {
            manifest: &options.manifest,
            records: &records,
            purpose: if read.is_alert() {
                Purpose::Alert
            } else {
                Purpose::Record
            },
            scrape_interval: options.scrape_interval,
        };
        let place = |found: lint::expression::Found| found.place(read.file, &read.rule.expr.offsets).about(read.name());
        let found = lint::expression::check_with(&read.query, context, &flows);
        findings.extend(found.into_iter().map(place));
        if read.is_alert() {
            alert::check(&read, options, &mut findings);
            pages::check(&read, options, &mut findings);
        }
        *count += findings.len() - before;
        all.push(read);
    }
    across::check(&all, options, &mut findings);
    drop(all);
    counts.retain(|_, count| *count >= MOST);
    let cut = counts.into_keys().map(str::to_owned).collect();

    let mut report = Report { files, findings };
    suppress(&mut report, &sets, options);
    report.sort();
    shorten(&mut report, &cut);
    report
}

/// Leaves [`MOST`] findings of each file, the worst, and says so. In the files that were `cut` more would have been found,
/// by what their comments suppress, too.
fn shorten(report: &mut Report, cut: &BTreeSet<String>) {
    let mut by_file: BTreeMap<String, Vec<Finding>> = BTreeMap::new();
    for finding in report.findings.drain(..) {
        by_file.entry(finding.file.clone()).or_default().push(finding);
    }
    for (name, mut findings) in by_file {
        let file = report.files.iter().find(|file| file.name() == name);
        if let Some(file) = file.filter(|_| findings.len() > MOST || cut.contains(&name)) {
            findings.retain(|finding| finding.check.name != suppression::UNUSED.name || !cut.contains(&name));
            findings.sort_by_key(|finding| Reverse(finding.severity));
            findings.truncate(MOST);
            let what = format!("More was found than these {} places.", findings.len());
            findings.push(Finding::new(&table::MORE_FINDINGS, file, 0..0, what));
        }
        report.findings.extend(findings);
    }
    report.sort();
}

/// What comments say of the findings of their file.
fn suppress(report: &mut Report, sets: &[RuleFile], options: &Options) {
    let known = checks();
    let files = std::mem::take(&mut report.files);
    for (file, rules) in files.iter().zip(sets) {
        let mut subjects: Vec<_> = rules.rules().map(|(_, rule)| rule.span.clone()).collect();
        subjects.sort_by_key(|span| span.start);
        let comments: Vec<_> = rules
            .comments
            .iter()
            .filter_map(|span| Some((span.clone(), file.text().get(span.clone())?)))
            .collect();
        suppression::suppress(report, file, &comments, &subjects, &known, options.today);
    }
    report.files = files;
}
