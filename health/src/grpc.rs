//! grpc.health.v1 on tonic-health's generated types, with the protocol's own semantics for Watch: an unknown service is
//! told SERVICE_UNKNOWN and kept, an unchanged status is not sent again, and draining ends the stream so that an open
//! Watch cannot hold up the shutdown. (tonic-health's own server does none of these.)
//! Source: <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::schedule::Health;

/// Streams that may watch at one time.
const WATCHERS: usize = 1024;
/// How often a watcher asks for liveness, which has no notification.
const LIVENESS_PERIOD: Duration = Duration::from_secs(1);

/// The server behind [`Health::grpc_service`]. Names: `""`, `readiness`, every name given to the builder (all follow
/// readiness), `liveness`, `startup`.
#[derive(Debug, Clone)]
pub struct GrpcHealth {
    health: Health,
    watchers: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Subject {
    Readiness,
    Liveness,
    Startup,
    Unknown,
}

impl GrpcHealth {
    pub(crate) fn new(health: Health) -> Self {
        Self {
            health,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        }
    }

    fn subject(&self, service: &str) -> Subject {
        match service {
            "" | "readiness" => Subject::Readiness,
            "liveness" => Subject::Liveness,
            "startup" => Subject::Startup,
            name if self.health.inner().services.iter().any(|known| known == name) => Subject::Readiness,
            _ => Subject::Unknown,
        }
    }
}

fn status_of(health: &Health, subject: Subject) -> ServingStatus {
    let good = match subject {
        Subject::Readiness => health.state().takes_traffic(),
        Subject::Liveness => health.is_alive(),
        Subject::Startup => health.inner().started(),
        Subject::Unknown => return ServingStatus::ServiceUnknown,
    };
    if good {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    }
}

fn reply(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

#[tonic::async_trait]
impl health_server::Health for GrpcHealth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.subject(&request.get_ref().service) {
            Subject::Unknown => Err(Status::not_found("unknown service")),
            subject => Ok(Response::new(reply(status_of(&self.health, subject)))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let permit = Arc::clone(&self.watchers)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted("too many watchers"))?;
        let subject = self.subject(&request.get_ref().service);
        let health = self.health.clone();
        let receiver = health.subscribe();
        let mut closing = health.inner().closing();
        let stream = futures::stream::unfold((receiver, None::<ServingStatus>), move |(mut receiver, sent)| {
            let _held = &permit;
            let health = health.clone();
            async move {
                loop {
                    receiver.mark_unchanged();
                    let status = status_of(&health, subject);
                    if sent != Some(status) {
                        return Some((Ok(reply(status)), (receiver, Some(status))));
                    }
                    if subject == Subject::Liveness {
                        let _ = tokio::time::timeout(LIVENESS_PERIOD, receiver.changed()).await;
                    } else if receiver.changed().await.is_err() {
                        return None;
                    }
                }
            }
        });
        let stream = stream.take_until(async move {
            let _ = closing.wait_for(|closing| *closing).await;
        });
        Ok(Response::new(Box::pin(stream)))
    }
}
