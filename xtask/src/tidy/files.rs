//! What every source file keeps to: a heading that says what it is for, a bound on its length, plain names.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Finding, tree};

/// The end of a file's length, in lines.
const MOST_LINES: usize = 800;

/// Names that say nothing about what a file holds.
const VAGUE_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc", "mod"];

/// Text that must not stand in Rust code, and why. Written in halves, so that this file does not find itself.
const BANNED: &[(&str, &str, &str)] = &[
    ("#[igno", "re", "a test that does not run proves nothing"),
    ("allow(dead", "_code)", "delete what is not needed"),
    ("todo", "!(", "build it or leave it out"),
    ("unimplemen", "ted!(", "build it or leave it out"),
    ("thread::sl", "eep(", "wait for a condition with a deadline"),
    ("opentelemetry::met", "rics", METRICS),
    ("MeterProv", "ider", METRICS),
];

/// Why nothing is measured past the catalogue.
const METRICS: &str = "a metric is a line of telemetry/catalogue, counted through telemetry's registry";

/// Checks every Rust file of the workspace.
pub fn check() -> Result<Vec<Finding>> {
    let root = peers::workspace_root();
    let mut findings = Vec::new();
    for file in tree::files_with("rs", root)? {
        let place = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| format!("could not read {place}"))?;
        findings.extend(check_file(&place, &text));
    }
    Ok(findings)
}

fn check_file(place: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |message: String| findings.push(Finding::new(place, message));
    let generated = text.starts_with("// @generated");
    if !text.starts_with("//!") && !generated {
        wrong("must open with `//!`: what it is for and what it is not".to_owned());
    }
    let lines = text.lines().count();
    if lines > MOST_LINES && !generated {
        wrong(format!("has {lines} lines; {MOST_LINES} is the end, split it by idea"));
    }
    let stem = Path::new(place).file_stem().unwrap_or_default().to_string_lossy();
    if VAGUE_NAMES.contains(&stem.as_ref()) {
        wrong(format!(
            "`{stem}` says nothing; name the file by the one idea that it holds"
        ));
    }
    for (start, end, reason) in BANNED {
        let banned = format!("{start}{end}");
        for (number, line) in text.lines().enumerate() {
            if line.contains(&banned) {
                wrong(format!("line {}: `{banned}`: {reason}", number + 1));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_heading_is_found() {
        assert_eq!(check_file("a/b.rs", "fn f() {}\n").len(), 1);
        assert!(check_file("a/b.rs", "//! Says what it is for.\n").is_empty());
    }

    #[test]
    fn a_vague_name_and_a_long_file_are_found() {
        assert_eq!(check_file("a/utils.rs", "//! Things.\n").len(), 1);
        let long = format!("//! Long.\n{}", "//\n".repeat(MOST_LINES));
        assert_eq!(check_file("a/b.rs", &long).len(), 1);
        assert!(check_file("a/b.rs", &format!("// @generated\n{long}")).is_empty());
    }

    #[test]
    fn banned_text_is_found_with_its_line() {
        let text = format!("//! T.\n{}{}", BANNED[2].0, BANNED[2].1);
        let findings = check_file("a/b.rs", &text);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.starts_with("line 2"), "{}", findings[0]);
    }
}
