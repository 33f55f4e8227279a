//! `/metrics` on a listener of its own, for those who keep it off the service's port. It has a thread and a runtime of
//! its own: it answers also while the service's runtime is stuck, and under any runtime.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::Telemetry;
use crate::metrics::Metrics;
use crate::sink::thread;

/// A running listener; dropping it stops it.
#[derive(Debug)]
#[must_use = "dropping it stops the listener"]
pub struct MetricsServer {
    /// The listener ends when this is gone.
    _stop: oneshot::Sender<()>,
    addr: SocketAddr,
}

impl Telemetry {
    /// Serves `/metrics` on an address of its own. The service's port has it besides where
    /// [`Telemetry::metrics_router`] is merged.
    ///
    /// # Errors
    /// When the address cannot be listened on, or a thread cannot be made.
    pub fn serve_metrics(&self, addr: SocketAddr) -> io::Result<MetricsServer> {
        MetricsServer::start(self.metrics(), addr)
    }
}

impl MetricsServer {
    pub(crate) fn start(metrics: &Metrics, addr: SocketAddr) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let router = super::router::<()>(metrics.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || async move {
            let Ok(listener) = TcpListener::from_std(listener) else {
                return;
            };
            tokio::select! {
                _ = axum::serve(listener, router) => {}
                _ = stopped => {}
            }
        };
        thread::spawn("telemetry-scrape", serve)?;
        Ok(Self { _stop: stop, addr })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}
