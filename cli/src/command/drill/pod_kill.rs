//! `opsctl drill pod-kill`: kills instances of a service and measures how it comes back.

use std::time::Duration;

use clap::ValueEnum;
use opsctl_drills::kinds::pod_kill::{self, Kill, Plan};
use opsctl_platform::KillMode;

use super::conduct::{ALERTS, CourseArgs, EXITS, conduct};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{plural, seconds};
use crate::platform;
use crate::target;

/// Kill instances of a service and measure how it comes back
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// How many instances are killed at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,

    /// As many as this share of the ready instances, and one at the least
    #[arg(long, value_name = "PERCENT", conflicts_with = "count", value_parser = clap::value_parser!(u32).range(1..=100))]
    percent: Option<u32>,

    /// Only instances with these labels, such as version=1.4
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_delimiter = ',', value_parser = label)]
    selector: Vec<(String, String)>,

    /// How, on Kubernetes; elsewhere a process is killed at once
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Mode::Evict)]
    mode: Mode,

    /// How long a disruption budget may hold an eviction back
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, hide_short_help = true)]
    patience: Duration,

    /// With `--mode delete`: time to end in; 0s kills at once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, hide_short_help = true)]
    grace: Duration,

    /// How long it is watched after the kill
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,

    #[command(flatten)]
    course: CourseArgs,
}

/// How an instance is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By eviction, which disruption budgets may refuse
    Evict,
    /// By deletion, which no budget sees
    Delete,
    /// Its main container alone
    Container,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is written KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn help() -> String {
    format!(
        "Examples:\n  # Does anybody notice when an instance dies?\n  opsctl drill pod-kill orders\n\n  \
         # Two at once, watched for a minute\n  opsctl drill pod-kill orders --count 2 --for 1m\n\n  \
         # Half of one version, whatever the disruption budget says\n  \
         opsctl drill pod-kill orders --percent 50 -l version=1.4 --mode delete\n\n  \
         # Does it restart without a word?\n  \
         opsctl drill pod-kill orders --expect-alert InstanceRestarted,within=2m\n\n\
         Never kills the last ready instance, and starts only from a steady state. The verdict is the service's\n\
         objectives against its requests, and the probe's, which are counted apart. Exit 9: too few to tell.\n\n{ALERTS}\n\n{}",
        Exit::section(&EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = &target::service(context, &opened.config, args.service.as_deref())?.name;
    let terms = args.course.terms(context, &opened, service, args.duration)?;
    let kill = Kill {
        percent: args.percent,
        selector: args.selector.iter().cloned().collect(),
        mode: match args.mode {
            Mode::Evict => KillMode::Evict {
                patience_seconds: args.patience.as_secs(),
            },
            Mode::Delete => KillMode::Delete {
                grace_seconds: u32::try_from(args.grace.as_secs()).unwrap_or(u32::MAX),
            },
            Mode::Container => KillMode::Container,
        },
        ..Kill::new(args.count)
    };
    let plan = context.block_on(pod_kill::plan(opened.platform.as_ref(), terms, kill))?;
    let question = format!(
        "kill {} of `{service}`?",
        plural(u64::from(plan.spec.fault.count), "instance", "instances")
    );
    let does = describe(&plan);
    conduct(context, &opened, &args.course, plan, question, &does)
}

fn describe(plan: &Plan) -> String {
    let (terms, kill) = (&plan.spec.terms, &plan.spec.fault);
    let victims: Vec<&str> = kill.victims.iter().map(|victim| victim.instance.as_str()).collect();
    format!(
        "kills {} of `{}` ({} of {} ready are left), watches {} before and {} after",
        victims.join(", "),
        terms.service,
        plan.ready_after,
        plan.ready,
        seconds(terms.steady_for.as_secs_f64()),
        seconds(terms.duration.as_secs_f64()),
    )
}
