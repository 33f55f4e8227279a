//! The response on its way: the request is over when its body is, or when somebody drops it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use http::{HeaderValue, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tracing::Span;

use super::pending::Pending;
use crate::propagation::{CORRELATION_ID, CorrelationId};

pin_project! {
    /// Future of [`ServerService`](super::ServerService).
    #[derive(Debug)]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        span: Span,
        pending: Option<Pending>,
        id: Option<CorrelationId>,
    }
}

impl<F> ResponseFuture<F> {
    /// Of a request that is none of ours.
    pub(super) fn untouched(inner: F) -> Self {
        Self {
            inner,
            span: Span::none(),
            pending: None,
            id: None,
        }
    }

    /// Of a request that is measured; `span` is entered while it is worked on.
    pub(super) fn measured(inner: F, span: Span, pending: Pending, id: Option<CorrelationId>) -> Self {
        Self {
            inner,
            span,
            pending: Some(pending),
            id,
        }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<MeasuredBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = {
            let _entered = this.span.enter();
            ready!(this.inner.poll(task))
        };
        let mut pending = this.pending.take();
        Poll::Ready(match result {
            Err(error) => {
                if let Some(pending) = &mut pending {
                    pending.finish(false);
                }
                Err(error)
            }
            Ok(mut response) => {
                if let Some(id) = this.id.take()
                    && let Ok(value) = HeaderValue::from_str(id.as_str())
                {
                    response.headers_mut().insert(CORRELATION_ID, value);
                }
                if let Some(pending) = &mut pending {
                    let is_over = pending.response_head(response.status().as_u16(), response.headers());
                    if is_over || response.body().is_end_stream() {
                        pending.finish(true);
                    }
                }
                let span = std::mem::replace(this.span, Span::none());
                Ok(response.map(|inner| MeasuredBody { inner, span, pending }))
            }
        })
    }
}

pin_project! {
    /// Body of [`ServerService`](super::ServerService)'s responses: the request is over when this is.
    #[derive(Debug)]
    pub struct MeasuredBody<B> {
        #[pin]
        inner: B,
        span: Span,
        pending: Option<Pending>,
    }
}

impl<B: Body> Body for MeasuredBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = {
            let _entered = this.span.enter();
            ready!(this.inner.as_mut().poll_frame(task))
        };
        if let Some(pending) = this.pending {
            match &frame {
                None => pending.finish(true),
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        pending.trailers(trailers);
                        pending.finish(true);
                    } else if this.inner.is_end_stream() {
                        pending.finish(true);
                    }
                }
                Some(Err(_)) => pending.finish(false),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
