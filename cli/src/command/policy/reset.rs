//! `opsctl policy reset`: ends what was forced, and a break, at once.

use serde_json::json;

use super::change::{self, Wanted};
use crate::consent::ConsentArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;

/// Let a breaker decide by itself again, beginning closed
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service whose calls the breaker guards
    #[arg(value_name = "SERVICE")]
    service: String,

    /// The policy, as `policy show` names it
    #[arg(value_name = "POLICY")]
    policy: String,

    /// Only on this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Say what would be reset, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # The peer is back before the forced time is over\n  opsctl policy reset orders payments\n\n\
         An open breaker is closed as well; it opens again when calls go on failing. Exit 3: some instances were not\n\
         changed, and are listed.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::Partial, Exit::Refused, Exit::Unreachable])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    change::run(
        context,
        &Wanted {
            service: &args.service,
            policy: &args.policy,
            instance: args.instance.as_deref(),
            action: "reset",
            what: format!("reset the breaker `{}`", args.policy),
            done: "decides by itself again".to_owned(),
            body: json!({}),
            dry_run: args.dry_run,
            consent: &args.consent,
        },
    )
}
