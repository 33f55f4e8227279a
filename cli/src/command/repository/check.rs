//! `opsctl repository check`: looks for damage; the structure always, the data if asked to.

use backups::{CheckOptions, ReadData, Severity};
use serde::Serialize;

use crate::config;
use crate::context::Context;
use crate::error::{self, Outcome};
use crate::exit::Exit;
use crate::output::{Style, bytes, plural, printable};
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

    /// Read one of several equal parts, for example 1/7, so that seven runs read all
    #[arg(long, value_name = "N/OF", value_parser = part)]
    part: Option<(u64, u64)>,
}

fn part(text: &str) -> Result<(u64, u64), String> {
    text.split_once('/')
        .and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)))
        .filter(|(part, of)| *part >= 1 && part <= of)
        .ok_or_else(|| "expected two numbers such as 1/7, the first not above the second".to_owned())
}

fn help() -> String {
    format!(
        "Examples:\n  # Every Sunday, everything\n  opsctl repository check --read-data\n\n\
         Damage is exit 4 and names the snapshots that it costs.\n\n{}",
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
        (false, Some((part, of))) => ReadData::Part { part, of },
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
                    text.push_str(&format!(", at /{}", printable(&path.to_string_lossy())));
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
        Ok(if report.is_sound() { Exit::Done } else { Exit::No })
    })
}

fn severity(severity: Severity) -> (&'static str, Style) {
    match severity {
        Severity::Note => ("note", Style::Faint),
        Severity::Warning => ("warning", Style::Warning),
        Severity::Error => ("damage", Style::Error),
    }
}
