//! A program with all its descendants, which never outlives this process, however this process ends.
//!
//! A second, tiny process watches: it reads from a pipe whose other end this process holds. Once nobody holds that end,
//! be it after a panic, a Ctrl-C or a SIGKILL, it kills the program's process group and removes the program's folder.
//! `PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started the program ends, and spares grandchildren.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, pidfd_open,
        pidfd_send_signal, waitid,
    },
};

/// Waits until it is watched, then becomes the program. Without a watcher there is no program.
const GATE: &str = r#"read -r go || exit 1; exec "$@" </dev/null"#;

/// Kills the group `$1` and removes the folder `$2` once its standard input has ended.
const WATCH: &str = r#"read -r never
kill -KILL "-$1"
[ -z "$2" ] || for attempt in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$2" && exit; sleep 0.2; done"#;

/// How often it is looked whether processes have stopped.
const LOOKS: u32 = 10_000;
/// How long a killed process may take until it is gone: one that waits for a slow disk is not at once.
const ENDS_WITHIN: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// A command line with what belongs to it.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    user: Option<&'static str>,
    /// What asks it to end in good order.
    pub(crate) ends_on: Signal,
}

impl Program {
    /// The program at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: None,
            ends_on: Signal::TERM,
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Run as `user`, for programs that refuse to be root.
    #[must_use]
    pub fn user(mut self, user: Option<&'static str>) -> Self {
        self.user = user;
        self
    }

    /// Ended by SIGINT instead of SIGTERM.
    #[must_use]
    pub fn ends_on_interrupt(mut self) -> Self {
        self.ends_on = Signal::INT;
        self
    }

    /// What is set in its environment.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let variables = self.environment.iter();
        variables.map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The words of the command line.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        if let Some(user) = self.user {
            let drop_to = [format!("--reuid={user}"), format!("--regid={user}")];
            words.extend(["setpriv".into(), "--clear-groups".into()]);
            words.extend(drop_to.map(OsString::from));
        }
        words.push(self.path.clone().into_os_string());
        words.extend(self.arguments.iter().cloned());
        words
    }

    /// The command line, for people.
    pub(crate) fn shown(&self) -> String {
        let words: Vec<_> = self
            .words()
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        words.join(" ")
    }
}

/// A running program and its descendants. They are killed when the value is dropped, and when this process ends.
#[derive(Debug)]
pub struct Tree {
    leader: Child,
    watcher: Child,
}

impl Tree {
    /// Starts `program` in `folder` as the leader of a process group, with its output going to `log`. Should this process
    /// end before the value is dropped, the folder `remove` goes, too.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(program: &Program, folder: &Path, log: &File, remove: Option<&Path>) -> io::Result<Self> {
        let mut gate = Command::new("sh");
        gate.args(["-c", GATE, "gate"])
            .args(program.words())
            .current_dir(folder);
        gate.envs(program.variables());
        gate.stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .process_group(0);
        let mut leader = gate.spawn()?;

        let mut watch = Command::new("sh");
        watch
            .args(["-c", WATCH, "watch"])
            .arg(leader.id().to_string())
            .arg(remove.unwrap_or(Path::new("")));
        watch
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // Without a watcher the gate sees the end of its input, and there is no program.
        let watcher = watch.spawn()?;
        if let Some(mut gate) = leader.stdin.take() {
            gate.write_all(b"go\n")?;
        }
        Ok(Self { leader, watcher })
    }

    /// Waits until the program has ended, then ends what it left.
    ///
    /// # Errors
    /// When the system cannot say how it ended.
    pub fn wait(mut self) -> io::Result<ExitStatus> {
        self.leader.wait()
    }

    /// The program's number.
    pub fn id(&self) -> u32 {
        self.leader.id()
    }

    /// Whether the program itself still runs.
    pub(crate) fn is_running(&self) -> bool {
        // It stays unreaped, so that its number cannot pass to a stranger before `kill`.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        matches!(waitid(WaitId::Pid(self.pid()), options), Ok(None))
    }

    /// Sends `signal` to the program alone.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may have ended by itself, which is what the signal is sent for.
        let _ = kill_process(self.pid(), signal);
    }

    /// Sends `signal` to the program and every descendant, those in groups of their own included.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let descendants = descendants(self.pid());
        let _ = kill_process_group(self.pid(), signal);
        for pid in descendants {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops the program and every descendant, and returns when none of their threads runs any more: the signal alone is
    /// on its way until one of them gets its turn, which the others may use on a busy machine.
    pub(crate) fn pause(&self) {
        self.stop_all();
    }

    /// As [`pause`](Self::pause); the descendants that are stopped now. None of them has a child that is not among them: who is
    /// stopped starts nobody.
    fn stop_all(&self) -> Vec<Pid> {
        let mut all = Vec::new();
        // A process that cannot be stopped must not hang its test.
        for _ in 0..LOOKS {
            all = descendants(self.pid());
            let leader = self.pid();
            let mut running = std::iter::once(&leader)
                .chain(&all)
                .filter(|pid| !is_stopped(**pid))
                .peekable();
            if running.peek().is_none() {
                break;
            }
            for pid in running {
                let _ = kill_process(*pid, Signal::STOP);
            }
            thread::yield_now();
        }
        all
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.leader)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Stopped first: a server that is killed while it starts a process would leave that one behind.
        let descendants = self.stop_all();
        // A number may pass to a stranger when its process has ended, a descriptor does not.
        let held = descendants.iter().map(|pid| pidfd_open(*pid, PidfdFlags::empty()));
        let held: Vec<OwnedFd> = held.filter_map(Result::ok).collect();
        let _ = kill_process_group(self.pid(), Signal::KILL);
        for process in &held {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        // What they hold, such as ports, files and shared memory, is free when they have ended, and not when they are told to.
        for process in &held {
            let _ = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&ENDS_WITHIN));
        }
        // The watcher first: while the leader is not reaped, the group's number is nobody else's.
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.leader.wait();
    }
}

/// Whether none of its threads runs; so of one that has ended.
fn is_stopped(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    threads.into_iter().flatten().flatten().all(|thread| {
        let runs = |(state, _)| matches!(state, 'R' | 'S' | 'D');
        !state_and_parent(&thread.path()).is_some_and(runs)
    })
}

/// The state of a process or thread and the number of its parent, from its folder in /proc.
fn state_and_parent(folder: &Path) -> Option<(char, i32)> {
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The children of `root`, their children, and so on, as /proc says now.
fn descendants(root: Pid) -> Vec<Pid> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        parents.extend(state_and_parent(&entry.path()).map(|(_, parent)| (pid, parent)));
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().skip(1).filter_map(Pid::from_raw).collect()
}
