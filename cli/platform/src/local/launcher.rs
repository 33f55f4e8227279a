//! Starting our own processes: the opsctl executable itself with hidden arguments, detached from the terminal. What each
//! of them does is a library function elsewhere.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Child;

use super::state_dir::{StateDir, append_to, make_dir};
use crate::process::Process;
use crate::{PlatformError, Result};

/// How to start one of our processes: `exe prefix… ROLE --state DIR [--run ID]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// The executable, absolute.
    pub exe: PathBuf,
    /// Arguments before the role, e.g. `internal`.
    pub prefix: Vec<OsString>,
    /// Variables that it is given beside those of this process.
    pub environment: Vec<(OsString, OsString)>,
}

/// What a process of ours is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role<'a> {
    /// [`super::supervisor::run`].
    Supervisor,
    /// The traffic proxy.
    Proxy,
    /// The worker of a run.
    Worker {
        /// The run's id.
        run: &'a str,
    },
    /// [`crate::run::watch`] for a run.
    Watchdog {
        /// The run's id.
        run: &'a str,
    },
}

impl Role<'_> {
    /// Its name on the command line: `supervisor`, `proxy`, `judge`, `watchdog`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Proxy => "proxy",
            Self::Worker { .. } => "judge",
            Self::Watchdog { .. } => "watchdog",
        }
    }

    fn log(self, state: &StateDir) -> PathBuf {
        match self {
            Self::Supervisor | Self::Proxy => state.path("logs").join(format!("{}.log", self.name())),
            Self::Worker { run } | Self::Watchdog { run } => state.run_dir(run).join(format!("{}.log", self.name())),
        }
    }
}

/// The variable by which everything that the supervisor started can be found in `/proc`: the state folder's path.
pub(super) const STATE_VARIABLE: &str = "SUPERVISOR_STATE";
/// The service that a process belongs to.
pub(super) const SERVICE_VARIABLE: &str = "SUPERVISOR_SERVICE";

impl Launcher {
    /// The program at `exe` with the hidden subcommand `internal`.
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        Self {
            exe: exe.into(),
            prefix: vec!["internal".into()],
            environment: Vec::new(),
        }
    }

    /// Starts a process of ours: no input, output appended to its log, working directory the state folder. The process
    /// itself calls [`crate::process::detach`] first thing. Returns when it was started, not when it is ready.
    ///
    /// Must be called in a tokio runtime (which reaps it).
    pub fn spawn(&self, role: Role<'_>, state: &StateDir) -> Result<Process> {
        self.spawn_child(role, state).map(|(process, _)| process)
    }

    /// As [`Launcher::spawn`], for those who want to know how it ends. Dropping the child does not end it.
    pub fn spawn_child(&self, role: Role<'_>, state: &StateDir) -> Result<(Process, Child)> {
        let mut command = tokio::process::Command::new(&self.exe);
        command
            .args(&self.prefix)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .arg(role.name())
            .arg("--state")
            .arg(state.root());
        match role {
            Role::Worker { run } | Role::Watchdog { run } => {
                command.args(["--run", run]);
            }
            Role::Supervisor | Role::Proxy => {}
        }
        if role == Role::Proxy {
            command.env(STATE_VARIABLE, state.root());
        } else {
            command.env_remove(STATE_VARIABLE);
        }
        command.env_remove(SERVICE_VARIABLE);
        spawn_detached(command, &self.exe, &role.log(state), state.root())
    }
}

fn spawn_detached(
    mut command: tokio::process::Command,
    program: &Path,
    log: &Path,
    cwd: &Path,
) -> Result<(Process, Child)> {
    if let Some(folder) = log.parent() {
        make_dir(folder)?;
    }
    let output = append_to(log)?;
    let errors = output.try_clone().map_err(super::state_dir::failed("open", log))?;
    let spawn = |source| PlatformError::Spawn {
        program: program.display().to_string(),
        source,
    };
    let child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .current_dir(cwd)
        .kill_on_drop(false)
        .spawn()
        .map_err(spawn)?;
    let pid = child
        .id()
        .ok_or_else(|| spawn(std::io::Error::other("it ended at once")))?;
    // A child that was not waited for yet has its entry in /proc, ended or not.
    let start_ticks = crate::process::stat(pid).map_or(0, |stat| stat.start_ticks);
    Ok((Process { pid, start_ticks }, child))
}
