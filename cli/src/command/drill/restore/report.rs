//! What a restore drill tells: the document, the lines on a terminal, the page. It decides nothing.

use std::path::PathBuf;

use backups::Id;
use backups::proof::judge::seconds;
use backups::proof::{Check, Group, Outcome, Proof, Verdict};
use pictures::{Axis, Badge, Figure, Lines, Page, Series, Threshold, Tone, Unit};
use serde::Serialize;

use crate::output::{bytes, plural, printable};

/// So many drills of the past are told.
const HISTORY: usize = 20;

/// `opsctl.restore_drill/v1`.
#[derive(Debug, Serialize)]
pub(super) struct Document {
    schema: &'static str,
    r#type: &'static str,
    pub(super) proof: Proof,
    /// The name of the record in the repository.
    record: Option<Id>,
    /// Where the restored data is, with `--keep`.
    pub(super) kept: Option<String>,
    reason: Option<String>,
    /// The drills of this datastore, oldest first, this one the last.
    history: Vec<Past>,
}

/// A drill of the past.
#[derive(Debug, Serialize)]
struct Past {
    at: jiff::Timestamp,
    snapshot: Id,
    verdict: Verdict,
    rto_seconds: Option<f64>,
    rpo_seconds: Option<f64>,
    bytes: u64,
}

impl Document {
    pub(super) fn new(
        proof: Proof,
        record: Option<Id>,
        kept: Option<PathBuf>,
        reason: Option<String>,
        mut history: Vec<Proof>,
    ) -> Self {
        if record.is_none() {
            history.push(proof.clone());
        }
        let skip = history.len().saturating_sub(HISTORY);
        Self {
            schema: "opsctl.restore_drill/v1",
            r#type: "restore_drill",
            proof,
            record,
            kept: kept.map(|path| path.display().to_string()),
            reason,
            history: history
                .into_iter()
                .skip(skip)
                .map(|past| Past {
                    at: past.at,
                    snapshot: past.snapshot,
                    verdict: past.verdict,
                    rto_seconds: past.rto_seconds,
                    rpo_seconds: past.rpo_seconds,
                    bytes: past.bytes,
                })
                .collect(),
        }
    }

    /// One line about what came of it.
    pub(super) fn message(&self) -> String {
        let proof = &self.proof;
        let what = format!("snapshot {} of {}", proof.snapshot.short(), proof.datastore);
        let open: Vec<String> = proof
            .open()
            .take(3)
            .map(|check| format!("{} {}", one_line(&check.name), check.outcome.as_str()))
            .collect();
        match proof.verdict {
            Verdict::Proved => format!(
                "{what} is proved: back in {}, {} lost",
                measured(proof.rto_seconds),
                measured(proof.rpo_seconds)
            ),
            Verdict::NotProved => format!("{what} is not proved: {}", open.join(", ")),
            Verdict::Inconclusive => format!("whether {what} is proved cannot be told: {}", open.join(", ")),
        }
    }

    /// Label and value.
    fn rows(&self) -> Vec<(String, String)> {
        let proof = &self.proof;
        let promised = |limit: Option<f64>| {
            limit.map_or_else(String::new, |limit| format!(", at most {} promised", seconds(limit)))
        };
        let mut rows = vec![
            ("drill".to_owned(), format!("restore of {}", proof.datastore)),
            ("verdict".to_owned(), proof.verdict.as_str().to_owned()),
            (
                "snapshot".to_owned(),
                format!("{} of {}", proof.snapshot.short(), time(proof.snapshot_time)),
            ),
            ("recovered to".to_owned(), time(proof.moment)),
            (
                "time to recover (RTO)".to_owned(),
                format!(
                    "{}{}",
                    measured(proof.rto_seconds),
                    promised(proof.objectives.rto_seconds)
                ),
            ),
        ];
        for (name, took) in proof.phases.all() {
            rows.push((format!("  {name}"), seconds(took)));
        }
        rows.push((
            "data lost (RPO)".to_owned(),
            format!(
                "{}{}",
                measured(proof.rpo_seconds),
                promised(proof.objectives.rpo_seconds)
            ),
        ));
        rows.push((
            "restored".to_owned(),
            format!("{} in {}", bytes(proof.bytes), plural(proof.files, "file", "files")),
        ));
        // An objective that was met stands above.
        let shown = |check: &&Check| check.group != Group::Objective || check.outcome != Outcome::Met;
        for check in proof.checks.iter().filter(shown) {
            rows.push((check.name.clone(), told(check)));
        }
        rows
    }

