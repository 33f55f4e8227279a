//! `opsctl deploy canary`: a new version gets a share of the traffic and is judged against the one that runs.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use opsctl_platform::VersionSpec;
use opsctl_platform::kube::{Mark, version_of_image};
use opsctl_platform::local::releases;
use opsctl_platform::run::RunRecord;
use opsctl_rollouts::judge::criteria::expand;
use opsctl_rollouts::{Criterion, OnInconclusive, Plan, Schedule, Spec, forecast, parse_weight, worker};

use super::Ownership;
use crate::attach;
use crate::config::{self, Service};
use crate::consent::{ConsentArgs, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::output::seconds;
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

    /// The image, on Kubernetes [default: that of opsctl.toml]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,

    /// Requests with this mark get the canary, whatever its share: header:NAME=VALUE or cookie:NAME=VALUE
    #[arg(long, value_name = "MARK", hide_short_help = true)]
    mark: Option<Mark>,

    #[command(flatten)]
    ownership: Ownership,

    /// How long the old version is kept after the promotion
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    bake: Duration,

    /// How long it is judged at most [default: twice the steps]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, hide_short_help = true)]
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
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = humantime::parse_duration,
        hide_short_help = true
    )]
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
         # By itself to 100 %, if the evidence is there\n  opsctl deploy canary orders --version 1.5.0 --steps 10:15m,50:15m,100\n\n  \
         # On Kubernetes, an image\n  opsctl deploy canary orders --image registry.internal/orders:1.5.0 --weight 10\n\n  \
         # Whoever sends this header gets it, too\n  opsctl deploy canary orders --weight 10 --mark header:x-canary=k7\n\n\
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
    let mut config = config::load(context)?;
    let service = target::service(context, &config, args.service.as_deref())?.name.clone();
    args.ownership.apply(&mut config)?;
    if let Some(mark) = &args.mark {
        super::only_there(&config, "--mark")?;
        let known = config.services.get_mut(&service);
        known.expect("it was just found").kubernetes.mark = Some(mark.clone());
    }
    let opened = platform::open_with(context, config)?;
    let service = &opened.config.services[&service];
    let plan = context.block_on(plan(args, context, &opened, service, schedule))?;
    if plan.nothing_to_do {
        context.out.answer(&plan, |_| String::new())?;
        context.out.note(format!(
            "nothing to do: `{}` runs version {} already",
            service.name, plan.spec.version.version
        ));
        return Ok(Exit::Done);
    }
    context.block_on(async {
        let now = opened.platform.now();
        let record = worker::record(&RunRecord::new_id(now), &plan.spec, now);
        // Every right that is missing first: a rehearsal stops at one.
        attach::preflight(&opened, &record, attach::home_of(&opened, &record)).await?;
        plan.rehearse(opened.platform.as_ref()).await.map_err(Failure::from)
    })?;
    if args.dry_run {
        context.out.note("measures the present traffic …");
        let measured = forecast::measure(opened.platform.as_ref(), &service.name, &plan.spec.stable);
        let traffic = context.block_on(measured);
        let plan = plan.at(traffic);
        context.out.answer(&plan, |_| foretold(&plan))?;
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
        let now = opened.platform.now();
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
        .platform
        .service(&service.name)
        .await
        .map_err(|error| error::platform::failure(format!("could not ship `{}`", service.name), &error))?;
    let stable = state.stable_version.clone().unwrap_or_default();
    if args.image.is_some() {
        super::only_there(&opened.config, "--image")
            .map_err(|failure| failure.help("here `--version` says what runs"))?;
    }
    let version = match &args.version {
        _ if opened.there().is_some() => shipped(args, service, state.replicas)?,
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
    spec.criteria = criteria(context, opened, service, &spec)?;
    Ok(opsctl_rollouts::plan(opened.platform.as_ref(), spec).await?)
}

/// The criteria of the service, with values for their placeholders. On this machine there is no Prometheus to be asked.
fn criteria(context: &Context, opened: &Opened, service: &Service, spec: &Spec) -> Result<Vec<Criterion>, Failure> {
    let Some(there) = opened.there() else {
        if !service.criteria.is_empty() {
            let name = &service.name;
            context.out.note(format!(
                "the criteria of `{name}` are asked of a cluster's Prometheus: not here"
            ));
        }
        return Ok(Vec::new());
    };
    let workload = there.kube.settings().workload(&service.name);
    let value = |word: &str| match word {
        "canary" => Some(spec.version.version.clone()),
        "stable" => Some(spec.stable.clone()),
        "namespace" => workload.map(|workload| workload.namespace.clone()),
        "service" => Some(service.name.clone()),
        _ => None,
    };
    let expanded = service.criteria.iter().map(|criterion| {
        let query =
            expand(&criterion.query, value).map_err(|error| Failure::bug("a query was not checked").because(&error))?;
        Ok(Criterion {
            query,
            ..criterion.clone()
        })
    });
    expanded.collect()
}

/// The image that is named, else the catalogue's, with the version as its tag if one is named.
fn shipped(args: &Args, service: &Service, replicas: u32) -> Result<VersionSpec, Failure> {
    let known = service.kubernetes.image.as_ref();
    let image = match (&args.image, &args.version, known) {
        (Some(image), _, _) => image.clone(),
        (None, Some(version), Some(known)) => tagged(known, version)?,
        (None, None, Some(known)) => known.clone(),
        (None, _, None) => {
            return Err(Failure::usage(
                "no_image",
                format!("service `{}` does not say which image it is", service.name),
            )
            .help(format!(
                "name it with `--image`, or add `kubernetes = {{ image = \"…\" }}` to `[service.{}]`",
                service.name
            )));
        }
    };
    if image.is_empty() || image.contains(char::is_whitespace) {
        return Err(Failure::usage("usage", format!("`{image}` is no image")));
    }
    Ok(VersionSpec {
        version: args.version.clone().unwrap_or_else(|| version_of_image(&image)),
        command: Vec::new(),
        image: Some(image),
        env: std::collections::BTreeMap::new(),
        replicas,
    })
}

/// An image with another tag.
fn tagged(image: &str, tag: &str) -> Result<String, Failure> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if tag.is_empty() || tag.len() > 128 || !tag.chars().all(inner) || tag.starts_with(['.', '-']) {
        return Err(Failure::usage(
            "usage",
            format!("`--version {tag}` is no tag of an image: expected letters, digits, `.`, `-`, `_`"),
        ));
    }
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let (folder, last) = name
        .rsplit_once('/')
        .map_or(("", name), |(folder, last)| (folder, last));
    let last = last.split_once(':').map_or(last, |(last, _)| last);
    let folder = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    Ok(format!("{folder}{last}:{tag}"))
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

/// What would be done, and what each step needs for a verdict.
fn foretold(plan: &Plan) -> String {
    let mut text: String = plan
        .changes
        .iter()
        .map(|change| format!("would {}\n", change.what))
        .collect();
    for criterion in &plan.spec.criteria {
        let (name, bounds) = (&criterion.name, criterion.bounds());
        let _ = writeln!(text, "would judge {name}, too: {bounds}");
    }
    let traffic = plan.traffic.map_or_else(
        || "unknown".to_owned(),
        |traffic| {
            let errors = traffic.errors_ratio * 100.0;
            format!("{:.1} requests/s, {errors:.2} % errors", traffic.requests_per_second)
        },
    );
    let _ = writeln!(text, "present traffic: {traffic}");
    let needs = |requests: Option<u64>, takes: Option<f64>| match (requests, takes) {
        (None, _) => "cannot be shown".to_owned(),
        (Some(requests), Some(takes)) => format!("about {requests} canary requests, {}", seconds(takes)),
        (Some(requests), None) => format!("about {requests} canary requests, time unknown"),
    };
    for step in &plan.steps {
        let _ = writeln!(text, "at {} %", step.percent);
        let _ = writeln!(text, "  a pass needs {}", needs(step.pass_requests, step.pass_seconds));
        let fail = needs(step.fail_requests, step.fail_seconds);
        let _ = writeln!(text, "  a fail needs {fail}, with {} times the errors", forecast::WORSE);
        if let Some(requests) = step.requests {
            let lasts = seconds(step.step_seconds);
            let _ = writeln!(text, "  the step brings about {requests} in {lasts}");
        }
    }
    text
}

fn tell_plan(context: &Context, plan: &Plan) {
    for change in &plan.changes {
        context.out.note(change.what.clone());
    }
    for criterion in &plan.spec.criteria {
        let (name, bounds) = (&criterion.name, criterion.bounds());
        context.out.note(format!("judges {name}, too: {bounds}"));
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

#[cfg(test)]
mod tests {
    use super::tagged;

    #[test]
    fn a_version_becomes_the_tag_of_the_image() {
        for (image, meant) in [
            ("orders", "orders:2"),
            ("orders:1", "orders:2"),
            ("registry:5000/shop/orders", "registry:5000/shop/orders:2"),
            ("registry:5000/orders:1@sha256:abc", "registry:5000/orders:2"),
        ] {
            assert_eq!(tagged(image, "2").expect("a tag"), meant);
        }
        for tag in ["", "a b", ".1", "a/b"] {
            assert!(tagged("orders", tag).is_err(), "{tag}");
        }
    }
}
