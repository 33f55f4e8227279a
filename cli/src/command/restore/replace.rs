//! `restore --replace`: a run that holds the services down, swaps the data, starts them again. Every change has its undo
//! step before it is made; a kill at any instant is taken back by the watchdog or `opsctl recover`. Here are files, and
//! what every kind of data has in common; databases of a server are in `database`.

mod database;
mod origin;
mod secret;

use std::path::PathBuf;
use std::time::Duration;

use opsctl_platform::run::{Control, Journal, Outcome as RunOutcome, Run, RunRecord, lock, this_process};
use opsctl_platform::{Field, Hold};
use tokio_util::sync::CancellationToken;

use super::fetch::{Document, Fetch, beside};
use super::{Args, at};
use crate::config::{Config, Datastore, DatastoreKind};
use crate::consent::{Approved, Consequence, Stake, approve};
use crate::context::Context;
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::internal::{LEASE, WATCHDOG, watchdog_starter};
use crate::platform::{self, Content, Opened};
use crate::repository::{self, IfEmpty};
use crate::retention;

/// How long services may take to end, and to be ready again.
const STOP_LIMIT: Duration = Duration::from_mins(1);
const START_LIMIT: Duration = Duration::from_mins(1);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(20);

/// What will be done.
struct Plan {
    live: PathBuf,
    /// Services that use the store and run here.
    services: Vec<String>,
    companions: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: &Args, context: &Context, config: &Config, store: &Datastore) -> Outcome {
    if store.kind == DatastoreKind::Command {
        return Err(Failure::usage(
            "not_replaceable",
            format!(
                "`{}` is what a command prints: there is nothing to replace by it",
                store.name
            ),
        )
        .help("restore it without `--replace`, and feed the file to the program that reads it"));
    }
    if store.kind == DatastoreKind::Postgres {
        return database::run(args, context, config, store);
    }
    let declared = repository::declared(config, args.repository.as_deref())?;
    let live = repository::path_of(store)?;
    let source = repository::source(config, store)?;
    let opened = platform::open_local(context, config.clone(), "opsctl restore --replace")?;
    repository::cancellable(context, async |cancel| {
        let engine = repository::open(context, declared, IfEmpty::Fail).await?;
        let (record, moment) = at::find(args, context, config, &engine, store).await?;
        let short = moment.as_ref().map_or_else(|| record.id.short(), at::Found::name);
        let told = at::told(&record, moment.as_ref());
        let plan = plan(config, store, &opened, live).await?;
        if args.dry_run {
            context.out.line(&format!(
                "would hold down {}, and replace {}, {told}",
                names(&plan.services),
                context.shown(&plan.live)
            ))?;
            return Ok(Exit::Done);
        }
        let stake = Stake {
            question: format!(
                "replace `{}`, {told}, with {} held down meanwhile?",
                store.name,
                names(&plan.services)
            ),
            name: &store.name,
            consequence: Consequence::ReplacesData,
            protected: config.protected(),
        };
        let plan = approve(context, &args.consent, plan, &stake)?;
        let fetch = Fetch {
            engine: &engine,
            store,
            source: source.as_ref(),
            record: &record,
            moment: moment.as_ref(),
            options: args.options()?,
            is_whole: true,
            folder: beside(&repository::path_of(store)?, &format!("restoring-{short}")),
        };
        Box::pin(apply(args, context, &opened, store, plan, fetch, &cancel)).await
    })
}

fn names(services: &[String]) -> String {
    if services.is_empty() {
        "nothing".to_owned()
    } else {
        services.join(", ")
    }
}

async fn plan(config: &Config, store: &Datastore, opened: &Opened, live: PathBuf) -> Result<Plan, Failure> {
    let users = config.users_of(&store.name).into_iter();
    let services = running(opened, users.map(|service| service.name.clone())).await?;
    let companions = match store.kind {
        DatastoreKind::Sqlite => ["-wal", "-shm", "-journal"].map(str::to_owned).to_vec(),
        _ => Vec::new(),
    };
    Ok(Plan {
        live,
        services,
        companions,
    })
}

