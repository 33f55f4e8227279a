//! HTTP and gRPC: what answers mean, which requests may be repeated, and deadlines on the wire.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use resilience::grpc::{DeadlineLayer, GrpcClassify, deadline_in, deadline_out};
use resilience::http::{HttpClassify, ReplayBody, retry_after, safety};
use resilience::{By, Classify, Deadline, Error, Kind, Pipeline, Rejected, Safety, Verdict};
use tonic::{Code, Status};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

fn http_verdict(status: u16, headers: &[(&'static str, &'static str)]) -> Verdict {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    Classify::<_, std::io::Error>::classify(&HttpClassify, Ok(&response))
}

#[test]
fn http_statuses_are_classified() {
    for status in [200, 204, 301, 304] {
        assert_eq!(http_verdict(status, &[]), Verdict::Success, "{status}");
    }
    for status in [400, 401, 404, 409, 422] {
        assert_eq!(http_verdict(status, &[]), Verdict::Ignore, "{status}");
    }
    for status in [408, 425, 500, 502, 503, 504] {
        assert_eq!(http_verdict(status, &[]), Verdict::Failure(Kind::Transient), "{status}");
    }
    assert_eq!(http_verdict(501, &[]), Verdict::Failure(Kind::Permanent));
    assert_eq!(http_verdict(429, &[]), Verdict::Overload { hint: None });
    let hint = Some(Duration::from_secs(7));
    assert_eq!(http_verdict(503, &[("retry-after", "7")]), Verdict::Overload { hint });
}

#[test]
fn posts_are_repeated_only_with_an_idempotency_key() {
    let mut headers = HeaderMap::new();
    assert_eq!(safety(&Method::GET, &headers), Safety::Idempotent);
    assert_eq!(safety(&Method::POST, &headers), Safety::Unsafe);
    assert_eq!(safety(&Method::PATCH, &headers), Safety::Unsafe);
    headers.insert("idempotency-key", HeaderValue::from_static("k"));
    assert_eq!(safety(&Method::POST, &headers), Safety::Idempotent);
}

#[test]
fn a_retry_after_that_is_no_number_is_no_hint() {
    let mut headers = HeaderMap::new();
    for text in ["", "-1", "soon", "1.5"] {
        headers.insert("retry-after", HeaderValue::from_str(text).unwrap());
        assert_eq!(retry_after(&headers), None, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_http_layer_sends_the_same_body_again() {
    let policy = Pipeline::standard("p").build().unwrap();
    let bodies = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = std::sync::Arc::clone(&bodies);
    let server = tower::service_fn(move |request: Request<ReplayBody>| {
        let seen = std::sync::Arc::clone(&seen);
        async move {
            let size = http_body::Body::size_hint(request.body()).exact();
            let mut seen = seen.lock().unwrap();
            seen.push(size);
            let status = if seen.len() == 1 { 503 } else { 200 };
            Response::builder()
                .status(status)
                .body(())
                .map_err(std::io::Error::other)
        }
    });
    let mut client = ServiceBuilder::new()
        .layer(policy.layer().classify(HttpClassify))
        .service(server);
    let request = Request::put("/").body(ReplayBody::from("hello")).unwrap();
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(*bodies.lock().unwrap(), [Some(5), Some(5)]);
    let request = Request::post("/").body(ReplayBody::from("hello")).unwrap();
    bodies.lock().unwrap().clear();
    let response = client.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), bodies.lock().unwrap().len()),
        (503, 1),
        "a POST is sent once"
    );
}

fn grpc_verdict(status: &Status) -> Verdict {
    Classify::<(), Status>::classify(&GrpcClassify, Err(status))
}

#[test]
fn grpc_statuses_are_classified() {
    for (code, verdict) in [
        (Code::Unavailable, Verdict::Failure(Kind::Transient)),
        (Code::DeadlineExceeded, Verdict::Failure(Kind::Timeout)),
        (Code::Internal, Verdict::Failure(Kind::Permanent)),
        (Code::Unknown, Verdict::Failure(Kind::Permanent)),
        (Code::ResourceExhausted, Verdict::Overload { hint: None }),
        (Code::NotFound, Verdict::Ignore),
        (Code::InvalidArgument, Verdict::Ignore),
        (Code::Cancelled, Verdict::Ignore),
    ] {
        assert_eq!(grpc_verdict(&Status::new(code, "")), verdict, "{code:?}");
    }
}

