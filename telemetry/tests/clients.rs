//! Outgoing calls, against real servers in the same process: a client's span and the server's are one trace, the outcome
//! is on the span, and context goes to nobody else.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use telemetry::client::Hosts;
use telemetry::{CapturedSpan, GrpcClientLayer, HttpClient, HttpClientLayer, Telemetry, TestTelemetry};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Service as _, ServiceBuilder, ServiceExt as _};
use tracing::Instrument as _;

fn of_kind(telemetry: &TestTelemetry, kind: i32) -> Vec<CapturedSpan> {
    telemetry.spans().into_iter().filter(|span| span.kind == kind).collect()
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn attributes(span: &CapturedSpan) -> HashMap<&str, &str> {
    let pairs = span.attributes.iter();
    pairs.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// What a test's server hears, and how it answers.
#[derive(Clone, Default)]
struct Heard {
    headers: Arc<std::sync::Mutex<Vec<HeaderMap>>>,
    calls: Arc<AtomicU32>,
}

impl Heard {
    fn last(&self) -> HeaderMap {
        self.headers.lock().unwrap().last().unwrap().clone()
    }
}

async fn listen() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    (listener, url)
}

/// A server with the server's layer: `/ok`, `/broken`, `/slow`.
async fn http_server(telemetry: &TestTelemetry) -> (Heard, String) {
    let heard = Heard::default();
    let hear = heard.clone();
    let app = axum::Router::new()
        .route("/ok", axum::routing::get(|| async { "fine" }))
        .route("/broken", axum::routing::get(|| async { StatusCode::BAD_GATEWAY }))
        .route("/slow", axum::routing::get(std::future::pending::<()>))
        .layer(telemetry.http_layer())
        .layer(axum::middleware::map_request(move |request: axum::extract::Request| {
            hear.headers.lock().unwrap().push(request.headers().clone());
            async { request }
        }));
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    (heard, url)
}

/// A gRPC server with the server's layer, that refuses the first `refusals` calls.
async fn grpc_server(telemetry: &TestTelemetry, refusals: u32) -> (Heard, Endpoint) {
    let heard = Heard::default();
    let (_, health) = tonic_health::server::health_reporter();
    let hear = heard.clone();
    let app = tonic::service::Routes::new(health)
        .into_axum_router()
        .layer(axum::middleware::from_fn(
            move |request: axum::extract::Request, next: axum::middleware::Next| {
                let hear = hear.clone();
                async move {
                    hear.headers.lock().unwrap().push(request.headers().clone());
                    if hear.calls.fetch_add(1, Ordering::SeqCst) < refusals {
                        return tonic::Status::unavailable("not yet").into_http::<axum::body::Body>();
                    }
                    next.run(request).await
                }
            },
        ))
        .layer(telemetry.grpc_layer());
    // The health service is not measured under its own name.
    let app = axum::Router::new().fallback_service(app);
    let (listener, url) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await });
    (heard, Endpoint::from_shared(url).unwrap())
}

fn check() -> tonic::Request<HealthCheckRequest> {
    tonic::Request::new(HealthCheckRequest { service: String::new() })
}

#[tokio::test]
async fn an_http_call_is_a_client_and_a_server_span_of_one_trace() {
    let telemetry = Telemetry::test();
    let (heard, url) = http_server(&telemetry).await;
    telemetry::init_tls();
    let client = HttpClient::new(reqwest::Client::new());
    let request = tracing::info_span!("request");
    let answer = client
        .send(client.plain().get(format!("{url}/ok?secret=1")))
        .instrument(request.clone())
        .await
        .unwrap();
    assert_eq!(answer.text().await.unwrap(), "fine");
    drop(request);
    let (client, server) = (
        of_kind(&telemetry, CLIENT).pop().unwrap(),
        of_kind(&telemetry, SERVER).pop().unwrap(),
    );
    assert_eq!((client.name.as_str(), client.is_error), ("GET", false));
    assert_eq!(
        (&server.trace_id, &server.parent_span_id),
        (&client.trace_id, &client.span_id)
    );
    let found = attributes(&client);
    assert_eq!(found["http.response.status_code"], "200");
    assert_eq!(found["server.address"], "localhost");
    assert_eq!(found["url.full"], format!("{url}/ok"), "without the query");
    assert!(heard.last()["traceparent"].to_str().unwrap().contains(&client.span_id));
    let parent = telemetry
        .spans()
        .into_iter()
        .find(|span| span.name == "request")
        .unwrap();
    assert_eq!(client.parent_span_id, parent.span_id);
}

