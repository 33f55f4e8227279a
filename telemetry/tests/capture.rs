//! Lines, spans, metrics and propagation, seen through the public surface of the test set-up.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use telemetry::{CorrelationId, Telemetry, catalogue, propagation};
use tower::{ServiceBuilder, ServiceExt as _};
use tracing::Instrument as _;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn last(telemetry: &telemetry::TestTelemetry) -> Value {
    telemetry.lines().pop().expect("there should be a line")
}

#[test]
fn a_line_has_its_keys_ids_and_the_fields_of_its_spans() {
    let telemetry = Telemetry::test();
    let outer = tracing::info_span!("outer", user = "ann", step = 1).entered();
    let inner = tracing::info_span!("inner", step = 2, late = tracing::field::Empty).entered();
    inner.record("late", "now");
    tracing::info!(amount = 1250_u64, paid = true, step = 3, ratio = 0.5, "charged {}", 7);
    let line = last(&telemetry);
    for key in [
        "timestamp",
        "level",
        "message",
        "target",
        "service",
        "env",
        "trace_id",
        "span_id",
        "trace_flags",
    ] {
        assert!(line[key].is_string(), "{key} in {line}");
    }
    assert_eq!(line["message"], "charged 7");
    assert_eq!(line["user"], "ann");
    assert_eq!(line["late"], "now");
    assert_eq!(line["step"], 3, "the event wins over its spans");
    assert_eq!(
        (&line["amount"], &line["paid"], &line["ratio"]),
        (&1250.into(), &true.into(), &0.5.into())
    );
    assert_eq!(
        telemetry.text().pop().unwrap().matches("\"step\"").count(),
        1,
        "no key twice"
    );
    drop(inner);
    tracing::info!("outside");
    assert_eq!(last(&telemetry)["trace_id"], line["trace_id"]);
    assert_ne!(last(&telemetry)["span_id"], line["span_id"]);
    drop(outer);
    let spans = telemetry.spans();
    assert_eq!(
        spans.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(),
        ["inner", "outer"]
    );
    assert_eq!(spans[0].parent_span_id, spans[1].span_id);
    assert_eq!(line["span_id"], spans[0].span_id);
}

#[test]
fn what_users_write_stays_inside_its_line() {
    let telemetry = Telemetry::test();
    let evil = "x\n{\"level\":\"ERROR\"}\u{1b}[31m\u{7f}\u{85}\u{2028}\"\\";
    tracing::info!(evil, level = "fake", trace_id = "fake", "{evil}");
    let text = telemetry.text().pop().unwrap();
    assert!(
        text.chars()
            .all(|character| !character.is_control() && character != '\u{2028}'),
        "{text:?}"
    );
    let line = last(&telemetry);
    assert_eq!((&line["evil"], &line["message"]), (&evil.into(), &evil.into()));
    assert_eq!((&line["level"], &line["field.level"]), (&"INFO".into(), &"fake".into()));
    assert_eq!(line["field.trace_id"], "fake");
}

#[test]
fn secrets_are_not_written() {
    let telemetry = Telemetry::test();
    let _span = tracing::info_span!("call", api_key = "hunter2").entered();
    tracing::info!(
        db_password = "hunter2",
        Authorization_header = "hunter2",
        session_token = 1234,
        url = "postgres://bob:hunter2@db/orders",
        "connecting to redis://:hunter2@cache:6379 and http://ok/"
    );
    let text = telemetry.text().pop().unwrap();
    assert!(!text.contains("hunter2") && !text.contains("1234"), "{text}");
    assert!(
        text.contains("[redacted]@db/orders") && text.contains("http://ok/"),
        "{text}"
    );
}

#[test]
fn long_values_and_lines_are_cut() {
    let telemetry = Telemetry::test();
    tracing::info!(long = "ä".repeat(10_000), "m");
    assert_eq!(last(&telemetry)["long"].as_str().unwrap().len(), 8 * 1024);
    let long = "y".repeat(8 * 1024);
    tracing::info!(
        a = long,
        b = long,
        c = long,
        d = long,
        e = long,
        f = long,
        g = long,
        h = long,
        i = long,
        j = long,
        k = long,
        l = long,
        m = long,
        n = long,
        o = long,
        p = long,
        q = long,
        "m"
    );
    let line = last(&telemetry);
    assert_eq!((&line["truncated"], &line["message"]), (&true.into(), &"m".into()));
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[test]
fn malformed_trace_parents_begin_a_new_trace() {
    let with = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_str(text).unwrap());
        propagation::extract(&headers).refused
    };
    assert!(with(PARENT).is_empty());
    assert!(with(&PARENT.replacen("00-", "01-", 1)).is_empty());
    assert!(with(&format!("{}-future", PARENT.replacen("00-", "cc-", 1))).is_empty());
    for bad in [
        "00-1-1-01".to_owned(),
        PARENT.to_uppercase(),
        PARENT.replacen("00-", "ff-", 1),
        PARENT.replacen("00-", "0-", 1),
        PARENT.replacen("00-0", "00-+", 1),
        PARENT.replace(TRACE, &"0".repeat(32)),
        PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
        format!("{PARENT}-"),
        format!("{PARENT}-more"),
        PARENT[..54].to_owned(),
        PARENT.replace("-01", "_01"),
        String::new(),
    ] {
        assert_eq!(with(&bad), ["traceparent"], "{bad}");
    }
    let mut twice = HeaderMap::new();
    twice.append("traceparent", HeaderValue::from_static(PARENT));
    twice.append("traceparent", HeaderValue::from_static(PARENT));
    assert_eq!(propagation::extract(&twice).refused, ["traceparent"]);
}

