//! Connections to instances: pools for HTTP/1.1, one shared connection for HTTP/2, and the line between "nothing was
//! sent" and "something may have been". Not the choice of the instance.
//!
//! Every worker has its own pools, so taking and returning a connection never waits for another core.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::patience::RequestBody;
use crate::route::LiveRoute;
use crate::stream::{Glance, SharedStream};

/// An instance is on this machine: it takes a connection at once or is in trouble.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection may take to become ready again after a response.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that carried nothing for so long are closed.
const IDLE_LIMIT: Duration = Duration::from_mins(1);
/// The most idle connections kept per instance and worker.
const IDLE_CONNECTIONS: usize = 1024;
/// Flow-control windows; loopback needs few round trips, not small buffers.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// One worker's connections to all instances.
#[derive(Default)]
pub(crate) struct Pools {
    http1: Mutex<HashMap<SocketAddr, Vec<Http1>>>,
    http2: Mutex<HashMap<SocketAddr, http2::SendRequest<RequestBody>>>,
}

struct Http1 {
    sender: http1::SendRequest<RequestBody>,
    glance: Glance,
    idle_since: Instant,
    /// Reads and writes. It ends with this: an instance that reads nothing more would keep it for ever, and with it the
    /// client whose upload it holds.
    _task: AbortOnDropHandle<()>,
}

/// Why a request got no response from an instance.
pub(crate) enum SendFailure {
    /// No byte of it was sent: it may go to another instance.
    NotSent(Box<Request<RequestBody>>),
    /// It may have been received: it must not be repeated.
    Lost(hyper::Error),
}

/// Brings an HTTP/1.1 connection back to its pool once the response is whole. Dropped before that, it closes the
/// connection.
pub(crate) struct Lease {
    connection: Http1,
    addr: SocketAddr,
    pools: Arc<Pools>,
}

impl Pools {
    /// Sends over HTTP/1.1. The lease must be given back when the body has been read to its end.
    pub(crate) async fn send_http1(
        self: &Arc<Self>,
        addr: SocketAddr,
        mut request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Lease), SendFailure> {
        let mut fresh = false;
        while !fresh {
            let mut connection = match self.take_http1(addr) {
                Some(connection) => connection,
                None => match open_http1(addr).await {
                    Ok(connection) => {
                        fresh = true;
                        connection
                    }
                    Err(error) => {
                        tracing::debug!(%addr, %error, "no connection to the instance");
                        return Err(SendFailure::NotSent(Box::new(request)));
                    }
                },
            };
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let pools = Arc::clone(self);
                    return Ok((
                        response,
                        Lease {
                            connection,
                            addr,
                            pools,
                        },
                    ));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(SendFailure::Lost(error.into_error())),
                },
            }
        }
        Err(SendFailure::NotSent(Box::new(request)))
    }

    /// Sends over HTTP/2.
    pub(crate) async fn send_http2(
        &self,
        addr: SocketAddr,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        let mut fresh = false;
        while !fresh {
            let pooled = lock(&self.http2).get(&addr).cloned();
            let mut sender = match pooled.filter(|sender| !sender.is_closed()) {
                Some(sender) => sender,
                None => match open_http2(addr).await {
                    Ok(sender) => {
                        fresh = true;
                        lock(&self.http2).insert(addr, sender.clone());
                        sender
                    }
                    Err(error) => {
                        tracing::debug!(%addr, %error, "no connection to the instance");
                        return Err(SendFailure::NotSent(Box::new(request)));
                    }
                },
            };
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        request = unsent;
                        self.forget_closed_http2(addr);
                    }
                    None => return Err(SendFailure::Lost(error.into_error())),
                },
            }
        }
        Err(SendFailure::NotSent(Box::new(request)))
    }

    /// Closes the idle connections to an instance that gets no more requests; busy ones end with their request.
    pub(crate) fn retire(&self, addr: SocketAddr) {
        lock(&self.http1).remove(&addr);
        lock(&self.http2).remove(&addr);
    }

    /// Forgets connections that are closed or were idle for long.
    pub(crate) fn sweep(&self, now: Instant) {
        lock(&self.http1).retain(|_, idle| {
            idle.retain(|connection| {
                !connection.sender.is_closed() && now.saturating_duration_since(connection.idle_since) < IDLE_LIMIT
            });
            !idle.is_empty()
        });
        lock(&self.http2).retain(|_, sender| !sender.is_closed());
    }

    /// A connection on which the next request can be sent, as far as can be known: one that the peer has closed or
    /// written to is thrown away here, before anything is sent on it.
    fn take_http1(&self, addr: SocketAddr) -> Option<Http1> {
        loop {
            let connection = lock(&self.http1).get_mut(&addr)?.pop()?;
            if connection.sender.is_ready() && connection.glance.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn forget_closed_http2(&self, addr: SocketAddr) {
        let mut senders = lock(&self.http2);
        if senders.get(&addr).is_some_and(http2::SendRequest::is_closed) {
            senders.remove(&addr);
        }
    }

    fn keep(&self, addr: SocketAddr, connection: Http1) {
        let mut http1 = lock(&self.http1);
        let idle = http1.entry(addr).or_default();
        if idle.len() < IDLE_CONNECTIONS {
            idle.push(connection);
        }
    }
}

impl Lease {
    /// The response is whole. The connection is kept if its instance still gets requests.
    pub(crate) fn give_back(mut self, route: &LiveRoute, now: Instant) {
        if self.connection.sender.is_closed() || !route.picture.load().serves(self.addr) {
            return;
        }
        self.connection.idle_since = now;
        if self.connection.sender.is_ready() {
            self.pools.keep(self.addr, self.connection);
            return;
        }
        // The request's body may still be under way, or the connection has not noticed that the response is whole.
        tokio::spawn(async move {
            let settled = tokio::time::timeout(SETTLE_TIMEOUT, self.connection.sender.ready()).await;
            if matches!(settled, Ok(Ok(()))) {
                self.pools.keep(self.addr, self.connection);
            }
        });
    }
}

async fn open(addr: SocketAddr) -> std::io::Result<(SharedStream, Glance)> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(addr))
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(SharedStream::new(stream, Bytes::new()))
}

async fn open_http1(addr: SocketAddr) -> std::io::Result<Http1> {
    let (stream, glance) = open(addr).await?;
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%addr, %error, "a connection to an instance ended");
        }
    });
    Ok(Http1 {
        sender,
        glance,
        idle_since: Instant::now(),
        _task: AbortOnDropHandle::new(task),
    })
}

async fn open_http2(addr: SocketAddr) -> std::io::Result<http2::SendRequest<RequestBody>> {
    let (stream, _) = open(addr).await?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%addr, %error, "a connection to an instance ended");
        }
    });
    Ok(sender)
}

/// Nothing under these locks can panic halfway through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