/// Those of services that run here, or are meant to. What `down` has ended nobody waits for.
async fn running(opened: &Opened, services: impl Iterator<Item = String>) -> Result<Vec<String>, Failure> {
    let failed = |error| error::platform::failure("could not see what runs", &error);
    let known = opened.platform.services().await.map_err(failed)?;
    let mut running = Vec::new();
    for name in services.filter(|name| known.contains(name)) {
        let state = opened.platform.service(&name).await.map_err(failed)?;
        if !state.instances.is_empty() || state.hold.is_some() {
            running.push(name);
        }
    }
    Ok(running)
}

/// What a run is about.
struct About<'a> {
    store: &'a Datastore,
    /// What cannot be done when something fails.
    what: String,
    spec: serde_json::Value,
    services: &'a [String],
}

/// Stores the run's record, takes its locks and has it watched. Nothing was changed yet.
async fn begin(args: &Args, context: &Context, opened: &Opened, about: About<'_>) -> Result<Run, Failure> {
    let About {
        store,
        what,
        spec,
        services,
    } = about;
    let failed = |error| error::platform::run_failure(what.clone(), &error);
    let now = opened.platform.now();
    let id = RunRecord::new_id(now);
    let mut record = RunRecord::new(&id, "restore", format!("datastore/{}", store.name), spec, now);
    record.actor = context.actor();
    record.reason.clone_from(&args.consent.reason);
    record.environment.clone_from(&opened.config.environment.name);
    record.cluster = opened.cluster().map(str::to_owned);
    record.locks = vec![format!("datastore-{}", store.name)];
    record
        .locks
        .extend(services.iter().map(|service| lock::name_for_service(service)));

    let platform_failed = |error| error::platform::failure(what.clone(), &error);
    opened.state.make(format!("runs/{id}")).map_err(platform_failed)?;
    let journal = Journal::open(opened.state.journal(&id), &id)
        .map_err(|error| error::platform::journal(what.clone(), &error))?;
    let launcher = opened.launcher(context)?;
    let notifier = platform::notifier(context, &opened.config, services.first().map(String::as_str));
    let run = Run::begin(
        std::sync::Arc::clone(&opened.platform),
        record,
        this_process(&id),
        LEASE,
        journal,
    )
    .await
    .map_err(failed)?;
    let mut run = run.with_notifier(notifier);
    run.keep_watched(watchdog_starter(launcher, &opened.state, &id))
        .map_err(failed)?;
    run.await_watchdog(WATCHDOG).await.map_err(failed)?;
    run.announce().await;
    Ok(run)
}

/// Removes what old runs left here.
async fn tidy(opened: &Opened) {
    match opened.here() {
        Some(local) => retention::after_run(local).await,
        None => retention::after_run_there(&opened.state),
    }
}

/// Undoes what a run has changed that failed, and closes it. The failure is the end of the command.
async fn give_back(context: &Context, opened: &Opened, mut run: Run, failure: Failure, what: &str) -> Failure {
    if run.control() == Control::Fenced {
        return failure.help("another process took the run over and undoes it: opsctl run list");
    }
    let failed = |error| error::platform::run_failure(what, &error);
    let id = run.id().to_owned();
    context.out.note("putting everything back …");
    let report = match run.undo().await {
        Ok(report) => report,
        Err(error) => return failed(error),
    };
    let outcome = match failure.exit {
        Exit::Interrupted | Exit::Terminated => RunOutcome::Aborted,
        Exit::No => RunOutcome::Failed,
        Exit::Refused => RunOutcome::Refused,
        _ => RunOutcome::Error,
    };
    if let Err(error) = run.close(outcome, &failure.message).await {
        return failed(error);
    }
    tidy(opened).await;
    if report.complete() {
        return failure;
    }
    Failure {
        exit: Exit::UndoIncomplete,
        ..failure
    }
    .help(format!("opsctl recover {id}"))
}

