//! The control of a hop: the same documents over any stream, opened by whoever can reach it, and a bearer token.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::client::{exchange, parse, segment, unexpected};
use crate::error::ControlError;
use crate::message::{Document, Fault, Status};

/// What a hop counted since it started. All but `open` only grow while `boot_id` stays the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopCounters {
    /// When they were read, UTC.
    pub at: Timestamp,
    /// Random id of the process.
    pub boot_id: String,
    /// Connections that clients opened.
    pub accepted: u64,
    /// Connections that are open now.
    pub open: u64,
    /// Connections that a fault ended with a reset, new ones and those under way.
    pub reset: u64,
    /// Connections on which a fault swallowed what came.
    pub swallowed: u64,
    /// Connections that a delay has met.
    pub delayed: u64,
    /// Connections for which the other side could not be reached.
    pub unreached: u64,
    /// Bytes from clients to the other side.
    pub bytes_in: u64,
    /// Bytes back.
    pub bytes_out: u64,
}

/// Talks to a hop. Connects at each call.
#[derive(Clone)]
pub struct HopClient {
    token: String,
    timeout: Duration,
}

impl std::fmt::Debug for HopClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HopClient")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A call, to be made over a stream.
struct Call {
    method: Method,
    path: String,
    body: Bytes,
}

impl HopClient {
    /// A client that shows `token`.
    pub fn new(token: impl Into<String>) -> Self {
        Self {
            token: token.into(),
            timeout: Duration::from_secs(5),
        }
    }

    /// Opens a connection to a hop at `addr`, for the calls below.
    ///
    /// # Errors
    /// What the operating system said.
    pub async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(addr).await
    }

    /// Which hop answers.
    pub async fn status(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Status, ControlError> {
        self.call(stream, get("/v1/status")).await
    }

    /// The faults that it plays now.
    pub async fn faults(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<Fault>, ControlError> {
        self.call(stream, get("/v1/faults")).await
    }

    /// Starts, prolongs or replaces a fault; it ends by itself after its time to live.
    pub async fn put_fault(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        fault: &Fault,
    ) -> Result<(), ControlError> {
        let body = serde_json::to_vec(&Document::new(fault))
            .map_err(|error| unexpected(format!("the request cannot be written: {error}")))?;
        let call = Call {
            method: Method::PUT,
            path: format!("/v1/faults/{}", segment(&fault.id)?),
            body: body.into(),
        };
        self.call(stream, call).await
    }

    /// Ends a fault. An unknown id is no error. Never waits for what the fault holds.
    pub async fn delete_fault(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        id: &str,
    ) -> Result<(), ControlError> {
        let call = Call {
            method: Method::DELETE,
            path: format!("/v1/faults/{}", segment(id)?),
            body: Bytes::new(),
        };
        self.call(stream, call).await
    }

    /// Ends the open sessions of the role whose address it was given; how many there were.
    pub async fn end_sessions(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<u64, ControlError> {
        let call = Call {
            method: Method::POST,
            path: "/v1/sessions/end".to_owned(),
            body: Bytes::new(),
        };
        self.call(stream, call).await
    }

    /// What it counted.
    pub async fn counters(&self, stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<HopCounters, ControlError> {
        self.call(stream, get("/v1/counters")).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        call: Call,
    ) -> Result<T, ControlError> {
        let asked = exchange(stream, Some(&self.token), call.method, &call.path, call.body);
        let (status, body) = tokio::time::timeout(self.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(unexpected(format!("no answer within {} s", self.timeout.as_secs_f64()))))?;
        parse(status, &body)
    }
}

fn get(path: &str) -> Call {
    Call {
        method: Method::GET,
        path: path.to_owned(),
        body: Bytes::new(),
    }
}
