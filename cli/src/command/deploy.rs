//! `opsctl deploy`: shipping a version on evidence.

mod abort;
mod canary;
mod promote;
mod rollback;
mod status;

use clap::Subcommand;
use opsctl_platform::run::{Phase, RunRecord};
use opsctl_rollouts::worker;

use crate::config::{Config, PlatformKind};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::platform::{Opened, words};

/// Ship a version as a canary, promote it or take it back
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Canary(Box<canary::Args>),
    Status(status::Args),
    Promote(promote::Args),
    Abort(abort::Args),
    Rollback(rollback::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Canary(args) => canary::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Promote(args) => promote::run(&args, context),
        Command::Abort(args) => abort::run(&args, context),
        Command::Rollback(args) => rollback::run(&args, context),
    }
}

/// Consent to change what a GitOps tool keeps.
#[derive(Debug, clap::Args)]
struct Ownership {
    /// Change what Argo CD, Flux or another keeper owns
    #[arg(long, hide_short_help = true)]
    take_ownership: bool,
}

impl Ownership {
    /// Holds for this one command, which changes one service.
    fn apply(&self, config: &mut Config) -> Result<(), Failure> {
        if self.take_ownership {
            only_there(config, "--take-ownership")?;
            for service in config.services.values_mut() {
                service.kubernetes.take_ownership = true;
            }
        }
        Ok(())
    }
}

/// Refuses a flag that means nothing on this machine.
fn only_there(config: &Config, flag: &str) -> Result<(), Failure> {
    match config.environment.platform {
        PlatformKind::Kubernetes => Ok(()),
        PlatformKind::Local => Err(Failure::usage(
            "usage",
            format!("`{flag}` is for environments on Kubernetes"),
        )),
    }
}

/// All canaries, oldest first; of one service if it is named.
async fn canaries(opened: &Opened, service: Option<&str>) -> Result<Vec<RunRecord>, Failure> {
    let records = opened
        .platform
        .records()
        .await
        .map_err(|error| error::platform::failure("could not read the runs", &error))?;
    Ok(records
        .into_iter()
        .filter(|record| record.kind == worker::KIND && service.is_none_or(|service| words::target(record) == service))
        .collect())
}

/// The canary of a service that is not over; without a name the only one.
async fn active(opened: &Opened, service: Option<&str>) -> Result<Option<RunRecord>, Failure> {
    let mut active = canaries(opened, service).await?;
    active.retain(|record| record.phase != Phase::Closed);
    if active.len() > 1 {
        return Err(Failure::usage("ambiguous", "which canary is meant is not clear")
            .details(active.iter().map(|record| words::target(record).to_owned()))
            .help("name the service"));
    }
    Ok(active.pop())
}
