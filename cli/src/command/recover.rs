//! `opsctl recover`: undoes what dead runs left. It never asks and never forces: it puts values back that are still as the
//! run made them, and reports the others.

use opsctl_platform::run::{Outcome as RunOutcome, Recovered, RunRecord, orphans, recover};
use serde::Serialize;

use crate::attach;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, Opened, words};
use crate::retention;

/// Undo what dead runs left behind
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The run, or its first characters; without it every run that needs it
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # After a crash, or when another command warned of it\n  opsctl recover\n\n\
         A run whose worker lives is not touched; `opsctl run attach` follows it.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::UndoIncomplete, Exit::Locked])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    runs: Vec<Told>,
}

#[derive(Serialize)]
struct Told {
    run: String,
    kind: String,
    target: String,
    state: &'static str,
    conflicts: Vec<String>,
    failures: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    context.block_on(async {
        adopt(context, &opened).await?;
        let records: Vec<RunRecord> = match &args.run {
            Some(run) => vec![platform::find_run(&opened, Some(run)).await?],
            None => orphans(opened.platform.as_ref())
                .await
                .map_err(|error| error::platform::run_failure("could not look for dead runs", &error))?
                .into_iter()
                .map(|orphan| orphan.record)
                .collect(),
        };
        let mut document = Document {
            schema: "opsctl.recover/v1",
            r#type: "recover",
            runs: Vec::new(),
        };
        for record in records {
            document.runs.push(one(&opened, &record).await?);
        }
        if let Some(local) = opened.here() {
            retention::after_run(local).await;
        }
        context.out.answer(&document, |_| {
            document
                .runs
                .iter()
                .map(|told| {
                    let mut text = format!(
                        "{}  {} {}: {}\n",
                        told.run,
                        told.kind,
                        told.target,
                        told.state.replace('_', " ")
                    );
                    for line in told.conflicts.iter().chain(&told.failures) {
                        text.push_str(&format!("  {line}\n"));
                    }
                    text
                })
                .collect()
        })?;
        if document.runs.is_empty() {
            context.out.note("nothing to do: no run left anything behind");
        }
        Ok(document
            .runs
            .iter()
            .map(|told| match told.state {
                "undo_incomplete" => Exit::UndoIncomplete,
                "running" => Exit::Locked,
                _ => Exit::Done,
            })
            .max()
            .unwrap_or(Exit::Done))
    })
}

/// Changes whose record is gone are noted on the objects themselves: they get a record again.
async fn adopt(context: &Context, opened: &Opened) -> Result<(), Failure> {
    let Some(there) = opened.there() else { return Ok(()) };
    let adopted = there.kube.strays().await;
    for record in
        adopted.map_err(|error| error::platform::failure("could not look for changes without a record", &error))?
    {
        context.out.note(format!(
            "the record of run {} ({} {}) was gone; what it had changed is noted on the objects",
            record.id,
            record.kind,
            words::target(&record)
        ));
    }
    Ok(())
}

async fn one(opened: &Opened, record: &RunRecord) -> Result<Told, Failure> {
    let what = || format!("could not recover run `{}`", record.id);
    let journal = attach::journal(opened, &record.id, what())?;
    let recovered = recover(opened.platform.as_ref(), &record.id, &journal)
        .await
        .map_err(|error| error::platform::run_failure(what(), &error))?;
    let mut told = Told {
        run: record.id.clone(),
        kind: record.kind.clone(),
        target: words::target(record).to_owned(),
        state: "nothing_to_do",
        conflicts: Vec::new(),
        failures: Vec::new(),
    };
    match recovered {
        Recovered::Nothing => {}
        Recovered::Running(_) => told.state = "running",
        Recovered::Closed { record, report } => {
            told.state = if record.outcome == Some(RunOutcome::UndoIncomplete) {
                "undo_incomplete"
            } else {
                "undone"
            };
            told.conflicts = report
                .conflicts()
                .map(|step| format!("{} {}", step.field, words::undo(step)))
                .collect();
            told.failures = report
                .failures()
                .map(|step| format!("{} {}", step.field, words::undo(step)))
                .collect();
        }
    }
    Ok(told)
}
