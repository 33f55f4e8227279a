//! `opsctl deploy canary`: a new version gets a share of the traffic and is judged against the one that runs.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use opsctl_platform::local::releases;
use opsctl_platform::run::RunRecord;
use opsctl_platform::{Platform as _, VersionSpec};
use opsctl_rollouts::{OnInconclusive, Plan, Schedule, Spec, parse_weight, worker};

use crate::attach;
use crate::config::Service;
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform::{self, Opened, specs};
use crate::target;

/// Give a new version a share of the traffic and judge it
#[derive(Debug, clap::Args)]
#[command(after_long_help = help())]
#[command(group = clap::ArgGroup::new("how").required(true))]
#[command(
    override_usage = "opsctl deploy canary [SERVICE] --weight PERCENT [OPTIONS]\n       opsctl deploy canary [SERVICE] --steps STEPS [OPTIONS]"
)]
pub(crate) struct Args {
    /// The service; without it the only one, or the environment's default
    #[arg(value_name = "SERVICE")]
    service: Option<String>,

    /// Percent of the traffic; judges there and holds
    #[arg(long, value_name = "PERCENT", group = "how", allow_negative_numbers = true)]
    weight: Option<String>,

    /// Shares with their times; 100 at the end promotes: 10:15m,50:15m,100
    #[arg(long, value_name = "STEPS", group = "how")]
    steps: Option<String>,

    /// What runs, as `canary` in opsctl.toml says [default: what build builds]
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,

    /// How long the old version is kept after the promotion
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    bake: Duration,

    /// How long it is judged at most [default: twice the steps]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    max: Option<Duration>,

    /// How long --weight judges
    #[arg(long = "for", value_name = "TIME", default_value = "15m", value_parser = humantime::parse_duration)]
    judge_for: Duration,

    /// How long it may be held
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    max_hold: Duration,

    /// When the time is over and nothing is proven
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Inconclusive::Hold)]
    on_inconclusive: Inconclusive,

    /// How often the judge looks
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    interval: Duration,

    /// Say what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    #[command(flatten)]
    consent: ConsentArgs,
}

/// What to do when nothing is proven.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Inconclusive {
    /// Keep its share until somebody decides
    Hold,
    /// Take it away
    Rollback,
    /// Promote it all the same
    Promote,
}

fn help() -> String {
    format!(
        "Examples:\n  # Judge it at 10 % and hold it there\n  opsctl deploy canary --weight 10\n\n  \
         # By itself to 100 %, if the evidence is there\n  opsctl deploy canary orders --version 1.5.0 --steps 10:15m,50:15m,100\n\n\
         It is compared with the version that runs at the same time, and its errors with the objective. Worse: it is\n\
         taken away (exit 4). Not enough known: it is held (exit 9), never promoted on missing data. The judge works\n\
         in the background; closing the terminal changes nothing, Ctrl-C aborts.\n\n{}",
        Exit::section(&[
            Exit::Failed,
            Exit::Usage,
            Exit::No,
            Exit::Refused,
            Exit::UndoIncomplete,
            Exit::Locked,
            Exit::Inconclusive,
            Exit::Interrupted
        ])
    )
}

/// Runs the command.
pub(crate) fn run(args: &Args, context: &Context) -> Outcome {
    let schedule = schedule(args)?;
    let opened = platform::open(context)?;
    let service = target::service(context, &opened.config, args.service.as_deref())?;
    let plan = context.block_on(plan(args, context, &opened, service, schedule))?;
    if plan.nothing_to_do {
        context.out.answer(&plan, |_| String::new())?;
        context.out.note(format!(
            "nothing to do: `{}` runs version {} already",
            service.name, plan.spec.version.version
        ));
        return Ok(Exit::Done);
    }
    if args.dry_run {
        context.out.answer(&plan, |_| {
            plan.changes
                .iter()
                .map(|change| format!("would {}\n", change.what))
                .collect()
        })?;
        return Ok(Exit::Done);
    }
    let stake = Stake {
        question: format!(
            "ship version {} of `{}` as a canary?",
            plan.spec.version.version, service.name
        ),
        name: &service.name,
        consequence: Consequence::UndoneByItself,
        protected: opened.config.protected(),
    };
    let plan = approve(context, &args.consent, plan, &stake)?.into_plan();
    tell_plan(context, &plan);
    context.block_on(async {
        let now = opened.local.now();
        let mut record = worker::record(&RunRecord::new_id(now), &plan.spec, now);
        let worker = attach::start(context, &opened, &mut record, args.consent.reason.as_deref()).await?;
        context.out.note(format!("run {}: Ctrl-C aborts it", record.id));
        let followed = attach::watch(context, &opened, &record.id, worker).await?;
        if context.out.json {
            context.out.document(&followed.report)?;
        } else {
            context
                .out
                .data(&super::status::text(context, followed.report.as_ref()))?;
        }
        attach::tell_end(context, &opened, &followed);
        if followed.goes_on {
            context.out.next(format!(
                "opsctl deploy promote {0}, or opsctl deploy abort {0}",
                service.name
            ));
        }
        Ok(followed.exit)
    })
}

