//! One client's connection: which protocol it speaks, its limits, its end. Not what happens to a request.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HeaderValue;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Limits;
use crate::forward;
use crate::route::LiveRoute;
use crate::stream::{Glance, SharedStream};
use crate::upstream::Pools;

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// What a listener's clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, or HTTP/2 by its preface.
    Http,
    /// HTTP/2 only.
    Grpc,
}

/// What the requests of one connection share.
pub(crate) struct ClientConnection {
    pub(crate) route: Arc<LiveRoute>,
    pub(crate) protocol: Protocol,
    pub(crate) pools: Arc<Pools>,
    pub(crate) secret: Arc<[u8]>,
    /// The client's address for `x-forwarded-for`.
    pub(crate) address: HeaderValue,
    glance: Glance,
    /// Told when the connection shall end at once.
    killed: Notify,
}

impl ClientConnection {
    /// Ends the connection with a TCP reset.
    pub(crate) fn reset_now(&self) {
        self.glance.reset_on_close();
        self.killed.notify_one();
    }
}

/// What a connection is served with.
pub(crate) struct Service {
    pub(crate) route: Arc<LiveRoute>,
    pub(crate) protocol: Protocol,
    pub(crate) pools: Arc<Pools>,
    pub(crate) secret: Arc<[u8]>,
    pub(crate) limits: Limits,
    /// Asks the connection to end after the requests that it has.
    pub(crate) close: CancellationToken,
}

/// Serves a connection to its end.
pub(crate) async fn serve(mut socket: TcpStream, service: Service) {
    // A socket that refuses it is slower, not wrong.
    let _ = socket.set_nodelay(true);
    let address = socket
        .peer_addr()
        .map_or_else(|_| "unknown".to_owned(), |peer| peer.ip().to_canonical().to_string());
    let address = HeaderValue::try_from(address).unwrap_or(HeaderValue::from_static("unknown"));
    let (prefix, http2) = match service.protocol {
        Protocol::Grpc => (Bytes::new(), true),
        Protocol::Http => {
            let sniffed = tokio::select! {
                sniffed = sniff(&mut socket, service.limits.header_timeout) => sniffed,
                () = service.close.cancelled() => None,
            };
            let Some(sniffed) = sniffed else { return };
            sniffed
        }
    };
    let (stream, glance) = SharedStream::new(socket, prefix);
    let client = Arc::new(ClientConnection {
        route: service.route,
        protocol: service.protocol,
        pools: service.pools,
        secret: service.secret,
        address,
        glance,
        killed: Notify::new(),
    });
    let requests = Arc::clone(&client);
    let handler = service_fn(move |request| {
        let client = Arc::clone(&requests);
        async move { Ok::<_, Infallible>(forward::handle(client, request).await) }
    });
    let io = TokioIo::new(stream);
    let limits = service.limits;
    macro_rules! until_done {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            let mut closing = false;
            loop {
                tokio::select! {
                    biased;
                    result = connection.as_mut() => break result,
                    () = client.killed.notified() => break Ok(()),
                    () = service.close.cancelled(), if !closing => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }};
    }
    let result = if http2 {
        until_done!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_header_list_size(limits.header_bytes)
                .max_concurrent_streams(limits.streams)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .serve_connection(io, handler)
        )
    } else {
        until_done!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_buf_size(limits.header_bytes as usize)
                .max_headers(limits.headers)
                .serve_connection(io, handler)
        )
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// Reads until it is clear whether the HTTP/2 preface comes. What was read, and whether it is HTTP/2; none when the
/// client left or took too long.
async fn sniff(socket: &mut TcpStream, within: Duration) -> Option<(Bytes, bool)> {
    let mut seen = BytesMut::new();
    let reading = async {
        loop {
            if socket.read_buf(&mut seen).await.ok()? == 0 {
                return None;
            }
            let common = seen.len().min(HTTP2_PREFACE.len());
            if seen[..common] != HTTP2_PREFACE[..common] {
                return Some(false);
            }
            if common == HTTP2_PREFACE.len() {
                return Some(true);
            }
        }
    };
    let http2 = tokio::time::timeout(within, reading).await.ok()??;
    Some((seen.freeze(), http2))
}
