//! Which process is meant: a process id alone is reused, with its start time it is unique until reboot. Reads `/proc`
//! (proc(5), `stat` fields 3, 5 and 22); signals go through a pidfd, so that they never reach another process.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::LeaseHolder;

/// One very process on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, in ticks since boot.
    pub start_ticks: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T` (stopped), `Z` (dead, not reaped) …
    pub state: char,
    /// Process group.
    pub group: u32,
    /// When it started, in ticks since boot.
    pub start_ticks: u64,
}

impl Process {
    /// The calling process.
    pub fn current() -> Self {
        let pid = std::process::id();
        Self {
            pid,
            start_ticks: stat(pid).map_or(0, |stat| stat.start_ticks),
        }
    }

    /// The process that has this id now, if there is one that has not ended.
    pub fn find(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        (!stat.ended()).then_some(Self {
            pid,
            start_ticks: stat.start_ticks,
        })
    }

    /// Whether it still exists (stopped counts, a zombie does not).
    pub fn alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Whether it is stopped by a signal or a debugger.
    pub fn stopped(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && matches!(stat.state, 'T' | 't'))
    }

    /// Unique name: `pid:start`.
    pub fn uid(self) -> String {
        format!("{}:{}", self.pid, self.start_ticks)
    }

    /// A descriptor of this process, readable when it has ended. `None` when it is gone.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let pidfd = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Only now is the id pinned: what it names from here on cannot change.
        Ok(self.alive().then_some(pidfd))
    }

    /// Sends a signal to it and nothing else. `Ok(false)`: it is gone.
    pub fn signal(self, signal: Signal) -> io::Result<bool> {
        let Some(pidfd) = self.open()? else { return Ok(false) };
        match pidfd_send_signal(pidfd, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal to the process group that it leads, if it still leads one.
    pub fn signal_group(self, signal: Signal) -> io::Result<bool> {
        // The pidfd pins the leader while the group is signalled, so that the group's id cannot be another's.
        let Some(_pinned) = self.open()? else { return Ok(false) };
        if stat(self.pid).is_none_or(|stat| stat.group != self.pid) {
            return self.signal(signal);
        }
        let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        match rustix::process::kill_process_group(group, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Stat {
    /// Whether it is a zombie or less.
    pub fn ended(self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// Reads `/proc/<pid>/stat`; `None` when there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The command's name stands in parentheses and may hold anything, also parentheses and spaces.
    let rest = &text[text.rfind(')')? + 1..];
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        group: fields.get(2)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Leaves the terminal: a session of its own, so that neither its Ctrl-C nor its hang-up arrives. Does nothing when the
/// process leads a group already. The first thing that a process started by [`crate::local::Launcher`] does.
pub fn detach() {
    // The only error is EPERM: it is a group leader, and no signal of the terminal's foreground group reaches it.
    let _ = rustix::process::setsid();
}

/// Whether the process that holds a lease still exists; `None` when it runs on another host.
pub fn holder_alive(holder: &LeaseHolder) -> Option<bool> {
    let process = Process {
        pid: holder.pid,
        start_ticks: holder.start_ticks,
    };
    (holder.host == host()).then(|| process.alive())
}

/// This host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 987 1 2 3";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                state: 'S',
                group: 42,
                start_ticks: 987
            })
        );
    }

    #[test]
    fn this_process_is_alive_and_a_reused_id_is_not_it() {
        let me = Process::current();
        assert!(me.alive());
        assert!(
            !Process {
                start_ticks: me.start_ticks + 1,
                ..me
            }
            .alive()
        );
        assert!(
            !Process {
                start_ticks: me.start_ticks + 1,
                ..me
            }
            .signal(Signal::KILL)
            .unwrap()
        );
    }
}
