//! [`GrpcBody`]: a response whose verdict comes with its trailers. Headers commit a call, so nothing here leads to a retry.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use super::layer::{drop_broken_details, status_in};
use super::verdict;
use crate::deadline::Deadline;
use crate::http::{BodyError, Ending, LimitedBody};
use crate::pipeline::Unsettled;
use crate::verdict::{Kind, Verdict};

pin_project! {
    /// Body of a response through [`GrpcLayer`](super::GrpcLayer): must have ended by the call's deadline, and tells the
    /// policies how the call ended once the trailers say so. Dropped before, the call counts as cancelled.
    #[derive(Debug)]
    pub struct GrpcBody<B> {
        #[pin]
        inner: LimitedBody<B>,
        ending: Ending,
    }
}

/// A call that ends without a status failed (the protocol says UNKNOWN).
pub(super) const NO_STATUS: Verdict = Verdict::Failure(Kind::Permanent);

impl<B> GrpcBody<B> {
    pub(super) fn new(inner: B, deadline: Option<Deadline>) -> Self {
        Self {
            inner: LimitedBody::new(inner, deadline),
            ending: Ending::default(),
        }
    }

    /// Tells with `unsettled` how the call ends.
    pub(super) fn watch(&mut self, unsettled: Unsettled) {
        self.ending.add(unsettled);
    }
}

/// The verdict on a stream that broke off: whatever the status is read as, this is no answer.
fn broken(status: &Status) -> Verdict {
    match verdict(status) {
        failure @ (Verdict::Failure(_) | Verdict::Overload { .. }) => failure,
        _ => Verdict::Failure(Kind::Transient),
    }
}

impl<B> Body for GrpcBody<B>
where
    B: Body,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, Status>>> {
        let this = self.project();
        let frame = match ready!(this.inner.poll_frame(context)) {
            None => {
                this.ending.settle(NO_STATUS);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                let status = match error {
                    BodyError::Timeout => Status::deadline_exceeded("the answer did not end in time"),
                    BodyError::Inner(error) => Status::from_error(error),
                };
                this.ending.settle(broken(&status));
                return Poll::Ready(Some(Err(status)));
            }
            Some(Ok(frame)) => frame,
        };
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => return Poll::Ready(Some(Ok(data))),
        };
        drop_broken_details(&mut trailers);
        let end = status_in(&trailers).map_or(NO_STATUS, |status| verdict(&status));
        this.ending.settle(end);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
