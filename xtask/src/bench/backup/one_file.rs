//! One file of a gigabyte, of bytes without a pattern and of text: what a backup and a restore cost, and how large the
//! repository becomes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::tools::Store;
use super::{MIB, Part, Tools, data};
use crate::bench::material::size_of;
use crate::bench::process::{Cost, cost};
use crate::bench::requirement::Requirement;
use crate::bench::rounds::median;

const SIZE_MIB: usize = 1024;
const ROUNDS: usize = 3;

/// What is backed up, and the most CPU time that ours may take, as a part of restic's.
const KINDS: [(&str, Fill, f64); 2] = [("random", data::random, 0.7), ("COPY text", data::copy_text, 0.5)];
type Fill = fn(&Path, usize) -> Result<()>;

/// How many times as long as ours restic must take.
const FASTER: f64 = 1.5;
/// The most that our repository may have, as a part of restic's.
const SIZE: f64 = 1.02;

/// One round of one tool.
struct Round {
    backup: Cost,
    restore: Cost,
    repository: f64,
}

/// Measures both kinds of data with all tools.
pub(super) async fn measure(tools: &Tools) -> Result<Part> {
    let mut part = Part {
        method: format!(
            "One file of {SIZE_MIB} MiB, a repository in a local folder; {ROUNDS} rounds, medians, quotients within a round."
        ),
        ..Part::default()
    };
    for (kind, fill, bar) in KINDS {
        let scratch = tempfile::tempdir().context("could not make a scratch folder")?;
        let data = scratch.path().join("data");
        fs::create_dir(&data)?;
        fill(&data.join("payload"), SIZE_MIB)?;
        let mut rounds: [Vec<Round>; 3] = Default::default();
        for round in 1..=ROUNDS {
            for (tool, rounds) in tools.all().into_iter().zip(&mut rounds) {
                let place = scratch.path().join(tool.name());
                fs::create_dir(&place)?;
                tool.prepare(&place, Store::Folder, &data)?;
                let backup = cost(tool.backup(&place, &data)).await?;
                let repository = size_of(&place.join("repo"))? as f64;
                let restore = cost(tool.restore(&place)).await?;
                fs::remove_dir_all(&place)?;
                println!(
                    "{kind}, round {round}, {}: backup {backup:.2?}, restore {restore:.2?}",
                    tool.name()
                );
                rounds.push(Round {
                    backup,
                    restore,
                    repository,
                });
            }
        }
        part.judge(kind, bar, &rounds);
        part.tell(kind, &rounds);
    }
    Ok(part)
}

impl Part {
    fn judge(&mut self, kind: &str, bar: f64, [ours, restic, _]: &[Vec<Round>; 3]) {
        let quotient = |figure: fn(&Round) -> f64| {
            let quotients = ours
                .iter()
                .zip(restic)
                .map(|(ours, theirs)| figure(ours) / figure(theirs));
            median(quotients.collect())
        };
        let cpu = quotient(|round| round.backup.cpu);
        let faster = 1.0 / quotient(|round| round.backup.wall);
        let size = quotient(|round| round.repository);
        self.required.extend([
            Requirement::at_most(&format!("CPU of a backup, {kind}"), Some(cpu), bar, "times restic's"),
            Requirement::at_least(
                &format!("speed of a backup, {kind}"),
                Some(faster),
                FASTER,
                "times restic's",
            ),
            Requirement::at_most(
                &format!("size of the repository, {kind}"),
                Some(size),
                SIZE,
                "times restic's",
            ),
        ]);
    }

    fn tell(&mut self, kind: &str, rounds: &[Vec<Round>; 3]) {
        let mut row = |what: &str, unit: &str, digits: usize, figure: fn(&Round) -> f64| {
            let figures = rounds
                .each_ref()
                .map(|rounds| median(rounds.iter().map(figure).collect()));
            self.row(&format!("{what}, {kind}"), unit, &figures, digits);
        };
        row("backup", "CPU s/GiB", 2, |round| round.backup.cpu);
        row("backup", "wall s/GiB", 2, |round| round.backup.wall);
        row("backup", "peak MiB", 0, |round| round.backup.mib);
        row("repository", "MiB/GiB", 0, |round| round.repository / MIB);
        row("restore", "CPU s/GiB", 2, |round| round.restore.cpu);
        row("restore", "wall s/GiB", 2, |round| round.restore.wall);
        row("restore", "peak MiB", 0, |round| round.restore.mib);
    }
}
