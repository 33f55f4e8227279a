//! The thread on which a sink delivers: it has a runtime of its own, so that it works under any runtime of the service
//! and none, and what the sink itself does is neither logged nor traced. What is delivered is the sink's matter.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::dispatcher::{self, Dispatch};

/// Tells when a thread has ended.
#[derive(Debug)]
pub(crate) struct Ended(Mutex<Receiver<()>>);

/// Starts a thread that runs `task` to its end.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub(crate) fn spawn<F: Future<Output = ()>>(
    name: &str,
    task: impl FnOnce() -> F + Send + 'static,
) -> std::io::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (running, ended) = sync_channel(1);
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Dropped at the end, also by a panic.
        let _running = running;
        let _silence = dispatcher::set_default(&Dispatch::none());
        runtime.block_on(task());
        // A look-up of a name or a write that hangs must not keep the thread.
        runtime.shutdown_background();
    })?;
    Ok(Ended(Mutex::new(ended)))
}

impl Ended {
    /// Waits at most `limit`; whether it has ended.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        let ended = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected)
    }
}
