//! `opsctl drill latency`: slows the answers of a service, or of one that it depends on.

use std::time::Duration;

use opsctl_drills::kinds::latency::{self, Latency, Plan};

use super::conduct::{ALERTS, CourseArgs, EXITS, conduct};
use crate::config::PlatformKind;
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::seconds;
use crate::platform;
use crate::target;

/// How old connections may be where a delay meets new ones alone.
const POOL_AGE: Duration = Duration::from_mins(1);

/// Slow the answers of a service, or of one that it depends on
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// Slow this service that it depends on, and watch how it does
    #[arg(long, value_name = "DEPENDENCY")]
    to: Option<String>,

    /// How much later answers come
    #[arg(long, value_name = "TIME", default_value = "300ms", value_parser = humantime::parse_duration)]
    delay: Duration,

    /// Largest deviation from the delay, either way
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    jitter: Duration,

    /// Share of the requests that it hits
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    percent: f64,

    /// How long the delay lasts
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// How old callers let a connection become: on Kubernetes the delay meets new ones alone (60s there)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
    pool_age: Option<Duration>,

    /// With `--to`: the service must keep its latency objective, too
    #[arg(long, requires = "to")]
    unharmed: bool,

    #[command(flatten)]
    course: CourseArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # Does anybody fail when payments needs 300 ms more?\n  opsctl drill latency payments --delay 300ms --for 5m\n\n  \
         # Does orders hold when one in five answers of payments takes 2 s?\n  \
         opsctl drill latency orders --to payments --delay 2s --jitter 500ms --percent 20\n\n  \
         # Is anybody told that it is slow?\n  \
         opsctl drill latency payments --delay 2s --expect-alert SlowRequests,service=payments,within=10m\n\n\
         Callers may become slower; none may fail more often than it promises, lose an instance, or send its requests\n\
         again and again. The delay has to be seen by the probe before it counts, and ends by itself within half a\n\
         minute when opsctl and its watchdog are gone.\n\n{ALERTS}\n\n{}",
        Exit::section(&EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = &target::service(context, &opened.config, args.service.as_deref())?.name;
    let terms = args.course.terms(context, &opened, service, args.duration)?;
    let pool_age = args.pool_age.unwrap_or(match opened.config.environment.platform {
        PlatformKind::Local => Duration::ZERO,
        PlatformKind::Kubernetes => POOL_AGE,
    });
    let latency = Latency {
        to: args.to.clone(),
        delay_ms: u64::try_from(args.delay.as_millis()).unwrap_or(u64::MAX),
        jitter_ms: u64::try_from(args.jitter.as_millis()).unwrap_or(u64::MAX),
        percent: args.percent,
        pool_age_seconds: pool_age.as_secs_f64(),
        unharmed: args.unharmed,
    };
    let plan = context.block_on(latency::plan(opened.platform.as_ref(), terms, latency))?;
    let does = describe(&plan);
    let question = format!("slow the answers of `{}`?", args.to.as_ref().unwrap_or(service));
    conduct(context, &opened, &args.course, plan, question, &does)
}

fn describe(plan: &Plan) -> String {
    let (terms, latency) = (&plan.spec.terms, &plan.spec.fault);
    let jitter = match latency.jitter_ms {
        0 => String::new(),
        jitter => format!(" ± {jitter} ms"),
    };
    let mut text = format!(
        "delays {} % of the answers of `{}` by {} ms{jitter} for {}",
        latency.percent,
        latency.to.as_ref().unwrap_or(&terms.service),
        latency.delay_ms,
        seconds(terms.duration.as_secs_f64()),
    );
    let others: Vec<&str> = terms.others.iter().map(|other| other.service.as_str()).collect();
    if !others.is_empty() {
        text.push_str(&format!("\nwatches {} meanwhile", others.join(", ")));
    }
    text
}
