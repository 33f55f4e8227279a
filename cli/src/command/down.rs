//! `opsctl down`: aborts what runs are under way, stops services, proxy and supervisor, and leaves nothing.

use opsctl_platform::local::down::{self, DownOptions, DownOutcome};
use opsctl_platform::run::{orphans, recover};
use serde::Serialize;

use crate::attach;
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::plural;
use crate::platform::{self, Opened};

/// Stop everything that `up` started
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {}

fn help() -> String {
    format!(
        "Drills and canaries are aborted and undone first; requests under way are finished. Data stays.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::UndoIncomplete, Exit::Locked])
    )
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    r#type: &'static str,
    #[serde(flatten)]
    outcome: DownOutcome,
}

/// Runs the command.
pub(crate) fn run(_: &Args, context: &Context) -> Outcome {
    let opened = platform::open_local(context, crate::config::load(context)?, "opsctl down")?;
    context.block_on(async {
        let local = opened.local()?;
        recover_dead(&opened).await?;
        let line = context.out.progress("stopping");
        let options = DownOptions {
            actor: context.actor(),
            ..DownOptions::default()
        };
        let outcome = down::down(local, &options)
            .await
            .map_err(|error| error::platform::failure("could not stop everything", &error));
        drop(line);
        let outcome = outcome?;
        for run in &outcome.incomplete {
            context
                .out
                .warn(format!("run {run} left something behind: opsctl recover {run}"));
        }
        let incomplete = !outcome.incomplete.is_empty();
        let document = Document {
            schema: "opsctl.down/v1",
            r#type: "down",
            outcome,
        };
        context.out.answer(&document, |_| {
            document
                .outcome
                .services
                .iter()
                .map(|name| format!("{name}\n"))
                .collect()
        })?;
        if document.outcome.services.is_empty() {
            context.out.note("nothing to do: nothing ran");
        } else {
            context.out.done(format!(
                "stopped {}",
                plural(document.outcome.services.len() as u64, "service", "services")
            ));
        }
        Ok(if incomplete { Exit::UndoIncomplete } else { Exit::Done })
    })
}

/// Dead runs first, with datastores known: a restore that was killed is taken back before its services end for good.
async fn recover_dead(opened: &Opened) -> Result<(), Failure> {
    let failed = |error| error::platform::run_failure("could not undo a dead run", &error);
    for orphan in orphans(opened.platform.as_ref()).await.map_err(failed)? {
        let id = &orphan.record.id;
        let journal = attach::journal(opened, id, "could not undo a dead run".to_owned())?;
        recover(opened.platform.as_ref(), id, &journal).await.map_err(failed)?;
    }
    Ok(())
}
