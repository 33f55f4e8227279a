//! `opsctl wal`: what a PostgreSQL server calls by itself, `archive_command` and `restore_command`.

mod get;
mod push;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// What PostgreSQL calls: hand a file of its log over, or take one
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Push(push::Args),
    Get(get::Args),
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match &args.command {
        Command::Push(args) => push::run(args, context),
        Command::Get(args) => get::run(args, context),
    }
}
