//! A program of PostgreSQL that never outlives us, however we end: a second, tiny process waits until the pipe from us is
//! closed, which the kernel does also when we are killed, and then ends the program. What the program says is read as it
//! comes and kept within bounds.
//!
//! A server's children have process groups of their own. They are found in /proc when the server is given up, and end by
//! themselves when they see that it is gone.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child as Watcher, Command as WatcherCommand, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Waits until it is watched, then becomes the program. Without a watcher there is no program.
const GATE: &str = r#"read -r go || exit 1; exec "$@" </dev/null 2>&1"#;

/// Once its input has ended: asks a server, which has shared memory to give back, to end at once, kills the group of the
/// program `$1`, and removes the server's folder `$2`.
const WATCH: &str = r#"trap '' HUP INT TERM QUIT; while read -r line; do :; done
if [ -n "$2" ]; then
    kill -s QUIT "$1"; n=0
    while kill -s 0 "$1" 2>/dev/null && [ $n -lt 100 ]; do sleep 0.05; n=$((n+1)); done
fi
kill -s KILL -- "-$1"
[ -z "$2" ] || rm -rf -- "$2""#;

/// So much of what a program says is kept.
const TAIL: usize = 64 << 10;
/// So much of one line is looked at.
const LINE: usize = 8 << 10;
/// How long what an ended program said is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// So many lines that the reader marks are kept whatever follows them.
const MARKED: usize = 32;
/// How long a program may take to end at once, and then to be gone when it is killed.
const ENDS_WITHIN: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// What to run, and as whom.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// Nothing of ours is handed on but `PATH`.
    pub(super) variables: Vec<(&'static str, OsString)>,
    /// User and group, where they are others than ours.
    pub(super) user: Option<(u32, u32)>,
    /// What it prints on stdout is not wanted: only what it says on stderr.
    pub(super) silent: bool,
    /// A server's own folder, which is removed should we be killed. It is ended by SIGQUIT, other programs by SIGKILL.
    pub(super) removed: Option<PathBuf>,
}

/// What a line of a program's output is to its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// One of many.
    Plain,
    /// To be kept, whatever follows.
    Marked,
    /// To be counted, not kept.
    Counted,
    /// The program has come to this point.
    Stage(u8),
}

/// What a program said.
#[derive(Debug, Default)]
struct Kept {
    tail: Vec<u8>,
    marked: Vec<String>,
    counted: u64,
}

/// A running program. Dropping it ends it.
pub(super) struct Guarded {
    child: Child,
    watcher: Watcher,
    kept: Arc<Mutex<Kept>>,
    stage: watch::Receiver<u8>,
    reading: JoinHandle<()>,
    is_server: bool,
}

