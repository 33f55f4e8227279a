//! `opsctl deploy rollback`: returns to the version before. While a canary is on or baking this takes seconds: the old
//! version still runs at full capacity.

use opsctl_platform::run::Reason;

use super::{active, canaries};
use crate::attach;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, words};

/// Return to the version before
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it that of the last canary
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

fn help() -> String {
    format!(
        "Until the bake time is over the old version runs beside the new one and gets the traffic back at once.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::UndoIncomplete])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    context.block_on(async {
        let Some(record) = active(&opened, args.service.as_deref()).await? else {
            let last = canaries(&opened, args.service.as_deref()).await?.pop();
            let failure = Failure::usage("no_canary", "there is no canary whose old version still runs");
            return Err(match last {
                Some(last) => failure
                    .cause(format!(
                        "the last one, {} of `{}`, is over",
                        last.id,
                        words::target(&last)
                    ))
                    .help(format!(
                        "ship the old version: opsctl deploy canary {} --version OLD --steps 10:5m,100",
                        words::target(&last)
                    )),
                None => failure,
            });
        };
        attach::resume_if_lost(context, &opened, &record).await?;
        attach::abort(context, &opened, &record.id, Reason::Abort).await?;
        let followed = attach::until_over(context, &opened, &record.id).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else {
            context
                .out
                .data(&super::status::text(context, followed.report.as_ref()))?;
        }
        attach::tell_end(context, &opened, &followed);
        Ok(if followed.exit == Exit::No {
            Exit::Done
        } else {
            followed.exit
        })
    })
}
