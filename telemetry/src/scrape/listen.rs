//! `/metrics` on a listener of its own, for those who keep it off the service's port.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::Telemetry;

impl Telemetry {
    /// Serves `/metrics` on an address of its own. Needs a runtime. The service's port has it besides where
    /// [`Telemetry::metrics_router`] is merged.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn serve_metrics(&self, addr: SocketAddr) -> io::Result<MetricsServer> {
        let listener = std::net::TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let listener = TcpListener::from_std(listener)?;
        let router = self.metrics_router::<()>();
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(error = &error as &dyn std::error::Error, "metrics listener ended");
            }
        });
        Ok(MetricsServer { task, addr })
    }
}

/// A running listener; dropping it stops it.
#[derive(Debug)]
#[must_use = "dropping it stops the listener"]
pub struct MetricsServer {
    task: JoinHandle<()>,
    addr: SocketAddr,
}

impl MetricsServer {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
