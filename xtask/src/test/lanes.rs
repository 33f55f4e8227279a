//! Commands side by side, a few at a time. What each says is shown as a whole once it has ended.

use std::{
    io::{Seek as _, Write as _},
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// A command that is to be run.
pub struct Job {
    pub name: String,
    pub command: Command,
    /// It runs after all others, and nothing beside it.
    pub alone: bool,
}

/// How it ended.
pub struct Outcome {
    pub name: String,
    pub took: Duration,
    pub succeeded: bool,
}

/// Runs all of them in this order, as far as some are not to be alone.
///
/// # Errors
/// When one cannot be started, or what it says cannot be kept.
pub fn run(jobs: Vec<Job>) -> Result<Vec<Outcome>> {
    let (alone, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.alone);
    let lanes = thread::available_parallelism().map_or(1, usize::from);
    let mut outcomes = side_by_side(others, lanes)?;
    outcomes.extend(side_by_side(alone, 1)?);
    Ok(outcomes)
}

fn side_by_side(jobs: Vec<Job>, lanes: usize) -> Result<Vec<Outcome>> {
    let waiting = Mutex::new(jobs.into_iter());
    let next = || waiting.lock().ok().and_then(|mut jobs| jobs.next());
    let lane = || std::iter::from_fn(next).map(one).collect::<Result<Vec<Outcome>>>();
    let mut outcomes = Vec::new();
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        for lane in lanes {
            outcomes.extend(lane.join().map_err(|_| anyhow::anyhow!("a lane of tests panicked"))??);
        }
        Ok(outcomes)
    })
}

fn one(mut job: Job) -> Result<Outcome> {
    let mut said = tempfile::tempfile().context("what a test says cannot be kept")?;
    // One file for both, so that lines stand in the order in which they were said.
    job.command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said.try_clone()?);
    let began = now();
    let status = job
        .command
        .status()
        .with_context(|| format!("could not start {}", job.name))?;
    let took = now().duration_since(began);
    said.rewind()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "     Running {} ({:.1} s)", job.name, took.as_secs_f64())?;
    std::io::copy(&mut said, &mut out)?;
    Ok(Outcome {
        name: job.name,
        took,
        succeeded: status.success(),
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "a task measures real seconds and has no runtime"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
