//! `opsctl repository check`: looks for damage; the structure always, the data if asked to.

use backups::{CheckOptions, ReadData, Severity};
use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, bytes, one_line, plural};
use crate::repository::{self, IfEmpty, Shown};

/// Look for damage in the repository
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Which one of opsctl.toml, instead of the environment's
    #[arg(value_name = "NAME")]
    name: Option<String>,

    /// Read all data, not only the structure
    #[arg(long, conflicts_with = "part")]
    read_data: bool,

    /// Read a part of the data: one of several equal parts (1/7: seven runs read all), or a share (5%) or size (500MB) that is picked anew each time
    #[arg(long = "read-data-subset", visible_alias = "part", value_name = "PART", value_parser = part)]
    part: Option<ReadData>,
}

fn part(text: &str) -> Result<ReadData, String> {
    let expected = || "expected a part such as 1/7, a share such as 5%, or a size such as 500MB".to_owned();
    if let Some((part, of)) = text.split_once('/') {
        let (part, of) = (part.parse().ok(), of.parse().ok());
        let part = part.zip(of).filter(|(part, of)| *part >= 1 && part <= of);
        let (part, of) = part.ok_or_else(|| format!("{}; of N/OF, N is 1 at least and not above OF", expected()))?;
        return Ok(ReadData::Part { part, of });
    }
    if let Some(percent) = text.strip_suffix('%') {
        let percent: Option<f64> = percent.trim().parse().ok();
        let percent = percent.filter(|percent| *percent > 0.0 && *percent <= 100.0);
        return percent
            .map(ReadData::Percent)
            .ok_or_else(|| format!("{}; a share is above 0% and up to 100%", expected()));
    }
    size(text)
        .filter(|bytes| *bytes > 0)
        .map(ReadData::Bytes)
        .ok_or_else(expected)
}

/// A size as restic has them: a number and a letter for powers of 1024, `B` or not.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let text = text
        .strip_suffix("IB")
        .or_else(|| text.strip_suffix('B'))
        .unwrap_or(&text);
    let power = text.chars().last().and_then(|unit| "KMGT".find(unit));
    let (number, shift) = power.map_or((text, 0), |power| (&text[..text.len() - 1], 10 * (power + 1)));
    number.trim().parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn help() -> String {
    format!(
        "Examples:\n  # Every Sunday, everything\n  opsctl repository check --read-data\n\n  \
         # Every night a seventh, so that a week reads all\n  opsctl repository check --read-data-subset 1/7\n\n\
         Damage is exit 4 and names the snapshots that it costs; `opsctl repository repair` repairs what can be repaired.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::No, Exit::Locked, Exit::Interrupted])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    repository: String,
    sound: bool,
    snapshots: u64,
    trees: u64,
    packs: u64,
    packs_read: u64,
    read_bytes: u64,
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    severity: &'static str,
    object: String,
    problem: String,
    /// Where a snapshot has it, if it is known.
    path: Option<String>,
    snapshots: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load(context)?;
    let declared = repository::declared(&config, args.name.as_deref())?;
    let read_data = match (args.read_data, args.part) {
        (true, _) => ReadData::All,
        (false, Some(part)) => part,
        (false, None) => ReadData::None,
    };
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let progress = Shown::start(context, format!("checking {}", declared.name));
        let checked = backups::check(&engine, &CheckOptions { read_data }, &progress, &cancel).await;
        drop(progress);
        let report = checked.map_err(|error| {
            error::backups::failure(format!("could not check repository `{}`", declared.name), &error)
        })?;
        let document = Document {
            schema: "opsctl.repository_check/v1",
            r#type: "repository_check",
            repository: declared.name.clone(),
            sound: report.is_sound(),
            snapshots: report.snapshots,
            trees: report.trees,
            packs: report.packs,
            packs_read: report.packs_read,
            read_bytes: report.bytes_read,
            findings: report
                .findings
                .iter()
                .map(|finding| Finding {
                    severity: severity(finding.severity).0,
                    object: finding.object.to_string(),
                    problem: finding.problem.to_string(),
                    path: finding.path.as_ref().map(|path| path.display().to_string()),
                    snapshots: finding.snapshots.iter().map(ToString::to_string).collect(),
                })
                .collect(),
        };
        context.out.answer(&document, |paint| {
            let mut text = String::new();
            for finding in &report.findings {
                let (word, style) = severity(finding.severity);
                text.push_str(&format!(
                    "{} {} is {}",
                    paint.apply(style, word),
                    finding.object,
                    finding.problem
                ));
                if let Some(path) = &finding.path {
                    text.push_str(&format!(", at /{}", one_line(&path.to_string_lossy())));
                }
                if !finding.snapshots.is_empty() {
                    let ids: Vec<String> = finding.snapshots.iter().map(backups::Id::short).collect();
                    text.push_str(&format!(", needed by {}", ids.join(", ")));
                }
                text.push('\n');
            }
            let read = if report.packs_read > 0 {
                format!(", {} read", bytes(report.bytes_read))
            } else {
                String::new()
            };
            text.push_str(&format!(
                "{}: {}, {}, {}{read}\n",
                if report.is_sound() { "sound" } else { "damaged" },
                plural(report.snapshots, "snapshot", "snapshots"),
                plural(report.trees, "tree", "trees"),
                plural(report.packs, "pack", "packs"),
            ));
            text
        })?;
        if !report.is_sound() {
            context
                .out
                .next("opsctl repository repair --dry-run   (with `--from REPOSITORY` lost data is taken from a copy)");
            return Ok(Exit::No);
        }
        Ok(Exit::Done)
    })
}

fn severity(severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Note => ("note", Style::Faint),
        Severity::Warning => ("warning", Style::Warning),
        Severity::Error => ("damage", Style::Error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_fraction_a_share_or_a_size() {
        for (text, expected) in [
            ("1/7", ReadData::Part { part: 1, of: 7 }),
            ("7/7", ReadData::Part { part: 7, of: 7 }),
            ("5%", ReadData::Percent(5.0)),
            ("0.5%", ReadData::Percent(0.5)),
            ("100%", ReadData::Percent(100.0)),
            ("500MB", ReadData::Bytes(500 << 20)),
            ("500M", ReadData::Bytes(500 << 20)),
            ("2GiB", ReadData::Bytes(2 << 30)),
            ("10g", ReadData::Bytes(10 << 30)),
            ("4096", ReadData::Bytes(4096)),
            ("1kb", ReadData::Bytes(1024)),
        ] {
            assert_eq!(part(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "0/7",
            "8/7",
            "1/0",
            "a/b",
            "0%",
            "101%",
            "-1%",
            "NaN%",
            "%",
            "0",
            "MB",
            "-5M",
            "1.5G",
            "99999999999T",
            "ßB",
        ] {
            assert!(part(text).is_err(), "{text}");
        }
    }
}
