//! What holds for every report, whatever was looked at: places lie in the files, all four outputs can be read by whoever reads
//! them, and fixes that are safe mend. The properties of `dashboards` have this file as a module, too.

use lint::output::{json, junit, sarif, text};
use lint::{Report, SourceFile, apply};
use roxmltree::Document;

/// More rounds of fixes than any file takes.
const ROUNDS: usize = 20;

/// Holds a report against all that.
pub fn hold(report: &Report) {
    for finding in &report.findings {
        assert!(!finding.what.is_empty() && !finding.why.is_empty(), "{finding:?}");
        let Some(file) = report.file(&finding.file) else {
            continue;
        };
        assert!(
            file.text().get(finding.span.clone()).is_some(),
            "{finding:?} lies outside"
        );
        if let Some(fix) = &finding.fix {
            assert!(apply(file.text(), &fix.edits).is_ok(), "{finding:?}");
        }
    }
    assert!(!text(report).is_empty());
    serde_json::to_string(&json(report)).expect("it is JSON");
    serde_json::to_string(&sarif(report, "1")).expect("it is JSON");
    let xml = junit(report);
    assert!(Document::parse(&xml).is_ok(), "{xml:?}");
}

/// Applies what may be applied without anybody looking, until there is none: what could be read still can, each time
/// fewer things are left to mend, and it ends.
pub fn mend(file: &SourceFile, check: &dyn Fn(SourceFile) -> Report, reads: &dyn Fn(&str) -> bool) {
    let mendable = |report: &Report| {
        let fixes = report.open().filter_map(|finding| finding.fix.as_ref());
        fixes.filter(|fix| fix.safe).count()
    };
    let readable = reads(file.text());
    let mut report = check(file.clone());
    hold(&report);
    for _ in 0..ROUNDS {
        let before = report.files[0].text().to_owned();
        let Some(after) = report.fixed().pop().map(|(_, after, _)| after) else {
            return;
        };
        assert!(!readable || reads(&after), "{before:?} is mended to {after:?}");
        let again = check(SourceFile::new(file.name(), after.as_str()));
        assert!(
            mendable(&again) < mendable(&report),
            "{before:?} is mended to {after:?}, which is no better"
        );
        report = again;
    }
    panic!("{:?} is mended for ever", file.text());
}
