//! The gRPC layer against real servers on loopback. The tables follow grpc-go's `test/retry_test.go`
//! (`TestRetryStreaming`, `TestMaxCallAttempts`, `TestRetryTransparentWhenCommitted`), written afresh.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, HeaderValue};
use resilience::grpc::{GrpcLayer, GrpcService, MAX_ATTEMPTS, deadline_in};
use resilience::{Deadline, Jitter, Pipeline, PipelineBuilder, Retry, State};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{ServiceBuilder, ServiceExt as _};

const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// What the server does with one call.
#[derive(Clone)]
enum Reply {
    Answer,
    Fail(Status),
    Hang,
    /// Of a stream: headers, this many messages, and this status as trailers.
    Messages(usize, Code),
    /// Of a stream: headers, one message, and nothing more.
    Stop,
}

fn fail(code: Code) -> Reply {
    Reply::Fail(Status::new(code, "as told"))
}

fn pushback(code: Code, values: &[&str]) -> Reply {
    let mut status = Status::new(code, "as told");
    for value in values {
        status
            .metadata_mut()
            .append("grpc-retry-pushback-ms", value.parse().unwrap());
    }
    Reply::Fail(status)
}

fn retry_info(code: Code, delay: Duration) -> Reply {
    let details = ErrorDetails::with_retry_info(Some(delay));
    Reply::Fail(Status::with_error_details(code, "as told", details))
}

/// Replies in turn, the last one for ever; keeps the time that each call announced.
#[derive(Clone)]
struct Script {
    replies: Arc<[Reply]>,
    calls: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Script {
    fn next(&self, headers: &HeaderMap) -> Reply {
        let mut calls = self.calls.lock().unwrap();
        calls.push(deadline_in(headers).map(Deadline::remaining));
        self.replies[(calls.len() - 1).min(self.replies.len() - 1)].clone()
    }
}

#[tonic::async_trait]
impl Health for Script {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.next(request.metadata().as_ref()) {
            Reply::Answer => Ok(Response::new(HealthCheckResponse { status: 1 })),
            Reply::Fail(status) => Err(status),
            _ => std::future::pending().await,
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        use futures::StreamExt as _;
        let messages = |count| futures::stream::iter(vec![Ok(HealthCheckResponse { status: 1 }); count]);
        match self.next(request.metadata().as_ref()) {
            Reply::Fail(status) => Err(status),
            Reply::Messages(count, Code::Ok) => Ok(Response::new(Box::pin(messages(count)))),
            Reply::Messages(count, code) => {
                let end = futures::stream::iter([Err(Status::new(code, "in the trailers"))]);
                Ok(Response::new(Box::pin(messages(count).chain(end))))
            }
            _ => Ok(Response::new(Box::pin(messages(1).chain(futures::stream::pending())))),
        }
    }
}

struct Fixture {
    client: HealthClient<GrpcService<Channel>>,
    policy: Pipeline,
    calls: Arc<Mutex<Vec<Option<Duration>>>>,
}

impl Fixture {
    async fn start(replies: &[Reply], policy: PipelineBuilder) -> Self {
        Self::with(
            replies,
            policy,
            |layer| layer.idempotent_methods([CHECK, WATCH]),
            |endpoint| endpoint,
        )
        .await
    }

    async fn with(
        replies: &[Reply],
        policy: PipelineBuilder,
        layer: impl FnOnce(GrpcLayer) -> GrpcLayer,
        endpoint: impl FnOnce(Endpoint) -> Endpoint,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script {
            replies: replies.into(),
            calls: Arc::default(),
        };
        let calls = Arc::clone(&script.calls);
        let server = Server::builder().add_service(HealthServer::new(script));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let policy = policy.build().unwrap();
        let channel = endpoint(Endpoint::from_shared(url).unwrap()).connect_lazy();
        let layer = layer(GrpcLayer::new(policy.clone()));
        let client = HealthClient::new(ServiceBuilder::new().layer(layer).service(channel));
        Self { client, policy, calls }
    }