#[test]
fn refused_connections_were_not_sent_and_tonics_own_timeout_is_one() {
    let mut unavailable = Status::unavailable("connect");
    unavailable.set_source(std::sync::Arc::new(std::io::Error::from(
        std::io::ErrorKind::ConnectionRefused,
    )));
    assert_eq!(grpc_verdict(&unavailable), Verdict::Failure(Kind::NotSent));
    let mut expired = Status::cancelled("Timeout expired");
    expired.set_source(std::sync::Arc::new(tonic::TimeoutExpired(())));
    assert_eq!(grpc_verdict(&expired), Verdict::Failure(Kind::Timeout));
}

#[test]
fn pushback_asks_for_a_wait_or_forbids_the_retry() {
    let with = |text: &'static str| {
        let mut status = Status::unavailable("");
        status
            .metadata_mut()
            .insert("grpc-retry-pushback-ms", text.parse().unwrap());
        grpc_verdict(&status)
    };
    assert_eq!(
        with("250"),
        Verdict::Overload {
            hint: Some(Duration::from_millis(250))
        }
    );
    for text in ["-1", "soon", "99999999999"] {
        assert_eq!(with(text), Verdict::Failure(Kind::Permanent), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_travels_as_grpc_timeout() {
    let sent = Deadline::after(Duration::from_secs(2))
        .scope(async { deadline_out(tonic::Request::new(())).unwrap() })
        .await;
    let headers = sent.metadata().clone().into_headers();
    let seen = ServiceBuilder::new()
        .layer(DeadlineLayer)
        .service(tower::service_fn(|_: Request<()>| async {
            Ok::<_, std::convert::Infallible>(Deadline::current().map(Deadline::remaining))
        }))
        .oneshot({
            let mut request = Request::new(());
            *request.headers_mut() = headers;
            request
        })
        .await
        .unwrap();
    let seen = seen.unwrap();
    assert!(
        seen > Duration::from_millis(1900) && seen <= Duration::from_secs(2),
        "{seen:?}"
    );
    let over = Deadline::after(Duration::ZERO)
        .scope(async { deadline_out(tonic::Request::new(())) })
        .await;
    assert_eq!(over.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn malformed_grpc_timeouts_are_no_deadline() {
    let mut headers = HeaderMap::new();
    for (text, wanted) in [
        ("100m", Some(0.1)),
        ("2S", Some(2.0)),
        ("1H", Some(3600.0)),
        ("", None),
        ("S", None),
        ("5", None),
        ("-5S", None),
        ("+5S", None),
        ("123456789S", None),
        ("5x", None),
    ] {
        headers.insert("grpc-timeout", HeaderValue::from_str(text).unwrap());
        let seconds = deadline_in(&headers).map(|deadline| deadline.remaining().as_secs_f64());
        assert_eq!(
            seconds.map(|seconds| (seconds * 100.0).round() / 100.0),
            wanted,
            "{text}"
        );
    }
}

#[test]
fn errors_become_statuses() {
    let rejected = |by| {
        let retry_after = Some(Duration::from_millis(1500));
        Status::from(Error::Rejected(Rejected {
            by,
            name: "p".into(),
            retry_after,
        }))
    };
    assert_eq!(rejected(By::Breaker).code(), Code::Unavailable);
    assert_eq!(rejected(By::Bulkhead).code(), Code::ResourceExhausted);
    assert_eq!(rejected(By::Deadline).code(), Code::DeadlineExceeded);
    assert_eq!(
        rejected(By::Breaker).metadata().get("grpc-retry-pushback-ms").unwrap(),
        "1500"
    );
    assert_eq!(Status::from(Error::Inner(Status::aborted("x"))).code(), Code::Aborted);
}
