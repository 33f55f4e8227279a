//! [`HttpLayer`]: a pipeline around an HTTP client. What answers mean is said in `http`; when to retry, in the pipeline.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::answer::HttpBody;
use super::replay::{REPLAY_CAP, ReplayBody};
use super::sending::{Outgoing, Sending};
use super::{HttpClassify, deadline_out};
use crate::deadline::{Deadline, soonest};
use crate::error::Error;
use crate::pipeline::{Attempt, Call, Inner, Op, Pipeline, Unsettled};
use crate::verdict::{Classify, SafetyOf, Verdict};

/// Puts a pipeline around a service of `http::Request`s. All services that it makes share the pipeline.
///
/// - The request's body becomes a [`ReplayBody`], so it need not be `Clone`; a body that cannot be sent again is sent
///   once.
/// - Requests are repeated as [`safety`](super::safety) allows, answers read by [`HttpClassify`].
/// - A peer that refused the stream (REFUSED_STREAM, GOAWAY) did nothing: the request is sent again at once, which is
///   no attempt, at most once a call.
/// - Every attempt says how long it may take, in [`REQUEST_TIMEOUT`](super::REQUEST_TIMEOUT).
/// - The response's body must have ended by the deadline of the whole call, by that of the request that this task works
///   on, and within [`HttpLayer::body_timeout`] if there is one. Give answers that live longer a pipeline without a
///   total time limit.
/// - A good answer is one only when its body has ended well: breaker, throttle, concurrency limit and bulkhead wait for
///   that ([`HttpBody`]). Slow calls are timed to there. Nothing is repeated after the headers.
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

/// Service of [`HttpLayer`]. It asks that errors are `std::error::Error`s, which show what the peer did with a request.
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
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: StdError + 'static,
    B: Body,
    R: Body,
    R::Error: Into<Box<dyn StdError + Send + Sync>>,
    C: Classify<Response<HttpBody<R>>, S::Error> + SafetyOf<Request<ReplayBody<B>>>,
{
    type Response = Response<HttpBody<R>>;
    type Error = Error<S::Error>;
    type Future = HttpFuture<S, B, C>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context).map_err(Error::Inner)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        let request = request.map(|body| ReplayBody::stream_up_to(body, settings.cap));
        let safety = settings.classify.safety(&request);
        let classify = UntilTheEnd(Arc::clone(&settings.classify));
        let outgoing = Arc::new(Outgoing::new(
            request,
            settings.announce.then_some(deadline_out),
            classify,
        ));
        // The service that was polled ready makes the first attempt; a clone waits for the next call.
        let spare = self.inner.clone();
        let attempts = HttpAttempts {
            ready: Some(std::mem::replace(&mut self.inner, spare.clone())),
            spare,
            outgoing: Arc::clone(&outgoing),
            body_timeout: settings.body_timeout,
        };
        settings.policy.start(safety, outgoing, attempts)
    }
}

/// Future of [`HttpService`].
pub type HttpFuture<S, B, C> = Call<Arc<Inner>, Arc<Outgoing<B, UntilTheEnd<C>>>, HttpAttempts<S, B, C>>;

/// As the layer's classifier, but a good answer has only begun while there is more of it to come.
#[derive(Debug)]
pub struct UntilTheEnd<C>(Arc<C>);

impl<C, R, E> Classify<Response<R>, E> for UntilTheEnd<C>
where
    C: Classify<Response<R>, E>,
    R: Body,
{
    fn classify(&self, result: Result<&Response<R>, &E>) -> Verdict {
        match (self.0.classify(result), result) {
            (Verdict::Success, Ok(response)) if !response.body().is_end_stream() => Verdict::Begun,
            (verdict, _) => verdict,
        }
    }
}

/// Makes the attempts of one call.
pub struct HttpAttempts<S, B, C> {
    ready: Option<S>,
    spare: S,
    outgoing: Arc<Outgoing<B, UntilTheEnd<C>>>,
    body_timeout: Option<Duration>,
}

impl<S, B, C> fmt::Debug for HttpAttempts<S, B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAttempts").finish_non_exhaustive()
    }
}

impl<S, B, C, R> Op for HttpAttempts<S, B, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>> + Clone,
    S::Error: StdError + 'static,
{
    type Value = Response<HttpBody<R>>;
    type Error = S::Error;
    type Future = HttpAttempt<S, B, C>;

    fn start(&mut self, attempt: Attempt) -> Self::Future {
        let service = self.ready.take().unwrap_or_else(|| self.spare.clone());
        HttpAttempt {
            sending: Sending::new(service, attempt, Arc::clone(&self.outgoing)),
            body_end: soonest(attempt.total_deadline(), Deadline::current()),
            body_timeout: self.body_timeout,
        }
    }

    fn begun(&mut self, response: &mut Self::Value, unsettled: Unsettled) {
        response.body_mut().watch(unsettled);
    }
}

pin_project! {
    /// One attempt; its answer is a body with a deadline.
    #[must_use = "futures do nothing unless polled"]
    pub struct HttpAttempt<S: Service<Request<ReplayBody<B>>>, B, C> {
        #[pin]
        sending: Sending<S, B, UntilTheEnd<C>>,
        body_end: Option<Deadline>,
        body_timeout: Option<Duration>,
    }
}

impl<S, B, C, R> Future for HttpAttempt<S, B, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
    S::Error: StdError + 'static,
{
    type Output = Result<Response<HttpBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.sending.poll(context))?;
        let end = soonest(*this.body_end, this.body_timeout.map(Deadline::after));
        Poll::Ready(Ok(response.map(|body| HttpBody::new(body, end))))
    }
}
