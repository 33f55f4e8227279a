//! `opsctl drill node-drain`: has everything leave a node and watches whether it is whole elsewhere.

use std::time::Duration;

use opsctl_drills::kinds::node_drain::{self, Drain, Plan};

use super::conduct::{CourseArgs, EXITS, conduct};
use crate::context::Context;
use crate::error::Outcome;
use crate::exit::Exit;
use crate::output::{plural, seconds};
use crate::platform;

/// Have everything leave a node and watch whether it is whole elsewhere
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The node
    #[arg(value_name = "NODE")]
    node: String,

    /// The service that is judged first; without it the one with the most instances there
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,

    /// How long the node stays empty
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// How long disruption budgets may hold evictions back
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    evict_within: Duration,

    /// Evict also what keeps data on the node (emptyDir), which is lost
    #[arg(long)]
    lose_local_data: bool,

    #[command(flatten)]
    course: CourseArgs,
}

fn help() -> String {
    format!(
        "Examples:\n  # What happens when worker-3 is taken out for an hour?\n  opsctl drill node-drain worker-3\n\n  \
         # Who would leave, and who holds whom back?\n  opsctl drill node-drain worker-3 --dry-run\n\n\
         The node takes nothing new, then one pod after another is evicted; disruption budgets hold, and are asked again\n\
         until `--evict-within` is over. Daemons and the node's own pods stay. A node that took nothing new before is left\n\
         so. On Kubernetes only.\n\n{}",
        Exit::section(&EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = args.service.clone().unwrap_or_default();
    let terms = args.course.terms(context, &opened, &service, args.duration)?;
    let drain = Drain {
        node: args.node.clone(),
        lose_local_data: args.lose_local_data,
        evict_within: args.evict_within,
        leaving: Vec::new(),
    };
    let plan = context.block_on(node_drain::plan(opened.platform.as_ref(), terms, drain))?;
    let does = describe(&plan);
    let question = format!("drain `{}`?", args.node);
    conduct(context, &opened, &args.course, plan, question, &does)
}

fn describe(plan: &Plan) -> String {
    let (terms, drain) = (&plan.spec.terms, &plan.spec.fault);
    let names: Vec<&str> = drain.leaving.iter().map(|tenant| tenant.name.as_str()).collect();
    format!(
        "has {} leave `{}`: {}\nkeeps it empty for {}",
        plural(names.len() as u64, "instance", "instances"),
        drain.node,
        names.join(", "),
        seconds(terms.duration.as_secs_f64()),
    )
}
