//! `opsctl run attach`: follows a run that works in the background, and goes on with one whose worker was lost.

use crate::attach;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::platform;

/// Follow a run to its end
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The run, or its first characters; without it the newest
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

fn help() -> String {
    format!(
        "Ctrl-C aborts the run and undoes it; closing the terminal changes nothing. A canary whose judge was lost\n\
         goes on with the same statistics.\n\n{}",
        Exit::section(&[
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Inconclusive,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let all = platform::open_all(context)?;
    context.block_on(async {
        let (opened, record) = platform::find_run_in(all, args.run.as_deref()).await?;
        let worker = attach::resume_if_lost(context, &opened, &record).await?;
        attach::follow(context, &opened, &record.id, worker).await
    })
}
