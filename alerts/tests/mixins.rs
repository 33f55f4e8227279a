//! Rules as people publish them: each finding of error level was looked at. `mixins.txt` keeps what came of that: file,
//! rule, check, and what is wrong with the rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use alerts::check::{Options, check};
use alerts::rules::{RuleKind, read};
use lint::{Severity, SourceFile};

#[test]
fn errors_in_published_rules_are_faults() {
    let Some(mixins) = peers::shared_data("mixins", "errors_in_published_rules_are_faults") else {
        return;
    };
    let options = Options::new(manifest::Manifest::built_in(), "2026-11-23".parse().expect("a day"));
    let mut folders: Vec<_> = fs::read_dir(&mixins)
        .expect("the mixins")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let mut found: Vec<String> = Vec::new();
    let mut alerts = 0;
    for folder in folders {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let files = ["rules.yaml", "alerts.yaml"].map(|file| {
            let text = fs::read_to_string(folder.join(file)).expect("a file of rules");
            SourceFile::new(format!("{name}/{file}"), text)
        });
        for file in &files {
            let rules = read(file).0;
            alerts += rules.rules().filter(|(_, rule)| rule.kind == RuleKind::Alert).count();
        }
        let report = check(files.to_vec(), &options);
        for finding in report.open().filter(|finding| finding.severity == Severity::Error) {
            found.push(format!("{} {} {}", finding.file, finding.subject, finding.check.name));
        }
    }
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixins.txt");
    let table = fs::read_to_string(table).expect("the table of findings");
    let listed: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(finding, _)| finding.to_owned())
        .collect();
    let found: BTreeSet<String> = found.into_iter().collect();
    let new: Vec<&String> = found.difference(&listed).collect();
    let gone: Vec<&String> = listed.difference(&found).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not listed: {new:#?}\nnot found: {gone:#?}"
    );
    assert_eq!(alerts, 489);
}

/// What cannot be read of a file: its YAML, and the expressions in it.
fn unreadable(file: &SourceFile) -> usize {
    let (rules, refused) = read(file);
    let broken = |rule: &alerts::rules::Rule| promql::parse(&rule.expr.value).is_err();
    refused.len() + rules.rules().filter(|(_, rule)| broken(rule)).count()
}

#[test]
fn what_is_proposed_can_be_read() {
    let Some(mixins) = peers::shared_data("mixins", "what_is_proposed_can_be_read") else {
        return;
    };
    let options = Options::new(manifest::Manifest::built_in(), "2026-11-23".parse().expect("a day"));
    let mut proposed = 0;
    for entry in fs::read_dir(&mixins).expect("the mixins") {
        let path = entry.expect("an entry").path().join("alerts.yaml");
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let file = SourceFile::new(path.display().to_string(), text);
        let before = unreadable(&file);
        for finding in &check(vec![file.clone()], &options).findings {
            let Some(fix) = &finding.fix else {
                continue;
            };
            proposed += 1;
            let mended = lint::apply(file.text(), &fix.edits).expect("edits of this file");
            let after = unreadable(&SourceFile::new(file.name(), mended));
            assert!(after <= before, "{}: {}", finding.file, fix.diff(&file));
        }
    }
    assert!(proposed > 100, "{proposed}");
}
