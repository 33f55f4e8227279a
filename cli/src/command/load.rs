//! `opsctl load`: sending requests at a rate and measuring what comes back.

mod run;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Send requests at a rate and measure
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Run(args) => run::run(&args, context),
    }
}
