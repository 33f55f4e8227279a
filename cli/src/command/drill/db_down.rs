//! `opsctl drill db-down`: takes the way to its database away from a service for a while.

use std::time::Duration;

use clap::ValueEnum;
use opsctl_drills::kinds::db_down::{self, DbDown, How, Plan};

use super::conduct::{ALERTS, CourseArgs, EXITS, conduct};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::exit::Exit;
use crate::output::seconds;
use crate::platform;
use crate::target;

/// Take the way to its database away from a service for a while
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// The Kubernetes Service before the database
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    at: Option<String>,

    /// How it is away
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Mode::Reset)]
    mode: Mode,

    /// How long it is away
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,

    /// Leave sessions that are open alone: only new connections meet it
    #[arg(long)]
    keep_sessions: bool,

    /// The service must keep its objectives meanwhile; otherwise only outlive it
    #[arg(long)]
    unharmed: bool,

    #[command(flatten)]
    course: CourseArgs,
}

/// How a database is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Connections are reset, as by a server that has died
    Reset,
    /// Connections stay open and nothing comes, as on a network that has
    Blackhole,
    /// A NetworkPolicy keeps this service from it, where somebody enforces it
    Policy,
}

fn help() -> String {
    format!(
        "Examples:\n  # Does orders outlive its database?\n  opsctl drill db-down orders --at postgres\n\n  \
         # A network that swallows everything for two minutes\n  \
         opsctl drill db-down orders --at data/postgres --mode blackhole --for 2m\n\n  \
         # The service alone, by a NetworkPolicy; told where nobody enforces it\n  \
         opsctl drill db-down orders --at postgres --mode policy\n\n  \
         # Is anybody told within five minutes?\n  \
         opsctl drill db-down orders --at postgres --expect-alert HighErrorRate,service=orders,within=5m\n\n\
         A pod of opsctl stands before the database meanwhile; then the open sessions of the service's role are ended, so\n\
         that they come back through it (PostgreSQL, by its own DATABASE_URL). With `--mode policy` that pod stands aside and\n\
         looks whether they do: a policy counts as enforced only when none does for ten seconds and something suffers; one\n\
         that is not is taken away at once. It is refused where another NetworkPolicy says where the service may connect\n\
         to. No instance may be started again, those that depend on it must stand, and all must be whole soon after. On\n\
         Kubernetes only: elsewhere services keep their data in files.\n\n{ALERTS}\n\n{}",
        Exit::section(&EXITS)
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let opened = platform::open(context)?;
    let service = target::service(context, &opened.config, args.service.as_deref())?;
    let Some(there) = opened.there() else {
        let stores: Vec<String> = service
            .uses
            .iter()
            .filter_map(|used| opened.config.datastores.get(&used.store))
            .map(|store| format!("`{}` ({})", store.name, store.kind.word()))
            .collect();
        let stores = if stores.is_empty() {
            "no datastore".to_owned()
        } else {
            stores.join(", ")
        };
        return Err(Failure::refused(
            "no_network",
            format!("there is no network between `{}` and its data here", service.name),
        )
        .cause(format!(
            "on this machine it uses {stores}, and no connection that a drill could break"
        ))
        .help("choose an environment on Kubernetes with `-e`"));
    };
    let at = args.at.as_deref().ok_or_else(|| {
        Failure::usage("usage", "which Service leads to the database is not known").help("say it: `--at postgres`")
    })?;
    let namespace = there.kube.settings().workload(&service.name);
    let namespace = namespace
        .map(|workload| workload.namespace.as_str())
        .unwrap_or_default();
    let (namespace, name) = at.split_once('/').unwrap_or((namespace, at));
    if args.mode == Mode::Policy && args.keep_sessions {
        return Err(Failure::usage(
            "usage",
            "`--keep-sessions` does not go with `--mode policy`: who comes back shows whether anybody enforces it",
        ));
    }
    let down = DbDown {
        at: format!("endpoint/{namespace}/{name}"),
        how: match args.mode {
            Mode::Reset => How::Reset,
            Mode::Blackhole => How::Blackhole,
            Mode::Policy => How::Policy,
        },
        end_sessions: !args.keep_sessions,
        unharmed: args.unharmed,
    };
    let terms = args.course.terms(context, &opened, &service.name, args.duration)?;
    let plan = context.block_on(db_down::plan(opened.platform.as_ref(), terms, down))?;
    let does = describe(&plan);
    let question = format!("cut `{}` off from `{at}`?", service.name);
    conduct(context, &opened, &args.course, plan, question, &does)
}

fn describe(plan: &Plan) -> String {
    let (terms, down) = (&plan.spec.terms, &plan.spec.fault);
    let how = match down.how {
        How::Reset => "resets connections to",
        How::Blackhole => "swallows what is sent to",
        How::Policy => "keeps its pods, by a NetworkPolicy, from",
    };
    let mut text = format!("{how} `{}` for {}", down.at, seconds(terms.duration.as_secs_f64()));
    if down.end_sessions {
        text.push_str(&format!("\nends the open sessions of the role of `{}`", terms.service));
    }
    text
}
