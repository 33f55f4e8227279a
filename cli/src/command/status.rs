//! `opsctl status`: what runs, how it is, and which runs are under way. It starts nothing.

mod clusters;

use std::time::Duration;

use opsctl_platform::local::{LocalPlatform, Status};
use opsctl_platform::{InstanceState, ServiceState};
use serde::Serialize;

use crate::context::{Context, Signals};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Paint, Style, Table};
use crate::platform::{self, Opened, words};
use clusters::Overview;

/// Show what runs and how it is
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Show it again and again, until Ctrl-C
    #[arg(short = 'w', long)]
    watch: bool,

    /// With --watch: how often
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

fn help() -> String {
    format!(
        "Examples:\n  # Is everything ready? Exit 4 if not\n  opsctl status -q\n\n  # For a script\n  \
         opsctl status --json | jq '.services[].name'\n\n\
         On Kubernetes every cluster of the environment is asked, or the one of --cluster.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Refused, Exit::Unreachable])
    )
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    r#type: &'static str,
    healthy: bool,
    #[serde(flatten)]
    status: &'a Status,
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let all = platform::open_all(context)?;
    if !args.watch {
        let seen = context.block_on(read(context, &all))?;
        seen.show(context)?;
        return Ok(seen.exit());
    }
    context.block_on(async {
        let mut signals = Signals::listen()?;
        loop {
            let seen = read(context, &all).await?;
            if context.out.width.is_some() && !context.out.json {
                // Home, and clear what is below: no flicker.
                context.out.data("\u{1b}[H\u{1b}[2J")?;
            }
            seen.show(context)?;
            if context.out.is_closed() {
                return Ok(Exit::Done);
            }
            tokio::select! {
                () = tokio::time::sleep(args.interval) => {}
                _ = signals.next() => return Ok(seen.exit()),
            }
        }
    })
}

/// What was seen.
enum Seen {
    Here(Status),
    There(Overview),
}

impl Seen {
    fn show(&self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Here(status) => show(context, status),
            Self::There(clusters) => clusters.show(context),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Here(status) if status.up() && !status.healthy() => Exit::No,
            Self::Here(_) => Exit::Done,
            Self::There(clusters) => clusters.exit(),
        }
    }
}

async fn read(context: &Context, all: &[Opened]) -> Result<Seen, Failure> {
    match all.iter().find_map(Opened::here) {
        Some(local) => read_here(local).await.map(Seen::Here),
        None => Overview::read(context, all).await.map(Seen::There),
    }
}

async fn read_here(local: &LocalPlatform) -> Result<Status, Failure> {
    local
        .status()
        .await
        .map_err(|error| error::platform::failure("could not read the status", &error))
}

fn show(context: &Context, status: &Status) -> Result<(), Failure> {
    if context.out.json {
        let document = Document {
            schema: "opsctl.status/v1",
            r#type: "status",
            healthy: !status.up() || status.healthy(),
            status,
        };
        return context.out.event(&document);
    }
    if !status.up() {
        context
            .out
            .note(format!("nothing runs in environment `{}`", status.environment));
        context.out.next("opsctl up");
        return Ok(());
    }
    context
        .out
        .data(&table(status, context.out.stdout, context.out.width))?;
    if status.supervisor.is_none() {
        context
            .out
            .warn("the supervisor is gone: services run on, but a dead one is not started again; `opsctl up` cures it");
    }
    if status.proxy.is_none() {
        context
            .out
            .warn("the proxy is gone: nobody can reach the services; `opsctl up` cures it");
    } else if !status.proxy_answers {
        context
            .out
            .warn("the proxy does not answer: shares of canaries are not shown");
    }
    for (service, problem) in &status.front_errors {
        context.out.warn(format!("{service}: {problem}"));
    }
    for record in &status.runs {
        let (state, _) = words::state(record);
        context.out.note(format!(
            "run {} {} {}: {state}",
            record.id,
            record.kind,
            words::target(record)
        ));
    }
    for (run, why) in &status.orphans {
        context
            .out
            .warn(format!("run {run} left something behind ({why}): opsctl recover {run}"));
    }
    Ok(())
}

fn table(status: &Status, paint: Paint, width: Option<usize>) -> String {
    let mut table = Table::new(&["service", "ready", "version", "restarts", "address", "state"]);
    for service in &status.services {
        let (state, style) = state(service);
        let desired: u32 = service.versions.iter().map(|version| version.replicas).sum();
        table.styled(vec![
            (service.name.clone(), Some(Style::Hint)),
            (format!("{}/{desired}", service.ready().count()), Some(style)),
            (service.stable_version.clone().unwrap_or_default(), None),
            (restarts(service), None),
            (
                service
                    .front
                    .http
                    .or(service.front.grpc)
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                None,
            ),
            (state, Some(style)),
        ]);
    }
    table.render(paint, width)
}

fn restarts(service: &ServiceState) -> String {
    let restarts: u32 = service.instances.iter().map(|instance| instance.restarts).sum();
    restarts.to_string()
}

/// One word or a few about a service, and how bad it is.
fn state(service: &ServiceState) -> (String, Style) {
    if let Some(hold) = &service.hold {
        return (format!("held down: {}", hold.reason), Style::Warning);
    }
    let worst = service.instances.iter().find(|instance| {
        matches!(
            instance.state,
            InstanceState::CrashLoop | InstanceState::Backoff | InstanceState::Unready
        )
    });
    if let Some(instance) = worst {
        let what = match instance.state {
            InstanceState::CrashLoop => "ends again and again",
            InstanceState::Backoff => "ended, waits for its restart",
            _ => "is not ready",
        };
        let why = instance
            .last_exit
            .as_ref()
            .map(|exit| format!(" ({exit})"))
            .unwrap_or_default();
        return (format!("{} {what}{why}", instance.id), Style::Error);
    }
    if let Some(canary) = &service.canary {
        return (
            format!("canary {} at {} %", canary.version, canary.percent),
            Style::Hint,
        );
    }
    if service.complete() {
        ("ready".to_owned(), Style::Done)
    } else {
        ("starting".to_owned(), Style::Warning)
    }
}
