//! `opsctl alert`: rules and routes are derived from the catalogue, checked and tested before they run; what fires is
//! told, and silenced. It evaluates no rule itself: that is Prometheus'.

mod check;
mod files;
mod render;
mod silence;
mod status;
mod test;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// Derive, check and test alert rules, and tell what fires
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    Silence(silence::Args),
    Check(check::Args),
    Test(test::Args),
    Render(render::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Status(args) => status::run(&args, context),
        Command::Silence(args) => silence::run(args, context),
        Command::Check(args) => check::run(&args, context),
        Command::Test(args) => test::run(&args, context),
        Command::Render(args) => render::run(&args, context),
    }
}
