//! How to mend a finding: replaced bytes, shown as a diff, applied when asked. It writes no files.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Serialize;

use crate::SourceFile;

/// How to mend a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// What it does, in the imperative.
    pub title: String,
    /// Whether it means the same to all but the fault, so that it may be applied without anybody looking. All others
    /// are proposals.
    pub safe: bool,
    /// What is replaced.
    pub edits: Vec<Edit>,
}

/// Bytes of a file and what stands there instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// The bytes that go. An empty range inserts.
    pub span: Range<usize>,
    /// What comes in their place.
    pub text: String,
}

/// Two edits want the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two edits overlap at byte {at}")]
pub struct Overlap {
    /// Where the second one begins.
    pub at: usize,
}

impl Fix {
    /// A fix that may be applied without anybody looking.
    pub fn safe(title: impl Into<String>, edits: Vec<Edit>) -> Self {
        Self {
            title: title.into(),
            safe: true,
            edits,
        }
    }

    /// A fix that somebody has to agree to.
    pub fn proposal(title: impl Into<String>, edits: Vec<Edit>) -> Self {
        Self {
            safe: false,
            ..Self::safe(title, edits)
        }
    }

    /// The change to `file` as a unified diff without context; empty when it does not fit the file.
    pub fn diff(&self, file: &SourceFile) -> String {
        let mut edits: Vec<&Edit> = self.edits.iter().collect();
        edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
        let mut hunks: Vec<(Range<usize>, Vec<Edit>)> = Vec::new();
        for edit in edits {
            let lines = file.position(edit.span.start).line..file.position(edit.span.end).line + 1;
            match hunks.last_mut() {
                Some((range, list)) if lines.start < range.end => {
                    range.end = range.end.max(lines.end);
                    list.push(edit.clone());
                }
                _ => hunks.push((lines, vec![edit.clone()])),
            }
        }
        let mut out = format!("--- {0}\n+++ {0}\n", file.name());
        let mut shift = 0_isize;
        for (lines, mut edits) in hunks {
            let start = file.line_start(lines.start);
            let old = &file.text()[start..file.line_start(lines.end)];
            for edit in &mut edits {
                edit.span = edit.span.start.saturating_sub(start)..edit.span.end.saturating_sub(start);
            }
            let Ok(new) = apply(old, &edits) else {
                return String::new();
            };
            hunk(&mut out, lines.start, &mut shift, old, &new);
        }
        out
    }
}

/// Writes one hunk: `old` begins at line `at`; `shift` is how much longer the new file has become.
fn hunk(out: &mut String, at: usize, shift: &mut isize, old: &str, new: &str) {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |pair: &(&&str, &&str)| pair.0 == pair.1;
    let before = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[before..], &new[before..]);
    let after = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - after], &new[..new.len() - after]);
    let line = at + before;
    // A side without lines names the line before it.
    let old_start = if old.is_empty() { line - 1 } else { line };
    let new_line = line.saturating_add_signed(*shift);
    let new_start = if new.is_empty() { new_line - 1 } else { new_line };
    let _ = writeln!(out, "@@ -{old_start},{} +{new_start},{} @@", old.len(), new.len());
    for text in old {
        let _ = writeln!(out, "-{text}");
    }
    for text in new {
        let _ = writeln!(out, "+{text}");
    }
    *shift += new.len().cast_signed() - old.len().cast_signed();
}

/// `text` with all `edits` made.
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, Overlap> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for edit in edits {
        let at = edit.span.start;
        let (Some(kept), Some(_)) = (text.get(done..at), text.get(at..edit.span.end)) else {
            return Err(Overlap { at });
        };
        out.push_str(kept);
        out.push_str(&edit.text);
        done = edit.span.end;
    }
    out.push_str(text.get(done..).unwrap_or_default());
    Ok(out)
}
