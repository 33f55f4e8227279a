//! Rules as people publish them: nothing in them is refused, and each finding of error level was looked at. The table
//! below is what is left of that: all of them are faults of the rule.

use std::collections::BTreeSet;
use std::fs;

use alerts::check::{Options, check};
use alerts::rules::{RuleKind, read};
use lint::{Severity, SourceFile};

/// File, rule, check, and what is wrong with the rule.
const FAULTS: &[(&str, &str, &str, &str)] = &[
    (
        "cortex/alerts.yaml",
        "CortexKVStoreFailure",
        "same-series",
        "Both sides are summed by `status_code`, so that a failing code is divided by itself: == 1 is true for one failure.",
    ),
    (
        "postgres-exporter/alerts.yaml",
        "PostgreSQLSlowQueries",
        "rate-on-gauge",
        "The age of the oldest transaction falls whenever one ends, and is no counter.",
    ),
    (
        "thanos/alerts.yaml",
        "ThanosBucketReplicateRunLatency",
        "le-dropped",
        "The buckets are summed by `job` alone.",
    ),
];

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
    let mut found: BTreeSet<(String, String, &str)> = BTreeSet::new();
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
            found.insert((finding.file.clone(), finding.subject.clone(), finding.check.name));
        }
    }
    let expected: BTreeSet<(String, String, &str)> = FAULTS
        .iter()
        .map(|(file, rule, check, _)| ((*file).to_owned(), (*rule).to_owned(), *check))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(alerts, 489);
}
