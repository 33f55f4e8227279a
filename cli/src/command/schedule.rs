//! `opsctl schedule`: what runs by itself, and when.

mod export;
mod list;
mod next;
mod run;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Run backups, drills and cleanups when they are due
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Next(next::Args),
    Run(run::Args),
    Export(export::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::List(args) => list::run(&args, context),
        Command::Next(args) => next::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Export(args) => export::run(&args, context),
    }
}

/// A time as people of the place read it.
fn local(time: jiff::Timestamp, zone: &jiff::tz::TimeZone) -> String {
    let zoned = time.to_zoned(zone.clone());
    let name = zone.iana_name().filter(|name| *name != "UTC").unwrap_or("UTC");
    zoned.strftime(&format!("%a %Y-%m-%d %H:%M:%S %:z {name}")).to_string()
}
