//! `opsctl repository`: making and checking the place where backups are kept.

mod check;
mod init;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Make and check the repository of the backups
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Check(check::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Init(args) => init::run(&args, context),
        Command::Check(args) => check::run(&args, context),
    }
}
