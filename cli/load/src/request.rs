//! What is sent and what came of it: the seam between the engine and whoever wants load. Not the wire format.

use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

/// Where requests come from and where their outcomes go. Called on the generator's thread: both must be quick and
/// must not block.
pub trait RequestSource: Send + Sync + 'static {
    /// The request of arrival `seq`, counted from 0.
    fn request(&self, seq: u64) -> Request;

    /// Whether a response of this status is a success. Default: below 400.
    fn is_success(&self, status: u16) -> bool {
        status < 400
    }

    /// How many bytes of each body [`Response::body`] shall hold; what is beyond is read and thrown away.
    /// Default: none.
    fn capture_body_bytes(&self) -> usize {
        0
    }

    /// Told once for every arrival, in the order in which they end.
    fn observe(&self, seq: u64, outcome: &Outcome<'_>) {
        let _ = (seq, outcome);
    }
}

/// The same request for every arrival.
#[derive(Debug, Clone)]
pub struct Fixed(pub Request);

impl RequestSource for Fixed {
    fn request(&self, _seq: u64) -> Request {
        self.0.clone()
    }
}

/// An HTTP request. `host` and `content-length` are written by the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) path: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// A request without headers and body. `path` begins with `/` and may hold a query.
    pub fn new(method: Method, path: &str) -> Result<Self, InvalidRequest> {
        if method == Method::CONNECT {
            return Err(InvalidRequest("CONNECT is not supported".to_owned()));
        }
        if !path.starts_with('/') {
            return Err(InvalidRequest(format!("the path {path:?} does not begin with /")));
        }
        let path = path
            .parse()
            .map_err(|_| InvalidRequest(format!("{path:?} is no path")))?;
        Ok(Self {
            method,
            path,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        })
    }

    /// A GET.
    pub fn get(path: &str) -> Result<Self, InvalidRequest> {
        Self::new(Method::GET, path)
    }

    /// A POST of a JSON document.
    pub fn post_json(path: &str, json: impl Into<Bytes>) -> Result<Self, InvalidRequest> {
        Ok(Self::new(Method::POST, path)?
            .header("content-type", "application/json")?
            .body(json))
    }

    /// Adds a header. Those that frame the message (`content-length`, `transfer-encoding`, `connection`, `host`,
    /// `expect`, `upgrade`, `te`, `trailer`) are the engine's and refused.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, InvalidRequest> {
        const OURS: [&str; 8] = [
            "content-length",
            "transfer-encoding",
            "connection",
            "host",
            "expect",
            "upgrade",
            "te",
            "trailer",
        ];
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| InvalidRequest(format!("{name:?} is no header name")))?;
        if OURS.contains(&parsed.as_str()) {
            return Err(InvalidRequest(format!("the header {parsed} is written by the engine")));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| InvalidRequest(format!("the value of {parsed} is not allowed in a header")))?;
        self.headers.append(parsed, value);
        Ok(self)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A request that cannot be written in HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRequest(pub(crate) String);

/// How one arrival ended.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    /// A whole response came, of whatever status.
    Completed(Response<'a>),
    /// No whole response came.
    Failed(&'a Failure),
    /// It was never sent: no connection was free until its time-out, or the run ended before.
    Dropped,
}

/// A whole response.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// The first [`RequestSource::capture_body_bytes`] of the body.
    pub body: &'a [u8],
    /// From when the request was due to the last byte of the response.
    pub response_time: Duration,
    /// From the first byte sent to the last byte of the response.
    pub service_time: Duration,
}

/// Why no whole response came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The kind, to count by.
    pub kind: FailureKind,
    /// One line for a person, without figures that differ from request to request.
    pub message: String,
}

/// The kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nobody listens at the target.
    ConnectRefused,
    /// No connection within the time-out.
    ConnectTimedOut,
    /// No connection for another reason: no route, no ports or descriptors left.
    ConnectFailed,
    /// Connected and sent, but no whole response within the time-out.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the response was whole.
    ClosedEarly,
    /// What came is not HTTP/1.1, or beyond the limits.
    Protocol,
    /// The run was cancelled, or its time was over, while the request was under way.
    Interrupted,
}

impl FailureKind {
    /// The kind in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimedOut => "connecting timed out",
            Self::ConnectFailed => "connecting failed",
            Self::TimedOut => "timed out",
            Self::Reset => "connection reset",
            Self::ClosedEarly => "connection closed early",
            Self::Protocol => "malformed response",
            Self::Interrupted => "interrupted",
        }
    }
}
