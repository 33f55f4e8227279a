//! `opsctl deploy abort`: takes the canary away. It never asks, and doing it twice is doing it once.

use opsctl_platform::run::Reason;

use super::active;
use crate::attach;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::platform;

/// Take the canary away
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only canary
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

fn help() -> String {
    format!(
        "Without a canary it changes nothing and ends with 0.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::UndoIncomplete])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    context.block_on(async {
        let Some(record) = active(&opened, args.service.as_deref()).await? else {
            context.out.answer(&serde_json::Value::Null, |_| String::new())?;
            context.out.note("nothing to do: there is no canary");
            return Ok(Exit::Done);
        };
        let worker = attach::resume_if_lost(context, &opened, &record).await?;
        attach::abort(context, &opened, &record.id, Reason::Abort).await?;
        let followed = attach::until_over(context, &opened, &record.id, worker).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else {
            context
                .out
                .data(&super::status::text(context, followed.report.as_ref()))?;
        }
        attach::tell_end(context, &opened, &followed);
        // What was asked for was done.
        Ok(if followed.exit == Exit::No {
            Exit::Done
        } else {
            followed.exit
        })
    })
}
