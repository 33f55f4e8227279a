//! The edge of the process: arguments, environment, working directory, terminal, clock, signals. The only file of
//! `opsctl` that touches them; everything else is handed a [`Context`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::ValueEnum;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cli::GlobalArgs;
use crate::error::Failure;
use crate::exit::Exit;
use crate::output::{Output, Paint};

/// When to colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` or `TERM=dumb` says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What the process was started with, before any of it is interpreted.
#[derive(Debug)]
pub(crate) struct Process {
    /// The arguments, the program's name first.
    pub(crate) args: Vec<OsString>,
    env: BTreeMap<String, String>,
    /// The working directory.
    pub(crate) cwd: PathBuf,
    stdin_is_terminal: bool,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
}

impl Process {
    /// Reads the process once.
    pub(crate) fn read() -> Result<Self, Failure> {
        let cwd =
            std::env::current_dir().map_err(|error| Failure::io("could not find the working directory", &error))?;
        Ok(Self {
            args: std::env::args_os().collect(),
            env: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            cwd,
            stdin_is_terminal: std::io::stdin().is_terminal(),
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        })
    }

    fn paint(&self, choice: ColorChoice, terminal: bool) -> Paint {
        let forced = self.set("CLICOLOR_FORCE") && self.env.get("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let dumb = self.env.get("TERM").is_some_and(|term| term == "dumb");
        let colour = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto if self.set("NO_COLOR") => false,
            ColorChoice::Auto => forced || (terminal && !dumb),
        };
        match (colour, self.speaks_unicode()) {
            (true, _) => Paint::Ansi,
            (false, true) => Paint::Plain,
            (false, false) => Paint::Ascii,
        }
    }

    fn set(&self, name: &str) -> bool {
        self.env.get(name).is_some_and(|value| !value.is_empty())
    }

    fn speaks_unicode(&self) -> bool {
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .find_map(|name| self.env.get(*name).filter(|v| !v.is_empty()));
        locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
    }

    /// How to speak before the arguments are understood: for errors of the command line itself.
    pub(crate) fn provisional_output(&self) -> Output {
        let has = |word: &str| {
            self.args
                .iter()
                .skip(1)
                .take_while(|arg| *arg != "--")
                .any(|arg| arg == word)
        };
        let never = self
            .args
            .windows(2)
            .any(|pair| pair[0] == "--color" && pair[1] == "never")
            || has("--color=never");
        self.output(&GlobalArgs {
            json: has("--json"),
            color: never.then_some(ColorChoice::Never),
            ..GlobalArgs::default()
        })
    }

    fn output(&self, global: &GlobalArgs) -> Output {
        let dumb = self.env.get("TERM").is_some_and(|term| term == "dumb");
        Output {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            stdout: self.paint(global.color.unwrap_or_default(), self.stdout_is_terminal),
            stderr: self.paint(global.color.unwrap_or_default(), self.stderr_is_terminal),
            live: self.stderr_is_terminal && !dumb,
            progress: !global.no_progress,
            width: self.stdout_is_terminal.then(|| terminal_size(std::io::stdout()).0),
            closed: AtomicBool::new(false),
        }
    }

    /// The context of a command.
    pub(crate) fn into_context(self, global: GlobalArgs) -> Context {
        let out = self.output(&global);
        Context {
            process: self,
            global,
            out,
            runtime: OnceLock::new(),
        }
    }
}

