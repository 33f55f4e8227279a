//! A downstream's grpc.health.v1. Ask for its liveness rather than its readiness, so that health does not chain.

use std::future::Future;
use std::pin::Pin;

use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::check::{Check, Failure, Outcome, Reason};

/// Calls `grpc.health.v1.Health/Check` and passes on SERVING.
#[derive(Debug, Clone)]
pub struct GrpcCheck {
    channel: Channel,
    service: String,
}

impl GrpcCheck {
    /// Asks over the application's own channel for `service` (empty: the server as a whole).
    pub fn new(channel: Channel, service: impl Into<String>) -> Self {
        Self {
            channel,
            service: service.into(),
        }
    }

    /// Asks `uri` (`http://host:port`) over one lazily opened channel. Needs a runtime.
    ///
    /// # Errors
    /// When `uri` is no URI.
    pub fn connect(uri: &str, service: impl Into<String>) -> Result<Self, tonic::transport::Error> {
        Ok(Self::new(
            Endpoint::from_shared(uri.to_owned())?.connect_lazy(),
            service,
        ))
    }
}

impl Check for GrpcCheck {
    fn run(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        Box::pin(async move {
            let mut client = HealthClient::new(self.channel.clone());
            match client
                .check(HealthCheckRequest {
                    service: self.service.clone(),
                })
                .await
            {
                Ok(reply) if reply.get_ref().status() == ServingStatus::Serving => Outcome::Pass,
                Ok(reply) => Outcome::Fail(Failure::new(
                    Reason::Protocol,
                    format!("status {:?}", reply.get_ref().status()),
                )),
                Err(status) => {
                    let reason = match status.code() {
                        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Reason::Auth,
                        tonic::Code::DeadlineExceeded => Reason::Timeout,
                        tonic::Code::Unavailable => Reason::Refused,
                        _ => Reason::Protocol,
                    };
                    Outcome::Fail(Failure::new(reason, status.message().to_owned()))
                }
            }
        })
    }
}