fn schedule(args: &Args) -> Result<Schedule, Failure> {
    match (&args.weight, &args.steps) {
        (Some(weight), _) => {
            let typed = format!("--weight {weight}");
            let percent = parse_weight(weight).map_err(|error| error::runs::schedule(&typed, &error))?;
            Schedule::hold(percent, args.judge_for).map_err(|error| error::runs::schedule(&typed, &error))
        }
        (None, Some(steps)) => steps
            .parse()
            .map_err(|error| error::runs::schedule(&format!("--steps {steps}"), &error)),
        (None, None) => Err(Failure::usage("usage", "either `--weight` or `--steps` is needed")),
    }
}

async fn plan(
    args: &Args,
    context: &Context,
    opened: &Opened,
    service: &Service,
    schedule: Schedule,
) -> Result<Plan, Failure> {
    let state = opened
        .local
        .service(&service.name)
        .await
        .map_err(|error| error::platform::failure(format!("could not ship `{}`", service.name), &error))?;
    let stable = state.stable_version.clone().unwrap_or_default();
    let version = match &args.version {
        Some(version) if *version == stable => VersionSpec {
            version: version.clone(),
            command: Vec::new(),
            image: None,
            env: std::collections::BTreeMap::new(),
            replicas: state.replicas,
        },
        Some(version) => named(context, opened, service, version, state.replicas)?,
        None => built(context, opened, service, state.replicas)?,
    };
    let mut spec = Spec::new(&service.name, &stable, version, schedule, &state.objectives).looking_every(args.interval);
    spec.bake = args.bake;
    spec.max_hold = args.max_hold;
    spec.max = args.max.unwrap_or(spec.max);
    spec.on_inconclusive = match args.on_inconclusive {
        Inconclusive::Hold => OnInconclusive::Hold,
        Inconclusive::Rollback => OnInconclusive::Rollback,
        Inconclusive::Promote => OnInconclusive::Promote,
    };
    Ok(opsctl_rollouts::plan(opened.platform.as_ref(), spec).await?)
}

/// What `[service.X.canary] command` says that a version runs.
fn named(
    context: &Context,
    opened: &Opened,
    service: &Service,
    version: &str,
    replicas: u32,
) -> Result<VersionSpec, Failure> {
    let template = service.canary_command.as_ref().ok_or_else(|| {
        Failure::usage("no_canary_command", format!("service `{}` does not say what version `{version}` runs", service.name))
            .help(format!("add `canary = {{ command = [\"…{{version}}…\"] }}` to `[service.{}]`, or leave out `--version` to ship what `build` builds", service.name))
    })?;
    if version.is_empty()
        || !version
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'))
        || version.starts_with('.')
    {
        return Err(Failure::usage(
            "usage",
            format!("`--version {version}` is no version: expected letters, digits, `.`, `-`, `_`, `+`"),
        ));
    }
    let command: Vec<String> = template.iter().map(|word| word.replace("{version}", version)).collect();
    let program = specs::find(context, service, &command)?;
    release(opened, service, program, Some(version), replicas)
}

/// What `build` builds; its version is its digest.
fn built(context: &Context, opened: &Opened, service: &Service, replicas: u32) -> Result<VersionSpec, Failure> {
    let local = specs::local(service)?;
    specs::build(context, &[service])?;
    let program = specs::find(context, service, &local.command)?;
    release(opened, service, program, None, replicas)
}

fn release(
    opened: &Opened,
    service: &Service,
    program: specs::Program,
    version: Option<&str>,
    replicas: u32,
) -> Result<VersionSpec, Failure> {
    let specs::Program { mut command, copy } = program;
    let digest = if copy {
        let release = releases::store(&opened.state, &service.name, Path::new(&command[0]))
            .map_err(|error| error::platform::failure(format!("could not keep a copy of `{}`", command[0]), &error))?;
        command[0] = release.program.display().to_string();
        release.version
    } else {
        releases::version_of(&command, &specs::local(service)?.cwd)
    };
    Ok(VersionSpec {
        version: version.map_or(digest, str::to_owned),
        command,
        image: None,
        env: std::collections::BTreeMap::new(),
        replicas,
    })
}

fn tell_plan(context: &Context, plan: &Plan) {
    for change in &plan.changes {
        context.out.note(change.what.clone());
    }
    if let [none, one, two, ..] = plan.requests_for_a_pass.as_slice() {
        context.out.note(format!(
            "a pass needs about {none}, {one}, {two} canary requests with 0, 1, 2 errors"
        ));
    }
    for version in &plan.leftovers {
        context
            .out
            .note(format!("takes away version {version}, which belongs to no run"));
    }
}
