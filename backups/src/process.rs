//! Programs of others that we run: started in a group of their own, the output read until somebody gives up, the end of
//! what they say on stderr kept, and nothing left of the group when it is given up or when we are killed. What counts as a
//! failure is not decided here.
//!
//! The group is led by a small watchdog that waits until the pipe from us is closed, which the kernel does also when we
//! are killed, and then kills the group. Without a shell there is no watchdog: then a command that outlives us ends at
//! its next write, which nobody reads.

pub(crate) mod redact;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// So much of the end of what is printed is kept.
const TAIL: usize = 4 << 10;

/// So much of what is said on stderr is kept.
const SAID: usize = 8 << 10;

/// What is read of stderr at most once the command has ended: somebody else may have it open, and never stop.
const SAID_LATER: usize = 1 << 20;

const WATCHDOG: &str = "trap '' HUP INT TERM; while read -r line; do :; done; kill -s KILL 0";

/// The same for a server that has something to tidy up: it is asked with SIGQUIT first, and has five seconds. Its number
/// is the line that is read.
const GENTLE_WATCHDOG: &str = "trap '' HUP INT TERM QUIT; pid=; while read -r line; do pid=$line; done; n=0; \
    if [ -n \"$pid\" ]; then kill -s QUIT \"$pid\"; \
    while kill -s 0 \"$pid\" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n+1)); done; fi; kill -s KILL 0";

/// What to run.
#[derive(Default)]
pub(crate) struct Launch {
    /// The program: a path, or a name that is looked for on `PATH`.
    pub(crate) program: PathBuf,
    /// Its arguments. Everybody on the machine may read them.
    pub(crate) arguments: Vec<OsString>,
    /// Added to our environment.
    pub(crate) variables: Vec<Variable>,
    /// Variables whose names begin so are not handed on, unless they are added.
    pub(crate) without: Option<&'static str>,
    /// Where it runs; otherwise where we do.
    pub(crate) folder: Option<PathBuf>,
    /// What it reads on stdin; otherwise nothing.
    pub(crate) input: Option<Zeroizing<Vec<u8>>>,
    /// User and group, where we are root and it must not be.
    pub(crate) user: Option<(u32, u32)>,
    /// It is ended by SIGQUIT, and killed only if that does not end it.
    pub(crate) gently: bool,
}

/// A variable of a program's environment.
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Zeroizing<String>,
    /// It is shown nowhere, also not where the program itself prints it.
    pub is_secret: bool,
}

/// A program that came to its end.
pub(crate) struct Ended {
    /// How.
    pub(crate) status: ExitStatus,
    /// What it printed, as far as that was wanted.
    pub(crate) output: Vec<u8>,
    /// The end of what it said on stderr.
    pub(crate) said: Vec<u8>,
}

/// Runs a program to its end and keeps the first `most` bytes that it prints. Dropping the future kills it.
pub(crate) async fn run(launch: Launch, most: u64) -> io::Result<Ended> {
    let thread = |_| io::Error::other("the runtime is going down");
    let started = tokio::task::spawn_blocking(move || start(launch))
        .await
        .map_err(thread)?;
    let (mut running, mut output) = started?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut kept = Vec::new();
        output.by_ref().take(most).read_to_end(&mut kept)?;
        io::copy(&mut output, &mut io::sink())?;
        Ok::<_, io::Error>(kept)
    });
    let status = running.ended().await?;
    let output = if status.success() {
        reading.await.map_err(thread)??
    } else {
        Vec::new()
    };
    let said = running.finish().await;
    Ok(Ended { status, output, said })
}

/// A program that was started. Dropping it kills it and everything that it started.
pub(crate) struct Running {
    group: Group,
    /// Closed when its output is wanted no more.
    wanted: Option<OwnedFd>,
    status: oneshot::Receiver<io::Result<ExitStatus>>,
    said: oneshot::Receiver<Vec<u8>>,
}

