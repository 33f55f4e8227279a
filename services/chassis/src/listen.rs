//! The two listeners of a service: bound early so that a taken port is told at once. What they serve is the service's
//! matter, how they drain `health`'s.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::middleware::map_response;
use axum::response::Response;
use axum::serve::ListenerExt as _;
use health::Lifecycle;
use http::HeaderValue;
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

    /// Serves `http`, and `grpc` (`tonic::service::Routes::into_axum_router`), until the drain has let them. Every
    /// response, of whatever route, carries `x-service-version`.
    pub async fn serve(self, http: Router, grpc: Router, life: &Lifecycle) {
        if let Ok((http, grpc)) = self.addresses() {
            tracing::info!(%http, %grpc, "listening");
        }
        let serve = |listener: TcpListener, app: Router| {
            let version = self.version.clone();
            let app = app.layer(map_response(move |mut response: Response| {
                response.headers_mut().insert("x-service-version", version.clone());
                std::future::ready(response)
            }));
            // An answer must not wait for the acknowledgement of the one before.
            let listener = listener.tap_io(|stream| {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot send small answers at once");
                }
            });
            life.serve(listener, app)
        };
        tokio::join!(serve(self.http, http), serve(self.grpc, grpc));
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
