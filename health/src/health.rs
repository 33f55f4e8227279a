//! [`Health`]: the handle of a service's health. What it knows is kept in `board`, found out in `schedule`, told by
//! `http_server` and `grpc`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::board::Board;
use crate::builder::HealthBuilder;
use crate::grpc::GrpcHealth;
use crate::listener::Listener;
use crate::snapshot::Snapshot;
use crate::state::State;

/// The health of one service. Clones share; the checks stop with [`Health::stop`] or with the last clone.
#[derive(Clone)]
pub struct Health {
    pub(crate) board: Arc<Board>,
    running: Arc<Running>,
}

impl Health {
    /// Starts the description of a service's health.
    pub fn builder() -> HealthBuilder {
        HealthBuilder::default()
    }

    pub(crate) fn new(board: Arc<Board>) -> Self {
        Self {
            board,
            running: Arc::default(),
        }
    }

    /// State of the service now.
    pub fn state(&self) -> State {
        self.board.look();
        *self.board.state.borrow()
    }

    /// A receiver that sees every change of the state (the last value wins).
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.board.state.subscribe()
    }

    /// Waits until the state is one that `wanted` accepts, and returns it.
    pub async fn wait_until(&self, wanted: impl Fn(State) -> bool) -> State {
        let mut receiver = self.subscribe();
        match receiver.wait_for(|state| wanted(*state)).await {
            Ok(state) => *state,
            // Cannot happen while `self` holds the sender; a closed channel means that nothing changes any more.
            Err(_) => self.state(),
        }
    }

    /// Whether every liveness check says [`Beat::Alive`](crate::Beat::Alive). Runs them now.
    pub fn is_alive(&self) -> bool {
        self.board.is_alive()
    }

    /// Everything that is known, for the admin listener, metrics and tests.
    pub fn snapshot(&self) -> Snapshot {
        self.board.snapshot()
    }

    /// Runs every check now instead of at its next turn, and waits until all have answered, at most two seconds. Within
    /// a second of the last time it does nothing, so that nobody can use it to wear a dependency down.
    pub async fn refresh(&self) {
        self.board.refresh().await;
    }

    /// Says that the service is draining: not ready, still alive. For good.
    pub fn drain(&self) {
        self.board.end(State::Draining);
    }

    /// Says that the service has stopped, ends its checks and its own listener. For good.
    pub fn stop(&self) {
        self.board.end(State::Stopped);
        self.board.close_streams();
        self.running.end();
    }

    /// `/healthz /readyz /health /health/live /health/ready /health/startup` and `/health/GROUP` for each group, for the
    /// service's HTTP port: 200 or 503 and a status word, no details.
    pub fn http_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        crate::http_server::public(self)
    }

    /// `/health/details` for the admin listener: the [`Snapshot`] as JSON in the shape of
    /// draft-inadarei-api-health-check-06. With `?refresh` the checks are asked first, see [`Health::refresh`].
    pub fn details_router<S: Clone + Send + Sync + 'static>(&self) -> axum::Router<S> {
        crate::details::router(self)
    }

    /// grpc.health.v1 for the service's gRPC server.
    pub fn grpc_service(&self) -> tonic_health::pb::health_server::HealthServer<GrpcHealth> {
        tonic_health::pb::health_server::HealthServer::new(GrpcHealth::new(self.clone()))
    }

    /// Where [`HealthBuilder::listen`] answers probes; `None` without it and after [`Health::stop`].
    pub fn listens_on(&self) -> Option<SocketAddr> {
        self.running.parts().listener.as_ref().map(Listener::address)
    }

    pub(crate) fn keep(&self, tasks: Vec<JoinHandle<()>>, listener: Option<Listener>) {
        *self.running.parts() = Parts { tasks, listener };
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// What runs as long as there is a handle.
#[derive(Default)]
struct Running(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    tasks: Vec<JoinHandle<()>>,
    listener: Option<Listener>,
}

impl Running {
    fn parts(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        let Parts { tasks, listener } = std::mem::take(&mut *self.parts());
        for task in tasks {
            task.abort();
        }
        drop(listener);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