/// The processes that the command is and has started, as far as they have not left the group.
struct Group {
    leader: Pid,
    gently: bool,
    watchdog: Option<(Child, ChildStdin)>,
    /// The command was waited for: without a watchdog its number may belong to somebody else by now.
    ended: Arc<Mutex<bool>>,
    released: bool,
}

/// Starts the program.
pub(crate) fn start(launch: Launch) -> io::Result<(Running, Output)> {
    let (unwanted, wanted) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let also_unwanted = unwanted.try_clone()?;
    let mut watchdog = watchdog(if launch.gently { GENTLE_WATCHDOG } else { WATCHDOG });
    let mut command = Command::new(&launch.program);
    command
        .args(&launch.arguments)
        .stdin(if launch.input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(watchdog.as_ref().map_or(0, |(child, _)| child.id().cast_signed()));
    if let Some(prefix) = launch.without {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(prefix) {
                command.env_remove(name);
            }
        }
    }
    for variable in &launch.variables {
        command.env(&variable.name, &*variable.value);
    }
    if let Some(folder) = &launch.folder {
        command.current_dir(folder);
    }
    if let Some((user, group)) = launch.user {
        command.uid(user).gid(group);
    }
    let ended = Arc::new(Mutex::new(false));
    let spawned = command.spawn();
    // It holds the values of the variables.
    drop(command);
    let leader = |child: &Child| Pid::from_raw(child.id().cast_signed());
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            if let Some((mut watchdog, _stdin)) = watchdog {
                let _ = watchdog.kill();
                let _ = watchdog.wait();
            }
            return Err(error);
        }
    };
    if let (true, Some((_, stdin))) = (launch.gently, &mut watchdog) {
        let _ = writeln!(stdin, "{}", child.id());
    }
    if let (Some(input), Some(mut stdin)) = (launch.input, child.stdin.take()) {
        let feeding = std::thread::Builder::new().name("program's stdin".to_owned());
        // A program that ends before it read everything says why itself.
        feeding.spawn(move || {
            let _ = stdin.write_all(&input);
        })?;
    }
    let group = match &watchdog {
        Some((watchdog, _)) => leader(watchdog),
        None => leader(&child),
    };
    let (Some(group), Some(pid), Some(stdout), Some(stderr)) =
        (group, leader(&child), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::ErrorKind::Other.into());
    };
    let group = Group {
        gently: launch.gently,
        leader: group,
        watchdog,
        ended: Arc::clone(&ended),
        released: false,
    };
    // As many bytes as the system lets us have on their way.
    let _ = rustix::pipe::fcntl_setpipe_size(&stdout, 1 << 20);
    let (tell_status, status) = oneshot::channel();
    let (tell_said, said) = oneshot::channel();
    let threads = std::thread::Builder::new()
        .name("command".to_owned())
        .spawn(move || {
            let _ = tell_status.send(wait(child, pid, &ended));
        })
        .and_then(|_| {
            let reading = std::thread::Builder::new().name("command's stderr".to_owned());
            reading.spawn(move || {
                let _ = tell_said.send(listen(stderr, &also_unwanted));
            })
        });
    threads?;
    let running = Running {
        group,
        wanted: Some(wanted),
        status,
        said,
    };
    let output = Output {
        stdout,
        unwanted,
        tail: Tail::default(),
    };
    Ok((running, output))
}

/// Starts what kills the group after us. It knows nothing of the command.
fn watchdog(script: &str) -> Option<(Child, ChildStdin)> {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script, "opsctl-watchdog"])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0);
    let mut child = shell.spawn().ok()?;
    let stdin = child.stdin.take()?;
    Some((child, stdin))
}

/// Waits for the end, so that nobody ever signals a number that is free again.
fn wait(mut child: Child, pid: Pid, ended: &Mutex<bool>) -> io::Result<ExitStatus> {
    while let Err(rustix::io::Errno::INTR) =
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).map(drop)
    {}
    let mut ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    *ended = true;
    child.wait()
}

