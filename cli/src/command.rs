//! The commands: one file each, its path is what is typed. This file lists them and hands over.

mod alert;
mod backup;
mod completions;
mod config;
mod dashboard;
mod deploy;
mod down;
mod drill;
mod health;
mod help;
mod init;
pub(crate) mod internal;
mod load;
mod logs;
mod policy;
pub(crate) mod rbac;
mod recover;
mod recovery;
mod repository;
mod restore;
mod run;
mod schedule;
mod snapshot;
mod status;
mod tour;
mod trace;
mod up;
mod wal;

use clap::Subcommand;

use crate::context::Context;
use crate::error::Outcome;

/// What can be typed first.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Backup(backup::Args),
    Restore(restore::Args),
    Snapshot(snapshot::Args),
    Recovery(recovery::Args),
    Repository(repository::Args),
    Wal(wal::Args),
    Schedule(schedule::Args),
    Drill(drill::Args),
    Load(load::Args),
    Deploy(deploy::Args),
    Status(status::Args),
    Logs(logs::Args),
    Trace(trace::Args),
    Health(health::Args),
    Policy(policy::Args),
    Alert(alert::Args),
    Dashboard(dashboard::Args),
    Run(run::Args),
    Recover(recover::Args),
    Init(init::Args),
    Up(up::Args),
    Down(down::Args),
    Tour(tour::Args),
    Config(config::Args),
    Rbac(rbac::Args),
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
            Self::Recovery(args) => recovery::run(args, context),
            Self::Repository(args) => repository::run(args, context),
            Self::Wal(args) => wal::run(&args, context),
            Self::Schedule(args) => schedule::run(args, context),
            Self::Drill(args) => drill::run(args, context),
            Self::Load(args) => load::run(args, context),
            Self::Deploy(args) => deploy::run(args, context),
            Self::Status(args) => status::run(&args, context),
            Self::Logs(args) => logs::run(&args, context),
            Self::Trace(args) => trace::run(&args, context),
            Self::Health(args) => health::run(args, context),
            Self::Policy(args) => policy::run(args, context),
            Self::Alert(args) => alert::run(args, context),
            Self::Dashboard(args) => dashboard::run(args, context),
            Self::Run(args) => run::run(args, context),
            Self::Recover(args) => recover::run(&args, context),
            Self::Init(args) => init::run(&args, context),
            Self::Up(args) => up::run(&args, context),
            Self::Down(args) => down::run(&args, context),
            Self::Tour(args) => tour::run(&args, context),
            Self::Config(args) => config::run(args, context),
            Self::Rbac(args) => rbac::run(&args, context),
            Self::Completions(args) => completions::run(&args, context),
            Self::Help(args) => help::run(&args, context),
        }
    }
}
