//! [`LimitedBody`]: a response body that must have been read by a certain moment. The time limits of a pipeline end
//! with the headers; without this a server that stops in the middle of its answer holds the caller for ever.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::deadline::Deadline;

pin_project! {
    /// A body with a deadline for all of it, or none.
    #[derive(Debug)]
    pub struct LimitedBody<B> {
        #[pin]
        inner: B,
        deadline: Option<Deadline>,
        // Made when the body is first waited for: most bodies are there already.
        timer: Option<Pin<Box<Sleep>>>,
        over: bool,
    }
}

/// A body that was not read in time, or its own error.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The deadline came before the end of the body.
    #[error("the body did not end in time")]
    Timeout,
    /// The body's own error.
    #[error("the body failed")]
    Inner(#[source] Box<dyn StdError + Send + Sync>),
}

impl<B> LimitedBody<B> {
    /// `inner` until `deadline`, or as long as it takes.
    pub fn new(inner: B, deadline: Option<Deadline>) -> Self {
        Self {
            inner,
            deadline,
            timer: None,
            over: false,
        }
    }

    /// The body without its limit.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B> Body for LimitedBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BodyError>>> {
        let this = self.project();
        if *this.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.inner.poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Inner(error.into()))));
        }
        let Some(deadline) = *this.deadline else {
            return Poll::Pending;
        };
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.instant())));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        *this.over = true;
        Poll::Ready(Some(Err(BodyError::Timeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
