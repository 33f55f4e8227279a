//! One question at a time to a dependency that does not let go of a question: a blocking call, or a client whose
//! futures leave something behind when they are dropped half-way. A run that finds the last one still waiting joins it
//! instead of asking again, so that a dependency that hangs costs one thread or one request, however long it hangs.

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::check::{Failure, Outcome, Reason};

/// Holds the question that is under way.
#[derive(Debug, Default)]
pub(crate) struct SingleFlight {
    running: Mutex<Option<JoinHandle<Outcome>>>,
}

impl SingleFlight {
    /// The answer of the question under way, or of the one that `start` starts. Dropping this future leaves the question
    /// to the next call.
    pub(crate) async fn ask(&self, start: impl FnOnce() -> JoinHandle<Outcome>) -> Outcome {
        let mut running = self.running.lock().await;
        let answer = running.get_or_insert_with(start).await;
        *running = None;
        answer.unwrap_or_else(|error| Outcome::Fail(Failure::new(Reason::Panic, error.to_string())))
    }
}

impl Drop for SingleFlight {
    fn drop(&mut self) {
        if let Some(running) = self.running.get_mut() {
            running.abort();
        }
    }
}
