//! Waits until jobs are due and has them run: each at most once at a time, different ones side by side. What a job is,
//! and what is remembered of it, is the caller's.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::{Decision, Due, Timing};

/// The world of a runner.
pub trait Jobs {
    /// The time of day. Asked anew after every wait, so that a clock that was set or a machine that slept is noticed.
    fn now(&self) -> Timestamp;

    /// The last occurrence of a schedule that was run, or when it was first seen.
    fn handled(&self, schedule: usize) -> Timestamp;

    /// Whether an earlier run of it, of another process, goes on.
    fn busy(&self, schedule: usize) -> bool;

    /// Runs the job of a schedule to its end, and remembers that when the answer is [`Ended::Handled`].
    fn run(&self, schedule: usize, due: Due, missed: u32, cancel: CancellationToken) -> impl Future<Output = Ended>;
}

/// How a run ended, as far as the runner is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The occurrence is done with, well or badly.
    Handled,
    /// Something was in the way: to be tried again after this time.
    Again(Duration),
}

/// The longest that is slept without a look at the clock.
const LOOK: Duration = Duration::from_secs(20);

/// Runs what is due until `cancel`, then waits for what is running, which was cancelled with it.
pub async fn serve<J: Jobs>(timings: &[Timing], jobs: &J, cancel: &CancellationToken) {
    let mut running = FuturesUnordered::new();
    let mut occupied = vec![false; timings.len()];
    let mut not_before: BTreeMap<usize, Timestamp> = BTreeMap::new();
    loop {
        let now = jobs.now();
        let mut wake = LOOK;
        for (schedule, timing) in timings.iter().enumerate() {
            if occupied[schedule] || cancel.is_cancelled() || jobs.busy(schedule) {
                continue;
            }
            if let Some(time) = not_before.get(&schedule).filter(|time| **time > now) {
                wake = wake.min(until(now, *time));
                continue;
            }
            match timing.decide(jobs.handled(schedule), now) {
                Decision::Run { due, missed } => {
                    occupied[schedule] = true;
                    not_before.remove(&schedule);
                    let cancel = cancel.clone();
                    running.push(async move { (schedule, jobs.run(schedule, due, missed, cancel).await) });
                }
                Decision::Wait(due) => wake = wake.min(until(now, due.start)),
                Decision::Never => {}
            }
        }
        if cancel.is_cancelled() && running.is_empty() {
            return;
        }
        tokio::select! {
            Some((schedule, ended)) = running.next(), if !running.is_empty() => {
                occupied[schedule] = false;
                if let Ended::Again(pause) = ended {
                    let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::MAX);
                    not_before.insert(schedule, jobs.now().checked_add(pause).unwrap_or(Timestamp::MAX));
                }
            }
            () = cancel.cancelled(), if !cancel.is_cancelled() => {}
            () = tokio::time::sleep(wake) => {}
        }
    }
}

/// Runs what is due now, the earliest first, one after the other, and ends. Returns how many were run.
pub async fn once<J: Jobs>(timings: &[Timing], jobs: &J, cancel: &CancellationToken) -> usize {
    let now = jobs.now();
    let mut due: Vec<(Due, usize, u32)> = timings
        .iter()
        .enumerate()
        .filter(|(schedule, _)| !jobs.busy(*schedule))
        .filter_map(|(schedule, timing)| match timing.decide(jobs.handled(schedule), now) {
            Decision::Run { due, missed } => Some((due, schedule, missed)),
            Decision::Wait(_) | Decision::Never => None,
        })
        .collect();
    due.sort_by_key(|(due, schedule, _)| (due.start, *schedule));
    let mut run = 0;
    for (due, schedule, missed) in due {
        if cancel.is_cancelled() {
            break;
        }
        jobs.run(schedule, due, missed, cancel.clone()).await;
        run += 1;
    }
    run
}

/// From now to a later time, never nothing.
fn until(now: Timestamp, time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(now))
        .unwrap_or_default()
        .max(Duration::from_millis(1))
}
