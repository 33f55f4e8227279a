//! [`HttpLayer`]: a pipeline around an HTTP client. What answers mean is said in `http`; when to retry, in the pipeline.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::body::LimitedBody;
use super::replay::{REPLAY_CAP, ReplayBody};
use super::{HttpClassify, deadline_out, final_verdict};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::pipeline::Pipeline;
use crate::verdict::{Classify, SafetyOf, Verdict};

/// Puts a pipeline around a service of `http::Request`s. All services that it makes share the pipeline.
///
/// - The request's body becomes a [`ReplayBody`], so it need not be `Clone`; a body that cannot be sent again is sent
///   once.
/// - Requests are repeated as [`safety`](super::safety) allows, answers read by [`HttpClassify`].
/// - Every attempt says how long it may take, in [`REQUEST_TIMEOUT`](super::REQUEST_TIMEOUT).
/// - The response's body ends with the deadline of the request that this task works on, and with
///   [`HttpLayer::body_timeout`] if there is one.
#[derive(Debug, Clone)]
pub struct HttpLayer<C = HttpClassify> {
    settings: Settings<C>,
}

#[derive(Debug)]
struct Settings<C> {
    policy: Pipeline,
    classify: Arc<C>,
    cap: usize,
    body_timeout: Option<Duration>,
    announce: bool,
}

impl<C> Clone for Settings<C> {
    fn clone(&self) -> Self {
        Self {
            policy: self.policy.clone(),
            classify: Arc::clone(&self.classify),
            ..*self
        }
    }
}

impl HttpLayer {
    /// A layer over `policy`.
    pub fn new(policy: Pipeline) -> Self {
        Self {
            settings: Settings {
                policy,
                classify: Arc::new(HttpClassify),
                cap: REPLAY_CAP,
                body_timeout: None,
                announce: true,
            },
        }
    }
}

impl<C> HttpLayer<C> {
    /// Lets `classify` tell what results mean and which requests may be repeated.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> HttpLayer<D> {
        let Settings {
            policy,
            cap,
            body_timeout,
            announce,
            ..
        } = self.settings;
        HttpLayer {
            settings: Settings {
                policy,
                classify: Arc::new(classify),
                cap,
                body_timeout,
                announce,
            },
        }
    }

    /// The most bytes of a request's body that are kept for another attempt. Default [`REPLAY_CAP`].
    #[must_use]
    pub fn replay_up_to(mut self, bytes: usize) -> Self {
        self.settings.cap = bytes;
        self
    }

    /// Time for the response's body from its headers to its end. Default: none.
    #[must_use]
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.settings.body_timeout = Some(limit);
        self
    }

    /// Sends no [`REQUEST_TIMEOUT`](super::REQUEST_TIMEOUT): for servers outside, whom it does not concern.
    #[must_use]
    pub fn without_timeout_header(mut self) -> Self {
        self.settings.announce = false;
        self
    }
}

impl<S, C> Layer<S> for HttpLayer<C> {
    type Service = HttpService<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        HttpService {
            inner,
            settings: self.settings.clone(),
        }
    }
}

/// Service of [`HttpLayer`].
#[derive(Debug)]
pub struct HttpService<S, C = HttpClassify> {
    inner: S,
    settings: Settings<C>,
}

impl<S: Clone, C> Clone for HttpService<S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            settings: self.settings.clone(),
        }
    }
}

impl<S, C, B, R> Service<Request<B>> for HttpService<S, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Body + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
    R: Send + 'static,
    C: Classify<Response<R>, S::Error> + SafetyOf<Request<ReplayBody<B>>> + Send + Sync + 'static,
{
    type Response = Response<LimitedBody<R>>;
    type Error = Error<S::Error>;
    type Future = HttpFuture<Self::Response, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = self.settings.clone();
        let request = request.map(|body| ReplayBody::stream_up_to(body, settings.cap));
        let safety = settings.classify.safety(&request);
        let body = request.body().clone();
        let announce = settings.announce;
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let spare = self.inner.clone();
        let mut ready = Some(std::mem::replace(&mut self.inner, spare.clone()));
        HttpFuture(Box::pin(async move {
            let classify = Final {
                classify: &*settings.classify,
                body: &body,
            };
            let response = settings
                .policy
                .call_with(safety, &classify, move |attempt| {
                    let ready = ready.take();
                    let mut spare = spare.clone();
                    let mut request = request.clone();
                    if announce {
                        deadline_out(attempt.deadline(), request.headers_mut());
                    }
                    let given_up = GivenUp::of(request.body());
                    async move {
                        let mut service = if let Some(ready) = ready {
                            ready
                        } else {
                            poll_fn(|context| spare.poll_ready(context)).await?;
                            spare
                        };
                        let response = service.call(request).await?;
                        // Its upload may go on beside the answer.
                        given_up.forget();
                        Ok(response)
                    }
                })
                .await?;
            let limit = settings.body_timeout.map(Deadline::after);
            let deadline = match (limit, Deadline::current()) {
                (Some(limit), Some(caller)) => Some(limit.min(caller)),
                (limit, caller) => limit.or(caller),
            };
            Ok(response.map(|body| LimitedBody::new(body, deadline)))
        }))
    }
}

/// The classifier of one call: as the layer's, but nothing asks for another attempt once the body is gone.
pub(crate) struct Final<'a, C, B> {
    pub(crate) classify: &'a C,
    pub(crate) body: &'a ReplayBody<B>,
}

impl<C, B, T, E> Classify<T, E> for Final<'_, C, B>
where
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        let verdict = self.classify.classify(result);
        if self.body.is_replayable() {
            verdict
        } else {
            final_verdict(verdict)
        }
    }
}

/// An attempt that ended without an answer must not go on to read the body: the next one needs it.
pub(crate) struct GivenUp<B>(Option<ReplayBody<B>>);

impl<B> GivenUp<B> {
    /// Holds for the attempt that sends `body`.
    pub(crate) fn of(body: &ReplayBody<B>) -> Self {
        Self(Some(body.clone()))
    }

    /// The attempt has its answer.
    pub(crate) fn forget(mut self) {
        self.0 = None;
    }
}

impl<B> Drop for GivenUp<B> {
    fn drop(&mut self) {
        if let Some(body) = &self.0 {
            body.cut_clones();
        }
    }
}

/// Future of [`HttpService`].
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture<T, E>(Pin<Box<dyn Future<Output = Result<T, Error<E>>> + Send>>);

impl<T, E> fmt::Debug for HttpFuture<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

impl<T, E> Future for HttpFuture<T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}