/// The run, from its record to its end.
async fn apply(
    args: &Args,
    context: &Context,
    opened: &Opened,
    store: &Datastore,
    plan: Approved<Plan>,
    fetch: Fetch<'_>,
    cancel: &CancellationToken,
) -> Outcome {
    let plan = plan.into_plan();
    let what = format!("could not restore `{}` in place", store.name);
    let failed = |error| error::platform::run_failure(what.clone(), &error);
    let spec = serde_json::json!({
        "datastore": store.name, "snapshot": fetch.record.id.to_string(), "services": plan.services,
    });
    let about = About {
        store,
        what: what.clone(),
        spec,
        services: &plan.services,
    };
    let mut run = begin(args, context, opened, about).await?;
    let document = match carry_through(context, opened, &mut run, &plan, fetch, cancel).await {
        Ok(document) => document,
        Err(failure) => return Err(give_back(context, opened, run, failure, &what).await),
    };
    let (outcome, message, exit) =
        match not_ready(opened, &plan.services, args.timeout.unwrap_or(START_LIMIT), &run).await? {
            None => (
                RunOutcome::Passed,
                "restored, and the services are ready".to_owned(),
                Exit::Done,
            ),
            Some(service) => (
                RunOutcome::Failed,
                format!("restored, but `{service}` did not become ready"),
                Exit::No,
            ),
        };
    run.close(outcome, &message).await.map_err(failed)?;
    tidy(opened).await;
    context.out.answer(&document, |_| format!("{}\n", document.target))?;
    context.out.done(document.summary());
    if let Some(kept) = &document.kept {
        context
            .out
            .note(format!("what was there is kept as {}", context.shown(kept.as_ref())));
    }
    if exit != Exit::Done {
        return Err(Failure::new(exit, "not_ready", message).help("opsctl status; opsctl logs"));
    }
    Ok(exit)
}

/// Everything up to the start of the services. An error leaves what was changed to the caller's undo.
async fn carry_through(
    context: &Context,
    opened: &Opened,
    run: &mut Run,
    plan: &Plan,
    fetch: Fetch<'_>,
    cancel: &CancellationToken,
) -> Result<Document, Failure> {
    let what = format!("could not restore `{}` in place", fetch.store.name);
    let failed = |error| error::platform::run_failure(what.clone(), &error);
    let (store, snapshot, folder) = (
        fetch.store.name.clone(),
        fetch.record.id.to_string(),
        fetch.folder.clone(),
    );

    // While the services still run: the time that they are down is that of the swap.
    run.step("restoring beside").await.map_err(failed)?;
    let mut document = fetch.run(context, cancel).await?;
    if document.is_partial() {
        document.warn(context);
        return Err(Failure::new(Exit::No, "damaged", what)
            .cause("the snapshot did not come back whole, so it replaces nothing")
            .help(format!(
                "what could be restored is in `{}`; try an older snapshot: opsctl snapshot list",
                context.shown(&folder)
            )));
    }
    let staged = folder.join(plan.live.file_name().unwrap_or_default());
    if staged.symlink_metadata().is_err() {
        return Err(Failure::usage("unknown_path", what)
            .cause(format!(
                "the snapshot holds no `{}`",
                plan.live.file_name().unwrap_or_default().to_string_lossy()
            ))
            .help("restore it beside, without `--replace`, and look"));
    }

    hold(opened, run, Some(cancel), &plan.services, &store, &what).await?;
    let mut parts = vec![plan.live.clone()];
    parts.extend(plan.companions.iter().map(|suffix| with_suffix(&plan.live, suffix)));
    let users = platform::open_by(&parts);
    if !users.is_empty() {
        return Err(
            Failure::refused("in_use", format!("`{}` is open", context.shown(&plan.live)))
                .details(users)
                .help("end these processes, then run the same command again"),
        );
    }

    stop_asked(run, cancel, &what)?;
    run.step("swapping").await.map_err(failed)?;
    let kept = beside(&plan.live, &format!("before-{}", run.id()));
    let content = Content {
        run: run.id().to_owned(),
        snapshot,
        live: plan.live.clone(),
        staged,
        kept: kept.clone(),
        companions: plan.companions.clone(),
    };
    let field = Content::field(&store);
    run.change(&field, Some(content.value())).await.map_err(failed)?;
    stop_asked(run, cancel, &what)?;

    // From here on the restored data stays: what runs has it open.
    run.keep(&field).await.map_err(failed)?;
    // What is left in it is the snapshot's manifest.
    let _ = std::fs::remove_dir_all(&folder);
    let_go(run, &plan.services, &what).await?;
    document.run = Some(run.id().to_owned());
    document.target = plan.live.display().to_string();
    document.kept = kept.symlink_metadata().is_ok().then(|| kept.display().to_string());
    Ok(document)
}

