//! `opsctl recovery status`: for each datastore what would be lost now, how long coming back takes, when that was proved,
//! against what was promised; and which alerts drills have proved.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use backups::proof::Outcome as Kept;
use backups::proof::judge::seconds;
use backups::proof::standing::{Promise, Standing};
use opsctl_drills::expectation::proved::Standing as AlertStanding;
use serde::Serialize;

use super::log::Log;
use super::stores::Known;
use super::{alerts, log, metrics};
use crate::config;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, Table, bytes};

/// Tell what would be lost, how long coming back takes, and whether that is proved
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A datastore, or a service (the stores that it uses); without it every datastore
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Print metrics in Prometheus' text format instead
    #[arg(long, conflicts_with = "json")]
    metrics: bool,

    /// Write the metrics to this file instead, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE")]
    textfile: Option<PathBuf>,
}

fn help() -> String {
    format!(
        "Examples:\n  # Would we keep what we promised?\n  opsctl recovery status\n\n  \
         # From cron, for Prometheus\n  opsctl recovery status --textfile /var/lib/node_exporter/opsctl.prom\n\n\
         Of a PostgreSQL that is saved as a whole the server is asked, too, for five seconds at most: whether its log is\n\
         received, and how much of it the server keeps. All else is the repository's to tell.\n\n\
         4: nothing whole was backed up or shipped within the RPO, the last drill took longer than the RTO or failed, or the\n\
         last proof is older than `prove_every`. Below are the alerts that drills expected (`drill … --expect-alert`): when each\n\
         was last proved, how soon it fired, somebody was told, and it was resolved; they decide no exit code. 9: nothing is known yet, such as before the first drill.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::No, Exit::Inconclusive])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    /// Absent where nothing is backed up.
    repository: Option<&'a str>,
    /// The time of the store, which ages are counted from.
    time: jiff::Timestamp,
    outcome: Kept,
    datastores: Vec<Told<'a>>,
    /// What drills have proved of alerts.
    alerts: Vec<AlertStanding>,
    /// What could not be read, and may be of any datastore.
    damaged: &'a [String],
}

#[derive(Serialize)]
struct Told<'a> {
    datastore: &'a str,
    kind: &'static str,
    outcome: Kept,
    /// When a schedule backs it up.
    next_backup: Option<jiff::Timestamp>,
    #[serde(flatten)]
    standing: Standing,
    /// The log of a PostgreSQL that is saved as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<&'a Log>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    context.block_on(async {
        let config = config::load(context)?;
        let target = args.target.as_deref();
        // A collector has no use for them.
        let alerts = if args.metrics || args.textfile.is_some() {
            Vec::new()
        } else {
            alerts::read(context, &config, target).await
        };
        // Somebody who backs nothing up may drill all the same.
        let alone = config.datastores.is_empty() && !alerts.is_empty();
        let mut known = match Known::read(context, target).await {
            Err(_) if alone => None,
            known => Some(known?),
        };
        if let Some(known) = &mut known {
            known.ask_servers(context).await;
        }
        let now = known.as_ref().map_or_else(|| context.now(), |known| known.now);
        let datastores: Vec<Told<'_>> = known
            .iter()
            .flat_map(|known| &known.stores)
            .map(|store| {
                let standing = store.standing(now);
                Told {
                    datastore: &store.declared.name,
                    kind: store.declared.kind.word(),
                    outcome: standing.outcome(),
                    next_backup: store.next_backup,
                    standing,
                    log: store.log.as_ref(),
                }
            })
            .collect();
        let document = Document {
            schema: "opsctl.recovery/v1",
            r#type: "recovery_status",
            environment: &config.environment.name,
            repository: known.as_ref().map(|known| known.repository.name.as_str()),
            time: now,
            outcome: together(&datastores),
            datastores,
            alerts,
            damaged: known.as_ref().map_or(&[], |known| &known.damaged),
        };
        let standings = document
            .datastores
            .iter()
            .map(|told| (told.datastore, (&told.standing, told.log)));
        let exposition = metrics::render(document.environment, standings);
        if let Some(file) = &args.textfile {
            let file = context.absolute(file);
            replace(&file, &exposition)
                .map_err(|error| Failure::io(format!("could not write `{}`", context.shown(&file)), &error))?;
        }
        if args.metrics {
            context.out.data(&exposition)?;
        } else if args.textfile.is_none() || context.out.json {
            context.out.answer(&document, |paint| {
                let mut tables = Vec::new();
                if !document.datastores.is_empty() || document.alerts.is_empty() {
                    tables.push(table(&document));
                }
                let logs = document.datastores.iter();
                let logs = logs.filter_map(|told| Some((told.datastore, told.log?)));
                if logs.clone().next().is_some() {
                    tables.push(log::table(logs, document.time));
                }
                if !document.alerts.is_empty() {
                    tables.push(alerts::table(&document.alerts, document.time));
                }
                let told: Vec<String> = tables
                    .iter()
                    .map(|table| table.render(paint, context.out.width))
                    .collect();
                told.join("\n")
            })?;
        }
        tell(context, &document);
        Ok(match document.outcome {
            Kept::Met => Exit::Done,
            Kept::NotMet => Exit::No,
            Kept::Unknown | Kept::Skipped => Exit::Inconclusive,
        })
    })
}

