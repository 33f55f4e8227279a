//! The two listeners of a service: bound early so that a taken port is told at once, served until a drain ends them.
//! What they serve, and when the drain begins, is the service's and `health`'s matter.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{Request, State as Extract};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::serve::ListenerExt as _;
use health::{Ended, Health, Lifecycle, State};
use http::{HeaderValue, Version, header};
use tokio::net::TcpListener;

use crate::args::{Args, Ports};

/// Bound, not yet accepting: connections wait in the backlog until [`Listeners::serve`].
#[derive(Debug)]
pub struct Listeners {
    http: TcpListener,
    grpc: TcpListener,
    version: HeaderValue,
}

/// Why a service cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process listens there.
    #[error("{protocol} cannot listen on {address}: the port is taken")]
    PortTaken {
        /// `HTTP` or `gRPC`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Anything else: no such address, no permission.
    #[error("{protocol} cannot listen on {address}")]
    Bind {
        /// `HTTP` or `gRPC`.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A listener broke while serving.
    #[error("{protocol} stopped listening")]
    Serve {
        /// `HTTP` or `gRPC`.
        protocol: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Listeners {
    /// Binds both. Port 0 takes a free one.
    pub async fn bind(args: &Args, ports: Ports) -> Result<Self, ListenError> {
        let (http, grpc) = args.addresses(ports);
        Ok(Self {
            http: bind("HTTP", http).await?,
            grpc: bind("gRPC", grpc).await?,
            version: HeaderValue::from_str(&args.version_label)
                .expect("the flag's parser lets only printable ASCII through"),
        })
    }

    /// Where HTTP and gRPC listen.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.http.local_addr()?, self.grpc.local_addr()?))
    }

    /// Serves `http`, and `grpc` (`tonic::service::Routes::into_axum_router`), until `life` says to stop and all requests
    /// are answered, or the time of the drain is over. Every response, of whatever route, carries `x-service-version`;
    /// while draining, HTTP/1 connections are closed after their next answer.
    pub async fn serve(self, http: Router, grpc: Router, health: &Health, life: &Lifecycle) -> Result<(), ListenError> {
        if let Ok((http, grpc)) = self.addresses() {
            tracing::info!(%http, %grpc, "listening");
        }
        let serve = |protocol, listener: TcpListener, app: Router| {
            let mark = Mark {
                version: self.version.clone(),
                health: health.clone(),
            };
            let app = app.layer(from_fn_with_state(mark, Mark::apply));
            // An answer must not wait for the acknowledgement of the one before.
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot send small answers at once");
                }
            });
            let server = axum::serve(listener, app).with_graceful_shutdown(life.stop_accepting());
            async move { server.await.map_err(|source| ListenError::Serve { protocol, source }) }
        };
        let both = async { tokio::try_join!(serve("HTTP", self.http, http), serve("gRPC", self.grpc, grpc)) };
        match life.run(both).await {
            Ended::Finished(result) => result.map(|_| ()),
            Ended::Aborted => Ok(()),
        }
    }
}

async fn bind(protocol: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::PortTaken { protocol, address },
        _ => ListenError::Bind {
            protocol,
            address,
            source,
        },
    })
}

/// What is put on every response.
#[derive(Clone)]
struct Mark {
    version: HeaderValue,
    health: Health,
}

impl Mark {
    async fn apply(Extract(mark): Extract<Self>, request: Request, next: Next) -> Response {
        let keeps_alive = request.version() < Version::HTTP_2;
        let mut response = next.run(request).await;
        if keeps_alive && mark.health.state() == State::Draining {
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.headers_mut().insert("x-service-version", mark.version);
        response
    }
}
