//! What our detached processes do: supervisor, proxy, the worker of a run, its watchdog. They have no terminal; what they
//! say goes to their log file.

pub(crate) mod hop;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use endpoint::Access;
use opsctl_drills::expectation::Servers;
use opsctl_drills::{With, kinds, report};
use opsctl_platform::kube::{self, KubePlatform, Publisher, job};
use opsctl_platform::local::{Launcher, LocalPlatform, Role, StateDir, supervisor};
use opsctl_platform::process::detach;
use opsctl_platform::prometheus::Prometheus;
use opsctl_platform::run::{Journal, Notifier, Run, RunError, RunRecord, WatchOptions, Watched, this_process, watch};
use opsctl_platform::{Platform, PlatformError};
use opsctl_rollouts::{Options as CanaryOptions, rollback, worker};
use serde::Serialize;
use tokio::time::Instant;
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

/// How long a pod waits for the end of the one before it.
const TAKE_OVER: Duration = Duration::from_mins(3);

/// Which folder, and which run.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    #[arg(long, value_name = "FOLDER")]
    state: PathBuf,
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

/// Where a worker is, and so is what it works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// Here, for the local platform.
    Here,
    /// Here, for a cluster.
    There,
    /// In a pod of the cluster.
    Inside,
}

/// What a worker or watchdog works with.
pub(crate) struct Bench<'a> {
    context: &'a Context,
    site: Site,
    state: StateDir,
    run: String,
    platform: Arc<dyn Platform>,
    local: Option<LocalPlatform>,
    kube: Option<Arc<KubePlatform>>,
    /// Starts the watchdog; in a pod the kubelet does.
    launcher: Option<Launcher>,
}

impl Bench<'_> {
    fn journal(&self) -> Result<Journal, Failure> {
        let run = self.run.as_str();
        let what = || format!("could not open the journal of run `{run}`");
        let folder = self.state.make(format!("runs/{run}"));
        folder.map_err(|error| error::platform::failure(what(), &error))?;
        Journal::open(self.state.journal(run), run).map_err(|error| error::platform::journal(what(), &error))
    }

    /// Keeps the journal in the cluster, too, for whoever is elsewhere.
    fn publish(&self, record: &RunRecord) -> Option<Publisher> {
        let kube = self.kube.as_ref()?;
        Some(kube.publish(record, self.state.journal(&self.run)))
    }

    /// Between two looks of a watchdog: every one is a question to an API server.
    fn poll(&self) -> Duration {
        match self.kube {
            Some(_) => Duration::from_secs(1),
            None => WatchOptions::default().poll,
        }
    }

    /// Who is told of the run. The configuration is found upwards from the state folder, in which these processes work.
    fn notifier(&self, record: &RunRecord) -> Option<Notifier> {
        if self.site == Site::Inside {
            let address = std::fs::read_to_string(job::WEBHOOK).ok()?;
            return platform::notifier_at(self.context, address.trim().to_owned());
        }
        let config = config::load_environment(self.context, &record.environment).ok()?;
        platform::notifier(self.context, &config, record.service())
    }

    /// Who is asked about the alerts that a drill expects, or why nobody can be; absent when it expects none.
    async fn alerting(&self, record: &RunRecord) -> Option<Result<Servers, String>> {
        let known = record.spec.get("alertmanager")?.as_str();
        let servers = match self.site {
            Site::Inside => self.alerting_inside(known),
            Site::Here | Site::There => match config::load_environment(self.context, &record.environment) {
                Ok(config) => {
                    let cluster = record.cluster.as_ref().and_then(|name| config.clusters.get(name));
                    platform::alerting(self.context, &config, cluster, known).await
                }
                Err(failure) => Err(failure),
            },
        };
        Some(servers.map_err(|failure| failure.message))
    }

    /// From within the cluster, with what the Secret holds.
    fn alerting_inside(&self, known: Option<&str>) -> Result<Servers, Failure> {
        let url = self.kube.as_ref().and_then(|kube| kube.settings().prometheus.clone());
        let url = url.ok_or_else(|| Failure::usage("no_prometheus", "no Prometheus is known in the cluster"))?;
        let folder = Path::new(job::PROMETHEUS);
        let prometheus = if folder.exists() {
            asked_from(folder, &url)
        } else {
            Prometheus::new(&url, Access::Open, None).map_err(|error| error.to_string())
        };
        Ok(Servers {
            prometheus: prometheus.map_err(|why| Failure::usage("prometheus", why))?,
            alertmanager: platform::alertmanager_at(known.unwrap_or_default())?,
        })
    }

    /// Removes what is old.
    async fn tidy(&self) {
        match &self.local {
            Some(local) => retention::after_run(local).await,
            None => retention::after_run_there(&self.state),
        }
    }
}

