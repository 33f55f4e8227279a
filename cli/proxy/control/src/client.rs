//! The client of the control protocol. One connection a call: calls are rare, and a proxy that restarts between two
//! of them is no special case.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::ControlError;
use crate::message::{
    Backend, Counters, Document, Fault, Hold, Refusal, Route, RouteConfig, SCHEMA, Status, Weight, WeightChange,
    WeightRenewal,
};
use crate::socket;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Talks to the proxy that listens on a Unix socket. Cheap to clone and to make; connects at each call.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// How long a call may take unless [`Client::with_timeout`] says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A client of the proxy behind `socket`. Does not connect yet. The path may be longer than `sockaddr_un` holds.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            timeout: Self::DEFAULT_TIMEOUT,
        }
    }

    /// The same client with another time-out for each whole call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Which proxy answers.
    pub async fn status(&self) -> Result<Status, ControlError> {
        self.get("/v1/status").await
    }

    /// Every route, sorted by service.
    pub async fn routes(&self) -> Result<Vec<Route>, ControlError> {
        self.get("/v1/routes").await
    }

    /// Creates or replaces a service's listeners, objective and rules; its backends, hold and weight stay. Doing it
    /// twice is doing it once. The answer has the real ports.
    ///
    /// # Errors
    /// [`ControlError::PortTaken`] when another process, or another route, listens on an address; nothing has
    /// changed then.
    pub async fn put_route(&self, config: &RouteConfig) -> Result<Route, ControlError> {
        let path = format!("/v1/routes/{}", segment(&config.service)?);
        self.send(Method::PUT, &path, config).await
    }

    /// Closes a service's listeners and forgets its backends, weight, faults and counters. An unknown service is no
    /// error. Requests under way are finished.
    pub async fn delete_route(&self, service: &str) -> Result<(), ControlError> {
        let path = format!("/v1/routes/{}", segment(service)?);
        self.send(Method::DELETE, &path, &()).await
    }

    /// Replaces the list of a service's backends. One that is left out, or no longer ready, gets no new requests
    /// and finishes those that it has.
    pub async fn set_backends(&self, service: &str, backends: Vec<Backend>) -> Result<(), ControlError> {
        let path = format!("/v1/routes/{}/backends", segment(service)?);
        self.send(Method::PUT, &path, &backends).await
    }

    /// Sets or, with `None`, ends the hold on a service. Requests under way are finished.
    pub async fn set_hold(&self, service: &str, hold: Option<Hold>) -> Result<(), ControlError> {
        let path = format!("/v1/routes/{}/hold", segment(service)?);
        self.send(Method::PUT, &path, &hold).await
    }

    /// The weight of a service, with the percentage that is in effect now; `None` when none is set. A weight whose
    /// lease ran out stays readable with 0 % until it is replaced or removed.
    pub async fn weight(&self, service: &str) -> Result<Option<Weight>, ControlError> {
        self.get(&format!("/v1/routes/{}/weight", segment(service)?)).await
    }

    /// Sets (`new`) or removes (`None`) the weight if it is `expect` now: version and percent, or `None` for no
    /// weight. A lapsed weight matches 0 as well as the percentage that it had.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] with the weight that is really set; nothing has changed then.
    pub async fn compare_and_set_weight(
        &self,
        service: &str,
        expect: Option<(&str, u8)>,
        new: Option<Weight>,
    ) -> Result<(), ControlError> {
        let path = format!("/v1/routes/{}/weight", segment(service)?);
        let change = WeightChange {
            expect: expect.map(|(version, percent)| (version.to_owned(), percent)),
            new,
        };
        self.send(Method::POST, &path, &change).await
    }

    /// Prolongs the lease on the weight to `ttl_seconds` from now.
    ///
    /// # Errors
    /// [`ControlError::Conflict`] when `holder` does not hold it, or it has lapsed: traffic was taken away already,
    /// so it must be granted again by [`Client::compare_and_set_weight`].
    pub async fn renew_weight(&self, service: &str, holder: &str, ttl_seconds: u64) -> Result<(), ControlError> {
        let path = format!("/v1/routes/{}/weight/renew", segment(service)?);
        let renewal = WeightRenewal {
            holder: holder.to_owned(),
            ttl_seconds,
        };
        self.send(Method::POST, &path, &renewal).await
    }

    /// The faults of a service that are active now.
    pub async fn faults(&self, service: &str) -> Result<Vec<Fault>, ControlError> {
        self.get(&format!("/v1/routes/{}/faults", segment(service)?)).await
    }

    /// Starts or replaces a fault; it ends by itself after its time to live.
    pub async fn put_fault(&self, fault: &Fault) -> Result<(), ControlError> {
        let path = format!("/v1/faults/{}", segment(&fault.id)?);
        self.send(Method::PUT, &path, fault).await
    }

    /// Ends a fault. An unknown id is no error. Never waits for requests that the fault holds; they are let go.
    pub async fn delete_fault(&self, id: &str) -> Result<(), ControlError> {
        let path = format!("/v1/faults/{}", segment(id)?);
        self.send(Method::DELETE, &path, &()).await
    }

    /// What was counted for a service since the proxy started.
    pub async fn counters(&self, service: &str) -> Result<Counters, ControlError> {
        self.get(&format!("/v1/routes/{}/counters", segment(service)?)).await
    }

    /// The proxy's metrics as OpenMetrics text.
    pub async fn metrics(&self) -> Result<String, ControlError> {
        let (status, body) = self.call(Method::GET, "/metrics", Bytes::new()).await?;
        if status != StatusCode::OK {
            return Err(unexpected(format!("status {status} for /metrics")));
        }
        String::from_utf8(body.to_vec()).map_err(|_| unexpected("metrics are not UTF-8"))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let (status, body) = self.call(Method::GET, path, Bytes::new()).await?;
        parse(status, &body)
    }

    async fn send<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, ControlError> {
        let body = serde_json::to_vec(&Document::new(body))
            .map_err(|error| unexpected(format!("the request cannot be written: {error}")))?;
        let (status, body) = self.call(method, path, body.into()).await?;
        parse(status, &body)
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), ControlError> {
        tokio::time::timeout(self.timeout, self.exchange(method, path, body))
            .await
            .unwrap_or_else(|_| {
                Err(ControlError::TimedOut {
                    socket: self.socket.clone(),
                    after: self.timeout,
                })
            })
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), ControlError> {
        let stream = socket::connect(&self.socket)
            .await
            .map_err(|source| ControlError::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;
        exchange(stream, None, method, path, body).await
    }
}

