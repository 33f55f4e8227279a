//! `opsctl internal`: what opsctl starts itself, in the background. Nobody types it, so it is no part of the tree that
//! help, completions and errors are made from.

mod reference;

use clap::{Parser, Subcommand};

use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::internal::{self, Place};

/// What opsctl starts itself
#[derive(Debug, Parser)]
#[command(name = "opsctl internal")]
pub(crate) struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Keep the services running
    Supervisor(Place),
    /// Carry their traffic
    Proxy(Place),
    /// Work on a run
    Judge(Place),
    /// Watch a run's worker
    Watchdog(Place),
    /// Print the reference page of the command line
    Reference,
}

/// Runs the process.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match &args.role {
        Role::Supervisor(place) => internal::supervise(context, place),
        Role::Proxy(place) => internal::proxy(context, place),
        Role::Judge(place) => internal::work(context, place),
        Role::Watchdog(place) => internal::watchdog(context, place),
        Role::Reference => {
            context.out.data(&reference::page())?;
            Ok(Exit::Done)
        }
    }
}
