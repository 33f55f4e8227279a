//! What promtool, as it is installed and without feature flags, says of many expressions at once.

use std::{collections::BTreeMap, path::Path, process::Command};

use crate::corpus::Expression;

/// Where promtool sees the fault of each expression that it refuses, as `line:column`.
pub fn refusals(promtool: &Path, expressions: &[Expression]) -> BTreeMap<usize, String> {
    let rule = |(number, expression): (usize, &Expression)| serde_json::json!({"record": format!("number:{number}"), "expr": expression.text});
    let rules: Vec<_> = expressions.iter().enumerate().map(rule).collect();
    let file = serde_json::json!({"groups": [{"name": "corpus", "rules": rules}]});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules.yaml");
    std::fs::write(&path, file.to_string()).unwrap();
    let output = Command::new(promtool)
        .args(["check", "rules", "--lint=none"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("FAILED") || output.status.success(), "{said}");
    said.lines().filter_map(refusal).collect()
}

/// `…: group "corpus", rule 1, "number:0": could not parse expression: 1:5: parse error: …`
fn refusal(line: &str) -> Option<(usize, String)> {
    let (_, rest) = line.split_once(", \"number:")?;
    let (number, rest) = rest.split_once("\": ")?;
    let place = rest.strip_prefix("could not parse expression: ").unwrap_or_default();
    let place = place.split_once(": parse error").map_or("", |(place, _)| place);
    Some((number.parse().ok()?, place.to_owned()))
}
