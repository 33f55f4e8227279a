//! What happens to one request: hold, version, faults, instance, response. Not the connections on either side.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use opsctl_proxy_control::PROBE_HEADER;
use tokio::time::Instant;

use crate::answer;
use crate::body::{Parts, ProxyBody, Tracked, grpc_error};
use crate::client::{ClientConnection, Protocol};
use crate::counters::Flight;
use crate::fault::{Delay, Hit, Terminal};
use crate::headers;
use crate::patience::{Patience, RequestBody};
use crate::route::Version;
use crate::upstream::{Lease, SendFailure};

/// Answers a request, most often with what an instance says.
pub(crate) async fn handle(client: Arc<ClientConnection>, mut request: Request<Incoming>) -> Response<ProxyBody> {
    let started = Instant::now();
    let route = &client.route;
    let probe = request.headers().contains_key(PROBE_HEADER);
    let grpc = headers::is_grpc(request.headers());
    let picture = route.picture.load_full();
    if let Some(hold) = &picture.hold {
        route.counters.held(probe);
        return answer::held(hold, grpc);
    }
    if let Some((status, message)) = refusal(&request) {
        return answer::refused(status, message, grpc);
    }
    let mark = headers::canary_mark(request.headers_mut(), &client.secret, &route.service, unix_seconds);
    let Some(version) = picture.choose_version(mark.as_deref(), request.headers(), started) else {
        route.counters.unrouted(probe);
        return answer::no_instance(&route.service, grpc);
    };
    let mut journey = Journey {
        client: &client,
        version: Arc::clone(version),
        flight: Flight::new(Arc::clone(&version.cells), started, picture.objective, probe),
        seen: 0,
        delay: None,
    };
    if let Err(status) = journey.faults().await {
        return journey.fail(status, grpc);
    }

    if let Err(message) = readdress(&mut request, client.protocol) {
        journey.flight.forget();
        return answer::refused(StatusCode::BAD_REQUEST, message, grpc);
    }
    headers::forward_request(request.headers_mut(), &client.address, grpc);
    let (head, body) = request.into_parts();
    let (patience, body) = Patience::new(picture.response_timeout, &head.headers, grpc, body, started);
    let mut request = Request::from_parts(head, body);
    let mut tried: Vec<SocketAddr> = Vec::new();
    loop {
        let chosen = route.choose_instance(version, client.protocol == Protocol::Grpc, &tried, started);
        let Some((instance, addr)) = chosen else {
            journey.flight.forget();
            route.counters.unrouted(probe);
            return answer::no_instance(&route.service, grpc);
        };
        journey.flight.attempt(&instance.cells);
        let sent = match journey
            .unless_faulted(patience.wait(send(&client, addr, request)))
            .await
        {
            Ok(Some(sent)) => sent,
            Ok(None) => return journey.too_late(grpc),
            Err(status) => return journey.fail(status, grpc),
        };
        match sent {
            Ok((response, lease)) => return journey.respond(response, lease, grpc).await,
            Err(SendFailure::NotSent(unsent)) => {
                instance.eject(Instant::now());
                journey.flight.leave_instance();
                tried.push(addr);
                request = *unsent;
            }
            Err(SendFailure::Lost(error)) => {
                tracing::debug!(service = route.service, %addr, %error, "an instance broke off");
                journey.flight.status(StatusCode::BAD_GATEWAY);
                journey.flight.finish(true);
                return answer::lost(grpc);
            }
        }
    }
}

async fn send(
    client: &ClientConnection,
    addr: SocketAddr,
    request: Request<RequestBody>,
) -> Result<(Response<Incoming>, Option<Lease>), SendFailure> {
    match client.protocol {
        Protocol::Http => {
            let (response, lease) = client.pools.send_http1(addr, request).await?;
            Ok((response, Some(lease)))
        }
        Protocol::Grpc => Ok((client.pools.send_http2(addr, request).await?, None)),
    }
}

/// A request between its version and its response.
struct Journey<'a> {
    client: &'a Arc<ClientConnection>,
    version: Arc<Version>,
    flight: Flight,
    /// The newest fault that was looked at.
    seen: u64,
    delay: Option<Delay>,
}

