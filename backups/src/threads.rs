//! Work that may block or takes long, on threads made for it. A panic there is a panic here: no defect passes for a
//! cancellation.

use tokio::task::JoinError;

use crate::error::Error;

/// Runs `work` on a thread of its own. Fails only when the runtime is going down.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(ended)
}

/// Why a task or thread did not come to its end.
///
/// # Panics
/// If it panicked.
pub(crate) fn ended(error: JoinError) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => Error::Cancelled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "a defect")]
    async fn a_panic_on_a_thread_is_a_panic_here() {
        let _ = blocking(|| panic!("a defect")).await;
    }

    #[tokio::test]
    async fn what_was_given_up_is_cancelled() {
        let task = tokio::spawn(std::future::pending::<()>());
        task.abort();
        assert!(matches!(task.await.map_err(ended), Err(Error::Cancelled)));
    }
}
