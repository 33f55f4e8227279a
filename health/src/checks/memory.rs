//! Memory of the process's control group, or of the machine where the group has no limit. It tells how near the kernel's
//! OOM killer is, and whether tasks wait for memory; it does not measure the process by itself.

mod cgroup;

use std::io;
use std::path::PathBuf;

use super::Asking;
use super::single_flight::SingleFlight;
use crate::check::{Check, Failure, Outcome, Reason};
use cgroup::Group;

/// Fails when the working set (usage without the page cache that the kernel can drop at once, as the kubelet counts it)
/// comes near the limit; warns before that, and when tasks are stalled for want of memory.
///
/// The limit is the lowest of the group and its parents: `memory.max` of cgroup v2, `memory.limit_in_bytes` of v1, and
/// the machine's memory. Pressure (PSI) is the group's `memory.pressure`, or the machine's where the group has none.
#[derive(Debug)]
pub struct MemoryCheck {
    limits: Limits,
    flight: SingleFlight,
}

#[derive(Debug, Clone)]
struct Limits {
    root: PathBuf,
    warn_at: f64,
    fail_at: f64,
    warn_stalled: f64,
}

impl Default for MemoryCheck {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryCheck {
    /// Warns at 90 % of the limit and at 20 % of time stalled, fails at 97 %.
    pub fn new() -> Self {
        Self {
            limits: Limits {
                root: PathBuf::from("/"),
                warn_at: 0.90,
                fail_at: 0.97,
                warn_stalled: 20.0,
            },
            flight: SingleFlight::default(),
        }
    }

    /// Share of the limit, 0 to 1, from which on it warns.
    #[must_use]
    pub fn warn_at(mut self, share: f64) -> Self {
        self.limits.warn_at = share;
        self
    }

    /// Share of the limit, 0 to 1, from which on it fails.
    #[must_use]
    pub fn fail_at(mut self, share: f64) -> Self {
        self.limits.fail_at = share;
        self
    }

    /// Share of the last ten seconds, in percent, in which some task waited for memory, from which on it warns.
    #[must_use]
    pub fn warn_stalled(mut self, percent: f64) -> Self {
        self.limits.warn_stalled = percent;
        self
    }

    /// Looks for `/proc` and `/sys` below `root`: a host's, mounted into a container, or a copy.
    #[must_use]
    pub fn below(mut self, root: impl Into<PathBuf>) -> Self {
        self.limits.root = root.into();
        self
    }
}

impl Limits {
    fn ask(&self) -> Outcome {
        match self.judge() {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Fail(error.into()),
        }
    }

    fn judge(&self) -> io::Result<Outcome> {
        let group = Group::of_process(&self.root)?;
        let memory = group.memory()?;
        let share = memory.used as f64 / memory.limit.max(1) as f64;
        let full = || {
            let (used, limit) = (memory.used >> 20, memory.limit >> 20);
            Failure::new(Reason::Saturated, format!("{used} of {limit} MiB in use"))
        };
        if share >= self.fail_at {
            return Ok(Outcome::Fail(full()));
        }
        if share >= self.warn_at {
            return Ok(Outcome::Warn(full()));
        }
        let stalled = group.stalled().unwrap_or(0.0);
        if stalled >= self.warn_stalled {
            let detail = format!("tasks waited for memory in {stalled} % of the last 10 s");
            return Ok(Outcome::Warn(Failure::new(Reason::Saturated, detail)));
        }
        Ok(Outcome::Pass)
    }
}

impl Check for MemoryCheck {
    fn run(&self) -> Asking<'_> {
        // The kernel adds up a group's counters when `memory.stat` is read, which takes its time in a big one.
        let limits = self.limits.clone();
        Box::pin(self.flight.ask(move || limits.ask()))
    }

    fn component_type(&self) -> &'static str {
        "system"
    }
}
