//! `opsctl tour`: the whole job on the reference services, in a folder of its own, measured. The acts are in
//! [`crate::tour`].

use std::path::PathBuf;

use opsctl_load::Rate;

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::tour;

/// See the whole job on the reference services, measured
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Leave the services up at the end and print three commands to try next
    #[arg(long)]
    keep: bool,

    /// The folder to work in, which must be empty or not exist [default: a fresh temporary one]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,

    /// Use the services beside the opsctl executable as they are
    #[arg(long)]
    no_build: bool,

    /// How often customers come; fewer leave a slow machine the time that the objectives want
    #[arg(long, value_name = "RATE", default_value = "200/s")]
    rate: Rate,
}

fn help() -> String {
    format!(
        "Examples:\n  # In a checkout: builds, plays, measures, cleans up\n  cargo run --release --bin opsctl -- tour\n\n  \
         # Leave the shop up to play with it\n  opsctl tour --keep --dir /tmp/shop\n\n\
         Each act runs the command that you would type and measures what customers got meanwhile. Nothing of a tour\n\
         lies outside its folder; Ctrl-C takes everything down again.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::No, Exit::Interrupted])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let options = tour::Options {
        keep: args.keep,
        folder: args.dir.clone(),
        build: !args.no_build,
        rate: args.rate,
    };
    context.block_on(tour::run(context, options))
}
