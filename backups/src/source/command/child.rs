//! The process: started in a group of its own, its output read until somebody gives up, the end of what it says on
//! stderr kept, and nothing left of the group when it is given up or when we are killed.
//!
//! The group is led by a small watchdog that waits until the pipe from us is closed, which the kernel does also when we
//! are killed, and then kills the group. Without a shell there is no watchdog: then a command that outlives us ends at
//! its next write, which nobody reads.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::oneshot;

use super::{CommandOptions, TRAILER_WITHIN};
use crate::source::SourceError;

/// So much of what is said on stderr is kept.
const SAID: usize = 8 << 10;

/// What is read of stderr at most once the command has ended: somebody else may have it open, and never stop.
const SAID_LATER: usize = 1 << 20;

const WATCHDOG: &str = "trap '' HUP INT TERM; while read -r line; do :; done; kill -s KILL 0";

/// A command that was started. Dropping it kills it and everything that it started.
pub(super) struct Running {
    group: Group,
    /// Closed when its output is wanted no more.
    wanted: Option<OwnedFd>,
    status: oneshot::Receiver<io::Result<ExitStatus>>,
    said: oneshot::Receiver<Vec<u8>>,
}

/// The processes that the command is and has started, as far as they have not left the group.
struct Group {
    leader: Pid,
    watchdog: Option<(Child, ChildStdin)>,
    /// The command was waited for: without a watchdog its number may belong to somebody else by now.
    ended: Arc<Mutex<bool>>,
    released: bool,
}

/// Starts the command.
pub(super) fn start(options: &CommandOptions) -> Result<(Running, Output), SourceError> {
    let failed = |source| SourceError::Program {
        program: options.program.display().to_string(),
        source,
    };
    if let Some(folder) = options.folder.as_ref().filter(|folder| !folder.is_dir()) {
        return Err(SourceError::NotA {
            path: folder.clone(),
            expected: "folder",
        });
    }
    let (unwanted, wanted) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(io::Error::from)
        .map_err(failed)?;
    let also_unwanted = unwanted.try_clone().map_err(failed)?;
    let watchdog = watchdog();
    let mut command = Command::new(&options.program);
    command
        .args(&options.arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(watchdog.as_ref().map_or(0, |(child, _)| child.id().cast_signed()));
    for variable in &options.variables {
        command.env(&variable.name, &*variable.value);
    }
    if let Some(folder) = &options.folder {
        command.current_dir(folder);
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
            return Err(failed(error));
        }
    };
    let group = match &watchdog {
        Some((watchdog, _)) => leader(watchdog),
        None => leader(&child),
    };
    let (Some(group), Some(pid), Some(stdout), Some(stderr)) =
        (group, leader(&child), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed(io::ErrorKind::Other.into()));
    };
    let group = Group {
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
    threads.map_err(failed)?;
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
fn watchdog() -> Option<(Child, ChildStdin)> {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", WATCHDOG, "opsctl-watchdog"])
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
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match (&mut self.status).await {
            Ok(status) => status,
            Err(_) => Err(io::Error::other("nobody waited for it")),
        }
    }

    /// Kills whatever is left of the group, and returns the end of what was said on stderr.
    pub(super) async fn give_up(mut self) -> Vec<u8> {
        self.group.kill();
        self.wanted = None;
        (&mut self.said).await.unwrap_or_default()
    }

    /// The command has ended well. What it leaves running on purpose is left alone.
    pub(super) fn release(mut self) {
        self.group.released = true;
    }
}

impl Group {
    fn kill(&self) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // As long as the watchdog was not waited for, the group is its own.
        if self.watchdog.is_some() || !*ended {
            let _ = kill_process_group(self.leader, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.released {
            self.kill();
        }
        if let Some((watchdog, _stdin)) = &mut self.watchdog {
            let _ = watchdog.kill();
            let _ = watchdog.wait();
        }
    }
}

/// What the command prints. Reading ends with an error when it is wanted no more.
pub(super) struct Output {
    stdout: ChildStdout,
    unwanted: OwnedFd,
    tail: Tail,
}

impl Output {
    /// The end of it, as far as it was read.
    pub(super) fn tail(&self) -> Tail {
        self.tail.clone()
    }
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !wait_for(self.stdout.as_fd(), self.unwanted.as_fd())? {
            return Err(io::Error::other("it is wanted no more"));
        }
        let count = self.stdout.read(buffer)?;
        self.tail.push(&buffer[..count], TRAILER_WITHIN);
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
pub(super) struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    fn push(&self, bytes: &[u8], kept: usize) {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(kept)..]);
        let over = tail.len().saturating_sub(kept);
        tail.drain(..over);
    }

    /// Whether these bytes stand somewhere in it.
    pub(super) fn holds(&self, wanted: &[u8]) -> bool {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tail.windows(wanted.len().max(1)).any(|window| window == wanted)
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
