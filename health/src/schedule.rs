//! When checks run: each in a task of its own, one run after the other, at most eight at one time. What their answers
//! mean is `board`'s and `state`'s matter.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::board::{Board, Entry, Pause};
use crate::check::{Failure, Outcome, Reason};

/// Interval of a check until its first success, at most.
const STARTING_INTERVAL: Duration = Duration::from_secs(1);
/// How often answers are looked at that grow old while nobody asks.
const LOOK: Duration = Duration::from_secs(1);

/// Places for the checks that run at one time. Those that hung the last time have places of their own, fewer, so that
/// however many hang, the others are never kept waiting by them for longer than one time-out.
#[derive(Debug)]
pub(crate) struct Lanes {
    usual: Semaphore,
    suspects: Semaphore,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            usual: Semaphore::new(6),
            suspects: Semaphore::new(2),
        }
    }

    async fn enter(&self, suspect: bool) -> Option<SemaphorePermit<'_>> {
        let lane = if suspect { &self.suspects } else { &self.usual };
        // Nobody closes them.
        lane.acquire().await.ok()
    }
}

/// Runs one check for ever: one run after the other, so that runs never overlap.
pub(crate) async fn run_check(board: Arc<Board>, index: usize, lanes: Arc<Lanes>) {
    let mut wishes = board.wishes();
    let mut suspect = false;
    loop {
        // Whoever wished before this run has its answer by it.
        wishes.mark_unchanged();
        let (outcome, began) = {
            let _place = lanes.enter(suspect).await;
            let began = Instant::now();
            (ask(&board.entries[index]).await, began)
        };
        suspect = matches!(&outcome, Outcome::Fail(failure) if failure.reason == Reason::Timeout);
        let pause = spread(board.take(index, &outcome, began), rand::random());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The board outlives the task.
            _ = wishes.changed() => {}
        }
    }
}

/// Sees to it that answers grow old while nobody asks.
pub(crate) async fn look(board: Arc<Board>) {
    loop {
        tokio::time::sleep(LOOK).await;
        board.look();
    }
}

/// Asks once, for at most the check's timeout.
async fn ask(entry: &Entry) -> Outcome {
    let run = std::panic::AssertUnwindSafe(async { entry.check.run().await }).catch_unwind();
    match tokio::time::timeout(entry.timeout, run).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_panic)) => Outcome::Fail(Failure::new(Reason::Panic, "the check panicked")),
        Err(_) => {
            let detail = format!("no answer in {:?}", entry.timeout);
            Outcome::Fail(Failure::new(Reason::Timeout, detail))
        }
    }
}

/// The pause with its spread; `random` lies in [0, 1). Instances that were started together ask together only once: the
/// first pause lies anywhere in the interval, every other is spread by 20 %.
fn spread(pause: Pause, random: f64) -> Duration {
    let (interval, from, to) = match pause {
        Pause::Starting(interval) => (interval.min(STARTING_INTERVAL), 0.8, 1.2),
        Pause::First(interval) => (interval, 0.2, 1.2),
        Pause::Usual(interval) => (interval, 0.8, 1.2),
    };
    interval.mul_f64(from + (to - from) * random)
}