impl Guarded {
    /// Starts it. `judge` says what each line of its output is.
    pub(super) fn start(task: &Task, judge: fn(&str) -> Line) -> io::Result<Self> {
        let mut gate = Command::new("/bin/sh");
        let script = if task.silent {
            GATE.replace("2>&1", "2>&1 >/dev/null")
        } else {
            GATE.to_owned()
        };
        gate.args(["-c", &script, "opsctl-gate"])
            .arg(&task.program)
            .args(&task.arguments);
        gate.env_clear().current_dir("/");
        gate.env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LC_ALL", "C");
        gate.envs(task.variables.iter().cloned());
        gate.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        gate.process_group(0).kill_on_drop(true);
        if let Some((uid, gid)) = task.user {
            // Of the other groups nothing is kept either: the standard library drops them with the user.
            gate.uid(uid).gid(gid);
        }
        let mut child = gate.spawn()?;
        let (Some(leader), Some(stdin), Some(stdout)) = (child.id(), child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("it ended before it began"));
        };
        let mut watch = WatcherCommand::new("/bin/sh");
        watch.args(["-c", WATCH, "opsctl-watchdog"]).arg(leader.to_string());
        watch.arg(task.removed.as_deref().unwrap_or(Path::new("")));
        watch.env_clear().env("PATH", "/usr/bin:/bin").current_dir("/");
        watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut watch, 0);
        // Without a watcher the gate sees the end of its input, and there is no program.
        let watcher = watch.spawn()?;
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (tell, stage) = watch::channel(0);
        let reading = tokio::spawn(read(stdout, judge, Arc::clone(&kept), tell));
        let guarded = Self {
            child,
            watcher,
            kept,
            stage,
            reading,
            is_server: task.removed.is_some(),
        };
        // A pipe takes so few bytes at once.
        fs::File::from(stdin.into_owned_fd()?).write_all(b"go\n")?;
        Ok(guarded)
    }

    /// Waits until the program has ended and everything that it said is read.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await?;
        // What it left running may have its output open: that is not waited for.
        if !self.reading.is_finished() {
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.reading).await;
        }
        Ok(status)
    }

    /// Waits until the program has come to the stage `wanted` or a later one, or has ended. Which stage it has come to.
    pub(super) async fn reaches(&mut self, wanted: u8) -> io::Result<Result<u8, ExitStatus>> {
        let mut stage = self.stage.clone();
        tokio::select! {
            biased;
            reached = stage.wait_for(|stage| *stage >= wanted) => {
                if let Ok(reached) = reached {
                    return Ok(Ok(*reached));
                }
            }
            status = self.child.wait() => {
                status?;
            }
        }
        self.ended().await.map(Err)
    }

    /// Sends a signal to the program.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// The end of what it said.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.kept().tail).trim().to_owned()
    }

    /// The lines that were marked, as far as they are kept.
    pub(super) fn marked(&self) -> Vec<String> {
        self.kept().marked.clone()
    }

    /// How many lines were to be counted.
    pub(super) fn counted(&self) -> u64 {
        self.kept().counted
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number, as long as it was not waited for: then it may be somebody else's.
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.reading.abort();
        if let Some(pid) = self.pid() {
            // At once, and yet in its own way: what is killed leaves shared memory behind.
            let first = if self.is_server { Signal::QUIT } else { Signal::KILL };
            let _ = kill_process(pid, first);
            if !pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|process| has_ended(&process)) {
                let _ = kill_process(pid, Signal::STOP);
                let all = descendants(pid)
                    .into_iter()
                    .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                let all: Vec<OwnedFd> = all.collect();
                let _ = kill_process_group(pid, Signal::KILL);
                for process in &all {
                    let _ = pidfd_send_signal(process, Signal::KILL);
                }
                for process in &all {
                    has_ended(process);
                }
            }
        }
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
    }
}

/// Waits until a process has ended, for a while.
fn has_ended(process: &OwnedFd) -> bool {
    // Readable means ended (pidfd_open(2)).
    poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&ENDS_WITHIN)).is_ok_and(|count| count > 0)
}

/// A process, its children, theirs, and so on.
fn descendants(root: Pid) -> Vec<Pid> {
    let parent_of = |stat: &str| -> Option<i32> {
        // The name stands in parentheses and may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        parents.extend(pid.zip(parent_of(&stat)));
    }
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.into_iter().filter_map(Pid::from_raw).collect()
}

/// Reads to the end, line by line.
async fn read(
    mut output: impl AsyncRead + Unpin,
    judge: fn(&str) -> Line,
    kept: Arc<Mutex<Kept>>,
    stage: watch::Sender<u8>,
) {
    let mut buffer = vec![0; 16 << 10];
    let mut line = Vec::new();
    loop {
        let count = match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) => count,
        };
        for part in buffer[..count].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(&part[..part.len().min(LINE - line.len().min(LINE))]);
            if part.ends_with(b"\n") {
                take(&mut line, judge, &kept, &stage);
            }
        }
    }
    take(&mut line, judge, &kept, &stage);
}

fn take(line: &mut Vec<u8>, judge: fn(&str) -> Line, kept: &Mutex<Kept>, stage: &watch::Sender<u8>) {
    if line.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(line).trim_end().to_owned();
    line.clear();
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    let judged = judge(&text);
    match judged {
        Line::Counted => {
            kept.counted += 1;
            return;
        }
        Line::Marked if kept.marked.len() < MARKED => kept.marked.push(text.clone()),
        Line::Plain | Line::Marked | Line::Stage(_) => {}
    }
    kept.tail.extend_from_slice(text.as_bytes());
    kept.tail.push(b'\n');
    let over = kept.tail.len().saturating_sub(TAIL);
    kept.tail.drain(..over);
    drop(kept);
    if let Line::Stage(reached) = judged {
        stage.send_modify(|stage| *stage = reached.max(*stage));
    }
}
