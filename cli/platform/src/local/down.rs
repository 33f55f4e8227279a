//! `down`: aborts what runs are under way, stops services, then the proxy, then the supervisor, and makes sure that
//! nothing is left. Idempotent; works without a living supervisor.

use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use tokio::time::Instant;

use super::LocalPlatform;
use super::desired::Desired;
use super::state_dir::{read_json, write_json};
use super::supervisor::{self, Request, scan};
use crate::process::Process;
use crate::run::{Cancel, Journal, Phase, Reason, Recovered, RunError, recover, request_cancel};
use crate::{Platform, Result};

/// How long each part may take.
#[derive(Debug, Clone)]
pub struct DownOptions {
    /// Who asks, for the records of aborted runs.
    pub actor: String,
    /// How long runs may take to undo and close.
    pub runs: Duration,
    /// How long services may take to end in order; then they are killed.
    pub services: Duration,
}

impl Default for DownOptions {
    fn default() -> Self {
        Self {
            actor: String::new(),
            runs: Duration::from_secs(30),
            services: Duration::from_mins(1),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DownOutcome {
    /// Runs that were aborted or recovered.
    pub runs: Vec<String>,
    /// Runs whose changes could not be undone.
    pub incomplete: Vec<String>,
    /// Services that were meant to run.
    pub services: Vec<String>,
    /// Processes that had to be killed.
    pub killed: u32,
}

/// Stops everything of the state folder.
///
/// Errors: [`crate::PlatformError::Busy`] while an `up` or another `down` works on the folder.
pub async fn down(platform: &LocalPlatform, options: &DownOptions) -> Result<DownOutcome> {
    let state = &platform.state;
    let _only_one = state.lock_file("up.lock", Duration::ZERO).await?;
    let mut outcome = DownOutcome::default();
    end_runs(platform, options, &mut outcome).await?;
    {
        let locked = platform.locked().await?;
        let path = state.path("desired.json");
        if let Some(mut desired) = read_json::<Desired>(&path)?
            && !desired.stop
        {
            outcome.services = desired.services.keys().cloned().collect();
            desired.stop = true;
            desired.revision += 1;
            write_json(&path, &desired, true)?;
        }
        drop(locked);
    }
    let deadline = Instant::now() + options.services;
    // A supervisor knows how to end things in order: a missing one is started once more, one that hangs is replaced once.
    for _ in 0..2 {
        if leftovers(state).is_empty() {
            break;
        }
        if let Ok(supervisor) = platform.ensure_supervisor().await {
            let _ = supervisor::ask(&state.supervisor_socket(), Request::Reconcile, Duration::from_secs(2)).await;
            wait_until(deadline, || !supervisor.alive() || supervisor.stopped()).await;
        }
        let Some(hung) = state.lock_holder("supervisor.lock") else {
            break;
        };
        outcome.killed += u32::from(hung.signal(Signal::KILL).unwrap_or(false));
        wait_until(Instant::now() + Duration::from_secs(5), || !hung.alive()).await;
    }
    outcome.killed += end_leftovers(platform).await;
    for name in ["supervisor.sock", "proxy.sock", "proxy.json"] {
        let _ = std::fs::remove_file(state.path(name));
    }
    let _ = std::fs::remove_dir_all(state.path("admin"));
    let _ = std::fs::remove_file(state.path("instances.json"));
    Ok(outcome)
}

/// Ends services again that an `up` has just added, and waits until they are gone.
pub async fn stop_services(platform: &LocalPlatform, names: &[String], limit: Duration) -> Result<()> {
    {
        let locked = platform.locked().await?;
        let path = platform.state.path("desired.json");
        if let Some(mut desired) = read_json::<Desired>(&path)? {
            desired.services.retain(|name, _| !names.contains(name));
            desired.revision += 1;
            write_json(&path, &desired, true)?;
        }
        drop(locked);
    }
    platform.poke().await;
    let gone = || {
        !scan(platform.state.root())
            .iter()
            .any(|found| found.service.as_ref().is_some_and(|name| names.contains(name)))
    };
    wait_until(Instant::now() + limit, gone).await;
    Ok(())
}

/// Every process that was started for this state folder and still lives: the supervisor, the proxy, instances and their
/// children. Not the workers and watchdogs of runs; their records name those.
pub fn leftovers(state: &super::StateDir) -> Vec<Process> {
    let supervisor = state.lock_holder("supervisor.lock");
    supervisor
        .into_iter()
        .chain(scan(state.root()).into_iter().map(|found| found.process))
        .collect()
}

/// Aborts runs: asks their workers, waits, undoes what dead ones left.
async fn end_runs(platform: &LocalPlatform, options: &DownOptions, outcome: &mut DownOutcome) -> Result<()> {
    let deadline = Instant::now() + options.runs;
    let open = platform
        .records()
        .await?
        .into_iter()
        .filter(|record| record.phase != Phase::Closed);
    for record in open.collect::<Vec<_>>() {
        let cancel = Cancel {
            by: options.actor.clone(),
            at: platform.now(),
            reason: Reason::Down,
        };
        request_cancel(platform, &record.id, cancel)
            .await
            .map_err(platform_error)?;
        outcome.runs.push(record.id.clone());
        let journal = Journal::open(platform.state.journal(&record.id), &record.id)
            .unwrap_or_else(|_| Journal::memory(&record.id));
        loop {
            let done = match recover(platform, &record.id, &journal).await.map_err(platform_error)? {
                Recovered::Nothing | Recovered::Closed { .. } => true,
                Recovered::Running(_) => Instant::now() >= deadline,
            };
            if done {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let closed = platform.record(&record.id).await?;
        if closed.is_none_or(|closed| {
            closed.phase != Phase::Closed || closed.outcome == Some(crate::run::Outcome::UndoIncomplete)
        }) {
            outcome.incomplete.push(record.id);
        }
    }
    Ok(())
}

fn platform_error(error: RunError) -> crate::PlatformError {
    match error {
        RunError::Platform(error) => error,
        other => crate::PlatformError::Unreachable {
            what: "the record of a run".to_owned(),
            source: Box::new(other),
        },
    }
}

/// Kills whatever still carries the state folder in its environment: services first, then the proxy. How many.
async fn end_leftovers(platform: &LocalPlatform) -> u32 {
    let mut killed = 0;
    for signal in [Signal::TERM, Signal::KILL] {
        let left = scan(platform.state.root());
        for found in &left {
            killed += u32::from(found.process.signal(signal).unwrap_or(false) && signal == Signal::KILL);
        }
        let all_gone = || left.iter().all(|found| !Process::alive(found.process));
        wait_until(Instant::now() + Duration::from_secs(5), all_gone).await;
    }
    killed
}

async fn wait_until(deadline: Instant, done: impl Fn() -> bool) {
    while !done() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