    async fn check(&self) -> Code {
        let result = self.client.clone().check(HealthCheckRequest::default()).await;
        result.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    /// Messages that a stream brought, and how it ended.
    async fn watch(&self) -> (usize, Code) {
        let mut stream = match self.client.clone().watch(HealthCheckRequest::default()).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (0, status.code()),
        };
        let mut count = 0;
        loop {
            match stream.message().await {
                Ok(Some(_)) => count += 1,
                Ok(None) => return (count, Code::Ok),
                Err(status) => return (count, status.code()),
            }
        }
    }

    fn calls(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    /// Successes and failures that the breaker counted.
    fn counted(&self) -> (u64, u64) {
        let calls = self.policy.breaker().unwrap().snapshot().calls;
        (calls.success, calls.failure)
    }

    fn retries(&self, reason: &str) -> u64 {
        let retries = self.policy.snapshot().retry.unwrap().retries;
        retries.iter().find(|(name, _)| *name == reason).unwrap().1
    }
}

fn retry() -> Retry {
    Retry::default()
        .backoff(Duration::from_millis(1), Duration::from_millis(1))
        .jitter(Jitter::None)
        .without_budget()
}

fn quick() -> PipelineBuilder {
    Pipeline::standard("test").retry(retry())
}

#[tokio::test]
async fn the_headers_decide_on_another_attempt() {
    use Code::{Aborted, FailedPrecondition, Internal, NotFound, Ok, ResourceExhausted, Unavailable, Unknown};
    let second = Duration::from_millis(1);
    // First reply, how the call ends when the second would succeed, calls that the server sees.
    let table = [
        (Reply::Answer, Ok, 1),
        (fail(Unavailable), Ok, 2),
        (fail(Internal), Internal, 1),
        (fail(Unknown), Unknown, 1),
        (fail(NotFound), NotFound, 1),
        (fail(FailedPrecondition), FailedPrecondition, 1),
        (fail(Aborted), Aborted, 1),
        (fail(ResourceExhausted), ResourceExhausted, 1),
        (pushback(Unavailable, &["0"]), Ok, 2),
        (pushback(Unavailable, &["5"]), Ok, 2),
        (pushback(ResourceExhausted, &["5"]), Ok, 2),
        (pushback(NotFound, &["5"]), NotFound, 1),
        (pushback(Unavailable, &["-1"]), Unavailable, 1),
        (pushback(Unavailable, &["abc"]), Unavailable, 1),
        (pushback(Unavailable, &["1.5"]), Unavailable, 1),
        (pushback(Unavailable, &["99999999999"]), Unavailable, 1),
        (pushback(Unavailable, &["5", "5"]), Unavailable, 1),
        // Longer than the call may take: the answer now, not later.
        (pushback(Unavailable, &["3600000"]), Unavailable, 1),
        (retry_info(ResourceExhausted, second), Ok, 2),
        (retry_info(Unavailable, Duration::from_secs(3600)), Unavailable, 1),
    ];
    for (row, (reply, code, calls)) in table.into_iter().enumerate() {
        let fixture = Fixture::start(&[reply, Reply::Answer], quick()).await;
        assert_eq!((fixture.check().await, fixture.calls()), (code, calls), "row {row}");
    }
}

#[tokio::test]
async fn what_comes_after_the_headers_is_not_repeated_but_the_breaker_learns_it() {
    use Code::{Internal, NotFound, Ok, Unavailable};
    // The stream, and what the breaker counts: successes, failures.
    let table = [
        (3, Ok, (1, 0)),
        (0, Ok, (1, 0)),
        (2, Unavailable, (0, 1)),
        (0, Unavailable, (0, 1)),
        (1, Internal, (0, 1)),
        (1, NotFound, (0, 0)),
    ];
    for (messages, code, counted) in table {
        let replies = [Reply::Messages(messages, code), Reply::Messages(9, Ok)];
        let fixture = Fixture::start(&replies, quick()).await;
        assert_eq!(fixture.watch().await, (messages, code));
        assert_eq!(
            (fixture.calls(), fixture.counted()),
            (1, counted),
            "{messages} {code:?}"
        );
    }
    // A failure with the headers alone is repeated for a stream too.
    let fixture = Fixture::start(&[fail(Unavailable), Reply::Messages(2, Ok)], quick()).await;
    assert_eq!((fixture.watch().await, fixture.calls()), ((2, Ok), 2));
    assert_eq!(fixture.counted(), (1, 1));
}

#[tokio::test]
async fn failures_in_the_trailers_open_the_breaker() {
    let fixture = Fixture::start(&[Reply::Messages(1, Code::Unavailable)], quick()).await;
    for _ in 0..20 {
        assert_eq!(fixture.watch().await, (1, Code::Unavailable));
    }
    assert_eq!(fixture.watch().await, (0, Code::Unavailable));
    assert_eq!(fixture.calls(), 20, "the last one was refused here");
}

#[tokio::test]
async fn a_stream_that_nobody_reads_to_its_end_is_neither_success_nor_failure() {
    let fixture = Fixture::start(&[Reply::Stop], quick()).await;
    let stream = fixture
        .client
        .clone()
        .watch(HealthCheckRequest::default())
        .await
        .unwrap();
    drop(stream);
    assert_eq!(fixture.counted(), (0, 0));
    let counts = fixture.policy.breaker().unwrap().snapshot().calls;
    assert_eq!(counts.cancelled, 1);
}

#[tokio::test]
async fn an_answer_that_stops_ends_with_the_attempts_deadline() {
    let policy = quick().attempt_timeout(Duration::from_millis(200));
    let fixture = Fixture::start(&[Reply::Stop], policy).await;
    assert_eq!(fixture.watch().await, (1, Code::DeadlineExceeded));
    assert_eq!((fixture.calls(), fixture.counted()), (1, (0, 1)));
}

#[tokio::test]
async fn only_listed_methods_are_repeated_unless_the_server_did_nothing() {
    let hint = pushback(Code::Unavailable, &["1"]);
    for (reply, calls) in [(fail(Code::Unavailable), 1), (hint, 2)] {
        let replies = [reply, Reply::Answer];
        let fixture = Fixture::with(
            &replies,
            quick(),
            |layer| layer.idempotent_methods([WATCH]),
            |same| same,
        )
        .await;
        fixture.check().await;
        assert_eq!(fixture.calls(), calls);
    }
}

#[tokio::test]
async fn a_request_longer_than_the_cap_is_sent_once() {
    for (length, calls) in [(10, 2), (100, 1)] {
        let replies = [fail(Code::Unavailable), Reply::Answer];
        let layer = |layer: GrpcLayer| layer.idempotent_methods([CHECK]).replay_up_to(50);
        let fixture = Fixture::with(&replies, quick(), layer, |same| same).await;
        let service = "x".repeat(length);
        let result = fixture.client.clone().check(HealthCheckRequest { service }).await;
        assert_eq!((result.is_ok(), fixture.calls()), (calls == 2, calls));
    }
}

#[tokio::test]
async fn there_are_five_attempts_at_most() {
    let many = || Pipeline::standard("test").retry(retry().max(20)).without_breaker();
    let fixture = Fixture::start(&[fail(Code::Unavailable)], many()).await;
    assert_eq!(fixture.check().await, Code::Unavailable);
    assert_eq!(fixture.calls(), MAX_ATTEMPTS as usize);

    let fixture = Fixture::start(&[Reply::Hang], many().attempt_timeout(Duration::from_millis(20))).await;
    // The server knows the limit too, and may be the first to say so.
    let code = fixture.check().await;
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    assert_eq!(fixture.calls(), MAX_ATTEMPTS as usize);
}

#[tokio::test]
async fn tonics_own_timeout_is_a_timeout() {
    let layer = |layer: GrpcLayer| layer.idempotent_methods([CHECK]);
    let endpoint = |endpoint: Endpoint| endpoint.timeout(Duration::from_millis(50));
    let fixture = Fixture::with(&[Reply::Hang, Reply::Answer], quick(), layer, endpoint).await;
    assert_eq!((fixture.check().await, fixture.calls()), (Code::Ok, 2));
    assert_eq!((fixture.retries("timeout"), fixture.counted()), (1, (1, 1)));
}

#[tokio::test]
async fn every_attempt_announces_the_time_it_has_left() {
    let policy = quick().attempt_timeout(Duration::from_secs(7));
    let replies = [fail(Code::Unavailable), Reply::Answer];
    let fixture = Fixture::start(&replies, policy).await;
    fixture.check().await;
    for announced in &*fixture.calls.lock().unwrap() {
        let announced = announced.unwrap();
        assert!((6000..=7000).contains(&announced.as_millis()), "{announced:?}");
    }
    // The caller's own limit stays when it is shorter.
    let mut request = Request::new(HealthCheckRequest::default());
    request.set_timeout(Duration::from_secs(2));
    fixture.client.clone().check(request).await.unwrap();
    let announced = fixture.calls.lock().unwrap().pop().unwrap().unwrap();
    assert!(announced <= Duration::from_secs(2), "{announced:?}");
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_whatever_the_method() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let policy = quick().build().unwrap();
    let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
    let layer = ServiceBuilder::new().layer(GrpcLayer::new(policy.clone()));
    let mut client = HealthClient::new(layer.service(channel));
    let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let retries = policy.snapshot().retry.unwrap().retries;
    assert!(retries.contains(&("not_sent", 2)), "{retries:?}");
}

/// What a server of bare HTTP/2 does with one stream.
#[derive(Clone)]
enum Frames {
    Refuse,
    /// Headers, and only then a refusal.
    HeadersAndRefuse,
    /// Headers alone with these.
    Headers(u16, Vec<(&'static str, &'static str)>),
    Answer,
}

async fn bare(replies: Vec<Frames>, policy: PipelineBuilder) -> (Code, usize, Pipeline) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let calls = Arc::new(Mutex::new(0));
    let count = Arc::clone(&calls);
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let number = *count.lock().unwrap();
            *count.lock().unwrap() += 1;
            let mut response = http::Response::new(());
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("application/grpc"));
            match replies[number.min(replies.len() - 1)].clone() {
                Frames::Refuse => respond.send_reset(h2::Reason::REFUSED_STREAM),
                Frames::HeadersAndRefuse => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        stream.send_reset(h2::Reason::REFUSED_STREAM);
                    });
                }
                Frames::Headers(status, more) => {
                    headers.extend(more.into_iter().map(|(name, value)| {
                        (
                            name.parse::<http::HeaderName>().unwrap(),
                            HeaderValue::from_static(value),
                        )
                    }));
                    *response.status_mut() = status.try_into().unwrap();
                    respond.send_response(response, true).unwrap();
                }
                Frames::Answer => {
                    let mut stream = respond.send_response(response, false).unwrap();
                    stream
                        .send_data(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]), false)
                        .unwrap();
                    let trailers = [("grpc-status", "0")];
                    let trailers =
                        trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
                    stream.send_trailers(trailers.into_iter().collect()).unwrap();
                }
            }
        }
    });
    let policy = policy.build().unwrap();
    let channel = Endpoint::from_shared(url).unwrap().connect_lazy();
    let layer = ServiceBuilder::new().layer(GrpcLayer::new(policy.clone()));
    let mut client = HealthClient::new(layer.service(channel));
    let result = client.check(HealthCheckRequest::default()).await;
    let calls = *calls.lock().unwrap();
    (result.map_or_else(|status| status.code(), |_| Code::Ok), calls, policy)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_and_counts_as_no_retry() {
    for (refused, counted) in [(1, 0), (2, 1)] {
        let mut replies = vec![Frames::Refuse; refused];
        replies.push(Frames::Answer);
        let (code, calls, policy) = bare(replies, quick()).await;
        let retries = policy.snapshot().retry.unwrap().retries;
        assert_eq!((code, calls), (Code::Ok, refused + 1));
        assert!(retries.contains(&("not_sent", counted)), "{retries:?}");
    }
    let (code, calls, _) = bare(vec![Frames::Refuse], quick().without_retry()).await;
    assert_eq!((code, calls), (Code::Unavailable, 2), "once, not for ever");
}