#[tokio::test]
async fn an_http_call_that_fails_says_how() {
    let telemetry = Telemetry::test();
    let (_, url) = http_server(&telemetry).await;
    telemetry::init_tls();
    let client = HttpClient::new(reqwest::Client::new());
    client.send(client.plain().get(format!("{url}/broken"))).await.unwrap();
    let slow = client.send(client.plain().get(format!("{url}/slow")));
    assert!(tokio::time::timeout(Duration::from_millis(100), slow).await.is_err());
    let (listener, nowhere) = listen().await;
    drop(listener);
    assert!(client.send(client.plain().get(nowhere)).await.is_err());
    let calls = of_kind(&telemetry, CLIENT);
    let found: Vec<_> = calls
        .iter()
        .map(|call| (call.is_error, attributes(call)["error.type"]))
        .collect();
    assert_eq!(found, [(true, "502"), (true, "cancelled"), (true, "transport")]);
}

#[tokio::test]
async fn context_goes_to_listed_hosts_alone() {
    let telemetry = Telemetry::test();
    let (heard, url) = http_server(&telemetry).await;
    telemetry::init_tls();
    for (hosts, wanted) in [(vec!["localhost"], true), (vec!["*.internal"], false)] {
        let client = HttpClient::new(reqwest::Client::new()).inject_to(Hosts::only(hosts));
        client.send(client.plain().get(format!("{url}/ok"))).await.unwrap();
        assert_eq!(heard.last().contains_key("traceparent"), wanted);
    }
    assert_eq!(of_kind(&telemetry, CLIENT).len(), 2, "the span is made in any case");
}

#[tokio::test]
async fn any_http_client_that_is_a_service_can_have_the_layer() {
    let telemetry = Telemetry::test();
    let (heard, url) = http_server(&telemetry).await;
    let hyper = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<axum::body::Body>();
    let mut client = ServiceBuilder::new().layer(HttpClientLayer::new()).service(hyper);
    let request = http::Request::get(format!("{url}/broken")).body(axum::body::Body::empty());
    let answer = client.ready().await.unwrap().call(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 502);
    let call = of_kind(&telemetry, CLIENT).pop().unwrap();
    assert!(call.is_error && heard.last()["traceparent"].to_str().unwrap().contains(&call.span_id));
}

#[tokio::test]
async fn each_attempt_of_a_grpc_call_has_a_span_below_the_caller() {
    let telemetry = Telemetry::test();
    let (heard, endpoint) = grpc_server(&telemetry, 1).await;
    let retry = resilience::Retry::default().backoff(Duration::from_millis(1), Duration::from_millis(2));
    let policy = resilience::Pipeline::standard("health").retry(retry).build().unwrap();
    let channel = ServiceBuilder::new()
        .layer(resilience::grpc::GrpcLayer::new(policy).idempotent_methods(["grpc.health.v1.Health/Check"]))
        .layer(GrpcClientLayer::new().to(endpoint.uri()))
        .service(endpoint.connect_lazy());
    let request = tracing::info_span!("request");
    let mut client = HealthClient::new(channel);
    client.check(check()).instrument(request.clone()).await.unwrap();
    drop(request);
    let attempts = of_kind(&telemetry, CLIENT);
    let parent = telemetry
        .spans()
        .into_iter()
        .find(|span| span.name == "request")
        .unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    for (attempt, (headers, code)) in attempts
        .iter()
        .zip(heard.headers.lock().unwrap().iter().zip(["14", "0"]))
    {
        assert_eq!(attempt.name, "grpc.health.v1.Health/Check");
        assert_eq!(
            (&attempt.trace_id, &attempt.parent_span_id),
            (&parent.trace_id, &parent.span_id)
        );
        assert_eq!(
            (attributes(attempt)["rpc.grpc.status_code"], attempt.is_error),
            (code, code != "0")
        );
        assert!(headers["traceparent"].to_str().unwrap().contains(&attempt.span_id));
        assert_eq!(attributes(attempt)["server.address"], "localhost");
    }
}

#[tokio::test]
async fn a_grpc_call_that_nobody_answers_or_waits_for_says_so() {
    let telemetry = Telemetry::test();
    let (listener, url) = listen().await;
    let endpoint = Endpoint::from_shared(url).unwrap();
    let client =
        |channel: Channel| HealthClient::new(ServiceBuilder::new().layer(GrpcClientLayer::new()).service(channel));
    let pending = client(endpoint.connect_lazy());
    let waited = tokio::time::timeout(Duration::from_millis(100), async move {
        pending.clone().check(check()).await
    });
    assert!(waited.await.is_err());
    drop(listener);
    assert!(client(endpoint.connect_lazy()).check(check()).await.is_err());
    let codes: Vec<_> = of_kind(&telemetry, CLIENT)
        .iter()
        .map(|call| (attributes(call)["rpc.grpc.status_code"].to_owned(), call.is_error))
        .collect();
    assert_eq!(codes, [("1".to_owned(), true), ("14".to_owned(), true)]);
}
