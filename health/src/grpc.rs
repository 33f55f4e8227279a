//! grpc.health.v1 on tonic-health's generated types, with the protocol's own semantics for Watch: an unknown service is
//! told SERVICE_UNKNOWN and kept, an unchanged status is not sent again, and draining ends the stream so that an open
//! Watch cannot hold up the shutdown. (tonic-health's own server does none of these.) Newer versions of the protocol also
//! have List; the types of tonic-health 0.14 do not, so it answers UNIMPLEMENTED, as the protocol allows.
//! Source: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::board::{Probe, Verdict};
use crate::health::Health;
use crate::state;

/// Streams that may watch at one time.
const WATCHERS: usize = 1024;
/// How often a watcher asks for liveness, which has no notification.
const LIVENESS_PERIOD: Duration = Duration::from_secs(1);

/// The server behind [`Health::grpc_service`]. Names: `""`, `readiness`, every name given to the builder (all follow
/// readiness, unless they were given a group), `liveness`, `startup`. At most 1024 streams watch at one time; more are
/// refused with RESOURCE_EXHAUSTED.
#[derive(Debug, Clone)]
pub struct GrpcHealth {
    health: Health,
    watchers: Arc<Semaphore>,
}

impl GrpcHealth {
    pub(crate) fn new(health: Health) -> Self {
        Self {
            health,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        }
    }

    /// `None` for an unknown service.
    fn probe(&self, service: &str) -> Option<Probe> {
        match service {
            "" | "readiness" => Some(Probe::Ready),
            "liveness" => Some(Probe::Live),
            "startup" => Some(Probe::Startup),
            name => {
                let mut known = self.health.board.services.iter();
                known.find_map(|(service, probe)| (service == name).then_some(*probe))
            }
        }
    }
}

fn serving(health: &Health, probe: Probe) -> ServingStatus {
    // A service that takes no traffic serves nothing, however well its dependencies are.
    let closed = matches!(probe, Probe::Group(_)) && !health.state().takes_traffic();
    if closed || health.board.status(probe) == state::Status::Fail {
        ServingStatus::NotServing
    } else {
        ServingStatus::Serving
    }
}

#[tonic::async_trait]
impl health_server::Health for GrpcHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let probe = self.probe(&request.get_ref().service);
        let probe = probe.ok_or_else(|| Status::not_found("unknown service"))?;
        Ok(Response::new(HealthCheckResponse {
            status: serving(&self.health, probe).into(),
        }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watchers = Arc::clone(&self.watchers);
        let place = watchers.try_acquire_owned();
        let watcher = Watcher {
            _place: place.map_err(|_| Status::resource_exhausted("too many watchers"))?,
            probe: self.probe(&request.get_ref().service),
            changes: self.health.board.changes(),
            closing: self.health.board.closing(),
            health: self.health.clone(),
            sent: None,
        };
        let stream = futures::stream::unfold(watcher, |mut watcher| async {
            let status = watcher.next().await?;
            Some((Ok(HealthCheckResponse { status: status.into() }), watcher))
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

/// One stream of Watch.
struct Watcher {
    _place: OwnedSemaphorePermit,
    /// `None` for an unknown service. Names are known from the start, so it stays unknown.
    probe: Option<Probe>,
    changes: watch::Receiver<Verdict>,
    closing: watch::Receiver<bool>,
    health: Health,
    sent: Option<ServingStatus>,
}

impl Watcher {
    /// The next status that differs from the last one sent; `None` when the stream is to end, which it does after the
    /// last status was told.
    async fn next(&mut self) -> Option<ServingStatus> {
        loop {
            let closing = *self.closing.borrow_and_update();
            self.changes.mark_unchanged();
            let probe = self.probe;
            let status = probe.map_or(ServingStatus::ServiceUnknown, |probe| serving(&self.health, probe));
            if self.sent != Some(status) {
                self.sent = Some(status);
                return Some(status);
            }
            if closing {
                return None;
            }
            let asks_again = async {
                if probe == Some(Probe::Live) {
                    tokio::time::sleep(LIVENESS_PERIOD).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            // The board, and with it both channels, lives as long as `health`.
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.closing.changed() => {}
                () = asks_again => {}
            }
        }
    }
}
