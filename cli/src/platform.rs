//! The platform of the chosen environment, opened: where services run, what runs there, and who is told of it. How a
//! platform works is the crate `opsctl-platform`.

mod datastores;
pub(crate) mod specs;
pub(crate) mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use opsctl_platform::Platform;
use opsctl_platform::local::{Launcher, LocalPlatform, StateDir};
use opsctl_platform::run::{Notifier, Notify, RunRecord, orphans};
use serde_json::Value;

pub(crate) use datastores::Content;

use crate::config::{self, Config, PlatformKind};
use crate::context::Context;
use crate::error::{self, Failure};

/// A platform that is open.
pub(crate) struct Opened {
    /// The configuration that it was opened for.
    pub(crate) config: Config,
    /// The local platform itself.
    pub(crate) local: LocalPlatform,
    /// The same as runs see it, with datastores as fields.
    pub(crate) platform: Arc<dyn Platform>,
    /// The folder `.opsctl/`.
    pub(crate) state: StateDir,
}

impl Opened {
    /// The report that a run's worker left, if it is over.
    pub(crate) fn report(&self, run: &str) -> Option<Value> {
        let text = std::fs::read(self.state.run_dir(run).join("report.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The files of a run's report.
    pub(crate) fn report_files(&self, run: &str) -> Vec<PathBuf> {
        let folder = self.state.run_dir(run);
        ["report.html", "report.json"]
            .iter()
            .map(|name| folder.join(name))
            .filter(|path| path.is_file())
            .collect()
    }
}

/// Opens the platform of the chosen environment, and warns of runs that left something behind.
pub(crate) fn open(context: &Context) -> Result<Opened, Failure> {
    let config = config::load(context)?;
    let opened = open_for(context, config)?;
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
    Ok(opened)
}

/// Opens the platform of a configuration that was loaded.
pub(crate) fn open_for(context: &Context, config: Config) -> Result<Opened, Failure> {
    match config.environment.platform {
        PlatformKind::Local => {}
        PlatformKind::Kubernetes => {
            return Err(Failure::usage(
                "not_built",
                format!("environment `{}` is on Kubernetes", config.environment.name),
            )
            .cause("this opsctl runs services on the local platform only")
            .help("choose another environment with `-e`"));
        }
    }
    let state = StateDir::open(config.state()).map_err(|error| {
        error::platform::failure(format!("could not use `{}`", context.shown(&config.state())), &error)
    })?;
    let (local, platform) = over(context, &state)?;
    Ok(Opened {
        config,
        local,
        platform,
        state,
    })
}

/// The platform over a state folder, as worker processes open it.
pub(crate) fn over(context: &Context, state: &StateDir) -> Result<(LocalPlatform, Arc<dyn Platform>), Failure> {
    let local = LocalPlatform::new(state.clone(), Some(Launcher::new(context.executable()?)));
    let platform = Arc::new(datastores::WithDatastores::new(Arc::new(local.clone()), state.clone()));
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

/// Who is told of a run: the webhook of the team that owns the service, else the environment's. One that cannot be used
/// is a warning: no job fails because nobody could be told.
pub(crate) fn notifier(context: &Context, config: &Config, service: Option<&str>) -> Option<Notifier> {
    let team = service
        .and_then(|service| config.services.get(service)?.team.as_ref())
        .and_then(|team| config.teams.get(team)?.webhook.as_ref());
    let source = team.or(config.environment.notify.webhook.as_ref())?;
    let webhook = match source.fetch(context, "the address of the webhook") {
        Ok(secret) => secret.expose().to_owned(),
        Err(failure) => {
            context.out.warn(format!("nobody is told: {}", failure.message));
            return None;
        }
    };
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
