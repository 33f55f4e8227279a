//! What the whole machine does while something is measured: a figure without it says nothing where several processes share
//! the cores. What one process costs is `bench::process`'s business.

use std::fs;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

/// What the machine did in a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    /// How many cores were at work, in the mean.
    pub(super) cores: f64,
    /// How many had nothing to do but wait for a disk.
    pub(super) waiting: f64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    at: Instant,
    working: f64,
    waiting: f64,
}

/// Of `/proc/stat`: a hundredth of a second, whatever the kernel counts in itself.
const TICKS: f64 = 100.0;

impl Since {
    /// From now on.
    pub(super) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("/proc/stat is empty")?;
        let fields = line.split_ascii_whitespace().skip(1);
        let ticks = fields.map(str::parse).collect::<Result<Vec<f64>, _>>()?;
        let [user, nice, system, _idle, waiting, irq, soft, ..] = ticks[..] else {
            anyhow::bail!("/proc/stat has too few numbers");
        };
        Ok(Self {
            at: Instant::now(),
            working: (user + nice + system + irq + soft) / TICKS,
            waiting: waiting / TICKS,
        })
    }

    /// What was done since then.
    pub(super) fn busy(self) -> Result<Busy> {
        let now = Self::now()?;
        let seconds = now.at.duration_since(self.at).as_secs_f64();
        Ok(Busy {
            cores: (now.working - self.working) / seconds,
            waiting: (now.waiting - self.waiting) / seconds,
        })
    }
}

/// The load of the last minute, five and fifteen.
pub(super) fn average() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Seconds of the processor that a process has had, of `/proc/PID/stat`.
pub(super) fn cpu_of(process: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name before may hold anything.
    let (_, fields) = text.rsplit_once(')').context("a process has a name")?;
    let times = fields.split_ascii_whitespace().skip(11).take(2);
    let times = times.map(str::parse).collect::<Result<Vec<f64>, _>>()?;
    Ok(times.iter().sum::<f64>() / TICKS)
}