#[tokio::test]
async fn a_stream_refused_after_its_headers_is_committed() {
    let (code, calls, policy) = bare(vec![Frames::HeadersAndRefuse, Frames::Answer], quick()).await;
    assert_eq!((code, calls), (Code::Unavailable, 1));
    assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, 1);
}

#[tokio::test]
async fn answers_that_are_no_grpc_are_read_by_their_status() {
    for (status, code, failures) in [
        (503, Code::Unavailable, 1),
        (429, Code::Unavailable, 1),
        (404, Code::Unimplemented, 0),
        (500, Code::Unknown, 1),
    ] {
        let (seen, calls, policy) = bare(vec![Frames::Headers(status, vec![])], quick()).await;
        assert_eq!((seen, calls), (code, 1), "{status}");
        assert_eq!(policy.breaker().unwrap().snapshot().calls.failure, failures, "{status}");
    }
}

#[tokio::test]
async fn details_that_are_no_base64_hurt_nobody() {
    let headers = vec![("grpc-status", "14"), ("grpc-status-details-bin", "!no base64!")];
    let (code, calls, _) = bare(vec![Frames::Headers(200, headers)], quick()).await;
    assert_eq!((code, calls), (Code::Unavailable, 1));
}

#[tokio::test]
async fn the_layer_is_a_service_like_any_other() {
    // Two services of one layer share the policy.
    let policy = quick().build().unwrap();
    policy.breaker().unwrap().force_open();
    let layer = GrpcLayer::new(policy);
    for _ in 0..2 {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let service = ServiceBuilder::new().layer(layer.clone()).service(channel);
        let request = http::Request::post("/a.B/C").body(tonic::body::Body::empty()).unwrap();
        let status = service.oneshot(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "the circuit breaker of test refused the call");
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_probes_waits_for_the_trailers_too() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let service = tower::service_fn(move |_: http::Request<tonic::body::Body>| {
        let status = if state.load(std::sync::atomic::Ordering::SeqCst) {
            "0"
        } else {
            "14"
        };
        let trailers: HeaderMap = [("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]
            .into_iter()
            .collect();
        let frames = [Ok::<_, std::io::Error>(http_body::Frame::<Bytes>::trailers(trailers))];
        let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
        async { Ok::<_, std::io::Error>(http::Response::new(body)) }
    });
    let policy = quick().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(GrpcLayer::new(policy.clone()))
        .service(service);
    let call = || async {
        let request = http::Request::post("/a.B/C").body(tonic::body::Body::empty()).unwrap();
        let response = client.clone().oneshot(request).await?;
        http_body_util::BodyExt::collect(response.into_body()).await
    };
    let breaker = policy.breaker().unwrap();
    for _ in 0..20 {
        call().await.unwrap();
    }
    assert_eq!(breaker.state(), State::Open);
    assert!(call().await.is_err());
    tokio::time::advance(Duration::from_secs(7)).await;
    // Three probes whose headers look well, and whose trailers do not.
    for _ in 0..3 {
        let _ = call().await;
    }
    assert_eq!(breaker.state(), State::Open);
    healthy.store(true, std::sync::atomic::Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(60)).await;
    for _ in 0..3 {
        call().await.unwrap();
    }
    assert_eq!(breaker.state(), State::Closed);
}
