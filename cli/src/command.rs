//! The commands: one file each, its path is what is typed. This file lists them and hands over.

mod backup;
mod completions;
mod config;
mod help;
mod init;
mod repository;
mod restore;
mod snapshot;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// What can be typed first.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Backup(backup::Args),
    Restore(restore::Args),
    Snapshot(snapshot::Args),
    Repository(repository::Args),
    Init(init::Args),
    Config(config::Args),
    Completions(completions::Args),
    Help(help::Args),
}

impl Command {
    /// Runs the command to its end.
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Backup(args) => backup::run(&args, context),
            Self::Restore(args) => restore::run(&args, context),
            Self::Snapshot(args) => snapshot::run(args, context),
            Self::Repository(args) => repository::run(args, context),
            Self::Init(args) => init::run(&args, context),
            Self::Config(args) => config::run(args, context),
            Self::Completions(args) => completions::run(&args, context),
            Self::Help(args) => help::run(&args, context),
        }
    }
}
