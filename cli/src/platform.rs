//! The platform of the chosen environment, opened: where services run, what runs there, and who is told of it. How a
//! platform works is the crate `opsctl-platform`.

mod alerting;
mod cluster;
mod databases;
mod datastores;
mod figures;
pub(crate) mod specs;
mod story;
pub(crate) mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opsctl_platform::Platform;
use opsctl_platform::local::{Launcher, LocalPlatform, StateDir};
use opsctl_platform::run::{Notifier, Notify, RunRecord, orphans};

pub(crate) use alerting::{alerting, alertmanager_at, alertmanager_of, teller, watchers};
pub(crate) use cluster::{OnCluster, described, prometheus};
pub(crate) use databases::{Part, Servers};
pub(crate) use datastores::Content;
pub(crate) use figures::{figures, prometheus_of};
pub(crate) use story::EventTail;

use crate::config::{self, Config, PlatformKind, SecretSource};
use crate::context::Context;
use crate::error::{self, Failure};

/// A platform that is open.
pub(crate) struct Opened {
    /// The configuration that it was opened for.
    pub(crate) config: Config,
    /// What runs and commands see, with datastores as fields.
    pub(crate) platform: Arc<dyn Platform>,
    /// The folder `.opsctl/`: what runs that were started here wrote, and all state of the local platform.
    pub(crate) state: StateDir,
    place: Place,
}

/// Where services run.
enum Place {
    Here(LocalPlatform),
    There(Box<OnCluster>),
}

impl Opened {
    /// The local platform, for what only it can do: see [`open_local`].
    pub(crate) fn local(&self) -> Result<&LocalPlatform, Failure> {
        self.here().ok_or_else(|| only_here("this", &self.config))
    }

    /// The local platform, if services run here.
    pub(crate) fn here(&self) -> Option<&LocalPlatform> {
        match &self.place {
            Place::Here(local) => Some(local),
            Place::There(_) => None,
        }
    }

    /// The cluster that services run on, if they do.
    pub(crate) fn there(&self) -> Option<&OnCluster> {
        match &self.place {
            Place::Here(_) => None,
            Place::There(there) => Some(there),
        }
    }

    /// The cluster's name.
    pub(crate) fn cluster(&self) -> Option<&str> {
        self.there().map(|there| there.cluster.name.as_str())
    }

    /// Starts the processes that work on runs here.
    pub(crate) fn launcher(&self, context: &Context) -> Result<Launcher, Failure> {
        let mut launcher = Launcher::new(context.executable()?);
        if let Some(there) = self.there() {
            let environment = &self.config.environment.name;
            for (flag, value) in [
                ("--env", environment.as_str()),
                ("--cluster", there.cluster.name.as_str()),
            ] {
                launcher.prefix.extend([flag.into(), value.into()]);
            }
            launcher
                .prefix
                .extend(["--config".into(), self.config.file.clone().into()]);
            // Those processes work in the state folder.
            if let Some(files) = context.env("KUBECONFIG") {
                let files = std::env::split_paths(files).map(|file| context.absolute(&file));
                let files = std::env::join_paths(files.filter(|file| file != context.cwd()));
                let files = files.map_err(|error| Failure::bug("could not pass KUBECONFIG on").because(&error))?;
                launcher.environment.push(("KUBECONFIG".into(), files));
            }
        }
        Ok(launcher)
    }
}

/// Opens the platform of the chosen environment on the one cluster that is meant, and warns of runs that left something
/// behind.
pub(crate) fn open(context: &Context) -> Result<Opened, Failure> {
    open_with(context, config::load(context)?)
}

/// As [`open`], of a configuration that the command line has changed.
pub(crate) fn open_with(context: &Context, config: Config) -> Result<Opened, Failure> {
    let opened = open_for(context, config)?;
    warn_of_orphans(context, &opened);
    Ok(opened)
}

/// Opens the local platform for what only it can do; `what` is the command as typed.
pub(crate) fn open_local(context: &Context, config: Config, what: &str) -> Result<Opened, Failure> {
    match config.environment.platform {
        PlatformKind::Local => open_for(context, config),
        PlatformKind::Kubernetes => Err(only_here(what, &config)),
    }
}

fn only_here(what: &str, config: &Config) -> Failure {
    Failure::usage("local_only", format!("`{what}` is for the local platform"))
        .cause(format!("environment `{}` is on Kubernetes", config.environment.name))
        .help("choose another environment with `-e`")
}

