//! `opsctl repository`: the place where backups are kept: made, checked, repaired, copied, freed of what nobody needs,
//! locked and opened.

mod check;
mod copy;
mod forget;
mod init;
mod key;
mod prune;
mod repair;
mod unlock;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Make, check, repair and copy repositories of backups
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
    Forget(forget::Args),
    Prune(prune::Args),
    Unlock(unlock::Args),
    Key(key::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Init(args) => init::run(&args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Repair(args) => repair::run(&args, context),
        Command::Copy(args) => copy::run(&args, context),
        Command::Forget(args) => forget::run(&args, context),
        Command::Prune(args) => prune::run(&args, context),
        Command::Unlock(args) => unlock::run(&args, context),
        Command::Key(args) => key::run(&args, context),
    }
}
