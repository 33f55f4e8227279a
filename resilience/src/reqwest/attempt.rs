//! One attempt of a [`Client`](super::Client): sends with reqwest, and puts a deadline and the call's end around the
//! body of the answer. reqwest's responses become `http`'s for that, and are made reqwest's again at the end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use ::reqwest::{Body, Client, Error, Request, Response, ResponseBuilderExt as _, Url};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::verdict_on;
use crate::deadline::{Deadline, soonest};
use crate::http::{BodyError, HttpBody, deadline_out, final_verdict, is_protocol_nack, verdict};
use crate::pipeline::{Attempt, Op, Unsettled};
use crate::verdict::{Classify, Verdict};

/// An answer, and where it came from after redirects.
pub(super) struct Answer {
    url: Url,
    response: http::Response<HttpBody<Body>>,
}

/// reqwest's own response, whose body is watched.
pub(super) fn response(answer: Answer) -> Response {
    let (mut parts, body) = answer.response.into_parts();
    let url = http::Response::builder().url(answer.url);
    if let Ok(url) = url.body(()) {
        parts.extensions.extend(url.into_parts().0.extensions);
    }
    Response::from(http::Response::from_parts(parts, Body::wrap(TimedOut { inner: body })))
}

/// What results of attempts mean.
pub(super) struct Verdicts {
    pub(super) may_repeat: bool,
}

impl Classify<Answer, Error> for Verdicts {
    fn classify(&self, result: Result<&Answer, &Error>) -> Verdict {
        let verdict = match result {
            Ok(Answer { response, .. }) => match verdict(response.status(), response.headers()) {
                Verdict::Success if !http_body::Body::is_end_stream(response.body()) => Verdict::Begun,
                verdict => verdict,
            },
            Err(error) => verdict_on(error),
        };
        if self.may_repeat {
            verdict
        } else {
            final_verdict(verdict)
        }
    }
}

/// Makes the attempts of one call.
pub(super) struct Attempts {
    client: Client,
    /// Taken by the only attempt of what cannot be cloned.
    original: Option<Request>,
    announce: bool,
    refused: Arc<AtomicBool>,
}

impl Attempts {
    pub(super) fn new(client: Client, request: Request, announce: bool) -> Self {
        Self {
            client,
            original: Some(request),
            announce,
            refused: Arc::default(),
        }
    }

    fn request(&mut self, attempt: Attempt) -> Result<Request, Error> {
        let copy = self.original.as_ref().and_then(Request::try_clone);
        let Some(mut request) = copy.or_else(|| self.original.take()) else {
            // Never: what is sent once has one attempt. reqwest alone can make its errors.
            return self.client.get("").build();
        };
        if let (true, Some(deadline)) = (self.announce, attempt.deadline()) {
            deadline_out(deadline, request.headers_mut());
        }
        Ok(request)
    }
}

impl Op for Attempts {
    type Value = Answer;
    type Error = Error;
    type Future = Sending;

    fn start(&mut self, attempt: Attempt) -> Sending {
        let request = self.request(attempt);
        Sending {
            again: request.as_ref().ok().and_then(Request::try_clone),
            request: Some(request),
            pending: None,
            client: self.client.clone(),
            refused: Arc::clone(&self.refused),
            body_end: soonest(attempt.total_deadline(), Deadline::current()),
        }
    }

    fn begun(&mut self, answer: &mut Answer, unsettled: Unsettled) {
        answer.response.body_mut().watch(unsettled);
    }
}

pin_project! {
    /// Waits for the headers of the answer. Once a call it sends the request again at once, when the peer says that it
    /// did nothing with it: that is no attempt.
    pub(super) struct Sending {
        request: Option<Result<Request, Error>>,
        #[pin]
        pending: Option<<Client as Service<Request>>::Future>,
        again: Option<Request>,
        client: Client,
        refused: Arc<AtomicBool>,
        body_end: Option<Deadline>,
    }
}

impl Future for Sending {
    type Output = Result<Answer, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(request) = this.request.take() {
                let pending = this.client.call(request?);
                this.pending.set(Some(pending));
            }
            let Some(pending) = this.pending.as_mut().as_pin_mut() else {
                return Poll::Pending;
            };
            let result = ready!(pending.poll(context));
            let refused = result.as_ref().is_err_and(|error| is_protocol_nack(error));
            *this.request = this.again.take().filter(|_| refused).map(Ok);
            if this.request.is_none() || this.refused.swap(true, Ordering::Relaxed) {
                return Poll::Ready(result.map(|response| answer(response, *this.body_end)));
            }
        }
    }
}

fn answer(response: Response, end: Option<Deadline>) -> Answer {
    Answer {
        url: response.url().clone(),
        response: http::Response::<Body>::from(response).map(|body| HttpBody::new(body, end)),
    }
}

pin_project! {
    /// A body whose delay reqwest knows as a timeout.
    struct TimedOut {
        #[pin]
        inner: HttpBody<Body>,
    }
}

impl http_body::Body for TimedOut {
    type Data = <Body as http_body::Body>::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.project().inner.poll_frame(context).map_err(|error| match error {
            BodyError::Timeout => io::Error::new(io::ErrorKind::TimedOut, error).into(),
            BodyError::Inner(error) => error,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
