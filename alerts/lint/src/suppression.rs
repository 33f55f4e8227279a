//! Comments that say that a finding is known and meant: `# opsctl ignore(check-name) until 2026-12-31: reason`.
//!
//! Both the date and the reason are required. `ignore` stands above, in or beside the rule that it is for, `ignore-file`
//! is for the whole file. One that has expired suppresses nothing, and one that nothing needed is a finding of its own.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use jiff::civil::Date;
use serde::Serialize;

use crate::{Check, Finding, Report, SourceFile};

crate::checks! {
    /// Checks of the comments themselves.
    pub CHECKS;
    INVALID, "suppression-invalid", Error,
        "A comment is meant to suppress a finding and cannot be read.",
        "It suppresses nothing. It is written `# opsctl ignore(check-name) until 2026-12-31: reason`; both the date and the reason are required.";
    EXPIRED, "suppression-expired", Warning,
        "A suppression has expired.",
        "What it hid until then is shown again. Mend that, or say until when else and why.";
    UNUSED, "suppression-unused", Warning,
        "A suppression suppresses nothing.",
        "It would hide a later fault of the same name. Remove it.";
}

/// A comment that suppresses findings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// Names of checks.
    pub checks: Vec<String>,
    /// The last day on which it holds.
    pub until: Date,
    /// Why.
    pub reason: String,
    /// Whether it is for the whole file.
    pub whole_file: bool,
    /// The bytes of the comment.
    pub span: Range<usize>,
}

/// How a finding was suppressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suppressed {
    /// Why.
    pub reason: String,
    /// The last day.
    pub until: Date,
}

/// Why a comment could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Neither `ignore(…)` nor `ignore-file(…)`.
    #[error("`opsctl` is followed by neither `ignore(check-name)` nor `ignore-file(check-name)`")]
    Form,
    /// No names, or one that no check has.
    #[error("no check is called `{0}`")]
    Name(String),
    /// No `until`, or no date after it.
    #[error("it does not say until when: `until` and a date such as 2026-12-31")]
    Until,
    /// Nothing after the colon.
    #[error("it does not say why: a colon and the reason behind the date")]
    Reason,
}

/// Reads a comment, without its `#`. `None` when it does not begin with `opsctl`.
pub fn read(comment: &str, span: Range<usize>, known: &[&'static Check]) -> Option<Result<Suppression, Unreadable>> {
    let rest = comment.trim_start_matches('#').trim().strip_prefix("opsctl ")?;
    Some(read_rest(rest.trim_start(), span, known))
}

fn read_rest(rest: &str, span: Range<usize>, known: &[&'static Check]) -> Result<Suppression, Unreadable> {
    let (whole_file, rest) = match (rest.strip_prefix("ignore-file("), rest.strip_prefix("ignore(")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(Unreadable::Form),
    };
    let (names, rest) = rest.split_once(')').ok_or(Unreadable::Form)?;
    let checks: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    if let Some(name) = checks
        .iter()
        .find(|name| !known.iter().any(|check| check.name == **name))
    {
        return Err(Unreadable::Name(name.clone()));
    }
    let rest = rest.trim_start().strip_prefix("until").ok_or(Unreadable::Until)?;
    let (date, reason) = rest.split_once(':').map_or((rest, ""), |(date, reason)| (date, reason));
    let until = date.trim().parse().map_err(|_| Unreadable::Until)?;
    let reason = reason.trim().to_owned();
    if reason.is_empty() {
        return Err(Unreadable::Reason);
    }
    Ok(Suppression {
        checks,
        until,
        reason,
        whole_file,
        span,
    })
}

/// Marks what `comments` of `file` suppress on the day `today`, and adds findings about the comments themselves.
/// `subjects` are the bytes of every rule, in their order; a comment is for the one that it stands in, else for the next one.
pub fn suppress(
    report: &mut Report,
    file: &SourceFile,
    comments: &[(Range<usize>, &str)],
    subjects: &[Range<usize>],
    known: &[&'static Check],
    today: Date,
) {
    let mut found = Suppressible::of(report, file);
    for (span, comment) in comments {
        let suppression = match read(comment, span.clone(), known) {
            None => continue,
            Some(Ok(suppression)) => suppression,
            Some(Err(unreadable)) => {
                let what = format!("This suppression cannot be read: {unreadable}.");
                found.add(report, Finding::new(&INVALID, file, span.clone(), what));
                continue;
            }
        };
        if suppression.until < today {
            let what = format!(
                "This suppression ended on {}: {}",
                suppression.until, suppression.reason
            );
            found.add(report, Finding::new(&EXPIRED, file, span.clone(), what));
            continue;
        }
        let reach = if suppression.whole_file {
            0..file.text().len()
        } else {
            // Those before it have ended; they stand in their order, one after the other.
            let next = subjects.partition_point(|subject| subject.end <= span.start);
            subjects.get(next).map_or(span.start..span.start, |subject| {
                subject.start.min(span.start)..subject.end
            })
        };
        if !found.suppress(report, &suppression, &reach) {
            let what = format!("Nothing here is found by {}.", suppression.checks.join(", "));
            found.add(report, Finding::new(&UNUSED, file, span.clone(), what));
        }
    }
}

/// The findings of a file by their check, in the order of their places, to be looked up however many comments there are.
struct Suppressible {
    by_check: HashMap<&'static str, Places>,
}

#[derive(Default)]
struct Places {
    /// Where they begin.
    all: BTreeSet<usize>,
    /// Those that no comment suppresses yet, with their number in the report.
    open: BTreeSet<(usize, usize)>,
}

impl Suppressible {
    fn of(report: &Report, file: &SourceFile) -> Self {
        let mut all = Self {
            by_check: HashMap::new(),
        };
        for (number, finding) in report.findings.iter().enumerate() {
            if finding.file == file.name() {
                all.know(number, finding);
            }
        }
        all
    }

    fn know(&mut self, number: usize, finding: &Finding) {
        let places = self.by_check.entry(finding.check.name).or_default();
        places.all.insert(finding.span.start);
        if finding.suppressed.is_none() {
            places.open.insert((finding.span.start, number));
        }
    }

    /// A finding about a comment, which a later one may suppress.
    fn add(&mut self, report: &mut Report, finding: Finding) {
        self.know(report.findings.len(), &finding);
        report.findings.push(finding);
    }

    /// Marks what a comment suppresses in its reach; whether there is anything.
    fn suppress(&mut self, report: &mut Report, suppression: &Suppression, reach: &Range<usize>) -> bool {
        let mut used = false;
        for name in &suppression.checks {
            let Some(places) = self.by_check.get_mut(name.as_str()) else {
                continue;
            };
            used |= places.all.range(reach.start..=reach.end).next().is_some();
            let open = places.open.range((reach.start, 0)..(reach.end + 1, 0));
            for place in open.copied().collect::<Vec<_>>() {
                places.open.remove(&place);
                report.findings[place.1].suppressed = Some(Suppressed {
                    reason: suppression.reason.clone(),
                    until: suppression.until,
                });
            }
        }
        used
    }
}
