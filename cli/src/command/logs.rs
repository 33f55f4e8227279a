//! `opsctl logs`: what services print, of all or of one, as it comes, or of one request.

mod pods;

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use opsctl_platform::local::logs::LogTail;
use serde::Serialize;

use crate::config::{self, Config, PlatformKind};
use crate::context::{Context, Signals};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Style, printable};
use crate::platform;
use crate::request::{LINES, Line, Query, RequestId, Sources};
use crate::target;

/// Show what services print
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// Services; without any, all
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,

    /// Only lines that say they are younger than this; lines without a time go with the one before them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,

    /// So many lines of each instance
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, conflicts_with = "trace")]
    last: usize,

    /// All lines of one request, by its trace id or correlation id
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    trace: Option<String>,

    /// Only this instance
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
}

fn help() -> String {
    format!(
        "Examples:\n  # What did orders say in the last ten minutes?\n  opsctl logs orders --since 10m\n\n  \
         # What did everybody say of one request?\n  opsctl logs --trace 4bf92f3577b34da6a3ce929d0e0e4736\n\n\
         With --trace the lines come from the Loki that the environment names (`loki` in opsctl.toml; the last day,\n\
         unless --since says else), or from the log files of the local platform, old parts too. An X-Correlation-ID\n\
         finds the lines with it and those of the traces that they name. Exit 4: there are none. On Kubernetes lines come\n\
         from the pods that are there, of every cluster or the one of --cluster, in the order of their time; with -f as\n\
         they come, also from pods that come later.\n\n{}",
        Exit::section(&[Exit::Usage, Exit::No, Exit::Refused, Exit::Unreachable])
    )
}

/// A line for scripts.
#[derive(Serialize)]
struct Event<'a> {
    schema: &'static str,
    r#type: &'static str,
    service: &'a str,
    instance: &'a str,
    time: Option<Timestamp>,
    text: &'a str,
}

/// So many lines of each pod are searched for a request.
const SEARCHED: usize = 50_000;
/// How often the files are read.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    if let Some(id) = &args.trace {
        return of_request(args, id, context);
    }
    let all = platform::open_all(context)?;
    let Some(opened) = all.iter().find(|opened| opened.here().is_some()) else {
        if let Some(opened) = all.first() {
            known(&opened.config, &args.services)?;
        }
        return pods::run(args, context, &all);
    };
    known(&opened.config, &args.services)?;
    let failed = |error| error::platform::failure("could not read the logs", &error);
    let mut tail = LogTail::new(&opened.state, &args.services, args.instance.as_deref());
    let last = if args.since.is_some() { usize::MAX } else { args.last };
    let lines = tail.last(last).map_err(failed)?;
    let oldest = args.since.and_then(|since| context.now().checked_sub(since).ok());
    let mut young = HashMap::new();
    for line in lines {
        let line = Line::new(line.service, line.instance, line.line);
        let show = match (oldest, line.time) {
            (None, _) => true,
            (Some(oldest), Some(time)) => {
                young.insert(line.instance.clone(), time >= oldest);
                time >= oldest
            }
            (Some(_), None) => young.get(&line.instance).copied().unwrap_or(false),
        };
        if show {
            tell(context, &line)?;
        }
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    context.block_on(async {
        let mut signals = Signals::listen()?;
        while !context.out.is_closed() {
            for line in tail.poll().map_err(failed)? {
                tell(context, &Line::new(line.service, line.instance, line.line))?;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                _ = signals.next() => break,
            }
        }
        Ok(Exit::Done)
    })
}

fn known(config: &Config, services: &[String]) -> Result<(), Failure> {
    match services.iter().find(|name| !config.services.contains_key(*name)) {
        Some(name) => Err(target::unknown_service(config, name)),
        None => Ok(()),
    }
}

/// Every line of one request.
fn of_request(args: &Args, id: &str, context: &Context) -> Outcome {
    let id = RequestId::parse(id)?;
    let config = config::load(context)?;
    known(&config, &args.services)?;
    if config.environment.platform == PlatformKind::Kubernetes && config.environment.loki.is_none() {
        return of_request_in_pods(args, &id, context, &config);
    }
    let sources = Sources::of(context, &config)?;
    let query = Query {
        services: &args.services,
        instance: args.instance.as_deref(),
        since: args.since,
    };
    let found = context.interruptible(sources.lines(&id, query))??;
    if found.items.is_empty() {
        return Err(no_lines(&id, &sources, args.since));
    }
    for line in &found.items {
        tell(context, line)?;
    }
    if found.cut {
        context.out.warn(format!(
            "there are more than {LINES} lines: these are the oldest; name a service, or say `--since`"
        ));
    }
    Ok(Exit::Done)
}

/// Every line of one request that pods still have: there is no Loki that keeps those of pods that are gone.
fn of_request_in_pods(args: &Args, id: &RequestId, context: &Context, config: &Config) -> Outcome {
    let found = context.interruptible(async {
        let all = platform::all_for(context, config).await?;
        let lines = pods::search(args, &all, SEARCHED, |line| id.is_in(line)).await?;
        let traces: Vec<RequestId> = Sources::traces(id, &lines)
            .iter()
            .filter_map(|trace| RequestId::parse(trace).ok())
            .filter(|trace| trace != id)
            .collect();
        if traces.is_empty() || matches!(id, RequestId::Trace(_)) {
            return Ok(lines);
        }
        let wanted = |line: &str| id.is_in(line) || traces.iter().any(|trace| trace.is_in(line));
        pods::search(args, &all, SEARCHED, wanted).await
    })?;
    let lines: Vec<Line> = found?;
    if lines.is_empty() {
        return Err(Failure::new(
            Exit::No,
            "not_found",
            format!("no line has the {} `{}`", id.kind(), id.text()),
        )
        .cause(format!(
            "looked in the last {SEARCHED} lines of each pod that is there now"
        ))
        .help("a Loki has more, and those of pods that are gone: `loki` in `[env.…]` of opsctl.toml"));
    }
    for line in lines.iter().take(LINES) {
        tell(context, line)?;
    }
    if lines.len() > LINES {
        context.out.warn(format!(
            "there are more than {LINES} lines: these are the oldest; name a service, or say `--since`"
        ));
    }
    Ok(Exit::Done)
}

/// Nobody wrote of it.
fn no_lines(id: &RequestId, sources: &Sources<'_>, since: Option<Duration>) -> Failure {
    let hint = sources.none_found(since);
    Failure::new(
        Exit::No,
        "not_found",
        format!("no line has the {} `{}`", id.kind(), id.text()),
    )
    .cause(format!("looked in {}", sources.lines_from()))
    .help(match id {
        RequestId::Trace(_) => hint.to_owned(),
        RequestId::Correlation(_) => format!("{hint} Services answer with the id that they took as X-Correlation-ID"),
    })
}

fn tell(context: &Context, line: &Line) -> Result<(), Failure> {
    if context.out.json {
        return context.out.event(&Event {
            schema: "opsctl.log/v1",
            r#type: "log",
            service: &line.service,
            instance: &line.instance,
            time: line.time,
            text: &line.text,
        });
    }
    let from = if line.instance.is_empty() {
        &line.service
    } else {
        &line.instance
    };
    context.out.line(&format!(
        "{}  {}",
        context.out.stdout.apply(Style::Hint, &printable(from)),
        printable(&line.text).replace('\n', "\\n")
    ))
}