    /// The lines for a terminal.
    pub(super) fn text(&self) -> String {
        let rows: Vec<(String, String)> = self
            .rows()
            .into_iter()
            .map(|(label, value)| {
                let indent = if label.starts_with(' ') { "  " } else { "" };
                (format!("{indent}{}", shortened(&one_line(&label))), one_line(&value))
            })
            .collect();
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        rows.iter()
            .map(|(label, value)| format!("{label:<width$}  {value}\n"))
            .collect()
    }

    /// The report as one page.
    pub(super) fn page(&self) -> String {
        let proof = &self.proof;
        let why = self
            .reason
            .as_ref()
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let mut page = Page::new(&format!("Drill: restore of {}", proof.datastore))
            .badge(badge(proof.verdict))
            .lead(&format!(
                "Snapshot {} of {} was brought back into a scratch place, checked and asked, by {}{why}.",
                proof.snapshot.short(),
                time(proof.snapshot_time),
                proof.actor
            ))
            .facts(&[
                ("Time to recover (RTO)", measured(proof.rto_seconds)),
                ("Data lost (RPO)", measured(proof.rpo_seconds)),
                ("Recovered to", time(proof.moment)),
                ("Restored", bytes(proof.bytes)),
            ])
            .section("Expectations")
            .table(
                &["What", "Expected", "Observed", ""],
                proof
                    .checks
                    .iter()
                    .map(|check| {
                        vec![
                            check.name.clone(),
                            check.expected.clone(),
                            check.observed.clone(),
                            check.outcome.as_str().to_owned(),
                        ]
                    })
                    .collect(),
            )
            .section("Where the time went")
            .table(
                &["Part", "Took"],
                proof
                    .phases
                    .all()
                    .into_iter()
                    .map(|(name, took)| vec![name.to_owned(), seconds(took)])
                    .collect(),
            )
            .section("History");
        let times: Vec<(f64, f64)> = self
            .history
            .iter()
            .enumerate()
            .filter_map(|(index, past)| Some((index as f64 + 1.0, past.rto_seconds?)))
            .collect();
        if times.len() > 1 {
            let promised = proof.objectives.rto_seconds.map(|limit| Threshold {
                value: limit,
                label: "promised".to_owned(),
                tone: Tone::Bad,
            });
            let chart = Lines {
                axis: Axis::Number("drill".to_owned()),
                unit: Unit::named("s"),
                low: Some(0.0),
                series: vec![Series::of("time to recover", Tone::Plain, times)],
                thresholds: promised.into_iter().collect(),
                ..Lines::default()
            };
            page = page.figure(&Figure {
                title: format!("Time to recover {}", proof.datastore),
                chart: Box::new(chart),
                height: 190.0,
                caption: "Measured by the last drills, oldest first.".to_owned(),
            });
        }
        let past = self.history.iter().rev().map(|past| {
            vec![
                time(past.at),
                past.snapshot.short(),
                past.verdict.as_str().to_owned(),
                measured(past.rto_seconds),
                measured(past.rpo_seconds),
                bytes(past.bytes),
            ]
        });
        page.table(
            &[
                "Drill",
                "Snapshot",
                "Verdict",
                "Time to recover",
                "Data lost",
                "Restored",
            ],
            past.collect(),
        )
        .footer(&format!(
            "Run {} in {}, {}, {}",
            proof.run.as_deref().unwrap_or("-"),
            proof.environment,
            time(proof.at),
            proof.tool_version
        ))
        .render()
    }
}

fn badge(verdict: Verdict) -> Badge {
    let tone = match verdict {
        Verdict::Proved => Tone::Good,
        Verdict::NotProved => Tone::Bad,
        Verdict::Inconclusive => Tone::Other,
    };
    Badge::new(verdict.as_str(), tone)
}

fn told(check: &Check) -> String {
    match check.outcome {
        Outcome::Met | Outcome::Skipped => format!("{}: {}", check.outcome.as_str(), check.observed),
        Outcome::NotMet | Outcome::Unknown => {
            format!(
                "{}: {}, expected {}",
                check.outcome.as_str(),
                check.observed,
                check.expected
            )
        }
    }
}

fn measured(figure: Option<f64>) -> String {
    figure.map_or_else(|| "not known".to_owned(), seconds)
}

fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// What restored data and queries say, on one line that steers nothing.
fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A query as a label; the page has it whole.
fn shortened(label: &str) -> String {
    const LONGEST: usize = 40;
    if label.chars().count() <= LONGEST {
        return label.to_owned();
    }
    label.chars().take(LONGEST - 1).chain(['…']).collect()
}
