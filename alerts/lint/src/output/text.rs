//! For people: the place with its line, what, why, who says so, and the fix as a diff.

use std::fmt::Write as _;

use crate::{Finding, Report, Severity, SourceFile};

/// The open findings of `report` for a terminal without colours, and a last line that counts them.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for finding in report.open() {
        one(&mut out, finding, report.file(&finding.file));
        out.push('\n');
    }
    summary(&mut out, report);
    out
}

fn one(out: &mut String, finding: &Finding, file: Option<&SourceFile>) {
    let subject = match finding.subject.as_str() {
        "" => String::new(),
        subject => format!("{subject}: "),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "{}[{}]: {subject}{}",
        finding.severity, finding.check.name, finding.what
    );
    let (start, end) = (finding.start, finding.end);
    let width = start.line.to_string().len();
    // A server has no lines.
    let place = file.filter(|file| !file.text().is_empty());
    let _ = match place {
        Some(_) => writeln!(out, "{:width$}--> {}:{}:{}", "", finding.file, start.line, start.column),
        None => writeln!(out, "{:width$}--> {}", "", finding.file),
    };
    if let Some(file) = place {
        let line = file.line(start.line);
        let length = line.chars().count();
        let last = if end.line == start.line { end.column } else { length + 1 };
        let marks = "^".repeat(last.saturating_sub(start.column).max(1));
        let _ = writeln!(out, "{:width$} |", "");
        let _ = writeln!(out, "{:width$} | {line}", start.line);
        let _ = writeln!(out, "{:width$} | {:indent$}{marks}", "", "", indent = start.column - 1);
    }
    let _ = writeln!(out, "{:width$} = why: {}", "", finding.why);
    if let Some(source) = &finding.according_to {
        let _ = writeln!(out, "{:width$} = according to {source}", "");
    }
    if let Some(fix) = &finding.fix {
        let kind = if fix.safe { "fix" } else { "proposal" };
        let _ = writeln!(out, "{:width$} = {kind}: {}", "", fix.title);
        for line in file.map(|file| fix.diff(file)).unwrap_or_default().lines().skip(2) {
            let _ = writeln!(out, "{:width$}   {line}", "");
        }
    }
}

fn summary(out: &mut String, report: &Report) {
    let count = |severity, word: &str| {
        let count = report.count(severity);
        format!("{count} {word}{}", if count == 1 { "" } else { "s" })
    };
    let suppressed = report.findings.len() - report.open().count();
    let files = report.files.len();
    let _ = write!(
        out,
        "{files} file{}: {}, {}, {}",
        if files == 1 { "" } else { "s" },
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note"),
    );
    if suppressed > 0 {
        let _ = write!(out, ", {suppressed} suppressed");
    }
    out.push('\n');
}
