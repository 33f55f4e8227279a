//! `opsctl recovery`: whether what was promised about losing data and coming back would be kept, and how to come back.

mod alerts;
mod log;
mod metrics;
mod report;
mod status;
mod stores;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Tell what would be lost, and how to come back
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    Report(report::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Status(args) => status::run(&args, context),
        Command::Report(args) => report::run(&args, context),
    }
}
