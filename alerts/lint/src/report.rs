//! All findings of a run. What they are shown as is `output`.

use std::collections::BTreeMap;

use crate::fix::{Edit, apply};
use crate::{Finding, Severity, SourceFile};

/// All findings about a set of files.
#[derive(Debug, Default)]
pub struct Report {
    /// The files that were looked at, whatever was found in them.
    pub files: Vec<SourceFile>,
    /// What was found, suppressed or not.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Sorts findings by file, place and check, and drops repetitions.
    pub fn sort(&mut self) {
        let order: BTreeMap<&str, usize> = self.files.iter().enumerate().map(|(n, f)| (f.name(), n)).collect();
        let key = |finding: &Finding| {
            let file = order.get(finding.file.as_str()).copied().unwrap_or(usize::MAX);
            (file, finding.span.start, finding.span.end, finding.check.name)
        };
        self.findings
            .sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.what.cmp(&b.what)));
        self.findings.dedup();
    }

    /// The file of that name.
    pub fn file(&self, name: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.name() == name)
    }

    /// Findings that nobody has suppressed.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.suppressed.is_none())
    }

    /// How many open findings are of that severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.open().filter(|finding| finding.severity == severity).count()
    }

    /// The gravest open finding.
    pub fn worst(&self) -> Option<Severity> {
        self.open().map(|finding| finding.severity).max()
    }

    /// The files that change when the safe fixes of open findings are applied, with their new text and how many fixes
    /// are in it. A fix that wants bytes of another one waits for the next time.
    pub fn fixed(&self) -> Vec<(&SourceFile, String, usize)> {
        self.files
            .iter()
            .filter_map(|file| {
                // By their bytes. Those of two fixes never touch, so that one that touches any touches a neighbour.
                let mut taken: BTreeMap<(usize, usize, usize), Edit> = BTreeMap::new();
                let mut count = 0;
                for finding in self.open().filter(|finding| finding.file == file.name()) {
                    let Some(fix) = finding.fix.as_ref().filter(|fix| fix.safe) else {
                        continue;
                    };
                    let fits = |edit: &Edit| {
                        let before = taken.range(..=(edit.span.end, usize::MAX, usize::MAX)).next_back();
                        before.is_none_or(|(_, other)| other.span.end < edit.span.start)
                    };
                    if fix.edits.iter().all(fits) {
                        let place = |edit: &Edit, number| (edit.span.start, edit.span.end, number);
                        taken.extend(
                            fix.edits
                                .iter()
                                .enumerate()
                                .map(|(n, edit)| (place(edit, n), edit.clone())),
                        );
                        count += 1;
                    }
                }
                let taken: Vec<Edit> = taken.into_values().collect();
                let text = apply(file.text(), &taken).ok()?;
                (count > 0).then_some((file, text, count))
            })
            .collect()
    }
}
