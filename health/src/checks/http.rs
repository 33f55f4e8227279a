//! One GET over plain HTTP/1.1: no redirects, no proxy, and no more of the body than asked for. For TLS use a closure over
//! the application's own client. The address is the operator's; never build it from what a user sent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

/// Most of a body that is read.
const BODY_LIMIT: usize = 64 * 1024;
/// Longest time that a server's `Retry-After` is obeyed for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Passes when a GET answers with the expected status.
///
/// 429 is a warning, `saturated`: the server lives and limits us. Its `Retry-After` (seconds, 300 at most) is obeyed:
/// until then the check repeats its warning without asking.
#[derive(Debug)]
pub struct HttpCheck {
    target: Target,
    expect: Option<StatusCode>,
    contains: Option<String>,
    paused_until: Mutex<Option<Instant>>,
}

impl HttpCheck {
    /// GET `uri` (`http://host:port/path`), any 2xx passes.
    ///
    /// # Errors
    /// A failure of kind `protocol` when `uri` is no absolute `http://` URI without user information.
    pub fn get(uri: &str) -> Result<Self, Failure> {
        Ok(Self {
            target: Target::parse(uri)?,
            expect: None,
            contains: None,
            paused_until: Mutex::new(None),
        })
    }

    /// Exactly this status passes.
    #[must_use]
    pub fn expect(mut self, status: StatusCode) -> Self {
        self.expect = Some(status);
        self
    }

    /// The body must hold this text too, within its first 64 KiB.
    #[must_use]
    pub fn contains(mut self, text: impl Into<String>) -> Self {
        self.contains = Some(text.into());
        self
    }

    async fn ask(&self) -> Result<Outcome, Failure> {
        let limited = || {
            Ok(Outcome::Warn(Failure::new(
                Reason::Saturated,
                "status 429 Too Many Requests",
            )))
        };
        if self.pause().is_some_and(|until| Instant::now() < until) {
            return limited();
        }
        let exchange = async |response: Response<Incoming>| {
            let status = response.status();
            if status == StatusCode::TOO_MANY_REQUESTS && self.expect != Some(status) {
                let pause = retry_after(response.headers()).unwrap_or_default();
                *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
                return limited();
            }
            self.judge(response).await.map(|()| Outcome::Pass)
        };
        self.target.get(exchange).await
    }

    fn pause(&self) -> Option<Instant> {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn judge(&self, response: Response<Incoming>) -> Result<(), Failure> {
        let status = response.status();
        if !self.expect.map_or(status.is_success(), |expect| expect == status) {
            let reason = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::Auth,
                _ => Reason::Protocol,
            };
            return Err(Failure::new(reason, format!("status {status}")));
        }
        let Some(text) = &self.contains else { return Ok(()) };
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        let body = body.map_err(|error| Failure::new(Reason::Protocol, format!("body: {error}")))?;
        if String::from_utf8_lossy(&body.to_bytes()).contains(text.as_str()) {
            return Ok(());
        }
        Err(Failure::new(
            Reason::Protocol,
            format!("the body does not contain {text:?}"),
        ))
    }
}

impl Check for HttpCheck {
    fn run(&self) -> Asking<'_> {
        Box::pin(async move { self.ask().await.into() })
    }
}

/// Seconds of `Retry-After`; its other form, a date, is rare and needs both clocks to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    let seconds = value.trim().parse().ok().map(Duration::from_secs)?;
    Some(seconds.min(LONGEST_PAUSE))
}

/// An address that is asked with one GET.
#[derive(Debug, Clone)]
pub(super) struct Target(Uri);

impl Target {
    pub(super) fn parse(uri: &str) -> Result<Self, Failure> {
        let uri: Uri = uri
            .parse()
            .map_err(|error: http::uri::InvalidUri| Failure::new(Reason::Protocol, error.to_string()))?;
        let with_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        if uri.scheme_str() != Some("http") || uri.host().is_none() || with_user {
            // Not the URI itself: it may hold a password.
            let wanted = "not an absolute http:// URI without user information";
            return Err(Failure::new(Reason::Protocol, wanted));
        }
        Ok(Self(uri))
    }

    /// Sends a GET on a connection of its own and hands the response to `read`. The connection is polled beside the
    /// exchange and dropped with it, so that nothing outlives the check.
    pub(super) async fn get<T>(
        &self,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let host = self.0.host().unwrap_or_default();
        let port = self.0.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let path = self.0.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::get(path)
            .header(
                http::header::HOST,
                self.0.authority().map_or(host, http::uri::Authority::as_str),
            )
            .header(
                http::header::USER_AGENT,
                concat!("opsctl-health/", env!("CARGO_PKG_VERSION")),
            )
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let exchange = async move {
            let response = sender.send_request(request).await.map_err(broken)?;
            read(response).await
        };
        let driven = async {
            // An error of the connection is also the exchange's error.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = exchange => answer,
            () = driven => Err(Failure::new(Reason::Protocol, "connection ended")),
        }
    }
}

/// An error of an exchange on a connection that was there.
fn broken(error: hyper::Error) -> Failure {
    let of_kind = if error.is_parse() {
        Reason::Protocol
    } else {
        Reason::Refused
    };
    let mut failure = Failure::from(error);
    if failure.reason == Reason::Error {
        failure.reason = of_kind;
    }
    failure
}
