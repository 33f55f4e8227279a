//! Limits of a gRPC server, with a real tonic server on a loopback port and a real client. The service is the standard
//! health service: `Check` is one answer, `Watch` a stream.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use http::request::Parts;
use resilience::tonic_server::{concurrency, limit, shed};
use resilience::{AdaptiveLimit, AdaptiveSettings, By, Classify, Priority, Rejected, ShedSettings, Shedder, Verdict};
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::Streaming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

fn shedder(limit: usize) -> Shedder {
    let settings = ShedSettings {
        limit: Some(limit),
        retry_after: Duration::from_millis(2_500),
        ..ShedSettings::default()
    };
    Shedder::new("api", &settings).unwrap()
}

/// Starts the health service behind a layer.
macro_rules! serve {
    ($layer:expr) => {{
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, service) = tonic_health::server::health_reporter();
        let server = Server::builder().layer($layer).add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        HealthClient::new(endpoint.connect().await.unwrap())
    }};
}

fn request(priority: &'static str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest::default());
    if !priority.is_empty() {
        request.metadata_mut().insert("x-priority", priority.parse().unwrap());
    }
    request
}

/// Opens a stream, which holds its place.
async fn watch(
    client: &HealthClient<Channel>,
    priority: &'static str,
) -> Result<Streaming<HealthCheckResponse>, Status> {
    client
        .clone()
        .watch(request(priority))
        .await
        .map(tonic::Response::into_inner)
}

async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_a_status_with_a_pushback() {
    let shedder = shedder(1);
    let mut client = serve!(shed(&shedder));
    client.check(request("")).await.unwrap();
    let _place = shedder.admit(Priority::Critical).unwrap();
    let refused = client.check(request("critical")).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::ResourceExhausted | Code::Unavailable),
        "{refused:?}"
    );
    assert_eq!(refused.metadata().get("grpc-retry-pushback-ms").unwrap(), "2500");
    // Our own client side takes it for what it is.
    let verdict = Classify::<(), Status>::classify(&resilience::grpc::GrpcClassify, Err(&refused));
    let hint = Some(Duration::from_millis(2_500));
    assert_eq!(verdict, Verdict::Overload { hint });
}

#[tokio::test]
async fn a_stream_keeps_its_place_until_it_is_dropped() {
    let shedder = shedder(1);
    let mut client = serve!(shed(&shedder));
    let mut stream = watch(&client, "").await.unwrap();
    stream.message().await.unwrap().unwrap();
    assert_eq!(shedder.snapshot().in_flight, 1);
    assert!(client.check(request("critical")).await.is_err());
    drop(stream);
    until(|| shedder.snapshot().in_flight == 0).await;
    client.check(request("low")).await.unwrap();
    until(|| shedder.snapshot().in_flight == 0).await;
}

#[tokio::test]
async fn the_metadata_says_the_priority() {
    let shedder = shedder(10);
    let client = serve!(shed(&shedder));
    let mut streams = Vec::new();
    for (priority, room) in [("low", 5), ("", 3), ("high", 1), ("critical", 1)] {
        for _ in 0..room {
            streams.push(watch(&client, priority).await.unwrap());
        }
        assert!(watch(&client, priority).await.is_err(), "{priority}");
    }
    let snapshot = shedder.snapshot();
    assert_eq!(snapshot.in_flight, 10);
    assert!(snapshot.shed.values().all(|&count| count == 1), "{snapshot:?}");
}

#[tokio::test]
async fn a_rate_limit_refuses_by_what_the_request_says() {
    let mut client = serve!(limit(|request: &Parts| {
        if request.uri.path().ends_with("/Check") {
            let name = "checks".into();
            let (by, retry_after) = (By::RateLimit, None);
            return Err(Rejected { by, name, retry_after });
        }
        Ok(())
    }));
    let refused = client.check(request("")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.metadata().get("grpc-retry-pushback-ms").is_none());
    assert!(watch(&client, "").await.is_ok());
}

#[tokio::test]
async fn the_limit_learns_from_the_status() {
    let settings = AdaptiveSettings {
        initial: 100,
        ..AdaptiveSettings::default()
    };
    let limiter = AdaptiveLimit::new("api", settings).unwrap();
    // What is unknown is NOT_FOUND: an answer.
    let mut client = serve!(concurrency(&limiter));
    let unknown = HealthCheckRequest {
        service: "unknown".to_owned(),
    };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
    client.check(request("")).await.unwrap();
    until(|| limiter.snapshot().in_flight == 0).await;
    assert_eq!((limiter.snapshot().limit, limiter.snapshot().dropped), (100, 0));
    // The service says that it is overloaded.
    let mut client = serve!(tower::layer::layer_fn({
        let limiter = limiter.clone();
        move |inner: tonic::service::Routes| {
            let overloaded = tower::util::MapResponse::new(inner, |_| {
                Status::unavailable("too much").into_http::<tonic::body::Body>()
            });
            tower::Layer::layer(&concurrency(&limiter), overloaded)
        }
    }));
    assert_eq!(client.check(request("")).await.unwrap_err().code(), Code::Unavailable);
    until(|| limiter.snapshot().in_flight == 0).await;
    assert_eq!((limiter.snapshot().limit, limiter.snapshot().dropped), (90, 1));
}
