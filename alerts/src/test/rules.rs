//! Rule files as far as a test needs them: what each rule is called, what it needs, and its text, so that a part of a
//! file can be written again. What is doubtful here is left to promtool, with the whole file.

use std::path::{Path, PathBuf};

use lint::{Severity, SourceFile};
use serde_json::{Map, Value};

use super::file::LARGEST;
use super::needs::{self, Needs};
use crate::rules::{Group as ReadGroup, Rule as ReadRule, RuleKind, Text};
use crate::{bounded, duration};

/// A rule file, read.
#[derive(Debug)]
pub(super) struct RuleFile {
    pub path: PathBuf,
    pub groups: Vec<Group>,
}

/// A group; everything but its rules stands in `text`.
#[derive(Debug)]
pub(super) struct Group {
    pub name: String,
    pub text: Map<String, Value>,
    pub rules: Vec<Rule>,
}

/// One rule, and what it needs.
#[derive(Debug)]
pub(super) struct Rule {
    pub name: String,
    pub alert: bool,
    pub line: usize,
    pub needs: Needs,
    pub text: Map<String, Value>,
}

/// Reads a file; `None` where anything is not as expected.
pub(super) fn read(path: &Path) -> Option<RuleFile> {
    parse(path, bounded::read(path, LARGEST).ok()??)
}

fn parse(path: &Path, text: String) -> Option<RuleFile> {
    let source = SourceFile::new(path.to_string_lossy(), text);
    let (file, findings) = crate::rules::read(&source);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return None;
    }
    Some(RuleFile {
        path: path.to_owned(),
        groups: file.groups.iter().map(|read| group(&source, read)).collect(),
    })
}

fn group(source: &SourceFile, read: &ReadGroup) -> Group {
    let mut text = Map::new();
    text.insert("name".to_owned(), read.name.value.clone().into());
    for (key, value) in [("interval", &read.interval), ("query_offset", &read.query_offset)] {
        text.extend(value.as_ref().map(|value| (key.to_owned(), shown(value.value))));
    }
    text.extend(
        read.limit
            .as_ref()
            .map(|limit| ("limit".to_owned(), limit.value.into())),
    );
    insert(&mut text, "labels", &read.labels);
    Group {
        name: read.name.value.clone(),
        text,
        rules: read.rules.iter().map(|read| rule(source, read)).collect(),
    }
}

fn rule(source: &SourceFile, read: &ReadRule) -> Rule {
    let alert = read.kind == RuleKind::Alert;
    let kind = if alert { "alert" } else { "record" };
    let mut text = Map::new();
    text.insert(kind.to_owned(), read.name.value.clone().into());
    text.insert("expr".to_owned(), read.expr.value.clone().into());
    for (key, value) in [("for", &read.hold), ("keep_firing_for", &read.keep_firing_for)] {
        text.extend(value.as_ref().map(|value| (key.to_owned(), shown(value.value))));
    }
    insert(&mut text, "labels", &read.labels);
    insert(&mut text, "annotations", &read.annotations);
    let mut needs = needs::of_expression(&read.expr.value);
    for (_, template) in read.labels.iter().chain(&read.annotations) {
        needs.add(needs::of_template(&template.value));
    }
    Rule {
        name: read.name.value.clone(),
        alert,
        line: source.position(read.name.span.start).line,
        needs,
        text,
    }
}

fn shown(time: std::time::Duration) -> Value {
    duration::show(time.as_millis() as u64).into()
}

fn insert(text: &mut Map<String, Value>, key: &str, pairs: &[(Text, Text)]) {
    if !pairs.is_empty() {
        let pairs: Map<String, Value> = pairs
            .iter()
            .map(|(name, value)| (name.value.clone(), value.value.clone().into()))
            .collect();
        text.insert(key.to_owned(), pairs.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_is_understood() {
        let text = "groups:\n- name: g\n  limit: 3\n  rules:\n  - alert: A\n    expr: up == 0\n    for: 5m\n";
        let file = parse(Path::new("r.yaml"), text.to_owned()).unwrap();
        let rule = &file.groups[0].rules[0];
        assert_eq!((rule.name.as_str(), rule.alert, rule.line), ("A", true, 5));
        let shown = serde_json::to_string(&rule.text).unwrap();
        assert_eq!(shown, r#"{"alert":"A","expr":"up == 0","for":"5m"}"#);
        let shown = serde_json::to_string(&file.groups[0].text).unwrap();
        assert_eq!(shown, r#"{"name":"g","limit":3}"#);
        for doubtful in [
            "groups: [{name: g, rules: [{alert: A, record: b, expr: up}]}]",
            "groups: [{name: g, rules: [{alert: A, expr: up, fore: 5m}]}]",
            "groups: [",
            "rules: []",
        ] {
            assert!(parse(Path::new("r.yaml"), doubtful.to_owned()).is_none(), "{doubtful}");
        }
    }
}
