//! `opsctl drill`: breaking something on purpose, within guards, and measuring what users notice.

mod list;
mod pod_kill;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Break something on purpose, measure what users notice
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    PodKill(pod_kill::Args),
    List(list::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::PodKill(args) => pod_kill::run(&args, context),
        Command::List(args) => list::run(&args, context),
    }
}
