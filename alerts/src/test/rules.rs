//! Rule files as far as a test needs them: what each rule is called, what it needs, and its text, so that a part of a
//! file can be written again. What is doubtful here is left to promtool, with the whole file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::file::LARGEST;
use super::needs::{self, Needs};

/// A rule file, read.
#[derive(Debug)]
pub(super) struct RuleFile {
    pub path: PathBuf,
    pub groups: Vec<Group>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_offset: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing, default)]
    rules: Option<Vec<RawRule>>,
    #[serde(skip)]
    pub read: Vec<Rule>,
}

/// One rule, and what it needs.
#[derive(Debug)]
pub(super) struct Rule {
    pub name: String,
    pub alert: bool,
    pub line: usize,
    pub needs: Needs,
    pub text: RawRule,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<Spanned<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Spanned<String>>,
    pub expr: String,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_firing_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    groups: Option<Vec<Group>>,
}

/// Reads a file; `None` where anything is not as expected.
pub(super) fn read(path: &Path) -> Option<RuleFile> {
    if std::fs::metadata(path).ok()?.len() > LARGEST {
        return None;
    }
    parse(path, &std::fs::read_to_string(path).ok()?)
}

pub(super) fn parse(path: &Path, text: &str) -> Option<RuleFile> {
    let raw: RawFile = serde_saphyr::from_str(text).ok()?;
    let mut groups = raw.groups.unwrap_or_default();
    for group in &mut groups {
        group.read = group.rules.take().unwrap_or_default().into_iter().map(rule).collect::<Option<_>>()?;
    }
    Some(RuleFile {
        path: path.to_owned(),
        groups,
    })
}

fn rule(text: RawRule) -> Option<Rule> {
    let (name, alert) = match (&text.alert, &text.record) {
        (Some(name), None) => (name, true),
        (None, Some(name)) => (name, false),
        _ => return None,
    };
    let mut needs = needs::of_expression(&text.expr);
    for template in [&text.labels, &text.annotations].into_iter().flatten().flat_map(BTreeMap::values).flatten() {
        needs.add(needs::of_template(template));
    }
    Some(Rule {
        name: name.value.clone(),
        alert,
        line: name.referenced.line() as usize,
        needs,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_far_as_it_is_understood() {
        let text = "groups:\n- name: g\n  limit: 3\n  rules:\n  - alert: A\n    expr: up == 0\n    for: 5m\n";
        let file = parse(Path::new("r.yaml"), text).unwrap();
        let rule = &file.groups[0].read[0];
        assert_eq!((rule.name.as_str(), rule.alert, rule.line), ("A", true, 5));
        assert_eq!(
            serde_json::to_string(&rule.text).unwrap(),
            r#"{"alert":"A","expr":"up == 0","for":"5m"}"#
        );
        assert_eq!(
            serde_json::to_string(&file.groups[0]).unwrap(),
            r#"{"name":"g","limit":3}"#
        );
        for doubtful in [
            "groups: [{name: g, rules: [{alert: A, record: b, expr: up}]}]",
            "groups: [{name: g, rules: [{alert: A, expr: up, fore: 5m}]}]",
            "groups: [",
            "rules: []",
        ] {
            assert!(parse(Path::new("r.yaml"), doubtful).is_none(), "{doubtful}");
        }
    }
}
