//! `opsctl policy`: the live policies of running services, read and changed through the admin listener of each instance.

mod change;
mod force;
mod reset;
mod show;

use clap::Subcommand;
use opsctl_platform::{Instance, ServiceState};
use serde_json::Value;

use crate::admin::{Admin, AdminError};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::platform::Opened;
use crate::target;

/// Show live circuit breakers and limits, force a breaker
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(show::Args),
    Force(force::Args),
    Reset(reset::Args),
}

/// Runs the command.
pub(crate) fn run(args: Args, context: &Context) -> Outcome {
    match args.command {
        Command::Show(args) => show::run(&args, context),
        Command::Force(args) => force::run(&args, context),
        Command::Reset(args) => reset::run(&args, context),
    }
}

/// One instance, and its policies or why they are not known.
struct Read {
    instance: Instance,
    policies: Result<Vec<Value>, AdminError>,
}

/// The services that run: all, or the named one. With `instance` each has that instance alone.
async fn running(opened: &Opened, service: Option<&str>, instance: Option<&str>) -> Result<Vec<ServiceState>, Failure> {
    if let Some(name) = service
        && !opened.config.services.contains_key(name)
    {
        return Err(target::unknown_service(&opened.config, name));
    }
    let failed = |error| error::platform::failure("could not read what runs", &error);
    let mut services = match opened.here() {
        Some(local) => local.status().await.map_err(failed)?.services,
        None => opened.platform.states().await.map_err(failed)?,
    };
    services.retain(|state| service.is_none_or(|name| state.name == name));
    if services.is_empty() {
        return Err(error::platform::not_running(service));
    }
    if let Some(wanted) = instance {
        let known: Vec<String> = services.iter().flat_map(ids).collect();
        for state in &mut services {
            state.instances.retain(|instance| instance.id == wanted);
        }
        services.retain(|state| !state.instances.is_empty());
        if services.is_empty() {
            return Err(target::unknown("instance", wanted, &known));
        }
    }
    Ok(services)
}

fn ids(service: &ServiceState) -> impl Iterator<Item = String> + use<> {
    let ids: Vec<String> = service.instances.iter().map(|instance| instance.id.clone()).collect();
    ids.into_iter()
}

/// Asks every instance, all at once.
async fn read(opened: &Opened, services: &[ServiceState]) -> Vec<Read> {
    let asked: Vec<_> = services
        .iter()
        .flat_map(|service| &service.instances)
        .map(|instance| {
            let admin = Admin::of(opened, instance);
            let answer = tokio::spawn(async move { admin?.policies().await });
            (instance.clone(), answer)
        })
        .collect();
    let mut all = Vec::new();
    for (instance, answer) in asked {
        // The task neither panics nor is cancelled.
        let policies = answer.await.unwrap_or(Err(AdminError::NotRunning));
        all.push(Read { instance, policies });
    }
    all
}

/// A text of a policy.
fn text<'a>(policy: &'a Value, pointer: &str) -> Option<&'a str> {
    policy.pointer(pointer)?.as_str()
}

/// A number of a policy.
fn number(policy: &Value, pointer: &str) -> Option<f64> {
    policy.pointer(pointer)?.as_f64()
}

/// A time of a policy, to the second.
fn moment(policy: &Value, pointer: &str) -> Option<String> {
    let at: jiff::Timestamp = text(policy, pointer)?.parse().ok()?;
    Some(at.strftime("%FT%TZ").to_string())
}

/// A state in words: `half open`.
fn words(state: &str) -> String {
    state.replace('_', " ")
}
