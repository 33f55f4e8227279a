//! The tower view of a [`Pipeline`]. It holds no state of its own, and admits in the future, never in `poll_ready`, so
//! that nothing is reserved for a call that does not come.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::pipeline::{Attempt, Call, Inner, Op, Pipeline};
use crate::verdict::{Classify, Kind, Safety, SafetyOf, Verdict};

/// Every error is a failure that may pass; requests must not be repeated.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyError;

impl<T, E> Classify<T, E> for AnyError {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(_) => Verdict::Success,
            Err(_) => Verdict::Failure(Kind::Transient),
        }
    }
}

impl<Req> SafetyOf<Req> for AnyError {
    fn safety(&self, _request: &Req) -> Safety {
        Safety::Unsafe
    }
}

/// Puts a policy around a service; made by [`Pipeline::layer`]. All services that it makes share the policy.
#[derive(Debug, Clone)]
pub struct PipelineLayer<C> {
    policy: Pipeline,
    classify: Arc<C>,
    idempotent: bool,
}

impl PipelineLayer<AnyError> {
    pub(crate) fn new(policy: Pipeline) -> Self {
        Self {
            policy,
            classify: Arc::new(AnyError),
            idempotent: false,
        }
    }
}

impl<C> PipelineLayer<C> {
    /// Lets `classify` tell what results mean and which requests may be repeated.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> PipelineLayer<D> {
        PipelineLayer {
            policy: self.policy,
            classify: Arc::new(classify),
            idempotent: self.idempotent,
        }
    }

    /// Says that every request may be repeated.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }
}

impl<S, C> Layer<S> for PipelineLayer<C> {
    type Service = PipelineService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        PipelineService {
            inner,
            policy: self.policy.clone(),
            classify: Arc::clone(&self.classify),
            idempotent: self.idempotent,
        }
    }
}

/// A service under a policy.
#[derive(Debug)]
pub struct PipelineService<S, C> {
    inner: S,
    policy: Pipeline,
    classify: Arc<C>,
    idempotent: bool,
}

impl<S: Clone, C> Clone for PipelineService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            policy: self.policy.clone(),
            classify: Arc::clone(&self.classify),
            idempotent: self.idempotent,
        }
    }
}

impl<S, C, Req> Service<Req> for PipelineService<S, C>
where
    S: Service<Req> + Clone,
    Req: Clone,
    C: Classify<S::Response, S::Error> + SafetyOf<Req>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PipelineFuture<S, C, Req>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let spare = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, spare.clone());
        let safety = if self.idempotent {
            Safety::Idempotent
        } else {
            self.classify.safety(&request)
        };
        let requests = Requests {
            ready: Some(ready),
            spare,
            request,
        };
        self.policy.start(safety, Arc::clone(&self.classify), requests)
    }
}

/// Future of [`PipelineService`].
pub type PipelineFuture<S, C, Req> = Call<Arc<Inner>, Arc<C>, Requests<S, Req>>;

/// Makes attempts by sending a request again and again: first to the service that was polled ready, then to clones.
#[derive(Debug)]
pub struct Requests<S, Req> {
    ready: Option<S>,
    spare: S,
    request: Req,
}

impl<S, Req> Op for Requests<S, Req>
where
    S: Service<Req> + Clone,
    Req: Clone,
{
    type Value = S::Response;
    type Error = S::Error;
    type Future = RequestFuture<S, Req>;

    fn start(&mut self, _: Attempt) -> Self::Future {
        match self.ready.take() {
            Some(mut ready) => RequestFuture {
                pending: None,
                response: Some(ready.call(self.request.clone())),
            },
            None => RequestFuture {
                pending: Some((self.spare.clone(), self.request.clone())),
                response: None,
            },
        }
    }
}

pin_project! {
    /// One request: waits until the service is ready, then for the response.
    #[must_use = "futures do nothing unless polled"]
    pub struct RequestFuture<S: Service<Req>, Req> {
        // The service that is not ready yet, and what it is to be sent.
        pending: Option<(S, Req)>,
        #[pin]
        response: Option<S::Future>,
    }
}

impl<S: Service<Req>, Req> fmt::Debug for RequestFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture").finish_non_exhaustive()
    }
}

impl<S: Service<Req>, Req> Future for RequestFuture<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some((service, _)) = this.pending.as_mut() {
            ready!(service.poll_ready(context))?;
        }
        if let Some((mut service, request)) = this.pending.take() {
            this.response.set(Some(service.call(request)));
        }
        match this.response.as_pin_mut() {
            Some(response) => response.poll(context),
            None => Poll::Pending,
        }
    }
}