impl Place {
    /// Makes ready what a worker works with.
    pub(crate) fn bench<'a>(&self, context: &'a Context, site: Site) -> Result<Bench<'a>, Failure> {
        let state = self.open()?;
        let run = self.run()?.to_owned();
        let bench = |platform: Arc<dyn Platform>, launcher: Option<Launcher>| Bench {
            context,
            site,
            state: state.clone(),
            run: run.clone(),
            platform,
            local: None,
            kube: None,
            launcher,
        };
        match site {
            Site::Here => {
                let (local, _) = platform::over(context, &state, platform::Servers::default())?;
                // The configuration is found upwards from the state folder; what is wrong with it is told by what needs it.
                let record = context.block_on(local.record(&run)).ok().flatten();
                let config = record.and_then(|record| config::load_environment(context, &record.environment).ok());
                let servers = config.as_ref().map(platform::Servers::of).unwrap_or_default();
                let (local, platform) = platform::over(context, &state, servers)?;
                let launcher = local.launcher().cloned();
                Ok(Bench {
                    local: Some(local),
                    ..bench(platform, launcher)
                })
            }
            Site::There => {
                let opened = platform::open_for(context, config::load(context)?)?;
                let there = opened.there().ok_or_else(|| Failure::bug("the run is on no cluster"))?;
                Ok(Bench {
                    kube: Some(Arc::clone(&there.kube)),
                    ..bench(Arc::clone(&opened.platform), Some(opened.launcher(context)?))
                })
            }
            Site::Inside => {
                let kube = Arc::new(context.block_on(async { inside() })?);
                Ok(Bench {
                    kube: Some(Arc::clone(&kube)),
                    ..bench(kube, None)
                })
            }
        }
    }

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

/// The platform as the pod is told of it.
fn inside() -> Result<KubePlatform, Failure> {
    let what = || format!("could not read `{}`", job::SETTINGS);
    let text = std::fs::read(job::SETTINGS).map_err(|error| Failure::io(what(), &error))?;
    let settings = serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Exit::Failed, "state_damaged", what()).because(&error))?;
    let settings: kube::Settings = settings;
    let url = settings.prometheus.clone();
    let platform = kube::config::in_cluster()
        .and_then(|config| KubePlatform::connect(settings, &config))
        .map_err(|error| error::platform::failure("could not use the cluster from within", &error))?;
    let folder = Path::new(job::PROMETHEUS);
    Ok(match url.filter(|_| folder.exists()) {
        Some(url) => platform.asking(asked_from(folder, &url)),
        None => platform,
    })
}

