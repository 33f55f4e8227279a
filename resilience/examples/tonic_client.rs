//! A tonic client under a pipeline. Its server, tonic's health service, comes up only after the first call was refused.

use std::sync::Arc;

use resilience::grpc::GrpcLayer;
use resilience::{Event, Jitter, Pipeline, Retry};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::ServiceBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let refused = Arc::new(Notify::new());
    let teller = Arc::clone(&refused);
    let policy = Pipeline::standard("payments")
        .retry(Retry::default().jitter(Jitter::None))
        .listener(move |event: &Event<'_>| {
            if matches!(event, Event::Retry { .. }) {
                teller.notify_one();
            }
        })
        .build()?;
    // Only what is listed is repeated; what was never sent is repeated always.
    let layer = GrpcLayer::new(policy.clone()).idempotent_methods(["grpc.health.v1.Health/Check"]);
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    let mut client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel));

    // Nobody listens yet: the server comes up before the second attempt.
    tokio::spawn(async move {
        refused.notified().await;
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("payments", ServingStatus::Serving).await;
        let incoming = TcpListenerStream::new(TcpListener::bind(address).await?);
        let server = Server::builder().add_service(service);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(server.serve_with_incoming(incoming).await?)
    });
    let ask = |service| HealthCheckRequest { service };
    let answer = client.check(ask("payments".to_owned())).await?.into_inner();
    assert_eq!(answer.status, ServingStatus::Serving as i32);
    let retries = policy.snapshot().retry.ok_or("no retries")?.retries;
    assert_eq!(retries.first(), Some(&("not_sent", 1)));

    // An answer, though no good one: neither a failure of the server nor a reason to try again.
    let unknown = client.check(ask("nobody".to_owned())).await;
    assert_eq!(unknown.err().map(|status| status.code()), Some(Code::NotFound));
    let calls = policy.snapshot().breaker.ok_or("no breaker")?.calls;
    assert_eq!(calls.success, 1);
    Ok(())
}
