//! `opsctl load run`: one address, one rate, for a time. The figures are the load engine's.

use std::sync::Arc;
use std::time::Duration;

use opsctl_load::{Fixed, LoadError, Plan, Progress, Rate, Request, Snapshot, Target};

use crate::config::{self, Config};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::{Amount, ProgressLine};
use crate::platform;
use crate::repository::cancellable;
use crate::target;

/// Send requests to an address at a constant rate
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// A URL, or a service that runs here: orders, orders/health/live
    #[arg(value_name = "TARGET")]
    target: String,

    /// How many requests arrive, whatever the answers take: 200/s, 1000/min
    #[arg(long, value_name = "RATE", default_value = "50/s")]
    rate: Rate,

    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// At most so many connections
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: Option<u32>,

    /// Add a header, for example "authorization: Bearer …"
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,

    /// Fail (exit 4) when more than this share of the requests is no success, for example 1%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_errors: Option<f64>,

    #[command(flatten)]
    consent: ConsentArgs,
}

fn percent(text: &str) -> Result<f64, String> {
    text.strip_suffix('%')
        .and_then(|number| number.trim().parse::<f64>().ok())
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected 0% to 100%, such as 1%".to_owned())
}

fn help() -> String {
    format!(
        "Examples:\n  # Does it hold 200 requests a second?\n  \
         opsctl load run orders --rate 200/s --for 30s --max-errors 1%\n\n  \
         # Anything that speaks HTTP\n  \
         opsctl load run http://127.0.0.1:18080/health/ready --rate 50/s\n\n\
         A service is met at its proxy, like by its users; without a path its `probe` is asked for, else its health.\n\
         Requests arrive at the rate whether or not earlier ones were answered, and response times count from the\n\
         moment a request was due. scheduled = completed + failed + dropped. A generator that could not keep up is\n\
         exit 9: its figures say nothing about the service.\n\n{}",
        Exit::section(&[
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::Unreachable,
            Exit::Inconclusive,
            Exit::Interrupted
        ])
    )
}

struct Line(ProgressLine);

impl Progress for Line {
    fn update(&self, snapshot: &Snapshot) {
        let item = format!(
            "{:.0} of {:.0} s, {} failed, p99 {:.0} ms",
            snapshot.elapsed.as_secs_f64(),
            snapshot.planned.as_secs_f64(),
            snapshot.failed,
            snapshot.p99.as_secs_f64() * 1e3
        );
        self.0.amount(Amount {
            done: snapshot.completed,
            total: None,
            bytes: false,
            item,
        });
    }
}

/// What is meant: a URL, or the front door of a service with a path.
fn target(context: &Context, config: Option<&Config>, target: &str) -> Result<Target, Failure> {
    let Some(config) = config.filter(|_| !target.contains("://")) else {
        return Ok(target.parse()?);
    };
    let (name, path) = match target.find('/') {
        Some(slash) => (&target[..slash], Some(&target[slash..])),
        None => (target, None),
    };
    let service = config
        .services
        .get(name)
        .ok_or_else(|| target::unknown_service(config, name).cause("a URL begins with http://"))?;
    let opened = platform::open(context)?;
    let what = || format!("could not tell the address of `{name}`");
    let state = context
        .block_on(opened.platform.service(name))
        .map_err(|error| error::platform::failure(what(), &error))?;
    let (door, host) = state
        .front
        .door()
        .ok_or_else(|| Failure::usage("no_http", what()).cause("it has no HTTP port here, and no `url`"))?;
    let path = path
        .or_else(|| service.probe.as_ref().map(|probe| probe.http.as_str()))
        .or(service.health_http.as_deref())
        .unwrap_or("/");
    let target: Target = format!("{door}{path}").parse()?;
    Ok(match host {
        Some(host) => target.called(&host),
        None => target,
    })
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let config = config::load_if_present(context)?;
    let target = target(context, config.as_ref(), &args.target)?;
    let mut request = Request::get(target.path()).map_err(LoadError::from)?;
    for header in &args.headers {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            Failure::usage("usage", format!("`--header {header}` is no header"))
                .help("for example --header \"accept: text/html\"")
        })?;
        request = request.header(name.trim(), value.trim()).map_err(LoadError::from)?;
    }
    let mut plan = Plan::new(target, args.rate, args.duration, Arc::new(Fixed(request)));
    if let Some(connections) = args.connections {
        plan.connections = connections as usize;
    }
    let stake = Stake {
        question: format!(
            "send {} for {} to {}?",
            args.rate,
            humantime::format_duration(args.duration),
            args.target
        ),
        name: &args.target,
        consequence: Consequence::UndoneByItself,
        protected: config.as_ref().and_then(config::Config::protected),
    };
    let plan = approve(context, &args.consent, plan, &stake)?.into_plan();

    let summary = cancellable(context, async |cancel| {
        let line = Arc::new(Line(context.out.progress(format!("load on {}", args.target))));
        Ok(opsctl_load::run(plan, line, cancel).await?)
    })?;
    context.out.answer(&summary, |_| {
        let rows = summary.rows();
        let width = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
        rows.iter()
            .map(|(label, value)| format!("{label:<width$}  {value}\n"))
            .collect()
    })?;
    Ok(if summary.cancelled {
        Exit::Interrupted
    } else if summary.generator.bound {
        context
            .out
            .warn("the generator itself was the limit: the figures say nothing about the service");
        Exit::Inconclusive
    } else if summary.completed == 0 && summary.failed > 0 {
        Exit::Unreachable
    } else if args.max_errors.is_some_and(|limit| summary.error_ratio() > limit) {
        Exit::No
    } else {
        Exit::Done
    })
}
