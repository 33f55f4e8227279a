//! For programs: one document, schema `opsctl.findings/v1`.

use serde_json::{Value, json as value};

use crate::{Finding, Report, Severity, SourceFile};

/// The whole report, suppressed findings too.
pub fn json(report: &Report) -> Value {
    value!({
        "schema": "opsctl.findings/v1",
        "files": report.files.iter().map(SourceFile::name).collect::<Vec<_>>(),
        "errors": report.count(Severity::Error),
        "warnings": report.count(Severity::Warning),
        "notes": report.count(Severity::Note),
        "findings": report.findings.iter().map(|finding| one(finding, report)).collect::<Vec<_>>(),
    })
}

fn one(finding: &Finding, report: &Report) -> Value {
    let mut out = value!({
        "check": finding.check.name,
        "severity": finding.severity,
        "subject": finding.subject,
        "what": finding.what,
        "why": finding.why,
        "file": finding.file,
        "start": finding.start,
        "end": finding.end,
        "bytes": [finding.span.start, finding.span.end],
    });
    if let Some(source) = &finding.according_to {
        out["according_to"] = value!(source);
    }
    if let Some(fix) = &finding.fix {
        let edits: Vec<Value> = fix
            .edits
            .iter()
            .map(|edit| value!({ "bytes": [edit.span.start, edit.span.end], "text": edit.text }))
            .collect();
        let diff = report.file(&finding.file).map(|file| fix.diff(file));
        out["fix"] = value!({ "title": fix.title, "safe": fix.safe, "edits": edits, "diff": diff });
    }
    if let Some(suppressed) = &finding.suppressed {
        out["suppressed"] = value!({ "reason": suppressed.reason, "until": suppressed.until.to_string() });
    }
    out
}
