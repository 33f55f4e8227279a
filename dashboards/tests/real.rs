//! Boards that others published: all are read, and every finding of error level was looked at. `real/reviewed.txt` has a
//! line for each; a new one fails the test until somebody has judged it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dashboards::check::{Context, check};
use dashboards::read::{Document, Node};
use lint::Severity;
use lint::flow::Records;
use manifest::Manifest;

const REVIEWED: &str = include_str!("real/reviewed.txt");

fn boards(test: &str) -> Option<Vec<(String, String)>> {
    let root = peers::shared_data("mixins", test)?;
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let name = |path: &Path| {
        path.strip_prefix(&root)
            .expect("below the folder")
            .to_string_lossy()
            .replace("/dashboards/", "/")
    };
    Some(
        paths
            .iter()
            .map(|path| {
                (
                    name(path),
                    std::fs::read_to_string(path).expect("a board that lies there"),
                )
            })
            .collect(),
    )
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder that can be listed") {
        let path = entry.expect("a folder that can be listed").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
}

#[test]
fn every_error_in_published_boards_was_looked_at_and_at_most_three_in_a_hundred_are_wrong() {
    let Some(files) = boards("every_error_in_published_boards") else {
        return;
    };
    let (manifest, records) = (Manifest::built_in(), Records::default());
    let report = check(
        files,
        Context {
            manifest: &manifest,
            records: &records,
            scrape_interval: None,
        },
    );
    let found: Vec<String> = report
        .open()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| {
            format!(
                "{} {}:{} [{}]",
                finding.check.name, finding.file, finding.start.line, finding.subject
            )
        })
        .collect();
    let judged = REVIEWED
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let reviewed: BTreeMap<&str, &str> = judged.filter_map(|line| line.split_once(" :: ")).collect();
    let unknown: Vec<&String> = found
        .iter()
        .filter(|place| !reviewed.contains_key(place.as_str()))
        .collect();
    assert!(unknown.is_empty(), "nobody has judged {unknown:#?}");
    let gone: Vec<&&str> = reviewed
        .keys()
        .filter(|place| !found.iter().any(|other| other == **place))
        .collect();
    assert!(gone.is_empty(), "no longer found: {gone:#?}");
    let wrong = reviewed.values().filter(|verdict| verdict.starts_with("wrong")).count();
    assert!(wrong * 100 <= 3 * found.len(), "{wrong} of {}", found.len());
}

#[test]
fn every_published_board_is_read_whole() {
    let Some(files) = boards("every_published_board_is_read_whole") else {
        return;
    };
    assert_eq!(files.len(), 77);
    let (mut panels, mut questions) = (0, 0);
    for (name, text) in &files {
        let document = Document::new(name, text.as_str()).unwrap_or_else(|(_, why)| panic!("{name}: {why}"));
        let board = document.board().unwrap_or_else(|why| panic!("{name}: {why}"));
        panels += board.panels.iter().filter(|panel| !panel.is_row()).count();
        questions += board
            .panels
            .iter()
            .flat_map(|panel| &panel.targets)
            .filter(|target| target.expr.is_some())
            .count();
        // The tree is what the other reader makes of the file.
        let theirs: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(theirs["title"].as_str(), board.title.and_then(Node::text), "{name}");
    }
    assert_eq!((panels, questions > 1500), (1012, true), "{questions}");
}

/// The questions of a board that cannot be read; nothing when the board itself cannot.
fn unreadable(name: &str, text: &str) -> Option<usize> {
    let document = Document::new(name, text).ok()?;
    let board = document.board().ok()?;
    let targets = board.panels.iter().flat_map(|panel| &panel.targets);
    let questions = targets.filter_map(|target| target.expr.and_then(Node::text));
    Some(
        questions
            .filter(|question| promql::Dialect::grafana().parse(question).is_err())
            .count(),
    )
}

#[test]
fn what_is_proposed_can_be_read() {
    let Some(files) = boards("what_is_proposed_can_be_read") else {
        return;
    };
    let (manifest, records) = (Manifest::built_in(), Records::default());
    let context = Context {
        manifest: &manifest,
        records: &records,
        scrape_interval: None,
    };
    // Those whose every finding is tried soon enough.
    let small = files.into_iter().filter(|(_, text)| text.len() < 60_000);
    let mut proposed = 0;
    for (name, text) in small {
        let before = unreadable(&name, &text).expect("a published board");
        let report = check(vec![(name.clone(), text.clone())], context);
        for finding in &report.findings {
            let Some(fix) = &finding.fix else {
                continue;
            };
            proposed += 1;
            let mended = lint::apply(&text, &fix.edits).expect("edits of this file");
            let after = unreadable(&name, &mended);
            assert!(after.is_some_and(|after| after <= before), "{name}: {}", finding.what);
        }
    }
    assert!(proposed > 100, "{proposed}");
}
