//! Limits at the door of a server: one layer that asks whether a request may come in, answers in its place if not, and
//! keeps its place until the response's body has ended or was dropped. `axum` and `tonic_server` make such layers and
//! say what a refusal looks like. The layer holds no state: the policy does, so all routes and clones share it.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::adaptive::AdaptiveLimit;
use crate::error::Rejected;
use crate::shed::{Admission, Priority, Shedder};
use crate::verdict::Verdict;

/// The header that [`priority`] reads.
pub const PRIORITY_HEADER: &str = "x-priority";

/// Says whether a request may come in. Every `Fn(&Parts) -> Result<G, Rejected>` does: what it returns is kept until the
/// response has ended, `()` where nothing is to be kept.
pub trait Admit {
    /// What is kept for as long as the request is inside.
    type Guard: Guard;

    /// Lets a request in.
    ///
    /// # Errors
    /// When it may not come in.
    fn admit(&self, request: &Parts) -> Result<Self::Guard, Rejected>;
}

/// A request inside; it is gone when this is dropped.
pub trait Guard {
    /// The response begins. Not called for a request that was cancelled.
    fn answered(&mut self, verdict: Verdict);
}

/// How a protocol says no, and what it says with a response.
pub trait Protocol {
    /// The response to a refused request, and its body.
    fn refusal(rejected: &Rejected) -> (Response<()>, Bytes);

    /// What the head of a response says of the load.
    fn verdict<B>(response: &Response<B>) -> Verdict;
}

/// The priority that a request asks for with `x-priority`: a name, or a number from 0 (critical); normal where it says
/// nothing that can be read. Whoever can send a request can send this header: take it away at the edge.
pub fn priority(request: &Parts) -> Priority {
    let header = request.headers.get(PRIORITY_HEADER);
    header
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// Sheds load by the priority that a function of the request gives.
#[derive(Debug, Clone)]
pub struct ShedBy<F> {
    shedder: Shedder,
    priority: F,
}

/// Sheds load by the header `x-priority`.
pub type ShedByHeader = ShedBy<fn(&Parts) -> Priority>;

impl<F: Fn(&Parts) -> Priority> ShedBy<F> {
    /// As `shedder` says.
    pub fn new(shedder: &Shedder, priority: F) -> Self {
        Self {
            shedder: shedder.clone(),
            priority,
        }
    }
}

impl<F: Fn(&Parts) -> Priority> Admit for ShedBy<F> {
    type Guard = Admission;

    fn admit(&self, request: &Parts) -> Result<Admission, Rejected> {
        self.shedder.admit((self.priority)(request))
    }
}

impl Admit for AdaptiveLimit {
    type Guard = Admission;

    fn admit(&self, _: &Parts) -> Result<Admission, Rejected> {
        Ok(Admission::new(self, AdaptiveLimit::admit(self)?))
    }
}

impl Guard for Admission {
    fn answered(&mut self, verdict: Verdict) {
        Admission::answered(self, verdict);
    }
}

impl<F, G> Admit for F
where
    F: Fn(&Parts) -> Result<G, Rejected>,
{
    type Guard = Kept<G>;

    fn admit(&self, request: &Parts) -> Result<Kept<G>, Rejected> {
        self(request).map(Kept)
    }
}

/// What a function kept for a request; it does not want to know how the response begins.
#[derive(Debug)]
pub struct Kept<G>(G);

impl<G> Guard for Kept<G> {
    fn answered(&mut self, _: Verdict) {}
}

/// Puts a limit in front of services; all of them share it.
pub struct ServerLayer<A, P> {
    admit: Arc<A>,
    protocol: PhantomData<fn() -> P>,
}

impl<A: Admit, P: Protocol> ServerLayer<A, P> {
    /// Lets in what `admit` lets in.
    pub fn new(admit: A) -> Self {
        Self {
            admit: Arc::new(admit),
            protocol: PhantomData,
        }
    }
}

impl<A, P> Clone for ServerLayer<A, P> {
    fn clone(&self) -> Self {
        Self {
            admit: Arc::clone(&self.admit),
            protocol: PhantomData,
        }
    }
}

impl<A: fmt::Debug, P> fmt::Debug for ServerLayer<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerLayer").field(&self.admit).finish()
    }
}

