//! The gRPC check against every kind of answer, and none.

use std::net::SocketAddr;

use futures::stream::Empty;
use health::GrpcCheck;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::told;

/// Answers as the service's name says.
struct AsAsked;

#[tonic::async_trait]
impl Health for AsAsked {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            "down" => ServingStatus::NotServing,
            "odd" => ServingStatus::Unknown,
            "private" => return Err(Status::unauthenticated("who are you?")),
            "forbidden" => return Err(Status::permission_denied("not you")),
            "full" => return Err(Status::resource_exhausted("later")),
            "late" => return Err(Status::deadline_exceeded("too late")),
            "away" => return Err(Status::unavailable("going away")),
            "hangs" => std::future::pending().await,
            _ => return Err(Status::not_found("unknown service")),
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

/// Serves for the rest of the test.
async fn serve(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    address
}

#[tokio::test]
async fn answers_are_told_by_their_status() {
    let address = serve(Routes::new(HealthServer::new(AsAsked))).await;
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    for (service, expected) in [
        ("", "pass"),
        ("down", "fail protocol"),
        ("odd", "fail protocol"),
        ("private", "fail auth"),
        ("forbidden", "fail auth"),
        ("full", "fail saturated"),
        ("late", "fail timeout"),
        ("away", "fail refused"),
        ("hangs", "fail timeout"),
        ("no.such.Service", "fail protocol"),
    ] {
        assert_eq!(
            told(&GrpcCheck::new(channel.clone(), service)).await,
            expected,
            "{service:?}"
        );
    }
    let temporal = GrpcCheck::temporal(channel.clone());
    assert_eq!(told(&temporal).await, "fail protocol", "this is no Temporal");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let check = GrpcCheck::connect(&format!("http://{nobody}"), "").unwrap();
    assert_eq!(told(&check).await, "fail refused");
    assert!(GrpcCheck::connect("not a uri", "").is_err());
}

#[tokio::test]
async fn a_server_without_health_does_not_pass() {
    let address = serve(Routes::default()).await;
    let check = GrpcCheck::connect(&format!("http://{address}"), "").unwrap();
    assert_eq!(told(&check).await, "fail protocol");
}

#[tokio::test]
async fn a_channel_with_interceptors_is_asked_with_them() {
    let with_key = |routes: HealthServer<AsAsked>| {
        tonic::service::interceptor::InterceptedService::new(routes, |request: Request<()>| {
            match request.metadata().get("api-key") {
                Some(_) => Ok(request),
                None => Err(Status::unauthenticated("no key")),
            }
        })
    };
    let address = serve(Routes::new(with_key(HealthServer::new(AsAsked)))).await;
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy();
    assert_eq!(told(&GrpcCheck::new(channel.clone(), "")).await, "fail auth");
    let keyed = tonic::service::interceptor::InterceptedService::new(channel, |mut request: Request<()>| {
        request.metadata_mut().insert("api-key", "k".parse().unwrap());
        Ok(request)
    });
    assert_eq!(told(&GrpcCheck::new(keyed, "")).await, "pass");
}