/// As [`open`], on every cluster that is meant: for commands that change nothing.
pub(crate) fn open_all(context: &Context) -> Result<Vec<Opened>, Failure> {
    let all = context.block_on(all_for(context, &config::load(context)?))?;
    for opened in &all {
        warn_of_orphans(context, opened);
    }
    Ok(all)
}

pub(crate) fn warn_of_orphans(context: &Context, opened: &Opened) {
    let lost = context.block_on(orphans(opened.platform.as_ref())).unwrap_or_default();
    for orphan in lost.iter().filter(|orphan| !orphan.watched) {
        context.out.warn(format!(
            "run {} ({} {}) left something behind: opsctl recover {}",
            orphan.record.id,
            orphan.record.kind,
            words::target(&orphan.record),
            orphan.record.id
        ));
    }
}

/// Opens the platform of a configuration that was loaded, on the one cluster that is meant.
pub(crate) fn open_for(context: &Context, config: Config) -> Result<Opened, Failure> {
    match config.environment.platform {
        PlatformKind::Local => {
            cluster::meant(context, &config)?;
            open_here(context, config)
        }
        PlatformKind::Kubernetes => {
            let there = context.block_on(cluster::connect(context, &config, cluster::one(context, &config)?))?;
            open_there(context, config, there)
        }
    }
}

/// The records of runs on every cluster that is meant, oldest first on each. What cannot be read is told as missing of
/// `what`, and is no failure of what else is.
pub(crate) async fn records(context: &Context, config: &Config, what: &str) -> Vec<Vec<RunRecord>> {
    if config.environment.platform == PlatformKind::Local && !config.state().exists() {
        return Vec::new();
    }
    let told = |failure: Failure| context.out.warn(format!("{what}: {}", failure.message));
    let opened = match all_for(context, config).await {
        Ok(opened) => opened,
        Err(failure) => {
            told(failure);
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    for one in opened {
        match one.platform.records().await {
            Ok(records) => all.push(records),
            Err(error) => told(error::platform::failure("could not read the runs", &error)),
        }
    }
    all
}

/// As [`open_for`], on every cluster that is meant.
pub(crate) async fn all_for(context: &Context, config: &Config) -> Result<Vec<Opened>, Failure> {
    let clusters = cluster::meant(context, config)?;
    if clusters.is_empty() {
        return Ok(vec![open_here(context, config.clone())?]);
    }
    let mut all = Vec::new();
    for one in clusters {
        let there = cluster::connect(context, config, one).await?;
        all.push(open_there(context, config.clone(), there)?);
    }
    Ok(all)
}

fn open_here(context: &Context, config: Config) -> Result<Opened, Failure> {
    let state = state_of(context, &config)?;
    let (local, platform) = over(context, &state, Servers::of(&config))?;
    Ok(Opened {
        config,
        platform,
        state,
        place: Place::Here(local),
    })
}

fn open_there(context: &Context, config: Config, there: OnCluster) -> Result<Opened, Failure> {
    let state = state_of(context, &config)?;
    let kube = Arc::clone(&there.kube) as Arc<dyn Platform>;
    let servers = Servers::of(&config);
    Ok(Opened {
        config,
        platform: Arc::new(datastores::WithDatastores::new(kube, state.clone(), servers)),
        state,
        place: Place::There(Box::new(there)),
    })
}

fn state_of(context: &Context, config: &Config) -> Result<StateDir, Failure> {
    StateDir::open(config.state()).map_err(|error| {
        error::platform::failure(format!("could not use `{}`", context.shown(&config.state())), &error)
    })
}

/// The platform over a state folder, as worker processes open it.
pub(crate) fn over(
    context: &Context,
    state: &StateDir,
    servers: Servers,
) -> Result<(LocalPlatform, Arc<dyn Platform>), Failure> {
    let local = LocalPlatform::new(state.clone(), Some(Launcher::new(context.executable()?)));
    let inner = Arc::new(local.clone());
    let platform = Arc::new(datastores::WithDatastores::new(inner, state.clone(), servers));
    Ok((local, platform))
}

/// The run that a word means: an id or its first characters; without a word the newest.
pub(crate) async fn find_run(opened: &Opened, wanted: Option<&str>) -> Result<RunRecord, Failure> {
    let records = opened
        .platform
        .records()
        .await
        .map_err(|error| error::platform::failure("could not read the runs", &error))?;
    let Some(wanted) = wanted else {
        return records
            .into_iter()
            .next_back()
            .ok_or_else(|| Failure::usage("unknown_run", "there is no run yet"));
    };
    let mut matching: Vec<RunRecord> = records
        .into_iter()
        .filter(|record| record.id.starts_with(wanted))
        .collect();
    match matching.len() {
        1 => Ok(matching.remove(0)),
        0 => Err(Failure::usage("unknown_run", format!("there is no run `{wanted}`")).help("opsctl run list")),
        _ => Err(Failure::usage("ambiguous", format!("`{wanted}` fits several runs"))
            .details(matching.into_iter().map(|record| record.id))
            .help("give more characters")),
    }
}

/// Where the address of the webhook comes from that is told of a run: that of the team that owns the service, else the
/// environment's.
pub(crate) fn webhook<'a>(config: &'a Config, service: Option<&str>) -> Option<&'a SecretSource> {
    let team = service
        .and_then(|service| config.services.get(service)?.team.as_ref())
        .and_then(|team| config.teams.get(team)?.webhook.as_ref());
    team.or(config.environment.notify.webhook.as_ref())
}