impl<S, A, P> Layer<S> for ServerLayer<A, P> {
    type Service = ServerService<S, A, P>;

    fn layer(&self, inner: S) -> Self::Service {
        ServerService {
            inner,
            layer: self.clone(),
        }
    }
}

/// Service of [`ServerLayer`]. It fails only as the service inside does: a refusal is a response.
pub struct ServerService<S, A, P> {
    inner: S,
    layer: ServerLayer<A, P>,
}

impl<S: Clone, A, P> Clone for ServerService<S, A, P> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, A: fmt::Debug, P> fmt::Debug for ServerService<S, A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, A, P, In, Out> Service<Request<In>> for ServerService<S, A, P>
where
    S: Service<Request<In>, Response = Response<Out>>,
    A: Admit,
    P: Protocol,
{
    type Response = Response<ServerBody<Out, A::Guard>>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future, A::Guard, P>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let (parts, body) = request.into_parts();
        let state = match self.layer.admit.admit(&parts) {
            Ok(guard) => State::Inside {
                future: self.inner.call(Request::from_parts(parts, body)),
                guard: Some(guard),
            },
            Err(rejected) => State::Refused { rejected },
        };
        ServerFuture {
            state,
            protocol: PhantomData,
        }
    }
}

pin_project! {
    /// Future of [`ServerService`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ServerFuture<F, G, P> {
        #[pin]
        state: State<F, G>,
        protocol: PhantomData<fn() -> P>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, G> {
        Inside { #[pin] future: F, guard: Option<G> },
        Refused { rejected: Rejected },
    }
}

impl<F, G, P> fmt::Debug for ServerFuture<F, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").finish_non_exhaustive()
    }
}

impl<F, G, P, B, E> Future for ServerFuture<F, G, P>
where
    F: Future<Output = Result<Response<B>, E>>,
    G: Guard,
    P: Protocol,
{
    type Output = Result<Response<ServerBody<B, G>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, guard) = match self.project().state.project() {
            StateProjection::Inside { future, guard } => (future, guard),
            StateProjection::Refused { rejected } => {
                let (mut response, text) = P::refusal(rejected);
                // A layer further out sees that this was not the handler's answer.
                response.extensions_mut().insert(rejected.clone());
                return Poll::Ready(Ok(response.map(|()| ServerBody {
                    content: Content::Refusal { text },
                })));
            }
        };
        let response = ready!(future.poll(context))?;
        let mut guard = guard.take();
        if let Some(guard) = &mut guard {
            let refused = response.extensions().get::<Rejected>().is_some();
            guard.answered(if refused {
                Verdict::LocalReject
            } else {
                P::verdict(&response)
            });
        }
        Poll::Ready(Ok(response.map(|body| ServerBody {
            content: Content::Answer { body, guard },
        })))
    }
}

pin_project! {
    /// The body of a response: the service's own, which keeps the request's place until it ends or is dropped, or the
    /// text of a refusal.
    pub struct ServerBody<B, G> {
        #[pin]
        content: Content<B, G>,
    }
}

pin_project! {
    #[project = ContentProjection]
    enum Content<B, G> {
        Answer { #[pin] body: B, guard: Option<G> },
        Refusal { text: Bytes },
    }
}

impl<B, G> fmt::Debug for ServerBody<B, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBody").finish_non_exhaustive()
    }
}

impl<B, G> Body for ServerBody<B, G>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let (mut body, guard) = match self.project().content.project() {
            ContentProjection::Answer { body, guard } => (body, guard),
            ContentProjection::Refusal { text } => {
                let text = std::mem::take(text);
                return Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text.into()))));
            }
        };
        let frame = ready!(body.as_mut().poll_frame(context));
        // Who knows that this was the last frame does not ask for another.
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            *guard = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Answer { body, .. } => body.is_end_stream(),
            Content::Refusal { text } => text.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Answer { body, .. } => body.size_hint(),
            Content::Refusal { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}
