//! `opsctl run`: what was started, what it did, and following what runs.

mod attach;
mod list;
mod show;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// List, show and follow runs: drills, canaries, restores
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Show(show::Args),
    Attach(attach::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::List(args) => list::run(&args, context),
        Command::Show(args) => show::run(&args, context),
        Command::Attach(args) => attach::run(&args, context),
    }
}