fn together(datastores: &[Told<'_>]) -> Kept {
    let any = |outcome| datastores.iter().any(|told| told.outcome == outcome);
    if any(Kept::NotMet) {
        Kept::NotMet
    } else if any(Kept::Unknown) {
        Kept::Unknown
    } else {
        Kept::Met
    }
}

fn table(document: &Document<'_>) -> Table {
    let mut table = Table::new(&[
        "datastore",
        "state",
        "last backup",
        "next",
        "rpo",
        "rto",
        "proved",
        "size",
        "trend",
    ]);
    for told in &document.datastores {
        let standing = &told.standing;
        let (state, style) = match told.outcome {
            Kept::Met => ("kept", Style::Done),
            Kept::NotMet => ("missed", Style::Error),
            Kept::Unknown | Kept::Skipped => ("not known", Style::Warning),
        };
        let last = standing.last_backup.as_ref();
        let backup = last.map_or_else(
            || "never".to_owned(),
            |last| {
                let partial = if last.partial { ", partial" } else { "" };
                format!("{} ago{partial}", seconds(last.age_seconds))
            },
        );
        let proved = match (&standing.last_proof, &standing.last_drill) {
            (Some(proof), _) => format!("{} ago", seconds(proof.age_seconds)),
            (None, Some(drill)) => drill.verdict.as_str().to_owned(),
            (None, None) => "never".to_owned(),
        };
        table.styled(vec![
            (told.datastore.to_owned(), None),
            (state.to_owned(), Some(style)),
            (backup, None),
            (
                told.next_backup
                    .map_or_else(|| "-".to_owned(), |next| next.strftime("%m-%d %H:%MZ").to_string()),
                None,
            ),
            (
                against(standing, "rpo", |standing| {
                    let drill = standing.last_drill.as_ref()?;
                    drill.rpo_seconds
                }),
                None,
            ),
            (
                against(standing, "rto", |standing| {
                    let drill = standing.last_drill.as_ref()?;
                    drill.rto_seconds
                }),
                None,
            ),
            (proved, None),
            (last.and_then(|last| last.bytes).map(bytes).unwrap_or_default(), None),
            (trend(standing), Some(Style::Faint)),
        ]);
    }
    table
}

/// `4.1 s of 30 min`: what was measured of what is promised.
fn against(standing: &Standing, promise: &str, measured: impl Fn(&Standing) -> Option<f64>) -> String {
    let limit = |limit| format!(" of {}", seconds(limit));
    let (measured, promised) = match standing.promise(promise) {
        Some(promise) => (promise.measured_seconds, promise.objective_seconds),
        None => (measured(standing), None),
    };
    format!(
        "{}{}",
        measured.map_or_else(|| "?".to_owned(), seconds),
        promised.map(limit).unwrap_or_default()
    )
}

fn trend(standing: &Standing) -> String {
    let mut told = Vec::new();
    if let Some(a_day) = standing.trend.bytes_a_day {
        let sign = if a_day < 0.0 { '-' } else { '+' };
        told.push(format!("{sign}{} a day", bytes(a_day.abs() as u64)));
    }
    if let Some(ratio) = standing.trend.rto_ratio {
        told.push(format!("rto {:+.0} %", (ratio - 1.0) * 100.0));
    }
    told.join(", ")
}

fn tell(context: &Context, document: &Document<'_>) {
    let missed = |promise: &&Promise| promise.outcome != Kept::Met;
    for told in &document.datastores {
        for promise in told.standing.promises.iter().filter(missed) {
            let limit = promise
                .objective_seconds
                .map_or_else(String::new, |limit| format!(" {}", seconds(limit)));
            let why = promise.told.as_deref().unwrap_or_default();
            context
                .out
                .warn(format!("{}: {}{limit}: {why}", told.datastore, promise.name));
        }
        for worry in told.log.iter().flat_map(|log| log.worries()) {
            context.out.warn(format!("{}: {worry}", told.datastore));
        }
        if told.log.is_some_and(Log::is_not_received) {
            context.out.next(format!("opsctl backup {} --follow", told.datastore));
        } else if told.standing.last_backup.is_none() {
            context.out.next(format!("opsctl backup {}", told.datastore));
        } else if told.standing.last_drill.is_none() {
            context.out.next(format!("opsctl drill restore {}", told.datastore));
        }
    }
}

/// Replaces a file as a whole: a collector never reads half of it. Others may read it, for it is theirs to collect.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // The collector reads what ends in `.prom`, and this does not.
    let temporary = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut half = File::create(&temporary)?;
        half.set_permissions(Permissions::from_mode(0o644))?;
        half.write_all(text.as_bytes())?;
        half.sync_all()?;
        fs::rename(&temporary, file)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}
