//! The commands: one file each, its path is what is typed. This file lists them and hands over.

mod completions;
mod config;
mod help;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// What can be typed first.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Config(config::Args),
    Completions(completions::Args),
    Help(help::Args),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Config(args) => config::run(args, context),
            Self::Completions(args) => completions::run(&args, context),
            Self::Help(args) => help::run(&args, context),
        }
    }
}