#[test]
fn correlation_ids_have_a_form() {
    for good in ["a", "A.b_c:d-9", &"x".repeat(128)] {
        assert!(CorrelationId::parse(good).is_some(), "{good}");
    }
    for bad in ["", "a b", "a\"b", "ä", &"x".repeat(129)] {
        assert!(CorrelationId::parse(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn a_request_carries_its_trace_into_what_it_calls() {
    let telemetry = Telemetry::test();
    let handler = || async {
        tracing::info!("inside");
        let mut headers = HeaderMap::new();
        async { telemetry::inject(&mut headers) }
            .instrument(tracing::info_span!("client"))
            .await;
        format!(
            "{} {}",
            headers["traceparent"].to_str().unwrap(),
            headers["x-correlation-id"].to_str().unwrap()
        )
    };
    let app: axum::Router = axum::Router::new()
        .route("/orders/{id}", axum::routing::get(handler))
        .layer(telemetry.http_layer());
    let request = Request::get("/orders/7")
        .header("traceparent", PARENT)
        .header("x-correlation-id", "not valid!")
        .body(Body::empty())
        .unwrap();
    let response = app.oneshot(request).await.unwrap();
    let id = response.headers()["x-correlation-id"].to_str().unwrap().to_owned();
    let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let spans = telemetry.spans();
    let client = spans.iter().find(|span| span.name == "client").unwrap();
    let server = spans.iter().find(|span| span.name == "GET /orders/{id}").unwrap();
    assert_eq!(body, format!("00-{TRACE}-{}-01 {id}", client.span_id));
    assert_eq!(
        (server.parent_span_id.as_str(), &client.parent_span_id),
        ("b7ad6b7169203331", &server.span_id)
    );
    assert!(uuid_like(&id), "a malformed id is replaced: {id}");
    assert_eq!(last(&telemetry)["correlation_id"], id);
    let metrics = telemetry.metrics().encode();
    assert!(
        metrics.contains(r#"telemetry_propagation_invalid_total{reason="correlation_id"} 1"#),
        "{metrics}"
    );
}

fn uuid_like(text: &str) -> bool {
    text.len() == 36 && text.matches('-').count() == 4
}

#[tokio::test]
async fn requests_that_match_nothing_make_one_series() {
    let telemetry = Telemetry::test();
    let app: axum::Router = axum::Router::new()
        .fallback(|| async { http::StatusCode::NOT_FOUND })
        .layer(telemetry.http_layer());
    for path in ["/a", "/b", "/c"] {
        let request = Request::builder()
            .method("PURGE")
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let wanted = r#"http_server_request_duration_seconds_count{http_request_method="_OTHER",http_route="_unmatched",http_response_status_code="404"} 3"#;
    let metrics = telemetry.metrics().encode();
    assert!(metrics.contains(wanted), "{metrics}");
}

/// A gRPC reply: headers, data, and a status in the trailers.
fn grpc_reply(status: &'static str) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from_static(b"data"))),
        Ok(http_body::Frame::trailers(trailers)),
    ];
    Response::new(Body::new(http_body_util::StreamBody::new(tokio_stream::iter(frames))))
}

#[tokio::test]
async fn grpc_statuses_come_from_trailers_headers_or_the_drop() {
    let telemetry = Telemetry::test();
    let layer = telemetry.grpc_layer();
    let call = |reply: fn() -> Response<Body>| {
        ServiceBuilder::new()
            .layer(layer.clone())
            .service(tower::service_fn(move |_: Request<()>| async move {
                Ok::<_, Infallible>(reply())
            }))
            .oneshot(Request::post("/shop.Orders/Create").body(()).unwrap())
    };
    call(|| grpc_reply("0"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    call(|| grpc_reply("13"))
        .await
        .unwrap()
        .into_body()
        .collect()
        .await
        .unwrap();
    let headers_only = || {
        Response::builder()
            .header("grpc-status", "5")
            .body(Body::empty())
            .unwrap()
    };
    call(headers_only).await.unwrap().into_body().collect().await.unwrap();
    drop(call(|| grpc_reply("0")).await.unwrap());
    let hangs = ServiceBuilder::new()
        .layer(layer.clone())
        .service(tower::service_fn(|_: Request<()>| async {
            std::future::pending::<Result<Response<Body>, Infallible>>().await
        }));
    let hung = hangs.oneshot(Request::post("/shop.Orders/Create").body(()).unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(1), hung).await.is_err());
    let metrics = telemetry.metrics().encode();
    for (code, count) in [("OK", 1), ("Internal", 1), ("NotFound", 1), ("Canceled", 2)] {
        let wanted = format!(
            r#"grpc_server_handled_total{{grpc_type="unary",grpc_service="shop.Orders",grpc_method="Create",grpc_code="{code}"}} {count}"#
        );
        assert!(metrics.contains(&wanted), "{wanted} is not in\n{metrics}");
    }
    assert_eq!(
        telemetry.spans().iter().filter(|span| span.is_error).count(),
        1,
        "INTERNAL alone is an error"
    );
}

#[test]
fn announced_methods_have_their_series_before_the_first_call() {
    let telemetry = Telemetry::test();
    let _layer = telemetry
        .grpc_layer()
        .methods("shop.Orders", &[("Watch", telemetry::GrpcType::ServerStream)]);
    let metrics = telemetry.metrics().encode();
    for wanted in [
        r#"grpc_server_started_total{grpc_type="server_stream",grpc_service="shop.Orders",grpc_method="Watch"} 0"#,
        r#"grpc_server_handled_total{grpc_type="server_stream",grpc_service="shop.Orders",grpc_method="Watch",grpc_code="Unavailable"} 0"#,
    ] {
        assert!(metrics.contains(wanted), "{wanted} is not in\n{metrics}");
    }
}

#[test]
fn labels_are_checked_and_series_are_capped() {
    let telemetry = Telemetry::test();
    let metrics = telemetry.metrics();
    metrics.counter(catalogue::SAGA_STEPS_TOTAL, ["payment", "ok"]).inc();
    metrics
        .counter(catalogue::SAGA_STEPS_TOTAL, ["payment", "made up"])
        .inc();
    for version in 0..2_100 {
        metrics
            .counter(catalogue::PROXY_ERRORS_TOTAL, ["orders", &version.to_string()])
            .inc();
    }
    metrics.counter(catalogue::PROXY_ERRORS_TOTAL, ["orders", "0"]).inc();
    let text = metrics.encode();
    assert!(text.contains(r#"saga_steps_total{step="payment",outcome="ok"} 1"#));
    assert!(text.contains(r#"saga_steps_total{step="payment",outcome="_overflow"} 1"#));
    assert!(
        text.contains(r#"proxy_errors_total{service="orders",version="0"} 2"#),
        "known series go on"
    );
    assert!(text.contains(r#"proxy_errors_total{service="_overflow",version="_overflow"} 100"#));
    assert!(text.contains("telemetry_metric_cardinality_overflow_total 101"));
    assert_eq!(
        text.lines()
            .filter(|line| line.starts_with("proxy_errors_total{"))
            .count(),
        2001
    );
}

#[test]
fn label_values_cannot_break_the_exposition() {
    let telemetry = Telemetry::test();
    telemetry
        .metrics()
        .gauge(catalogue::PROXY_IN_FLIGHT, ["a\"b\\c\nd"])
        .set(3.0);
    let text = telemetry.metrics().encode();
    assert!(text.contains(r#"proxy_in_flight{service="a\"b\\c\nd"} 3"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn the_log_level_returns_after_its_time() {
    let telemetry = Telemetry::test();
    let level = telemetry.log_level().clone();
    let count = || {
        tracing::debug!("probe");
        telemetry
            .lines()
            .iter()
            .filter(|line| line["message"] == "probe")
            .count()
    };
    assert_eq!(count(), 1);
    level.set("warn", Duration::from_secs(60)).unwrap();
    assert_eq!(count(), 1);
    assert!(level.set("=!=", Duration::from_secs(60)).is_err());
    assert_eq!(level.status().filter, "warn");
    level.set("error", Duration::from_secs(600)).unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(
        level.status().filter,
        "error",
        "the first change's end is not the second one's"
    );
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(level.status().filter, level.status().base);
    assert_eq!(count(), 2);
}

#[tokio::test]
async fn a_port_for_admins_needs_loopback_and_a_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let telemetry = Telemetry::test();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    let parse = |text| telemetry::AdminAddr::parse(text, Some(&token));
    assert!(parse("0.0.0.0:1").is_err() && parse("here").is_err());
    assert!(telemetry::AdminAddr::parse("127.0.0.1:0", None).is_err());
    let addr = parse("127.0.0.1:0").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        telemetry
            .admin()
            .serve(&addr)
            .unwrap_err()
            .to_string()
            .contains("others may read it")
    );
    // As a mounted Secret has it, but of a group that is none of ours.
    let shared = |mode| std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
    shared(0o440);
    assert!(telemetry.admin().serve(&addr).is_err());
    if std::os::unix::fs::chown(&token, Some(0), Some(54_321)).is_ok() {
        assert!(telemetry.admin().serve(&addr).is_err());
    }
    shared(0o600);
    let server = telemetry.admin().serve(&addr).unwrap();
    telemetry::init_tls();
    let get = || reqwest::Client::new().get(format!("http://{}/loglevel", server.local_addr().unwrap()));
    assert_eq!(get().send().await.unwrap().status(), 401);
    assert_eq!(
        get().bearer_auth("0123456789abcdeX").send().await.unwrap().status(),
        401
    );
    assert_eq!(
        get().bearer_auth("0123456789abcdef").send().await.unwrap().status(),
        200
    );
}