/// Everything a command may know of the world outside its arguments.
#[derive(Debug)]
pub(crate) struct Context {
    process: Process,
    /// The flags that every command takes.
    pub(crate) global: GlobalArgs,
    /// How to speak.
    pub(crate) out: Output,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Context {
    /// An environment variable; one that is empty counts as not set.
    pub(crate) fn env(&self, name: &str) -> Option<&str> {
        self.process
            .env
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// All environment variables whose name starts with `prefix`.
    pub(crate) fn env_with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.process
            .env
            .range(prefix.to_owned()..)
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The working directory.
    pub(crate) fn cwd(&self) -> &Path {
        &self.process.cwd
    }

    /// A path as typed, made absolute.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd().join(path)
    }

    /// A path as short as it can be said from the working directory.
    pub(crate) fn shown(&self, path: &Path) -> String {
        path.strip_prefix(self.cwd())
            .ok()
            .filter(|short| !short.as_os_str().is_empty())
            .unwrap_or(path)
            .display()
            .to_string()
    }

    /// Whether a question can be asked and answered.
    pub(crate) fn interactive(&self) -> bool {
        self.process.stdin_is_terminal && self.process.stderr_is_terminal && !self.global.no_input && !self.out.json
    }

    /// Reads one line of an answer; `None` at the end of the input.
    #[expect(clippy::unused_self, reason = "whoever has no context has nobody to ask")]
    pub(crate) fn read_line(&self) -> Result<Option<String>, Failure> {
        let mut line = String::new();
        let read = std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|error| Failure::io("could not read the answer", &error))?;
        Ok((read > 0).then(|| line.trim().to_owned()))
    }

    /// The executable that runs, for worker processes.
    #[expect(clippy::unused_self, reason = "whoever has no context starts no process")]
    pub(crate) fn executable(&self) -> Result<PathBuf, Failure> {
        std::env::current_exe().map_err(|error| Failure::io("could not find the opsctl executable", &error))
    }

    /// The wall clock, in UTC.
    #[expect(clippy::unused_self, reason = "whoever has no context has no clock")]
    pub(crate) fn now(&self) -> jiff::Timestamp {
        now()
    }

    /// Who runs this: `user@host`.
    pub(crate) fn actor(&self) -> String {
        let uid = rustix::process::getuid().as_raw();
        let user = user_name(uid).unwrap_or_else(|| format!("uid {uid}"));
        format!("{user}@{}", self.host())
    }

    /// The name of this machine.
    pub(crate) fn host(&self) -> String {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .ok()
            .filter(|name| !name.is_empty())
            .or_else(|| self.env("HOSTNAME").map(str::to_owned))
            .unwrap_or_else(|| "localhost".to_owned())
    }

    /// Runs a future to its end. The runtime is made at the first call: commands that need none start faster.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime
            .get_or_init(|| {
                tokio::runtime::Builder::new_multi_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime only fails to start when the process has no threads or descriptors left")
            })
            .block_on(future)
    }

    /// Runs a future that changes nothing to its end, or until somebody asks the process to stop.
    pub(crate) fn interruptible<F: Future>(&self, future: F) -> Result<F::Output, Failure> {
        self.block_on_this_thread(async {
            let mut signals = Signals::listen()?;
            tokio::select! {
                done = future => Ok(done),
                stop = signals.next() => Err(Failure::new(stop.exit(), "interrupted", "interrupted")),
            }
        })
    }

    /// Runs a future to its end on this thread alone: for commands that are over in milliseconds, and for which starting
    /// a thread a processor would be most of the work.
    #[expect(clippy::unused_self, reason = "whoever has no context runs nothing")]
    pub(crate) fn block_on_this_thread<F: Future>(&self, future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime only fails to start when the process has no descriptors left")
            .block_on(future)
    }
}

/// How many columns and rows the terminal of stdout or stderr has now.
pub(crate) fn terminal_size(of: impl std::os::fd::AsFd) -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(of);
    let (columns, rows) = size.map_or((0, 0), |size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    (if columns > 0 { columns } else { 80 }, if rows > 0 { rows } else { 24 })
}

fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// The one place where `opsctl` reads the wall clock.
pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// Time since the first call, on a clock that only moves forward.
pub(crate) fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Why the process was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The terminal went away.
    HangUp,
}

impl Stop {
    /// How a command ends that stopped because of it, after undoing.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate | Self::HangUp => Exit::Terminated,
        }
    }
}

/// The signals that ask the process to stop, from its making on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Starts listening; from now on these signals no longer end the process. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::io("could not listen for signals", &error));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = self.terminate.recv() => Stop::Terminate,
            _ = self.hang_up.recv() => Stop::HangUp,
        }
    }
}

/// Changes of the terminal's size.
#[derive(Debug)]
pub(crate) struct Resizes(Signal);

impl Resizes {
    /// Starts listening. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::window_change());
        signal
            .map(Self)
            .map_err(|error| Failure::io("could not listen for signals", &error))
    }

    /// Waits for the next change.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