/// Stops services and keeps them from starting; returns when none of them runs. Without `cancel` whoever wants it to stop
/// is not listened to: it is done to take something back.
async fn hold(
    opened: &Opened,
    run: &mut Run,
    cancel: Option<&CancellationToken>,
    services: &[String],
    store: &str,
    what: &str,
) -> Result<(), Failure> {
    let failed = |error| error::platform::run_failure(what, &error);
    run.step("holding services down").await.map_err(failed)?;
    for service in services {
        cancel.map_or(Ok(()), |cancel| stop_asked(run, cancel, what))?;
        let hold = Hold {
            holder: run.id().to_owned(),
            reason: format!("{store} is being restored"),
            retry_after_seconds: 5,
        };
        run.change(&Field::hold(service), Some(hold.value()))
            .await
            .map_err(failed)?;
    }
    for service in services {
        wait_stopped(opened, run, cancel, service, what).await?;
    }
    Ok(())
}

/// Lets services start again.
async fn let_go(run: &mut Run, services: &[String], what: &str) -> Result<(), Failure> {
    let failed = |error| error::platform::run_failure(what, &error);
    run.step("starting services").await.map_err(failed)?;
    for service in services {
        let report = run.undo_field(&Field::hold(service)).await.map_err(failed)?;
        if !report.complete() {
            return Err(Failure::new(
                Exit::UndoIncomplete,
                "undo_incomplete",
                format!("could not let `{service}` start again"),
            )
            .help(format!("opsctl recover {}", run.id())));
        }
    }
    Ok(())
}

fn with_suffix(path: &std::path::Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Ctrl-C here, an abort from elsewhere, or the loss of the run.
fn stop_asked(run: &Run, cancel: &CancellationToken, what: &str) -> Result<(), Failure> {
    match run.control() {
        Control::Fenced => {
            Err(Failure::new(Exit::Failed, "run_lost", what).cause("the run was taken over by another process"))
        }
        Control::Cancelled(cancel) => Err(Failure::new(
            Exit::Interrupted,
            "interrupted",
            format!("{what}: aborted by {}", cancel.by),
        )),
        Control::Run if cancel.is_cancelled() => {
            Err(
                Failure::new(Exit::Interrupted, "interrupted", format!("{what}: interrupted"))
                    .help("everything was put back; run the same command again"),
            )
        }
        Control::Run => Ok(()),
    }
}

async fn wait_stopped(
    opened: &Opened,
    run: &Run,
    cancel: Option<&CancellationToken>,
    service: &str,
    what: &str,
) -> Result<(), Failure> {
    let deadline = tokio::time::Instant::now() + STOP_LIMIT;
    loop {
        let state = opened
            .platform
            .service(service)
            .await
            .map_err(|error| error::platform::failure(what, &error))?;
        if state.instances.iter().all(|instance| instance.pid.is_none()) {
            return Ok(());
        }
        cancel.map_or(Ok(()), |cancel| stop_asked(run, cancel, what))?;
        if tokio::time::Instant::now() >= deadline {
            return Err(Failure::new(Exit::Unreachable, "timed_out", what)
                .cause(format!("`{service}` did not end within {} s", STOP_LIMIT.as_secs()))
                .help("opsctl status; opsctl logs"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The first service that is not ready in time.
async fn not_ready(
    opened: &Opened,
    services: &[String],
    limit: Duration,
    run: &Run,
) -> Result<Option<String>, Failure> {
    let deadline = tokio::time::Instant::now() + limit;
    for service in services {
        loop {
            let state =
                opened.platform.service(service).await.map_err(|error| {
                    error::platform::failure("could not see whether the services are ready", &error)
                })?;
            if state.settled() {
                break;
            }
            if tokio::time::Instant::now() >= deadline || run.control() != Control::Run {
                return Ok(Some(service.clone()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(None)
}
