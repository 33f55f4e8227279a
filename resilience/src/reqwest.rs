//! [`Client`]: reqwest under a pipeline, with a send loop of its own. reqwest's own retries are off in the clients that
//! it builds: two loops around one request multiply.

use std::sync::atomic::{AtomicBool, Ordering};

use ::reqwest::{Error as SendError, Request, RequestBuilder, Response};

use crate::deadline::Deadline;
use crate::error::Error;
use crate::http::{HttpClassify, deadline_out, error_kind, final_verdict, is_protocol_nack, safety, verdict};
use crate::pipeline::Pipeline;
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// A reqwest client under a pipeline. Clones share connections and pipeline.
///
/// - Requests are repeated as [`safety`] allows. A body that cannot be cloned, such as a stream, is sent once.
/// - A peer that refused the stream (REFUSED_STREAM, GOAWAY) did nothing: the request is sent again at once, which is
///   no attempt, at most once a call.
/// - Every attempt says how long it may take, in [`REQUEST_TIMEOUT`](crate::http::REQUEST_TIMEOUT).
/// - The pipeline's limits end with the headers. The body ends with the deadline of the request that this task works
///   on, and with reqwest's own `timeout` and `read_timeout`.
/// - Whatever the last attempt answered is the answer, 503 too; only what is no answer is an error.
#[derive(Debug, Clone)]
pub struct Client {
    inner: ::reqwest::Client,
    policy: Pipeline,
    announce: bool,
}

impl Client {
    /// Builds the client, without reqwest's own retries.
    ///
    /// # Errors
    /// As `reqwest::ClientBuilder::build`.
    pub fn new(builder: ::reqwest::ClientBuilder, policy: Pipeline) -> Result<Self, SendError> {
        let inner = builder.retry(::reqwest::retry::never()).build()?;
        Ok(Self::around(inner, policy))
    }

    /// Puts the pipeline around a client that is there already. It should have been built with
    /// `retry(reqwest::retry::never())`.
    pub fn around(inner: ::reqwest::Client, policy: Pipeline) -> Self {
        Self {
            inner,
            policy,
            announce: true,
        }
    }

    /// Sends no [`REQUEST_TIMEOUT`](crate::http::REQUEST_TIMEOUT): for servers outside, whom it does not concern.
    #[must_use]
    pub fn without_timeout_header(mut self) -> Self {
        self.announce = false;
        self
    }

    /// The client without the pipeline, to describe requests with: `client.send(client.plain().get(url))`.
    pub fn plain(&self) -> &::reqwest::Client {
        &self.inner
    }

    /// The pipeline.
    pub fn policy(&self) -> &Pipeline {
        &self.policy
    }

    /// Sends what was described with [`Client::plain`].
    ///
    /// # Errors
    /// As [`Client::execute`], or the description makes no request.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Error<SendError>> {
        self.execute(request.build().map_err(Error::Inner)?).await
    }

    /// Sends a request under the pipeline.
    ///
    /// # Errors
    /// Refused here, out of time, or no answer in the last attempt.
    pub async fn execute(&self, request: Request) -> Result<Response, Error<SendError>> {
        let may_repeat = request.try_clone().is_some();
        let safety = if may_repeat {
            safety(request.method(), request.headers())
        } else {
            Safety::Unsafe
        };
        let classify = |result: Result<&Response, &SendError>| {
            let verdict = HttpClassify.classify(result);
            if may_repeat { verdict } else { final_verdict(verdict) }
        };
        // Inside an attempt the current deadline is the attempt's.
        let caller = Deadline::current();
        let was_refused = AtomicBool::new(false);
        let was_refused = &was_refused;
        let mut original = Some(request);
        self.policy
            .call_with(safety, &classify, move |attempt| {
                let copy = original.as_ref().and_then(Request::try_clone);
                let request = copy.or_else(|| original.take());
                async move {
                    let Some(request) = request else {
                        // Never for a second attempt of what is sent once; reqwest alone can make its errors.
                        return self.inner.get("").send().await;
                    };
                    let request = self.prepare(request, attempt.deadline(), caller);
                    let again = request.try_clone();
                    let result = self.inner.execute(request).await;
                    match (again, &result) {
                        (Some(again), Err(error))
                            if is_protocol_nack(error) && !was_refused.swap(true, Ordering::Relaxed) =>
                        {
                            self.inner
                                .execute(self.prepare(again, attempt.deadline(), caller))
                                .await
                        }
                        _ => result,
                    }
                }
            })
            .await
    }

    /// One attempt's request: says how long it may take, and ends its body with the caller's deadline.
    fn prepare(&self, mut request: Request, deadline: Option<Deadline>, caller: Option<Deadline>) -> Request {
        if self.announce {
            deadline_out(deadline, request.headers_mut());
        }
        if let Some(caller) = caller {
            let limit = caller.remaining();
            let own = request.timeout().map_or(limit, |own| limit.min(*own));
            *request.timeout_mut() = Some(own);
        }
        request
    }
}

impl Classify<Response, SendError> for HttpClassify {
    fn classify(&self, result: Result<&Response, &SendError>) -> Verdict {
        match result {
            Ok(response) => verdict(response.status(), response.headers()),
            // What makes no request says nothing of the server.
            Err(error) if error.is_builder() => Verdict::Ignore,
            Err(error) if error.is_redirect() => Verdict::Failure(Kind::Permanent),
            Err(error) if error.is_connect() => Verdict::Failure(Kind::NotSent),
            Err(error) if error.is_timeout() => Verdict::Failure(Kind::Timeout),
            Err(error) => Verdict::Failure(error_kind(error)),
        }
    }
}
