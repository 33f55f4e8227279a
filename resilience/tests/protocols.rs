//! HTTP and gRPC: what answers mean, which requests may be repeated, and deadlines on the wire.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use proptest::prelude::*;
use resilience::grpc::{DeadlineLayer, GrpcClassify, deadline_in, deadline_out};
use resilience::http::{HttpClassify, ReplayBody, error_kind, retry_after, retry_after_at, safety};
use resilience::{By, Classify, Deadline, Error, Kind, Pipeline, Rejected, Safety, Verdict};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
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

/// Forms after linkerd2-proxy's `linkerd/http/classify/src/retry_after.rs`, written afresh.
#[test]
fn retry_after_is_seconds_or_a_date() {
    // Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let hint = |texts: &[&str]| {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append("retry-after", HeaderValue::from_str(text).unwrap());
        }
        retry_after_at(&headers, || now)
    };
    for (text, seconds) in [
        ("0", 0),
        ("7", 7),
        (" 7 ", 7),
        ("120", 120),
        ("18446744073709551615", u64::MAX),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sun, 06 Nov 1994 08:00:00 GMT", 0),
        // The obsolete forms that a recipient must accept.
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
    ] {
        assert_eq!(hint(&[text]), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in [
        "",
        "-1",
        "+7",
        "soon",
        "1.5",
        "18446744073709551616",
        "Sun, 06 Nov 1994 08:50:37",
        "Sun, 99 Nov 1994 08:50:37 GMT",
        "1994-11-06T08:50:37Z",
    ] {
        assert_eq!(hint(&[text]), None, "{text}");
    }
    assert_eq!(hint(&["1", "2"]), None, "which one?");
    assert_eq!(hint(&[]), None);
}

proptest! {
    #[test]
    fn retry_after_takes_any_bytes(bytes in prop::collection::vec(0x20_u8..0xff, 0..40)) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            headers.insert("retry-after", value);
            let hint = retry_after(&headers);
            let digits = bytes.trim_ascii().iter().all(u8::is_ascii_digit);
            prop_assert!(hint.is_none() || digits || bytes.ends_with(b"GMT"), "{:?}", hint);
        }
    }

    /// The judge is tonic-types.
    #[test]
    fn retry_info_is_read_as_it_was_written(seconds in 0..=315_576_000_000_u64, nanos in 0..1_000_000_000_u32, id in ".*") {
        let delay = Duration::new(seconds, nanos);
        let mut details = ErrorDetails::with_retry_info(Some(delay));
        details.set_request_info(id, "data").set_localized_message("en", "later");
        let status = Status::with_error_details(Code::ResourceExhausted, "m", details.clone());
        let read = details.retry_info().and_then(|info| info.retry_delay);
        prop_assert_eq!(grpc_verdict(&status), Verdict::Overload { hint: read });
    }

    #[test]
    fn details_may_be_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let status = Status::with_details(Code::ResourceExhausted, "m", bytes.into());
        let is_overload = matches!(grpc_verdict(&status), Verdict::Overload { .. });
        prop_assert!(is_overload);
    }

    /// Damage at one place: whatever is read is what was written, or no hint, or another number; never a panic.
    #[test]
    fn details_may_be_cut_and_damaged(cut in 0..80_usize, at in 0..80_usize, byte in any::<u8>()) {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(5)));
        let whole = Status::with_error_details(Code::Unavailable, "m", details);
        let mut bytes = whole.details().to_vec();
        let end = bytes.len();
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        bytes.truncate(cut);
        let status = Status::with_details(Code::Unavailable, "m", bytes.into());
        let overload = matches!(grpc_verdict(&status), Verdict::Overload { hint: Some(_) });
        prop_assert!(overload || cut < end || at < end);
        prop_assert!(!overload || cut > 40, "half a message is none");
    }
}

#[test]
fn a_negative_delay_is_no_hint() {
    // Status { details: [Any { type_url: "t/google.rpc.RetryInfo", value: RetryInfo { Duration { seconds: -1 } } }] }
    let url = b"t/google.rpc.RetryInfo";
    let duration = [8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let mut any = vec![10, u8::try_from(url.len()).unwrap()];
    any.extend(url);
    any.extend([18, 13, 10, 11]);
    any.extend(duration);
    let mut bytes = vec![26, u8::try_from(any.len()).unwrap()];
    bytes.extend(&any);
    let status = |bytes: &[u8]| Status::with_details(Code::ResourceExhausted, "", bytes.to_vec().into());
    assert_eq!(grpc_verdict(&status(&bytes)), Verdict::Overload { hint: None });
    // The same with one second.
    let end = bytes.len();
    bytes[end - 10..].copy_from_slice(&[0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0]);
    let hint = Some(Duration::from_secs(1));
    assert_eq!(grpc_verdict(&status(&bytes)), Verdict::Overload { hint });
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] Box<dyn std::error::Error + Send + Sync>);

#[test]
fn transport_errors_are_read_by_their_cause() {
    use std::io::{Error, ErrorKind};
    for (error, kind) in [
        (Error::from(ErrorKind::ConnectionRefused), Kind::NotSent),
        (Error::from(ErrorKind::ConnectionReset), Kind::Transient),
        (Error::from(ErrorKind::BrokenPipe), Kind::Transient),
        (Error::from(ErrorKind::UnexpectedEof), Kind::Transient),
        (Error::from(ErrorKind::TimedOut), Kind::Timeout),
    ] {
        let text = error.to_string();
        assert_eq!(error_kind(&Outer(Box::new(Outer(error.into())))), kind, "{text}");
    }
    // What this side refuses was not refused by the peer.
    let ours = h2::Error::from(h2::Reason::REFUSED_STREAM);
    assert_eq!(error_kind(&Outer(ours.into())), Kind::Transient);
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
    let mut dns = Status::unavailable("connect");
    dns.set_source(std::sync::Arc::new(tonic::ConnectError("no such host".into())));
    assert_eq!(grpc_verdict(&dns), Verdict::Failure(Kind::NotSent));
    let over_the_wire = Status::cancelled("Timeout expired");
    assert_eq!(grpc_verdict(&over_the_wire), Verdict::Failure(Kind::Timeout));
    let mut broken = Status::unknown("transport error");
    broken.set_source(std::sync::Arc::new(std::io::Error::from(
        std::io::ErrorKind::ConnectionReset,
    )));
    assert_eq!(grpc_verdict(&broken), Verdict::Failure(Kind::Transient));
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
    // Overload all the same: the throttle must learn it.
    let never = Verdict::Overload {
        hint: Some(Verdict::NEVER),
    };
    for text in ["-1", "soon", "1.5", "", "2147483648", "99999999999"] {
        assert_eq!(with(text), never, "{text}");
    }
    for (code, verdict) in [
        (Code::Unavailable, never),
        (Code::ResourceExhausted, never),
        (Code::Internal, Verdict::Failure(Kind::Permanent)),
        (Code::DeadlineExceeded, Verdict::Failure(Kind::Permanent)),
        (Code::NotFound, Verdict::Ignore),
    ] {
        let mut twice = Status::new(code, "");
        for text in ["1", "2"] {
            twice
                .metadata_mut()
                .append("grpc-retry-pushback-ms", text.parse().unwrap());
        }
        assert_eq!(grpc_verdict(&twice), verdict, "{code:?}");
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
