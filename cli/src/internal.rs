//! What our detached processes do: supervisor, proxy, the worker of a run, its watchdog. They have no terminal; what they
//! say goes to their log file.

use std::path::PathBuf;
use std::time::Duration;

use opsctl_drills::kinds::pod_kill;
use opsctl_drills::{Kind, report};
use opsctl_platform::PlatformError;
use opsctl_platform::local::{Launcher, Role, StateDir, supervisor};
use opsctl_platform::process::detach;
use opsctl_platform::run::{Journal, Run, RunRecord, WatchOptions, Watched, this_process, watch};
use opsctl_rollouts::{Options as CanaryOptions, rollback, worker};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::context::{Context, Signals};
use crate::error::{self, Failure, Outcome};
use crate::exit::Exit;
use crate::platform;
use crate::retention;

/// How long a run's locks live without a heartbeat.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long a watchdog may take to come up.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(10);

/// Which folder, and which run.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

impl Place {
    fn open(&self) -> Result<StateDir, Failure> {
        detach();
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .init();
        StateDir::open(&self.state).map_err(|error| error::platform::failure("could not use the state folder", &error))
    }

    fn run(&self) -> Result<&str, Failure> {
        self.run
            .as_deref()
            .ok_or_else(|| Failure::usage("usage", "`--run` is missing"))
    }
}

/// Supervises the services until they are meant to stop.
pub(crate) fn supervise(context: &Context, place: &Place) -> Outcome {
    let state = place.open()?;
    let launcher = Launcher::new(context.executable()?);
    context
        .block_on(supervisor::run(state, launcher))
        .map_err(|error| error::platform::failure("the supervisor ended", &error))?;
    Ok(Exit::Done)
}

/// Carries traffic until it is told to stop.
pub(crate) fn proxy(context: &Context, place: &Place) -> Outcome {
    let state = place.open()?;
    context.block_on(async {
        let shutdown = CancellationToken::new();
        let mut signals = Signals::listen()?;
        let options = opsctl_proxy::Options::new(state.root(), shutdown.clone());
        let proxy = opsctl_proxy::run(options);
        tokio::pin!(proxy);
        loop {
            tokio::select! {
                ended = &mut proxy => {
                    ended.map_err(|error| Failure::new(Exit::Failed, "proxy", "the proxy ended").because(&error))?;
                    return Ok(Exit::Done);
                }
                _ = signals.next() => shutdown.cancel(),
            }
        }
    })
}

/// Watches a run, and undoes it when its worker is lost.
pub(crate) fn watchdog(context: &Context, place: &Place) -> Outcome {
    let state = place.open()?;
    let run = place.run()?;
    let (local, platform) = platform::over(context, &state)?;
    context.block_on(async {
        // It ends by itself when the run is over; a signal to the process group must not end it before.
        let _signals = Signals::listen()?;
        let journal = open_journal(&state, run)?;
        let notifier = match platform.record(run).await {
            Ok(Some(record)) => notifier_of(context, &record),
            _ => None,
        };
        let options = WatchOptions {
            notifier,
            ..WatchOptions::default()
        };
        let watched = watch(platform, run, this_process(run), &journal, &options)
            .await
            .map_err(|error| error::platform::run_failure(format!("could not watch run `{run}`"), &error))?;
        if matches!(watched, Watched::Undone(_)) {
            retention::after_run(&local).await;
        }
        Ok(Exit::Done)
    })
}

/// Works on a run: carries it through and writes its report.
pub(crate) fn work(context: &Context, place: &Place) -> Outcome {
    let state = place.open()?;
    let id = place.run()?;
    let (local, platform) = platform::over(context, &state)?;
    context.block_on(async {
        let _signals = Signals::listen()?;
        let what = || format!("could not work on run `{id}`");
        let launcher = local
            .launcher()
            .ok_or_else(|| Failure::bug("the platform has no launcher"))?;
        let journal = open_journal(&state, id)?;
        let run = Run::take(platform, id, this_process(id), LEASE, journal)
            .await
            .map_err(|error| error::platform::run_failure(what(), &error))?;
        run.keep_watched(watchdog_starter(launcher.clone(), &state, id))
            .map_err(|error| error::platform::run_failure(what(), &error))?;
        let notifier = notifier_of(context, run.record());
        let done = if run.record().kind == worker::KIND {
            let options = CanaryOptions {
                await_watchdog: Some(WATCHDOG),
                notifier,
            };
            let done = opsctl_rollouts::work(run, options)
                .await
                .map_err(|error| error::runs::canary_work(what(), &error))?;
            let document = to_json(&done)?;
            let page = report::canary::page(&document).map_err(|error| Failure::bug(what()).because(&error))?;
            platform::write_report(&state, id, "report.html", page.as_bytes())?;
            write_json(&state, id, &document)
        } else if run.record().kind == Kind::PodKill.record_kind() {
            let done = pod_kill::work(run.with_notifier(notifier), Some(WATCHDOG))
                .await
                .map_err(|error| error::runs::drill_work(what(), &error))?;
            platform::write_report(&state, id, "report.html", done.page().as_bytes())?;
            write_json(&state, id, &done)
        } else if run.record().kind == rollback::KIND {
            let done = rollback::work(run, Some(WATCHDOG), notifier)
                .await
                .map_err(|error| error::runs::canary_work(what(), &error))?;
            write_json(&state, id, &done)
        } else {
            // A restore works in the process that was asked; what it left is undone by its watchdog or by `recover`.
            let kind = run.record().kind.clone();
            Err(Failure::usage(
                "not_resumable",
                format!("a run of kind `{kind}` cannot be gone on with"),
            )
            .help(format!("opsctl recover {id}")))
        };
        if done.is_ok() {
            retention::after_run(&local).await;
        }
        done
    })
}

fn open_journal(state: &StateDir, run: &str) -> Result<Journal, Failure> {
    Journal::open(state.journal(run), run)
        .map_err(|error| error::platform::journal(format!("could not open the journal of run `{run}`"), &error))
}

fn to_json(document: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(document).map_err(|error| Failure::bug("could not write the report as JSON").because(&error))
}

/// The JSON last: whoever waits for it finds the page, too.
fn write_json(state: &StateDir, run: &str, document: &impl Serialize) -> Outcome {
    let text = serde_json::to_vec_pretty(document)
        .map_err(|error| Failure::bug("could not write the report as JSON").because(&error))?;
    platform::write_report(state, run, "report.json", &text)?;
    Ok(Exit::Done)
}

/// Starts the watchdog of a run, each time that it is called.
pub(crate) fn watchdog_starter(
    launcher: Launcher,
    state: &StateDir,
    run: &str,
) -> impl Fn() -> Result<(), PlatformError> + Send + Sync + 'static {
    let (state, run) = (state.clone(), run.to_owned());
    move || launcher.spawn(Role::Watchdog { run: &run }, &state).map(drop)
}

/// The configuration is found upwards from the state folder, in which these processes work.
fn notifier_of(context: &Context, record: &RunRecord) -> Option<opsctl_platform::run::Notifier> {
    let config = config::load_environment(context, &record.environment).ok()?;
    platform::notifier(context, &config, record.service())
}
