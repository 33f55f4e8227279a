//! For code review: SARIF 2.1.0, with the rules that were found, places, fixes and suppressions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{Check, Finding, Position, Report};

/// The report as a SARIF log. `version` is that of the program.
pub fn sarif(report: &Report, version: &str) -> Value {
    let checks: BTreeMap<&str, &Check> = report.findings.iter().map(|f| (f.check.name, f.check)).collect();
    let rules: Vec<Value> = checks
        .values()
        .map(|check| {
            json!({
                "id": check.name,
                "shortDescription": { "text": check.what },
                "fullDescription": { "text": check.why },
                "defaultConfiguration": { "level": check.severity },
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "opsctl", "version": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": report.findings.iter().map(|finding| result(finding, report)).collect::<Vec<_>>(),
        }],
    })
}

fn result(finding: &Finding, report: &Report) -> Value {
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!("{subject}: "),
    };
    let artifact = json!({ "uri": uri(&finding.file) });
    let mut out = json!({
        "ruleId": finding.check.name,
        "level": finding.severity,
        "message": { "text": format!("{subject}{}\n{}", finding.what, finding.why) },
        "locations": [{
            "physicalLocation": { "artifactLocation": artifact, "region": region(finding.start, finding.end) },
        }],
    });
    if let (Some(fix), Some(file)) = (&finding.fix, report.file(&finding.file)) {
        let replacements: Vec<Value> = fix
            .edits
            .iter()
            .map(|edit| {
                json!({
                    "deletedRegion": region(file.position(edit.span.start), file.position(edit.span.end)),
                    "insertedContent": { "text": edit.text },
                })
            })
            .collect();
        let change = json!({ "artifactLocation": artifact, "replacements": replacements });
        out["fixes"] = json!([{ "description": { "text": fix.title }, "artifactChanges": [change] }]);
    }
    if let Some(suppressed) = &finding.suppressed {
        let why = format!("{} (until {})", suppressed.reason, suppressed.until);
        out["suppressions"] = json!([{ "kind": "inSource", "justification": why }]);
    }
    out
}

fn region(start: Position, end: Position) -> Value {
    json!({
        "startLine": start.line,
        "startColumn": start.column,
        "endLine": end.line,
        "endColumn": end.column,
    })
}

/// A file name as a relative reference: what would end the path or be taken for an escape is escaped.
fn uri(file: &str) -> String {
    let mut out = String::with_capacity(file.len());
    for byte in file.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' | b'+' | b'@' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}
