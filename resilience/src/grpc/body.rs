//! [`GrpcBody`]: a response whose verdict for the breaker comes with its end. Headers commit a call, so nothing here
//! leads to a retry.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use super::layer::{drop_broken_details, status_in};
use super::verdict;
use crate::breaker::Permit;
use crate::deadline::Deadline;
use crate::http::{BodyError, LimitedBody};
use crate::verdict::{Kind, Verdict};

pin_project! {
    /// Body of a response through [`GrpcLayer`](super::GrpcLayer): ends with the attempt's deadline, and tells the
    /// breaker how the call ended once the trailers say so.
    #[derive(Debug)]
    pub struct GrpcBody<B> {
        #[pin]
        inner: LimitedBody<B>,
        ending: Ending,
    }
}

/// The breaker's permit while the call is under way. Dropped early, it counts as cancelled.
#[derive(Default)]
pub(super) struct Ending(Option<Permit>);

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ending").field(&self.0.is_some()).finish()
    }
}

impl Ending {
    fn record(&mut self, verdict: Verdict) {
        if let Some(permit) = self.0.take() {
            permit.record(verdict);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.record(status_in(trailers).map_or(NO_STATUS, |status| verdict(&status)));
    }
}

/// A call that ends without a status failed (the protocol says UNKNOWN).
const NO_STATUS: Verdict = Verdict::Failure(Kind::Permanent);

impl<B: Body> GrpcBody<B> {
    pub(super) fn new(inner: B, deadline: Option<Deadline>) -> Self {
        Self {
            inner: LimitedBody::new(inner, deadline),
            ending: Ending(None),
        }
    }

    /// Records with `permit` how the call ends.
    pub(super) fn watch(&mut self, permit: Option<Permit>)
    where
        LimitedBody<B>: Body,
    {
        self.ending = Ending(permit);
        if self.inner.is_end_stream() {
            self.ending.record(NO_STATUS);
        }
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
                this.ending.record(NO_STATUS);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                let status = match error {
                    BodyError::Timeout => Status::deadline_exceeded("the answer did not end in time"),
                    BodyError::Inner(error) => Status::from_error(error),
                };
                this.ending.record(verdict(&status));
                return Poll::Ready(Some(Err(status)));
            }
            Some(Ok(frame)) => frame,
        };
        let mut trailers = match frame.into_trailers() {
            Ok(trailers) => trailers,
            Err(data) => return Poll::Ready(Some(Ok(data))),
        };
        drop_broken_details(&mut trailers);
        this.ending.trailers(&trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
