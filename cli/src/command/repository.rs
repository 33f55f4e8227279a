//! `opsctl repository`: making, checking, repairing and copying the place where backups are kept.

mod check;
mod copy;
mod init;
mod repair;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Make, check, repair and copy the repository of the backups
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Check(check::Args),
    Repair(repair::Args),
    Copy(copy::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Init(args) => init::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Repair(args) => repair::run(&args, context),
        Command::Copy(args) => copy::run(&args, context),
    }
}
