//! The cluster's processes. They outlive who started them, and are found again by a mark in their environment: it is there
//! from the first instruction on, their children inherit it, and no stranger that was given an old number has it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Program;

/// The variable that says to which cluster, by its folder, a process belongs.
const MARK: &str = "OPSCTL_CLUSTER";
/// The variable that says which part of the cluster it is.
const PART: &str = "OPSCTL_CLUSTER_PART";
/// Lets the program go on without this process, in a session of its own, with its output in a file and nothing else open:
/// who holds a lock around the start, as `flock` does, would hold it as long as the cluster runs.
const DETACH: &str = r#"exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
setsid "$@" </dev/null >>"$OPSCTL_CLUSTER_LOG" 2>&1 &"#;

/// How long the end of a killed process is waited for.
const GONE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub pid: i32,
    pub part: String,
    /// What it has in memory, in bytes.
    pub memory: u64,
    /// For how long it runs.
    pub age: Duration,
}

/// Starts `program` as the part `part` of the cluster in `folder`.
pub(super) fn start(folder: &Path, part: &str, program: &Program) -> io::Result<()> {
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    let mut command = Command::new("sh");
    command
        .args(["-c", DETACH, "detach"])
        .args(program.words())
        .envs(program.variables())
        .env(MARK, folder)
        .env(PART, part)
        .env("OPSCTL_CLUSTER_LOG", log(folder, part))
        // Not every part may enter the cluster's folder.
        .current_dir("/")
        .stdin(Stdio::null());
    let status = command.status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("`{}` ended with {status}", program.shown())))
}

/// Where a part's output goes.
pub(super) fn log(folder: &Path, part: &str) -> PathBuf {
    folder.join("logs").join(format!("{part}.log"))
}

/// The processes of the cluster in `folder`, each part's first one first.
pub(super) fn members(folder: &Path) -> Vec<Member> {
    let mut members: Vec<Member> = marked()
        .filter(|(of, _)| of == folder)
        .map(|(_, member)| member)
        .collect();
    members.sort_by(|one, other| (&one.part, other.age, one.pid).cmp(&(&other.part, one.age, other.pid)));
    members
}

/// The folders of all clusters that have a process on this machine.
pub(super) fn clusters() -> BTreeSet<PathBuf> {
    marked().map(|(folder, _)| folder).collect()
}

fn marked() -> impl Iterator<Item = (PathBuf, Member)> {
    processes().filter_map(member)
}

/// The process `pid` and the folder of its cluster, if it is marked.
fn member(pid: i32) -> Option<(PathBuf, Member)> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.find_map(|variable| {
            let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    };
    let member = Member {
        pid,
        part: value(PART)?,
        memory: memory(pid),
        age: age(pid)?,
    };
    Some((PathBuf::from(value(MARK)?), member))
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn memory(pid: i32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let resident = pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    resident.unwrap_or(0) * rustix::param::page_size() as u64
}

fn age(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything; the start is the twentieth field after it.
    let start: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    Some(Duration::from_secs_f64((uptime - start / ticks).max(0.0)))
}

/// Sends `signal` to the processes that `which` chooses among those of the cluster in `folder`.
pub(super) fn signal(folder: &Path, signal: Signal, which: impl Fn(&Member) -> bool) {
    for member in members(folder).into_iter().filter(which) {
        let Some(pid) = Pid::from_raw(member.pid) else {
            continue;
        };
        // Held first and looked at again, so that a number that has passed to a stranger is not meant.
        let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        if self::member(member.pid).is_some_and(|(of, _)| of == folder) {
            let _ = pidfd_send_signal(&held, signal);
            if signal == Signal::KILL {
                // Its memory goes first, and its ports only with its last thread: who starts it again needs them.
                let _ = poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(&GONE));
            }
        }
    }
}
