//! What a whole process costs, from start to exit: time, processor, memory.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::time::{Instant, sleep};

/// What one process cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds from start to exit.
    pub wall: f64,
    /// Seconds of the processor, of the process and its children.
    pub cpu: f64,
    /// The most memory that it had (`VmHWM`).
    pub mib: f64,
}

/// Runs `command` to its end, which must be a good one. No other child of this process may end meanwhile.
pub async fn cost(command: Command) -> Result<Cost> {
    cost_ending_in(0, command).await
}

/// The same of a command that ends with `code`: a linter that finds something says no.
pub async fn cost_ending_in(code: i32, command: Command) -> Result<Cost> {
    let shown = command.get_program().to_string_lossy().into_owned();
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let before = children_cpu()?;
    let begun = Instant::now();
    let mut child = command.spawn().with_context(|| format!("could not start {shown}"))?;
    let id = child.id().context("it has an id until it was waited for")?;
    let status = format!("/proc/{id}/status");
    let mut mib = 0_f64;
    let ended = loop {
        // It only ever grows.
        mib = peak_mib(&status).unwrap_or(mib);
        tokio::select! {
            ended = child.wait() => break ended?,
            () = sleep(Duration::from_millis(2)) => {}
        }
    };
    let wall = begun.elapsed().as_secs_f64();
    ensure!(ended.code() == Some(code), "{shown} ended with {ended}");
    ensure!(mib > 0.0, "the memory of {shown} could not be read");
    let cpu = children_cpu()? - before;
    Ok(Cost { wall, cpu, mib })
}

/// Seconds of the processor of all children that have ended.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("the system does not count its children")?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// The most memory that a process had, of its file `status` in proc(5) (`VmHWM`).
pub fn peak_mib(status: &str) -> Option<f64> {
    let text = fs::read_to_string(status).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
