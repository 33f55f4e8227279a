//! For build servers that show tests: a suite per file, a failed case per finding, a passed one for a file without.

use std::fmt::Write as _;

use crate::{Finding, Report};

/// The report as JUnit's XML. Suppressed findings are skipped cases.
pub fn junit(report: &Report) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"opsctl\">\n");
    for file in &report.files {
        let findings: Vec<&Finding> = report.findings.iter().filter(|f| f.file == file.name()).collect();
        let skipped = findings.iter().filter(|finding| finding.suppressed.is_some()).count();
        let name = escape(file.name());
        let _ = writeln!(
            out,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">",
            findings.len().max(1),
            findings.len() - skipped,
        );
        if findings.is_empty() {
            let _ = writeln!(out, "    <testcase classname=\"{name}\" name=\"no findings\"/>");
        }
        for finding in findings {
            case(&mut out, finding, &name);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn case(out: &mut String, finding: &Finding, file: &str) {
    let position = finding.start;
    let name = escape(&format!(
        "{} {} ({}:{})",
        finding.check.name, finding.subject, position.line, position.column
    ));
    let _ = writeln!(out, "    <testcase classname=\"{file}\" name=\"{name}\">");
    let what = escape(&finding.what);
    let _ = match &finding.suppressed {
        Some(suppressed) => writeln!(
            out,
            "      <skipped message=\"{} (until {}: {})\"/>",
            what,
            suppressed.until,
            escape(&suppressed.reason)
        ),
        None => writeln!(
            out,
            "      <failure type=\"{}\" message=\"{what}\">{}</failure>",
            finding.severity,
            escape(&finding.why)
        ),
    };
    out.push_str("    </testcase>\n");
}

/// Text for XML: markup escaped, characters that XML does not know left out.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => {
                let _ = write!(out, "&#{};", character as u32);
            }
            '\u{fffe}' | '\u{ffff}' => {}
            control if (control as u32) < 0x20 => {}
            other => out.push(other),
        }
    }
    out
}
