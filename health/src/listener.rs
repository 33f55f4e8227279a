//! A listener for probes alone, on a thread and a runtime of its own, so that a main runtime that stands still cannot
//! keep a probe waiting. It has HTTP and gRPC on one port, without TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

use tokio::sync::{oneshot, watch};
use tonic::server::NamedService as _;
use tonic_health::pb::health_server::HealthServer;

use crate::grpc::GrpcHealth;
use crate::health::Health;
use crate::lifecycle::{Phase, serve};

/// Ends with its last owner.
pub(crate) struct Listener {
    address: SocketAddr,
    /// Dropped, it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Listens on `address`; port 0 takes a free one.
    pub(crate) fn start(address: SocketAddr, health: &Health) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        // A fallback of its own would answer any path that a probe misspells.
        let grpc = format!("/{}/{{*method}}", <HealthServer<GrpcHealth>>::NAME);
        let app = health.http_router().route_service(&grpc, health.grpc_service());
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        // The runtime lives and dies on its thread: dropped inside another one, it would panic.
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                // Whoever started it waits for the word.
                Err(error) => return drop(tell.send(Err(error))),
            };
            runtime.block_on(async {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                drop(tell.send(Ok(())));
                let running = watch::Sender::new(Phase::Running);
                tokio::select! {
                    () = serve(listener, app, running.subscribe()) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("health".to_owned()).spawn(work)?;
        told.recv().map_err(|_| io::Error::other("the thread ended"))??;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It ends at once: nothing in it waits but on the network. A panic in it was told by the panic hook.
            let _ = thread.join();
        }
    }
}
