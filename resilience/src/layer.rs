//! The tower view of a [`Pipeline`]. It holds no state of its own, and admits in the future, never in `poll_ready`, so
//! that nothing is reserved for a call that does not come.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use crate::error::Error;
use crate::pipeline::Pipeline;
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
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    Req: Clone + Send + 'static,
    C: Classify<S::Response, S::Error> + SafetyOf<Req> + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = PipelineFuture<S::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let (policy, classify) = (self.policy.clone(), Arc::clone(&self.classify));
        let safety = if self.idempotent {
            Safety::Idempotent
        } else {
            classify.safety(&request)
        };
        PipelineFuture(Box::pin(async move {
            let spare = ready.clone();
            let mut ready = Some(ready);
            policy
                .call_with(safety, &*classify, move |_| {
                    let polled = ready.take();
                    let mut service = spare.clone();
                    let request = request.clone();
                    async move {
                        if let Some(mut polled) = polled {
                            return polled.call(request).await;
                        }
                        poll_fn(|context| service.poll_ready(context)).await?;
                        service.call(request).await
                    }
                })
                .await
        }))
    }
}

/// Future of [`PipelineService`].
#[must_use = "futures do nothing unless polled"]
pub struct PipelineFuture<T, E>(Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send>>);

impl<T, E> fmt::Debug for PipelineFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineFuture").finish_non_exhaustive()
    }
}

impl<T, E> Future for PipelineFuture<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}
