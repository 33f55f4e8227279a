//! A downstream's grpc.health.v1. Ask for its liveness rather than its readiness, so that health does not chain.

use std::error::Error;

use http_body::Body;
use tonic::body::Body as RequestBody;
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Asking;
use crate::check::{Check, Failure, Outcome, Reason};

/// Calls `grpc.health.v1.Health/Check` and passes on SERVING.
#[derive(Debug, Clone)]
pub struct GrpcCheck<S = Channel> {
    channel: S,
    service: String,
}

impl<S> GrpcCheck<S> {
    /// Asks over the application's own channel, with or without interceptors, for `service` (empty: the server as a
    /// whole).
    pub fn new(channel: S, service: impl Into<String>) -> Self {
        Self {
            channel,
            service: service.into(),
        }
    }

    /// Asks a Temporal server for its frontend, over the channel of the application's Temporal client.
    pub fn temporal(channel: S) -> Self {
        Self::new(channel, "temporal.api.workflowservice.v1.WorkflowService")
    }
}

impl GrpcCheck {
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

impl<S> Check for GrpcCheck<S>
where
    S: GrpcService<RequestBody> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::ResponseBody: Body<Data = bytes::Bytes> + Send + 'static,
    <S::ResponseBody as Body>::Error: Into<Box<dyn Error + Send + Sync>> + Send,
{
    fn run(&self) -> Asking<'_> {
        let question = HealthCheckRequest {
            service: self.service.clone(),
        };
        let mut client = HealthClient::new(self.channel.clone());
        Box::pin(async move {
            match client.check(question).await {
                Ok(reply) if reply.get_ref().status() == ServingStatus::Serving => Outcome::Pass,
                Ok(reply) => Outcome::Fail(Failure::new(
                    Reason::Protocol,
                    format!("status {:?}", reply.get_ref().status()),
                )),
                Err(status) => Outcome::Fail(failure(status)),
            }
        })
    }
}

fn failure(status: tonic::Status) -> Failure {
    let of_code = match status.code() {
        tonic::Code::Unauthenticated | tonic::Code::PermissionDenied => Reason::Auth,
        tonic::Code::DeadlineExceeded => Reason::Timeout,
        tonic::Code::ResourceExhausted => Reason::Saturated,
        tonic::Code::Unavailable => Reason::Refused,
        _ => Reason::Protocol,
    };
    let mut failure = Failure::from(status);
    // What the operating system or TLS said of the connection is more than that the server is unavailable.
    if failure.reason == Reason::Error {
        failure.reason = of_code;
    }
    failure
}