impl Running {
    /// Waits until the command itself has ended.
    pub(crate) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match (&mut self.status).await {
            Ok(status) => status,
            Err(_) => Err(io::Error::other("nobody waited for it")),
        }
    }

    /// Kills whatever is left of the group, and returns the end of what was said on stderr.
    pub(crate) async fn give_up(mut self) -> Vec<u8> {
        self.group.kill();
        self.wanted = None;
        (&mut self.said).await.unwrap_or_default()
    }

    /// The command has ended well. What it leaves running on purpose is left alone.
    pub(crate) fn release(mut self) {
        self.group.released = true;
    }

    /// As [`Running::release`]; returns the end of what was said on stderr.
    pub(crate) async fn finish(mut self) -> Vec<u8> {
        self.group.released = true;
        self.wanted = None;
        (&mut self.said).await.unwrap_or_default()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(mut self, signal: Signal) -> io::Result<ExitStatus> {
        self.group.signal(signal);
        let status = self.ended().await;
        self.group.released = true;
        status
    }
}

impl Group {
    fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // As long as the watchdog was not waited for, the group is its own.
        if self.watchdog.is_some() || !*ended {
            let _ = kill_process_group(self.leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let gently = self.gently && self.watchdog.is_some();
        if !self.released && !gently {
            self.kill();
        }
        if let Some((mut watchdog, stdin)) = self.watchdog.take() {
            if !self.released && gently {
                // It knows how.
                drop(stdin);
                let _ = watchdog.wait();
                return;
            }
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
    }
}

/// What the command prints. Reading ends with an error when it is wanted no more.
pub(crate) struct Output {
    stdout: ChildStdout,
    unwanted: OwnedFd,
    tail: Tail,
}

impl Output {
    /// The end of it, as far as it was read.
    pub(crate) fn tail(&self) -> Tail {
        self.tail.clone()
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !wait_for(self.stdout.as_fd(), self.unwanted.as_fd())? {
            return Err(io::Error::other("it is wanted no more"));
        }
        let count = self.stdout.read(buffer)?;
        self.tail.push(&buffer[..count], TAIL);
        Ok(count)
    }
}

/// Waits until there is something to read; `false` if it is wanted no more.
fn wait_for(pipe: BorrowedFd<'_>, unwanted: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        let mut ready = [
            PollFd::from_borrowed_fd(pipe, PollFlags::IN),
            PollFd::from_borrowed_fd(unwanted, PollFlags::empty()),
        ];
        match poll(&mut ready, None) {
            Err(rustix::io::Errno::INTR) => {}
            polled => {
                polled?;
                return Ok(ready[1].revents().is_empty());
            }
        }
    }
}

/// Reads stderr to its end, or until the command is over, and keeps the end.
fn listen(mut stderr: impl Read + AsFd, unwanted: &OwnedFd) -> Vec<u8> {
    let tail = Tail::default();
    let mut buffer = [0; 16 << 10];
    let mut later = SAID_LATER;
    loop {
        let wanted = wait_for(stderr.as_fd(), unwanted.as_fd()).unwrap_or(false);
        if !wanted && (later == 0 || !has_something(stderr.as_fd())) {
            break;
        }
        match stderr.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                tail.push(&buffer[..count], SAID);
                if !wanted {
                    later = later.saturating_sub(count);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    tail.take()
}

fn has_something(pipe: BorrowedFd<'_>) -> bool {
    let mut ready = [PollFd::from_borrowed_fd(pipe, PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut ready, Some(&at_once)).is_ok_and(|count| count > 0)
}

/// The last bytes of a stream.
#[derive(Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8], kept: usize) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(kept)..]);
        let over = tail.len().saturating_sub(kept);
        tail.drain(..over);
    }

    /// Whether these bytes stand somewhere in it.
    pub(crate) fn holds(&self, wanted: &[u8]) -> bool {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.windows(wanted.len().max(1)).any(|window| window == wanted)
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
