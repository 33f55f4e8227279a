//! The moment by which an answer is of use, handed from server to client through the task. It cuts nothing off by
//! itself: policies do.

#[cfg(any(feature = "axum", feature = "http"))]
mod header;
#[cfg(any(feature = "axum", feature = "grpc"))]
mod service;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(feature = "http")]
pub(crate) use self::header::deadline_out;
#[cfg(any(feature = "axum", feature = "http"))]
pub use self::header::{REQUEST_TIMEOUT, deadline_in};
#[cfg(any(feature = "axum", feature = "grpc"))]
pub use self::service::{DeadlineFuture, DeadlineService};

thread_local! {
    static CURRENT: Cell<Surroundings> = const { Cell::new(Surroundings { deadline: None, retried: false }) };
}

/// What a call is made within.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Surroundings {
    /// When the answer is of no use any more.
    pub(crate) deadline: Option<Deadline>,
    /// Whether a policy further out repeats what fails: then one further in multiplies the attempts.
    pub(crate) retried: bool,
}

impl Surroundings {
    pub(crate) fn current() -> Self {
        CURRENT.get()
    }
}

/// The earlier one of two deadlines, of which each may be absent.
#[cfg(any(feature = "http", feature = "axum"))]
pub(crate) fn soonest(one: Option<Deadline>, other: Option<Deadline>) -> Option<Deadline> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Runs `future` within `surroundings`.
#[inline]
pub(crate) fn within<F: Future>(surroundings: Surroundings, future: F) -> Within<F> {
    Within { surroundings, future }
}

pin_project! {
    /// A future that is polled within surroundings. tokio's task locals would do as well, at ten times the cost.
    pub(crate) struct Within<F> {
        surroundings: Surroundings,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Given back also when the future panics.
        let _outer = Outer(CURRENT.replace(*this.surroundings));
        this.future.poll(context)
    }
}

struct Outer(Surroundings);

impl Drop for Outer {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

/// A moment on tokio's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// In `duration` from now.
    pub fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // About 30 years stand for "never" where the sum does not fit.
        Self(
            now.checked_add(duration)
                .unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30)),
        )
    }

    /// At a moment.
    pub(crate) const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The deadline of the request that this task works on, if it has one.
    pub fn current() -> Option<Self> {
        Surroundings::current().deadline
    }

    /// Runs `future` with this deadline as the current one, or the one it is in if that is earlier. It is not cut off.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        let outer = Surroundings::current();
        let deadline = outer.deadline.map_or(self, |outer| outer.min(self));
        let surroundings = Surroundings {
            deadline: Some(deadline),
            ..outer
        };
        within(surroundings, future).await
    }

    /// Time left, zero when it is over.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        self.remaining().is_zero()
    }

    /// The moment.
    pub fn instant(self) -> Instant {
        self.0
    }
}
