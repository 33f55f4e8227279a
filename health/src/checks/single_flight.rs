//! One call at a time to what blocks its thread: a C library, a file system over the network. A run that finds the last call
//! still waiting joins it instead of calling again, so that a dependency that hangs costs one thread, however long it hangs.

use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::check::{Failure, Outcome, Reason};

/// Holds the call that is under way.
#[derive(Debug, Default)]
pub(crate) struct SingleFlight {
    running: Mutex<Option<JoinHandle<Outcome>>>,
}

impl SingleFlight {
    /// The answer of the call under way, or else of `call`, which runs on the runtime's threads for blocking work.
    /// Dropping this future leaves the call to the next run.
    pub(crate) async fn ask(&self, call: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
        let mut running = self.running.lock().await;
        let answer = running.get_or_insert_with(|| spawn_blocking(call)).await;
        *running = None;
        answer.unwrap_or_else(|error| Outcome::Fail(Failure::new(Reason::Panic, error.to_string())))
    }
}
