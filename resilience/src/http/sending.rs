//! [`Sending`]: one attempt of a call over HTTP, and [`Outgoing`], what all attempts of one call share. They send; what
//! the answers mean and whether there is another attempt is said elsewhere.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::{HeaderMap, Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::replay::ReplayBody;
use super::{final_verdict, is_protocol_nack};
use crate::deadline::Deadline;
use crate::pipeline::Attempt;
use crate::verdict::{Classify, Verdict};

pin_project! {
    /// Waits until the service is ready, sends the request, and waits for the headers of the answer. Once a call it
    /// sends it again at once, when the peer says that it did nothing with it: that is no attempt.
    #[must_use = "futures do nothing unless polled"]
    pub struct Sending<S: Service<Request<ReplayBody<B>>>, B, C> {
        service: S,
        attempt: Attempt,
        outgoing: GivenUp<B, C>,
        #[pin]
        response: Option<S::Future>,
    }
}

impl<S: Service<Request<ReplayBody<B>>>, B, C> Sending<S, B, C> {
    pub(crate) fn new(service: S, attempt: Attempt, outgoing: Arc<Outgoing<B, C>>) -> Self {
        Self {
            service,
            attempt,
            outgoing: GivenUp { outgoing, sent: None },
            response: None,
        }
    }
}

impl<S, B, C, R> Future for Sending<S, B, C>
where
    S: Service<Request<ReplayBody<B>>, Response = Response<R>>,
    S::Error: StdError + 'static,
{
    type Output = Result<Response<R>, S::Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(response) = this.response.as_mut().as_pin_mut() {
                let result = ready!(response.poll(context));
                this.response.set(None);
                match &result {
                    // Its upload may go on beside the answer.
                    Ok(_) => this.outgoing.sent = None,
                    Err(error) => {
                        this.outgoing.cut();
                        if this.outgoing.outgoing.may_send_again(error) {
                            continue;
                        }
                    }
                }
                return Poll::Ready(result);
            }
            ready!(this.service.poll_ready(context))?;
            let request = this.outgoing.outgoing.request(*this.attempt);
            this.outgoing.sent = Some(request.body().id());
            this.response.set(Some(this.service.call(request)));
        }
    }
}

/// The request of a call, as every attempt sends it, and what its results mean.
pub struct Outgoing<B, C> {
    request: Request<ReplayBody<B>>,
    /// Writes down how long the attempt may take.
    announce: Option<fn(Deadline, &mut HeaderMap)>,
    refused: AtomicBool,
    pub(crate) classify: C,
}

impl<B, C> Outgoing<B, C> {
    pub(crate) fn new(
        request: Request<ReplayBody<B>>,
        announce: Option<fn(Deadline, &mut HeaderMap)>,
        classify: C,
    ) -> Self {
        Self {
            request,
            announce,
            refused: AtomicBool::new(false),
            classify,
        }
    }

    fn request(&self, attempt: Attempt) -> Request<ReplayBody<B>> {
        let mut request = self.request.clone();
        if let (Some(announce), Some(deadline)) = (self.announce, attempt.deadline()) {
            announce(deadline, request.headers_mut());
        }
        request
    }

    /// Once a call: a peer that refused the stream did nothing, which is no attempt.
    fn may_send_again(&self, error: &(dyn StdError + 'static)) -> bool {
        is_protocol_nack(error) && self.request.body().is_replayable() && !self.refused.swap(true, Ordering::Relaxed)
    }
}

/// As its own classifier, but nothing asks for another attempt once the body is gone.
impl<B, C, T, E> Classify<T, E> for Outgoing<B, C>
where
    C: Classify<T, E>,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        let verdict = self.classify.classify(result);
        if self.request.body().is_replayable() {
            verdict
        } else {
            final_verdict(verdict)
        }
    }
}

impl<B, C> fmt::Debug for Outgoing<B, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("uri", self.request.uri())
            .finish_non_exhaustive()
    }
}

/// An attempt that ended without an answer must not go on to read the body: the next one needs it.
struct GivenUp<B, C> {
    outgoing: Arc<Outgoing<B, C>>,
    /// The clone of the body that is under way without an answer.
    sent: Option<u64>,
}

impl<B, C> GivenUp<B, C> {
    fn cut(&mut self) {
        if let Some(sent) = self.sent.take() {
            self.outgoing.request.body().cut(sent);
        }
    }
}

impl<B, C> Drop for GivenUp<B, C> {
    fn drop(&mut self) {
        self.cut();
    }
}
