//! `opsctl up`: builds and starts services on this machine, and waits until they are ready.

use std::collections::BTreeSet;
use std::time::Duration;

use opsctl_platform::local::up::{self, Failed, Ready, UpOptions, UpOutcome};
use opsctl_platform::local::{LocalPlatform, down};
use serde::Serialize;

use crate::config::{self, Config, Service};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, specs};
use crate::target;

/// Start services here and wait until they are ready
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Services, with those that they depend on; without any, all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Start what is built already
    #[arg(long)]
    no_build: bool,

    /// Run what is built, also where a canary was promoted
    #[arg(long)]
    ignore_promoted: bool,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

fn help() -> String {
    format!(
        "Examples:\n  # Everything that opsctl.toml declares\n  opsctl up\n\n  # One service and what it calls\n  opsctl up orders\n\n\
         Services run in the background under a supervisor; their users call stable ports of a proxy. A service that\n\
         does not become ready is stopped again and its last lines are shown; the others stay up.\n\n{}",
        Exit::section(&[Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Locked])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    environment: &'a str,
    ready: &'a [Ready],
    failed: &'a [Failed],
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open_local(context, config::load(context)?, "opsctl up")?;
    platform::warn_of_orphans(context, &opened);
    let local = opened.local()?;
    let config = &opened.config;
    let services = chosen(config, &args.services)?;
    if services.is_empty() {
        return Err(
            Failure::usage("nothing_declared", "there is nothing to start: no service is declared")
                .help("`opsctl init` declares one, see also `opsctl help config`"),
        );
    }
    for service in &services {
        specs::local(service)?;
    }
    if !args.no_build {
        specs::build(context, &services)?;
    }
    let specs = services
        .iter()
        .map(|service| specs::service(context, config, service))
        .collect::<Result<Vec<_>, _>>()?;
    let options = UpOptions {
        environment: config.environment.name.clone(),
        limit: args.timeout,
        ignore_promoted: args.ignore_promoted,
        ..UpOptions::default()
    };
    context.block_on(async {
        let line = context.out.progress("starting");
        let outcome = up::up(local, &specs, &options, |progress| {
            let words: Vec<String> = progress
                .services
                .iter()
                .map(|(name, (ready, desired))| format!("{name} {ready}/{desired}"))
                .collect();
            line.phase(words.join(", "));
        })
        .await
        .map_err(|error| error::platform::failure("could not start the services", &error));
        drop(line);
        let outcome = outcome?;
        tell(context, config, &outcome)?;
        if outcome.failed.is_empty() {
            context.out.next("opsctl status");
            return Ok(Exit::Done);
        }
        clean_up(context, local, &outcome).await?;
        Err(failure(context, &outcome.failed))
    })
}

/// The named services and everything that they call.
fn chosen<'a>(config: &'a Config, names: &[String]) -> Result<Vec<&'a Service>, Failure> {
    if names.is_empty() {
        return Ok(config
            .services
            .values()
            .filter(|service| service.local.is_some())
            .collect());
    }
    let mut wanted = BTreeSet::new();
    let mut next: Vec<&str> = names.iter().map(String::as_str).collect();
    while let Some(name) = next.pop() {
        let service = config
            .services
            .get(name)
            .ok_or_else(|| target::unknown_service(config, name))?;
        if wanted.insert(name) {
            next.extend(service.depends_on.iter().map(String::as_str));
        }
    }
    Ok(wanted
        .into_iter()
        .filter_map(|name| config.services.get(name))
        .collect())
}

fn tell(context: &Context, config: &Config, outcome: &UpOutcome) -> Result<(), Failure> {
    let document = Document {
        schema: "opsctl.up/v1",
        r#type: "up",
        environment: &config.environment.name,
        ready: &outcome.ready,
        failed: &outcome.failed,
    };
    context.out.answer(&document, |_| {
        outcome
            .ready
            .iter()
            .map(|ready| {
                let mut line = ready.service.clone();
                if let Some(port) = ready.ports.http {
                    line.push_str(&format!("  http://127.0.0.1:{port}"));
                }
                if let Some(port) = ready.ports.grpc {
                    line.push_str(&format!("  grpc 127.0.0.1:{port}"));
                }
                line + "\n"
            })
            .collect()
    })?;
    for ready in &outcome.ready {
        let promoted = if ready.promoted { ", promoted" } else { "" };
        context.out.done(format!(
            "{} is ready (version {}{promoted})",
            ready.service, ready.version
        ));
    }
    Ok(())
}

/// What this call added and did not come up is taken away again; with nothing else there, everything is.
async fn clean_up(context: &Context, local: &LocalPlatform, outcome: &UpOutcome) -> Result<(), Failure> {
    let what = "could not stop what did not start";
    let added: Vec<String> = outcome
        .failed
        .iter()
        .map(|failed| failed.service.clone())
        .filter(|service| outcome.added.contains(service))
        .collect();
    let status = local
        .status()
        .await
        .map_err(|error| error::platform::failure(what, &error))?;
    if status.services.iter().all(|service| added.contains(&service.name)) {
        let options = down::DownOptions {
            actor: context.actor(),
            ..down::DownOptions::default()
        };
        down::down(local, &options)
            .await
            .map_err(|error| error::platform::failure(what, &error))?;
    } else {
        down::stop_services(local, &added, Duration::from_secs(15))
            .await
            .map_err(|error| error::platform::failure(what, &error))?;
    }
    Ok(())
}

fn failure(context: &Context, failed: &[Failed]) -> Failure {
    let names: Vec<String> = failed.iter().map(|failed| format!("`{}`", failed.service)).collect();
    // With several the lowest number is told: what failed comes before what may only need more time.
    let (exit, code) = failed
        .iter()
        .map(|failed| error::platform::not_up(failed.cause))
        .min()
        .unwrap_or((Exit::Unreachable, "not_ready"));
    let mut details = Vec::new();
    for failed in failed {
        details.push(format!(
            "{}: {} of {} ready, {}",
            failed.service, failed.ready, failed.replicas, failed.reason
        ));
        details.extend(failed.last_lines.iter().map(|line| format!("  | {line}")));
    }
    let log = failed.iter().find_map(|failed| failed.log.as_ref());
    let failure = Failure::new(exit, code, format!("{} did not become ready", names.join(", "))).details(details);
    match log {
        Some(log) => failure.help(format!("the whole log is `{}`", context.shown(log))),
        None => failure,
    }
}