/// One request and its answer on a connection of its own.
pub(crate) async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), ControlError> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "proxy")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request
        .body(Full::new(body))
        .map_err(|error| unexpected(format!("the request cannot be built: {error}")))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| unexpected(format!("the answer was cut off: {error}")))?;
        Ok((status, body.to_bytes()))
    };
    // The connection does the reading and writing; it goes on until the answer is whole.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

pub(crate) fn parse<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, ControlError> {
    if status.is_success() {
        return document(body);
    }
    let refusal: Refusal = document(body).map_err(|error| unexpected(format!("status {status}; {error}")))?;
    Err(refusal.into())
}

fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, ControlError> {
    let document: Document<serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| unexpected(format!("not a control document: {error}")))?;
    if document.schema != SCHEMA {
        return Err(unexpected(format!(
            "schema {:?} instead of {SCHEMA:?}",
            document.schema
        )));
    }
    serde_json::from_value(document.data).map_err(|error| unexpected(error.to_string()))
}

/// A path segment must be plain: names of services and ids of faults are, everything else is refused.
pub(crate) fn segment(name: &str) -> Result<&str, ControlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.bytes().all(plain) {
        return Err(ControlError::Invalid {
            message: format!("{name:?} is no name: letters, digits, '-', '_' and '.' only"),
        });
    }
    Ok(name)
}

pub(crate) fn unexpected(detail: impl Into<String>) -> ControlError {
    ControlError::Protocol { detail: detail.into() }
}

fn broken(error: &hyper::Error) -> ControlError {
    unexpected(format!("the connection broke: {error}"))
}
