//! What a server's deadline layers make: the caller's deadline, wherever it stands, becomes the handler's current one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{Deadline, Surroundings, Within, soonest, within};

/// A service whose calls know their caller's deadline. It is not cut off by it.
#[derive(Debug, Clone)]
pub struct DeadlineService<S> {
    inner: S,
    read: fn(&HeaderMap) -> Option<Deadline>,
}

impl<S> DeadlineService<S> {
    /// `read` finds the deadline in the headers.
    pub(crate) fn new(inner: S, read: fn(&HeaderMap) -> Option<Deadline>) -> Self {
        Self { inner, read }
    }
}

impl<S, B> Service<Request<B>> for DeadlineService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let outer = Surroundings::current();
        let surroundings = Surroundings {
            deadline: soonest(outer.deadline, (self.read)(request.headers())),
            ..outer
        };
        DeadlineFuture {
            future: within(surroundings, self.inner.call(request)),
        }
    }
}

pin_project! {
    /// Future of [`DeadlineService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct DeadlineFuture<F> {
        #[pin]
        future: Within<F>,
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").finish_non_exhaustive()
    }
}

impl<F: Future> Future for DeadlineFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(context)
    }
}
