//! `opsctl config`: what is in force, and whether the file is right.

mod check;
mod show;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Show and check opsctl.toml
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Args),
    Check(check::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Show(args) => show::run(&args, context),
        Command::Check(args) => check::run(&args, context),
    }
}
