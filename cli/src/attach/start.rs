//! Starting a run: where judge and watchdog work, whether they may, and what is stored before they begin. Following it is
//! the file above.

use std::time::Duration;

use clap::ValueEnum;
use opsctl_platform::kube::access::{Command, needed};
use opsctl_platform::kube::job::JobSpec;
use opsctl_platform::local::Role;
use opsctl_platform::run::{RunRecord, this_process};
use opsctl_rollouts::{rollback, worker};
use tokio::process::Child;

use super::close_unclaimed;
use crate::config::{Cluster, SecretSource};
use crate::context::Context;
use crate::error::{self, Failure};
use crate::platform::{self, Opened};

/// A drill that lasts longer works in the cluster.
const LONG: Duration = Duration::from_mins(10);

/// Where judge and watchdog of a run work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Home {
    /// Processes on this machine
    Process,
    /// A Job in the cluster
    Job,
}

/// Where a drill works that lasts so long: as asked for; else in the cluster, if it is protected or long.
pub(crate) fn home(opened: &Opened, asked: Option<Home>, lasts: Duration) -> Home {
    let inside = opened.config.environment.protected || lasts > LONG;
    match asked {
        _ if opened.there().is_none() => Home::Process,
        Some(asked) => asked,
        None if inside => Home::Job,
        None => Home::Process,
    }
}

/// What was started to work on a run.
#[derive(Debug)]
pub(crate) enum Worker {
    /// A process of this machine.
    Process(Child),
    /// A Job in the cluster.
    Job,
}

/// Stores a new run and starts its worker, which starts the watchdog. On a cluster those of canaries work inside it, and
/// those of drills where the environment is protected.
pub(crate) async fn start(
    context: &Context,
    opened: &Opened,
    record: &mut RunRecord,
    reason: Option<&str>,
) -> Result<Worker, Failure> {
    start_in(context, opened, record, reason, home_of(opened, record)).await
}

/// Where judge and watchdog of a run work of which nothing else is said.
pub(crate) fn home_of(opened: &Opened, record: &RunRecord) -> Home {
    home(opened, ships(record).then_some(Home::Job), Duration::ZERO)
}

/// As [`start`], where it is said.
pub(crate) async fn start_in(
    context: &Context,
    opened: &Opened,
    record: &mut RunRecord,
    reason: Option<&str>,
    home: Home,
) -> Result<Worker, Failure> {
    record.starter = Some(this_process(&record.id));
    record.actor = context.actor();
    record.reason = reason.map(str::to_owned);
    record.environment.clone_from(&opened.config.environment.name);
    record.cluster = opened.cluster().map(str::to_owned);
    let what = || format!("could not start run `{}`", record.id);
    let failed = |error| error::platform::failure(what(), &error);
    // What is missing is told before anything is stored.
    preflight(opened, record, home).await?;
    let job = match home {
        Home::Job => Some(job(context, opened, record)?),
        Home::Process => {
            opened.state.make(format!("runs/{}", record.id)).map_err(failed)?;
            None
        }
    };
    record.revision = opened.platform.create_record(record).await.map_err(failed)?;
    let started = match (&job, opened.there()) {
        (Some(job), Some(there)) => there
            .kube
            .start_job(record, job)
            .await
            .map(|()| Worker::Job)
            .map_err(failed),
        _ => start_process(context, opened, &record.id).map(Worker::Process),
    };
    if let Err(failure) = &started {
        close_unclaimed(opened, record, &failure.message).await?;
    }
    started
}

fn start_process(context: &Context, opened: &Opened, run: &str) -> Result<Child, Failure> {
    opened
        .launcher(context)?
        .spawn_child(Role::Worker { run }, &opened.state)
        .map(|(_, child)| child)
        .map_err(|error| error::platform::failure(format!("could not start the worker of run `{run}`"), &error))
}

/// How the Job of a run is made.
fn job(context: &Context, opened: &Opened, record: &RunRecord) -> Result<JobSpec, Failure> {
    let cluster = &opened
        .there()
        .ok_or_else(|| Failure::bug("there is no cluster for a Job"))?
        .cluster;
    let image = cluster.image.clone().ok_or_else(|| {
        Failure::usage(
            "no_image",
            format!(
                "cluster `{}` does not say which image of opsctl runs in it",
                cluster.name
            ),
        )
        .cause("canaries, and drills that are long or in a protected environment, are judged inside the cluster")
        .help(format!(
            "add `image = \"…\"` to `[cluster.{}]` of opsctl.toml",
            cluster.name
        ))
    })?;
    Ok(JobSpec {
        image,
        service_account: cluster.service_account.clone(),
        webhook: webhook(context, opened, record),
        prometheus: prometheus(opened, cluster, record)?,
        // Whoever drains a node does not run on it.
        avoid_nodes: record.spec["node"].as_str().map(str::to_owned).into_iter().collect(),
    })
}