/// The client of a Prometheus that lets in whoever has what the Secret holds.
fn asked_from(folder: &Path, url: &str) -> Result<Prometheus, String> {
    let told = |error: std::io::Error| format!("could not read `{}`: {error}", folder.display());
    let authority = folder.join("ca.crt");
    let authority = authority
        .exists()
        .then(|| std::fs::read(authority))
        .transpose()
        .map_err(told)?;
    let access = Access::of_folder(folder).map_err(told)?;
    Prometheus::new(url, access, authority.as_deref()).map_err(|error| error.to_string())
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
pub(crate) fn watchdog(bench: &Bench<'_>) -> Outcome {
    let run = bench.run.as_str();
    bench.context.block_on(async {
        // It ends by itself when the run is over; a signal to the process group must not end it before.
        let _signals = Signals::listen()?;
        let journal = bench.journal()?;
        let record = bench.platform.record(run).await.ok().flatten();
        let options = WatchOptions {
            notifier: record.as_ref().and_then(|record| bench.notifier(record)),
            poll: bench.poll(),
            ..WatchOptions::default()
        };
        let watched = tokio::select! {
            watched = watch(Arc::clone(&bench.platform), run, this_process(run), &journal, &options) => watched,
            () = abandoned(bench) => return Ok(Exit::Unreachable),
        };
        let watched =
            watched.map_err(|error| error::platform::run_failure(format!("could not watch run `{run}`"), &error))?;
        if let Watched::Undone(record) = watched {
            if let Some(publisher) = bench.publish(&record) {
                publisher.finish().await;
            }
            bench.tidy().await;
        }
        Ok(Exit::Done)
    })
}

/// Resolves when nobody can want the watch any more: the project's state is removed, and the platform does not answer.
async fn abandoned(bench: &Bench<'_>) {
    loop {
        tokio::time::sleep(LEASE).await;
        if !bench.state.root().exists() && bench.platform.record(&bench.run).await.is_err() {
            return;
        }
    }
}

/// Works on a run: carries it through and writes its report.
pub(crate) fn work(bench: &Bench<'_>) -> Outcome {
    let id = bench.run.as_str();
    bench.context.block_on(async {
        let _signals = Signals::listen()?;
        let what = || format!("could not work on run `{id}`");
        let failed = |error| error::platform::run_failure(what(), &error);
        let since = Instant::now();
        let run = loop {
            let platform = Arc::clone(&bench.platform);
            match Run::take(platform, id, this_process(id), LEASE, bench.journal()?).await {
                Ok(run) => break run,
                // Started again by the kubelet after the watchdog had undone the run: there is nothing left to do.
                Err(RunError::Fenced { .. }) if bench.site == Site::Inside => return Ok(Exit::Done),
                // In the place of a pod whose end nobody here can see: its leases tell.
                Err(RunError::Running { .. }) if bench.site == Site::Inside && since.elapsed() < TAKE_OVER => {
                    tokio::time::sleep(bench.poll()).await;
                }
                Err(error) => return Err(failed(error)),
            }
        };
        match &bench.launcher {
            Some(launcher) => run.keep_watched(watchdog_starter(launcher.clone(), &bench.state, id)),
            // The kubelet does.
            None => Ok(()),
        }
        .map_err(failed)?;
        let record = run.record().clone();
        let publisher = bench.publish(&record);
        let notifier = bench.notifier(&record);
        let done = Box::pin(carry_through(bench, run, notifier)).await;
        if let Some(publisher) = publisher {
            publisher.finish().await;
        }
        let Done { document, page } = done?;
        if let Some(page) = page {
            platform::write_report(&bench.state, id, "report.html", page.as_bytes())?;
        }
        // The JSON last: whoever waits for it finds the page, too.
        let text = serde_json::to_vec_pretty(&document)
            .map_err(|error| Failure::bug("could not write the report as JSON").because(&error))?;
        platform::write_report(&bench.state, id, "report.json", &text)?;
        if let Some(kube) = &bench.kube {
            let told = kube.tell_report(&record, &document).await;
            told.map_err(|error| error::platform::failure("could not keep the report in the cluster", &error))?;
        }
        bench.tidy().await;
        Ok(Exit::Done)
    })
}

/// What a worker leaves when its run is over.
struct Done {
    document: serde_json::Value,
    page: Option<String>,
}

async fn carry_through(bench: &Bench<'_>, run: Run, notifier: Option<Notifier>) -> Result<Done, Failure> {
    let id = run.id().to_owned();
    let what = || format!("could not work on run `{id}`");
    let kind = run.record().kind.clone();
    if kind == worker::KIND {
        let options = CanaryOptions {
            await_watchdog: Some(WATCHDOG),
            notifier,
        };
        let done = opsctl_rollouts::work(run, options)
            .await
            .map_err(|error| error::runs::canary_work(what(), &error))?;
        let document = to_json(&done)?;
        let page = report::canary::page(&document).map_err(|error| Failure::bug(what()).because(&error))?;
        Ok(Done {
            document,
            page: Some(page),
        })
    } else if kinds::of(run.record()).is_some() {
        let with = With {
            await_watchdog: Some(WATCHDOG),
            servers: bench.alerting(run.record()).await,
        };
        let done = kinds::work(run.with_notifier(notifier), with)
            .await
            .map_err(|error| error::runs::drill_work(what(), &error))?;
        Ok(Done {
            document: to_json(&done)?,
            page: Some(done.page()),
        })
    } else if kind == rollback::KIND {
        let done = rollback::work(run, Some(WATCHDOG), notifier)
            .await
            .map_err(|error| error::runs::canary_work(what(), &error))?;
        Ok(Done {
            document: to_json(&done)?,
            page: None,
        })
    } else {
        // A restore works in the process that was asked; what it left is undone by its watchdog or by `recover`.
        Err(Failure::usage(
            "not_resumable",
            format!("a run of kind `{kind}` cannot be gone on with"),
        )
        .help(format!("opsctl recover {id}")))
    }
}

fn to_json(document: &impl Serialize) -> Result<serde_json::Value, Failure> {
    serde_json::to_value(document).map_err(|error| Failure::bug("could not write the report as JSON").because(&error))
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
