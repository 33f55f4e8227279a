//! `opsctl drill`: breaking something on purpose, within guards, and measuring what users notice.

mod conduct;
mod db_down;
mod expected;
mod latency;
mod list;
mod node_drain;
mod pod_kill;
mod restore;
mod run;
mod service_down;

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
    ServiceDown(service_down::Args),
    Latency(latency::Args),
    DbDown(db_down::Args),
    NodeDrain(node_drain::Args),
    Run(run::Args),
    Restore(restore::Args),
    List(list::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    dispatch(args.command, context)
}

fn dispatch(command: Command, context: &Context) -> Outcome {
    match command {
        Command::PodKill(args) => pod_kill::run(&args, context),
        Command::ServiceDown(args) => service_down::run(&args, context),
        Command::Latency(args) => latency::run(&args, context),
        Command::DbDown(args) => db_down::run(&args, context),
        Command::NodeDrain(args) => node_drain::run(&args, context),
        Command::Run(args) => run::run(&args, context),
        Command::Restore(args) => restore::run(&args, context),
        Command::List(args) => list::run(&args, context),
    }
}