impl Journey<'_> {
    /// Lets the faults act that it has not met. An error is the status that a fault answers with.
    async fn faults(&mut self) -> Result<(), StatusCode> {
        let faults = &self.client.route.faults;
        loop {
            let newest = faults.newest();
            if newest == self.seen {
                return Ok(());
            }
            let hit = faults.draw(&self.version.name, self.seen, Instant::now());
            self.seen = newest;
            let Hit { delay, terminal, .. } = hit;
            if delay.is_some() {
                self.delay = delay;
            }
            match terminal {
                None => {}
                Some(Terminal::Error(status)) => return Err(status),
                Some(Terminal::Reset) => {
                    self.flight.end(true);
                    self.client.reset_now();
                    // The connection drops this before it would be polled again.
                    std::future::pending::<()>().await;
                }
                Some(Terminal::Blackhole(ended)) => {
                    self.flight.swallowed(true);
                    ended.cancelled().await;
                    self.flight.swallowed(false);
                }
            }
        }
    }

    /// Waits for `work`, and lets faults act that are put meanwhile.
    async fn unless_faulted<T>(&mut self, work: impl Future<Output = T>) -> Result<T, StatusCode> {
        let mut work = pin!(work);
        let changed = Arc::clone(self.client.route.faults.changed());
        loop {
            let mut changed = pin!(changed.notified());
            // From here on a change is not missed.
            changed.as_mut().enable();
            self.faults().await?;
            tokio::select! {
                biased;
                done = work.as_mut() => return Ok(done),
                () = changed => {}
            }
        }
    }

    /// A fault answers.
    fn fail(mut self, status: StatusCode, grpc: bool) -> Response<ProxyBody> {
        self.flight.status(if grpc { StatusCode::OK } else { status });
        self.flight.finish(grpc || status.is_server_error());
        answer::fault(status, grpc)
    }

    /// The instance did not begin to answer in time.
    fn too_late(mut self, grpc: bool) -> Response<ProxyBody> {
        let response = answer::too_late(grpc);
        self.flight.status(response.status());
        self.flight.finish(true);
        response
    }

    async fn respond(mut self, response: Response<Incoming>, lease: Option<Lease>, grpc: bool) -> Response<ProxyBody> {
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            self.flight.status(StatusCode::BAD_GATEWAY);
            self.flight.finish(true);
            return answer::refused(StatusCode::BAD_GATEWAY, "the instance switched protocols unasked", grpc);
        }
        headers::strip_hop_by_hop(&mut parts.headers, false);
        self.flight.status(parts.status);
        if let Some(delay) = self.delay {
            tokio::time::sleep(delay.draw()).await;
        }
        let mut error = parts.status.is_server_error();
        let mut status_due = false;
        if grpc {
            self.flight.headers_count(Instant::now());
            if parts.headers.contains_key("grpc-status") {
                error = grpc_error(&parts.headers);
            } else if !error {
                // A plain HTTP error is one; otherwise the trailers say.
                status_due = parts.status == StatusCode::OK;
                error = !status_due;
            }
        } else if headers::is_event_stream(&parts.headers) {
            self.flight.headers_count(Instant::now());
        }
        let tracked = Tracked::new(
            Arc::clone(self.client),
            Parts {
                body,
                flight: self.flight,
                lease,
                version: self.version,
                error,
                status_due,
                seen: self.seen,
                delay: self.delay,
            },
        );
        Response::from_parts(parts, ProxyBody::Instance(Box::new(tracked)))
    }
}

/// What the proxy does not forward, and why.
fn refusal(request: &Request<Incoming>) -> Option<(StatusCode, &'static str)> {
    if request.method() == Method::CONNECT {
        return Some((StatusCode::NOT_IMPLEMENTED, "CONNECT is not supported"));
    }
    if headers::wants_websocket(request.headers()) {
        return Some((StatusCode::NOT_IMPLEMENTED, "WebSockets are not supported"));
    }
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Some((StatusCode::BAD_REQUEST, "more than one host header"));
    }
    let unframed = request.version() == http::Version::HTTP_11
        && request.uri().authority().is_none()
        && !request.headers().contains_key(HOST);
    unframed.then_some((StatusCode::BAD_REQUEST, "no host header"))
}

/// Gives the request the shape that the instance's protocol wants: origin form and a host header for HTTP/1.1, a full
/// URI for HTTP/2. An absolute form's authority overrides the host header (RFC 9112 section 3.2.2).
fn readdress(request: &mut Request<Incoming>, protocol: Protocol) -> Result<(), &'static str> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    match protocol {
        Protocol::Http => {
            if let Some(authority) = uri.authority.take() {
                if authority.as_str().contains('@') {
                    return Err("a user name in the address");
                }
                let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "the authority is no host")?;
                request.headers_mut().insert(HOST, host);
            }
            uri.scheme = None;
            *request.version_mut() = http::Version::HTTP_11;
        }
        Protocol::Grpc => {
            if uri.authority.is_none() {
                let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
                uri.authority = host.and_then(|host| host.parse::<Authority>().ok());
            }
            if uri.authority.is_none() {
                return Err("no authority");
            }
            uri.scheme = Some(Scheme::HTTP);
            request.headers_mut().remove(HOST);
            *request.version_mut() = http::Version::HTTP_2;
        }
    }
    if uri.path_and_query.is_none() {
        uri.path_and_query = Some(PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| "the address cannot be forwarded")?;
    if let Some(length) = request.headers().get(CONTENT_LENGTH)
        && length.is_empty()
    {
        return Err("an empty content-length");
    }
    Ok(())
}

/// The wall clock of this crate, for the expiry of canary tokens.
fn unix_seconds() -> u64 {
    jiff::Timestamp::now().as_second().try_into().unwrap_or(0)
}
