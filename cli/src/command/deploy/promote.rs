//! `opsctl deploy promote`: makes the canary the stable version now.

use opsctl_platform::run::this_process;
use opsctl_rollouts::request_promote;

use super::active;
use crate::attach;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, words};

/// Make the canary the stable version now
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only canary
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Whatever the evidence says. The old version is kept for the bake time and comes back when objectives are missed.\n\n{}",
        Exit::section(&[
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let record = context
        .block_on(active(&opened, args.service.as_deref()))?
        .ok_or_else(|| {
            Failure::usage("no_canary", "there is no canary to promote").help("opsctl deploy canary --weight 10")
        })?;
    let service = words::target(&record).to_owned();
    let stake = Stake {
        question: format!("promote the canary of `{service}` (run {})?", record.id),
        name: &service,
        consequence: Consequence::UndoneByItself,
        protected: opened.config.protected(),
    };
    let record = approve(context, &args.consent, record, &stake)?.into_plan();
    context.block_on(async {
        let worker = attach::resume_if_lost(context, &opened, &record).await?;
        request_promote(opened.platform.as_ref(), &record.id, &this_process(&record.id))
            .await
            .map_err(|error| {
                error::platform::failure(format!("could not promote the canary of `{service}`"), &error)
            })?;
        let followed = attach::until_over(context, &opened, &record.id, worker).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else {
            context
                .out
                .data(&super::status::text(context, followed.report.as_ref()))?;
        }
        attach::tell_end(context, &opened, &followed);
        Ok(followed.exit)
    })
}