/// As [`find_run`], on several clusters; without a word the newest of all.
pub(crate) async fn find_run_in(all: Vec<Opened>, wanted: Option<&str>) -> Result<(Opened, RunRecord), Failure> {
    let mut found: Vec<(Opened, RunRecord)> = Vec::new();
    let mut missing = None;
    for opened in all {
        match find_run(&opened, wanted).await {
            Ok(record) => found.push((opened, record)),
            Err(failure) if failure.code == "unknown_run" => missing = Some(failure),
            Err(failure) => return Err(failure),
        }
    }
    if wanted.is_some() && found.len() > 1 {
        return Err(Failure::usage("ambiguous", "that run could be on several clusters")
            .details(
                found
                    .iter()
                    .map(|(opened, record)| format!("{} on {}", record.id, opened.cluster().unwrap_or_default())),
            )
            .help("give more characters, or `--cluster NAME`"));
    }
    let newest = found.into_iter().max_by_key(|(_, record)| record.started_at);
    newest.ok_or_else(|| missing.unwrap_or_else(|| Failure::usage("unknown_run", "there is no run yet")))
}

/// Who is told of a run. A webhook that cannot be used is a warning: no job fails because nobody could be told.
pub(crate) fn notifier(context: &Context, config: &Config, service: Option<&str>) -> Option<Notifier> {
    let address = match webhook(config, service)?.fetch(context, "the address of the webhook") {
        Ok(secret) => secret.expose().to_owned(),
        Err(failure) => {
            context.out.warn(format!("nobody is told: {}", failure.message));
            return None;
        }
    };
    notifier_at(context, address)
}

/// The notifier of a webhook's address.
pub(crate) fn notifier_at(context: &Context, webhook: String) -> Option<Notifier> {
    match Notifier::new(&Notify { webhook }) {
        Ok(notifier) => Some(notifier),
        Err(error) => {
            context.out.warn(format!("nobody is told: {error}"));
            None
        }
    }
}

/// Writes a file of a run's report.
pub(crate) fn write_report(state: &StateDir, run: &str, name: &str, content: &[u8]) -> Result<PathBuf, Failure> {
    let path: PathBuf = state.run_dir(run).join(name);
    opsctl_platform::local::state_dir::write_file(&path, content, true)
        .map_err(|error| error::platform::failure(format!("could not write `{}`", path.display()), &error))?;
    Ok(path)
}

/// Processes that have one of these files, or something under them, open: `name (pid N)`. Those of other users can be
/// seen by root alone.
pub(crate) fn open_by(paths: &[PathBuf]) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let wanted: Vec<_> = paths.iter().filter_map(|path| identity(path)).collect();
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let has = std::fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .any(|descriptor| {
                identity(&descriptor.path()).is_some_and(|identity| wanted.contains(&identity))
                    || std::fs::read_link(descriptor.path())
                        .is_ok_and(|target| paths.iter().any(|path| path.is_dir() && target.starts_with(path)))
            });
        if has {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} (pid {pid})", name.trim()));
        }
    }
    found
}
