//! `opsctl internal`: what opsctl starts itself, in the background. Nobody types it, so it is no part of the tree that
//! help, completions and errors are made from.

mod reference;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::GlobalArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::internal::{self, Place, Site, hop};

/// What opsctl starts itself
#[derive(Debug, Parser)]
#[command(name = "opsctl internal")]
pub(crate) struct Args {
    /// The environment of the run, where it is not on this machine
    #[arg(long, value_name = "NAME")]
    env: Option<String>,

    /// Its cluster
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,

    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// In a pod of the cluster: what the pod is given says all
    #[arg(long, conflicts_with_all = ["env", "cluster", "config"])]
    in_cluster: bool,

    #[command(subcommand)]
    role: Role,
}

impl Args {
    fn site(&self) -> Site {
        match (self.in_cluster, &self.cluster) {
            (true, _) => Site::Inside,
            (false, Some(_)) => Site::There,
            (false, None) => Site::Here,
        }
    }

    /// The flags of the context in which it works.
    pub(crate) fn global(&self) -> GlobalArgs {
        GlobalArgs {
            env: self.env.clone(),
            cluster: self.cluster.clone(),
            config: self.config.clone(),
            ..GlobalArgs::default()
        }
    }
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
    /// Pass connections on and play faults on them
    Hop(hop::Args),
    /// Print the reference page of the command line
    Reference,
}

/// Runs the process.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    match &args.role {
        Role::Supervisor(place) => internal::supervise(context, place),
        Role::Proxy(place) => internal::proxy(context, place),
        Role::Judge(place) => internal::work(&place.bench(context, args.site())?),
        Role::Watchdog(place) => internal::watchdog(&place.bench(context, args.site())?),
        Role::Hop(args) => hop::run(args, context),
        Role::Reference => {
            context.out.data(&reference::page())?;
            Ok(Exit::Done)
        }
    }
}
