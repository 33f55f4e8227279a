//! The gRPC layer against tonic's server and one of bare HTTP/2, over connections in memory: with them a paused clock
//! stands still while anything is left to be done. The tables follow grpc-go's `test/retry_test.go`
//! (`TestRetryThrottling`, `TestRetryStreaming`, `TestMaxCallAttempts`, `TestRetryTransparentWhenCommitted`) and
//! linkerd2-proxy's `linkerd/app/outbound/src/http/logical/tests/{timeouts,failure_accrual}.rs`, written afresh.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "grpc_layer/answers.rs"]
mod answers;
#[path = "grpc_layer/server.rs"]
mod server;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use resilience::grpc::{GrpcLayer, MAX_ATTEMPTS};
use resilience::{Breaker, Budget, Deadline, Pipeline, State};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{ServiceBuilder, ServiceExt as _};

use self::server::*;

#[tokio::test(start_paused = true)]
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
        let fixture = Fixture::start(&[reply, Reply::Answer], quick());
        assert_eq!((fixture.check().await, fixture.calls()), (code, calls), "row {row}");
    }
}

#[tokio::test(start_paused = true)]
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
        let fixture = Fixture::start(&replies, quick());
        assert_eq!(fixture.watch().await, (messages, code));
        assert_eq!(
            (fixture.calls(), fixture.counted()),
            (1, counted),
            "{messages} {code:?}"
        );
    }
    // A failure with the headers alone is repeated for a stream too.
    let fixture = Fixture::start(&[fail(Unavailable), Reply::Messages(2, Ok)], quick());
    assert_eq!((fixture.watch().await, fixture.calls()), ((2, Ok), 2));
    assert_eq!(fixture.counted(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn failures_in_the_trailers_open_the_breaker() {
    let fixture = Fixture::start(&[Reply::Messages(1, Code::Unavailable)], quick());
    for _ in 0..20 {
        assert_eq!(fixture.watch().await, (1, Code::Unavailable));
    }
    assert_eq!(fixture.watch().await, (0, Code::Unavailable));
    assert_eq!(fixture.calls(), 20, "the last one was refused here");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_to_its_end_is_neither_success_nor_failure() {
    let fixture = Fixture::start(&[Reply::Stop], quick());
    let stream = fixture
        .client
        .clone()
        .watch(HealthCheckRequest::default())
        .await
        .unwrap();
    drop(stream);
    assert_eq!(fixture.counted(), (0, 0));
    assert_eq!(fixture.outcomes(), only(|counts| counts.cancelled = 1));
}

/// In the spirit of linkerd2-proxy's `timeouts.rs`: headers, then nothing.
#[tokio::test(start_paused = true)]
async fn an_answer_that_stops_ends_with_the_calls_deadline() {
    // The attempt's limit and the call's; when the stream ends.
    for (attempt, total, end) in [(1, 5, 5), (5, 5, 5), (2, 9, 9)] {
        let policy = quick().attempt_timeout(secs(attempt)).total_timeout(secs(total));
        let fixture = Fixture::start(&[Reply::Stop], policy);
        let began = Instant::now();
        assert_eq!(fixture.watch().await, (1, Code::DeadlineExceeded));
        assert_eq!(began.elapsed().as_secs(), end);
        assert_eq!(fixture.calls(), 1);
        assert_eq!(fixture.outcomes(), only(|counts| counts.failure = 1));
    }
    // The caller's deadline holds too, with a total limit of the policy's own and without one.
    for policy in [quick().attempt_timeout(secs(1)), Pipeline::builder("test")] {
        let fixture = Fixture::start(&[Reply::Stop], policy);
        let began = Instant::now();
        let end = Deadline::after(secs(3)).scope(fixture.watch()).await;
        assert_eq!((end, began.elapsed().as_secs()), ((1, Code::DeadlineExceeded), 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_time_limits_lives_as_long_as_it_likes() {
    let policy = Pipeline::builder("test").breaker(Breaker::builder("test"));
    let fixture = Fixture::start(&[Reply::Slow(secs(86_400), Code::Ok)], policy);
    assert_eq!(fixture.watch().await, (2, Code::Ok));
    assert_eq!(fixture.outcomes(), only(|counts| counts.success = 1));
}

#[tokio::test(start_paused = true)]
async fn only_listed_methods_are_repeated_unless_the_server_did_nothing() {
    let hint = pushback(Code::Unavailable, &["1"]);
    for (reply, calls) in [(fail(Code::Unavailable), 1), (hint, 2)] {
        let replies = [reply, Reply::Answer];
        let fixture = Fixture::with(
            &replies,
            quick(),
            |layer| layer.idempotent_methods([WATCH]),
            |same| same,
        );
        fixture.check().await;
        assert_eq!(fixture.calls(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_longer_than_the_cap_is_sent_once() {
    for (length, calls) in [(10, 2), (100, 1)] {
        let replies = [fail(Code::Unavailable), Reply::Answer];
        let layer = |layer: GrpcLayer| layer.idempotent_methods([CHECK]).replay_up_to(50);
        let fixture = Fixture::with(&replies, quick(), layer, |same| same);
        let service = "x".repeat(length);
        let result = fixture.client.clone().check(HealthCheckRequest { service }).await;
        assert_eq!((result.is_ok(), fixture.calls()), (calls == 2, calls));
    }
}

#[tokio::test(start_paused = true)]
async fn there_are_five_attempts_at_most() {
    let many = || Pipeline::standard("test").retry(retry().max(20)).without_breaker();
    let fixture = Fixture::start(&[fail(Code::Unavailable)], many());
    assert_eq!(fixture.check().await, Code::Unavailable);
    assert_eq!(fixture.calls(), MAX_ATTEMPTS as usize);

    let fixture = Fixture::start(&[Reply::Hang], many().attempt_timeout(Duration::from_millis(20)));
    // The server knows the limit too, and may be the first to say so.
    let code = fixture.check().await;
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    assert_eq!(fixture.calls(), MAX_ATTEMPTS as usize);
}

#[tokio::test(start_paused = true)]
async fn tonics_own_timeout_is_a_timeout() {
    let layer = |layer: GrpcLayer| layer.idempotent_methods([CHECK]);
    let endpoint = |endpoint: Endpoint| endpoint.timeout(Duration::from_millis(50));
    let fixture = Fixture::with(&[Reply::Hang, Reply::Answer], quick(), layer, endpoint);
    assert_eq!((fixture.check().await, fixture.calls()), (Code::Ok, 2));
    assert_eq!((fixture.retries("timeout"), fixture.counted()), (1, (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_announces_the_time_it_has_left() {
    let policy = quick().attempt_timeout(Duration::from_secs(7));
    let replies = [fail(Code::Unavailable), Reply::Answer];
    let fixture = Fixture::start(&replies, policy);
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

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
async fn a_stream_refused_after_its_headers_is_committed() {
    let (code, calls, policy) = bare(
        vec![Frames::HeadersAndReset(h2::Reason::REFUSED_STREAM), Frames::Answer],
        quick(),
    )
    .await;
    assert_eq!((code, calls), (Code::Unavailable, 1));
    assert_eq!(
        policy.breaker().unwrap().snapshot().calls,
        only(|counts| counts.failure = 1)
    );
}

#[tokio::test(start_paused = true)]
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

#[tokio::test(start_paused = true)]
async fn details_that_are_no_base64_hurt_nobody() {
    let headers = vec![("grpc-status", "14"), ("grpc-status-details-bin", "!no base64!")];
    let (code, calls, _) = bare(vec![Frames::Headers(200, headers)], quick()).await;
    assert_eq!((code, calls), (Code::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
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

/// `TestRetryThrottling`: ten tokens, half a token for a success. Calls that fail for good take none in grpc-go; here
/// they take one, as every failure of an attempt does.
#[tokio::test(start_paused = true)]
async fn tokens_are_taken_by_failures_and_given_back_by_successes() {
    let retry = retry().max(1).budget(Budget::tokens(10.0, 0.5).unwrap());
    // Whether the attempts fail, and the calls that the server sees then.
    let table = [
        (true, 2),  // 8
        (true, 2),  // 6
        (true, 1),  // 5: half of them are gone
        (true, 1),  // 4
        (false, 1), // 4.5
        (false, 1), // 5
        (true, 1),  // 4
        (false, 1), // 4.5
        (false, 1), // 5
        (false, 1), // 5.5
        (false, 1), // 6
        (false, 1), // 6.5
        (true, 2),  // 5.5, and another attempt: 4.5
    ];
    let replies: Vec<_> = table
        .iter()
        .flat_map(|(fails, calls)| vec![if *fails { fail(Code::Unavailable) } else { Reply::Answer }; *calls])
        .collect();
    let policy = Pipeline::builder("test").total_timeout(secs(30)).retry(retry);
    let fixture = Fixture::start(&replies, policy);
    let mut seen = 0;
    for (row, (fails, calls)) in table.into_iter().enumerate() {
        assert_eq!(fixture.check().await == Code::Unavailable, fails, "row {row}");
        assert_eq!(fixture.calls() - seen, calls, "row {row}");
        seen += calls;
    }
}

/// The rest of `TestRetryStreaming`: what a client sends, and what is left of the attempts.
#[tokio::test(start_paused = true)]
async fn attempts_of_a_stream_are_counted_and_spaced() {
    use Code::{Internal, Ok, Unavailable};
    let after = |millis: &str| pushback(Unavailable, &[millis]);
    // Replies in turn; how the stream ends, the calls that the server sees, and the wait in milliseconds.
    let table = [
        (
            vec![fail(Unavailable), fail(Unavailable), Reply::Messages(2, Ok)],
            (2, Ok),
            3,
            2,
        ),
        (vec![fail(Unavailable); 4], (0, Unavailable), 3, 2),
        (vec![fail(Unavailable), fail(Internal)], (0, Internal), 2, 1),
        (
            vec![fail(Unavailable), Reply::Messages(1, Unavailable)],
            (1, Unavailable),
            2,
            1,
        ),
        (vec![after("200"), Reply::Messages(1, Ok)], (1, Ok), 2, 200),
        (
            vec![after("200"), after("300"), Reply::Messages(1, Ok)],
            (1, Ok),
            3,
            500,
        ),
        (vec![after("200"), after("-1")], (0, Unavailable), 2, 200),
        (
            vec![after("200"), fail(Unavailable), Reply::Messages(1, Ok)],
            (1, Ok),
            3,
            201,
        ),
    ];
    for (row, (replies, end, calls, wait)) in table.into_iter().enumerate() {
        let fixture = Fixture::start(&replies, quick());
        let began = Instant::now();
        assert_eq!((fixture.watch().await, fixture.calls()), (end, calls), "row {row}");
        let waited = began.elapsed().as_millis();
        assert!((wait..wait + 10).contains(&waited), "row {row}: {waited} ms");
    }
}
