//! A stable port: accepts connections for one service and hands them to the workers. Not who serves them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::Protocol;
use crate::route::LiveRoute;
use crate::worker::{Accepted, Workers};

/// How long to wait when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A port that is listened on. Dropped, it stops listening and asks its connections to end.
pub(crate) struct Listener {
    addr: SocketAddr,
    _close: DropGuard,
}

impl Listener {
    /// Listens on `addr` (std sets `SO_REUSEADDR`, so a port in TIME_WAIT is no obstacle).
    pub(crate) async fn bind(
        addr: SocketAddr,
        protocol: Protocol,
        route: &Arc<LiveRoute>,
        workers: &Arc<Workers>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let close = CancellationToken::new();
        tokio::spawn(accept(
            listener,
            protocol,
            Arc::clone(route),
            Arc::downgrade(workers),
            close.clone(),
        ));
        Ok(Self {
            addr,
            _close: close.drop_guard(),
        })
    }

    /// Where it really listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether a listener asked for at `wanted` is this one. Port 0 asks for any.
    pub(crate) fn is(&self, wanted: SocketAddr) -> bool {
        self.addr.ip() == wanted.ip() && (wanted.port() == 0 || wanted.port() == self.addr.port())
    }
}

async fn accept(
    listener: TcpListener,
    protocol: Protocol,
    route: Arc<LiveRoute>,
    workers: std::sync::Weak<Workers>,
    close: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = close.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted.and_then(|(socket, _)| socket.into_std()) {
            Ok(socket) => socket,
            Err(error) => {
                // Most often too many open files; the backlog keeps the clients meanwhile.
                tracing::warn!(service = route.service, %error, "a connection could not be accepted");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let Some(workers) = workers.upgrade() else { return };
        workers.take(Accepted {
            socket,
            route: Arc::clone(&route),
            protocol,
            close: close.child_token(),
        });
    }
}
