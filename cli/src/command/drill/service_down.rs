//! `opsctl drill service-down`: takes a whole service away for a while and watches those that depend on it.

use std::time::Duration;

use opsctl_drills::kinds::service_down::{self, Down, Plan};

use super::conduct::{ALERTS, CourseArgs, EXITS, conduct};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::seconds;
use crate::platform;
use crate::target;

/// Take a whole service away for a while and watch those that depend on it
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// How long it is away
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Those that depend on it must keep their objectives meanwhile; otherwise they must only stand
    #[arg(long)]
    unharmed: bool,

    #[command(flatten)]
    course: CourseArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # Who falls when payments is away?\n  opsctl drill service-down payments\n\n  \
         # Nobody's customers may notice that there are no notifications\n  \
         opsctl drill service-down notifications --for 2m --unharmed\n\n  \
         # Is anybody told, and how soon?\n  \
         opsctl drill service-down payments --expect-alert HealthEndpointDown,within=2m\n\n\
         Every instance is stopped and requests are refused at once, until it is undone. Services that depend on it may\n\
         answer less well, but none of their instances may become unready or be started again, and all must be whole\n\
         within `--recovery-within` after it is back.\n\n{ALERTS}\n\n{}",
        Exit::section(&EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = &target::service(context, &opened.config, args.service.as_deref())?.name;
    let terms = args.course.terms(context, &opened, service, args.duration)?;
    let down = Down {
        unharmed: args.unharmed,
    };
    let plan = context.block_on(service_down::plan(opened.platform.as_ref(), terms, down))?;
    let does = describe(&plan);
    let question = format!("take `{service}` away for {}?", seconds(args.duration.as_secs_f64()));
    conduct(context, &opened, &args.course, plan, question, &does)
}

fn describe(plan: &Plan) -> String {
    let terms = &plan.spec.terms;
    let others: Vec<&str> = terms.others.iter().map(|other| other.service.as_str()).collect();
    let mut text = format!(
        "stops all {} ready instances of `{}` for {}, then starts them again",
        plan.ready,
        terms.service,
        seconds(terms.duration.as_secs_f64()),
    );
    if !others.is_empty() {
        text.push_str(&format!("\nwatches {} meanwhile", others.join(", ")));
    }
    text
}
