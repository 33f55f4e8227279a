//! [`GrpcChannel`]: a tonic channel as a service of requests that can be sent again, whose errors are statuses.

use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tonic::Status;
use tower_service::Service;

use crate::http::ReplayBody;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The service beneath a [`GrpcLayer`](super::GrpcLayer).
#[derive(Debug, Clone)]
pub struct GrpcChannel<S>(pub(super) S);

impl<S, B, R> Service<Request<ReplayBody<B>>> for GrpcChannel<S>
where
    S: Service<Request<tonic::body::Body>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = StatusFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.0
            .poll_ready(context)
            .map_err(|error| Status::from_error(error.into()))
    }

    fn call(&mut self, request: Request<ReplayBody<B>>) -> Self::Future {
        StatusFuture {
            inner: self.0.call(request.map(tonic::body::Body::new)),
        }
    }
}

pin_project! {
    /// A response, or why there is none as a status.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct StatusFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F, T, E> Future for StatusFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Status>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.project()
            .inner
            .poll(context)
            .map_err(|error| Status::from_error(error.into()))
    }
}