/// The Secret that lets the Job ask its Prometheus. What lets us in here stays here: without a Secret there the judge would
/// see nothing.
fn prometheus(opened: &Opened, cluster: &Cluster, record: &RunRecord) -> Result<Option<String>, Failure> {
    let alertmanager = platform::alertmanager_of(&opened.config, Some(cluster));
    if record.spec.get("alertmanager").is_some()
        && alertmanager.is_some_and(|known| known.key.is_some() || known.authority.is_some())
    {
        return Err(Failure::usage(
            "no_secret",
            format!("a drill in cluster `{}` could not ask its Alertmanager", cluster.name),
        )
        .cause("what lets us in here stays here")
        .help("`--watchdog process` watches the alerts from here"));
    }
    let Some(known) = platform::prometheus(&opened.config, cluster) else {
        return Ok(None);
    };
    if known.secret.is_none() && (known.key.is_some() || known.authority.is_some()) {
        return Err(Failure::usage(
            "no_secret",
            format!("the judge in cluster `{}` could not ask its Prometheus", cluster.name),
        )
        .cause("the catalogue says what lets us in here, and not which Secret does so there")
        .help(
            "add `secret = \"…\"` to its `prometheus`: a Secret in the service's namespace with `token`, or `username` and `password`, and `ca.crt`",
        ));
    }
    Ok(known.secret.clone())
}

/// The Secret with the webhook's address, if the Job can be given it: nothing but a Secret of its namespace reaches it.
fn webhook(context: &Context, opened: &Opened, record: &RunRecord) -> Option<(String, String)> {
    let source = platform::webhook(&opened.config, record.service())?;
    let namespace = opened.there()?.kube.namespace_of(record);
    if let SecretSource::Kubernetes(place) = source
        && let Some((secret, key)) = place
            .strip_prefix(&format!("{namespace}/"))
            .and_then(|place| place.split_once('#'))
    {
        return Some((secret.to_owned(), key.to_owned()));
    }
    context.out.warn(format!(
        "nobody is told: the run works in the cluster, and the webhook is in no Secret of namespace `{namespace}`"
    ));
    None
}

/// Whether the run ships a version: its judge outlives every terminal.
fn ships(record: &RunRecord) -> bool {
    [worker::KIND, rollback::KIND].contains(&record.kind.as_str())
}

/// Starts another worker for a run whose worker was lost.
pub(super) async fn resume(context: &Context, opened: &Opened, record: &RunRecord) -> Result<Worker, Failure> {
    let failed = |error| error::platform::failure(format!("could not go on with run `{}`", record.id), &error);
    if let Some(there) = opened.there().filter(|_| ships(record)) {
        let started = there.kube.start_job(record, &job(context, opened, record)?).await;
        return started.map(|()| Worker::Job).map_err(failed);
    }
    opened.state.make(format!("runs/{}", record.id)).map_err(failed)?;
    start_process(context, opened, &record.id).map(Worker::Process)
}

/// Asks the cluster for every right that the run needs, those of its undo too.
pub(crate) async fn preflight(opened: &Opened, record: &RunRecord, home: Home) -> Result<(), Failure> {
    let Some(there) = opened.there() else { return Ok(()) };
    let mut commands = vec![Command::Status];
    commands.extend(command_of(record));
    if home == Home::Job {
        commands.push(Command::Job);
    }
    let namespace = there.kube.namespace_of(record);
    let rows = needed(&commands, &there.kube.settings().providers());
    let refused = there.kube.may(&[namespace], &rows).await;
    let refused =
        refused.map_err(|error| error::platform::failure("could not ask the cluster what is allowed", &error))?;
    if refused.is_empty() {
        return Ok(());
    }
    let what = if ships(record) { "canary" } else { "drill" };
    Err(Failure::refused(
        "forbidden",
        format!(
            "not everything is allowed that a {what} needs on cluster `{}`",
            there.cluster.name
        ),
    )
    .details(refused.iter().map(|one| {
        let place = one.namespace.as_ref();
        let place = place.map_or_else(
            || "the cluster".to_owned(),
            |namespace| format!("namespace `{namespace}`"),
        );
        format!("{} {} in {place}", one.verb, one.resource)
    }))
    .help(format!(
        "nothing was changed; `opsctl rbac --for {what}` prints the role that is needed"
    )))
}

/// What a run does, as far as rights go.
fn command_of(record: &RunRecord) -> Option<Command> {
    let mode = record.spec.pointer("/mode/mode").or_else(|| record.spec.get("mode"));
    match record.kind.as_str() {
        worker::KIND | rollback::KIND => Some(Command::Canary),
        "drill/pod-kill" => Some(match mode.and_then(serde_json::Value::as_str) {
            Some("delete") => Command::PodKillDelete,
            Some("container") => Command::PodKillContainer,
            _ => Command::PodKill,
        }),
        "drill/service-down" => Some(Command::ServiceDown),
        "drill/node-drain" => Some(Command::NodeDrain),
        "drill/db-down" if record.spec["how"] == "policy" => Some(Command::Cut),
        "drill/latency" | "drill/db-down" => Some(Command::Hop),
        _ => None,
    }
}
