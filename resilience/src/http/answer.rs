//! [`HttpBody`]: the body of an answer whose verdict comes with its end. Headers commit a call, so nothing here leads to
//! another attempt.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::body::{BodyError, LimitedBody};
use super::ending::Ending;
use super::error_kind;
use crate::deadline::Deadline;
use crate::pipeline::Unsettled;
use crate::verdict::{Kind, Verdict};

pin_project! {
    /// Body of an answer through [`HttpLayer`](super::HttpLayer): must have ended by the call's deadline, and tells the
    /// policies how it ended.
    ///
    /// Read to its end it is a success; one that breaks off or comes too late is a failure of the dependency, whatever
    /// its status said. Dropped while it was waited for, the call counts as cancelled; dropped otherwise, as a success:
    /// the status was good, and nobody wants the rest.
    #[derive(Debug)]
    pub struct HttpBody<B> {
        #[pin]
        inner: LimitedBody<B>,
        ending: Ending,
        awaited: bool,
    }

    impl<B> PinnedDrop for HttpBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if !*this.awaited {
                this.ending.settle(Verdict::Success);
            }
        }
    }
}

impl<B> HttpBody<B> {
    pub(crate) fn new(inner: B, deadline: Option<Deadline>) -> Self {
        Self {
            inner: LimitedBody::new(inner, deadline),
            ending: Ending::default(),
            awaited: false,
        }
    }

    /// Tells with `unsettled` how the body ends.
    pub(crate) fn watch(&mut self, unsettled: Unsettled) {
        self.ending.add(unsettled);
    }
}

impl<B> Body for HttpBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BodyError>>> {
        let mut this = self.project();
        let polled = this.inner.as_mut().poll_frame(context);
        *this.awaited = polled.is_pending();
        match &polled {
            Poll::Ready(None) => this.ending.settle(Verdict::Success),
            Poll::Ready(Some(Err(BodyError::Timeout))) => this.ending.settle(Verdict::Failure(Kind::Timeout)),
            Poll::Ready(Some(Err(error))) => this.ending.settle(Verdict::Failure(error_kind(error))),
            Poll::Ready(Some(Ok(_))) if this.inner.is_end_stream() => this.ending.settle(Verdict::Success),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
