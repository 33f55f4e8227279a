//! [`Client`]: reqwest under a pipeline. reqwest's own retries are off in the clients that it builds: two loops around
//! one request multiply. What one attempt does is `reqwest/attempt.rs`'s.

mod attempt;

use std::sync::Arc;

use ::reqwest::{Error as SendError, Request, RequestBuilder, Response};

use self::attempt::{Attempts, Verdicts};
use crate::error::Error;
use crate::http::{HttpClassify, error_kind, safety, verdict};
use crate::pipeline::Pipeline;
use crate::verdict::{Classify, Kind, Safety, Verdict};

/// A reqwest client under a pipeline. Clones share connections and pipeline.
///
/// - Requests are repeated as [`safety`] allows. A body that cannot be cloned, such as a stream, is sent once.
/// - A peer that refused the stream (REFUSED_STREAM, GOAWAY) did nothing: the request is sent again at once, which is
///   no attempt, at most once a call.
/// - Every attempt says how long it may take, in [`REQUEST_TIMEOUT`](crate::http::REQUEST_TIMEOUT).
/// - The body of the answer must have ended by the deadline of the whole call, by that of the request that this task works
///   on, and by reqwest's own `timeout` and `read_timeout`. An error of a body that is too late is a timeout.
/// - A good answer is one only when its body has ended well: breaker, throttle, concurrency limit and bulkhead wait for
///   that, as in [`HttpLayer`](crate::http::HttpLayer). Slow calls are timed to there.
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
        let attempts = Attempts::new(self.inner.clone(), request, self.announce);
        let answer = self.policy.start(safety, Arc::new(Verdicts { may_repeat }), attempts);
        answer.await.map(attempt::response)
    }
}

impl Classify<Response, SendError> for HttpClassify {
    fn classify(&self, result: Result<&Response, &SendError>) -> Verdict {
        match result {
            Ok(response) => verdict(response.status(), response.headers()),
            Err(error) => verdict_on(error),
        }
    }
}

fn verdict_on(error: &SendError) -> Verdict {
    if error.is_builder() {
        // What makes no request says nothing of the server.
        Verdict::Ignore
    } else if error.is_redirect() {
        Verdict::Failure(Kind::Permanent)
    } else if error.is_connect() {
        Verdict::Failure(Kind::NotSent)
    } else if error.is_timeout() {
        Verdict::Failure(Kind::Timeout)
    } else {
        Verdict::Failure(error_kind(error))
    }
}
