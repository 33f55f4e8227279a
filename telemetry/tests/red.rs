//! RED figures of HTTP and gRPC servers: through the layers, from the text that is scraped.
#![expect(clippy::float_cmp, reason = "whole numbers, which floats hold exactly")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/exposition.rs"]
mod exposition;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{any, get};
use exposition::Exposition;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use telemetry::{GrpcLayer, GrpcType, HttpLayer, Metrics, RpcNames, Telemetry};
use tower::{Layer as _, Service as _, ServiceExt as _};

const SECONDS: &str = "http_server_request_duration_seconds";

fn scraped(metrics: &Metrics) -> Exposition {
    exposition::openmetrics(&metrics.encode_openmetrics())
}

/// How many requests of a method, route and status there were.
fn requests(metrics: &Metrics, method: &str, route: &str, status: &str) -> Option<f64> {
    let labels = [
        ("http_request_method", method),
        ("http_route", route),
        ("http_response_status_code", status),
    ];
    let scraped = scraped(metrics);
    scraped
        .sample(&format!("{SECONDS}_count"), &labels)
        .map(|sample| sample.value)
}

fn app(layer: HttpLayer) -> axum::Router {
    let inner = axum::Router::new().route("/items/{item}", get(|| async { "item" }));
    axum::Router::new()
        .route(
            "/orders/{id}",
            get(|| async { "order" }).post(|| async { StatusCode::CONFLICT }),
        )
        .route("/slow", get(std::future::pending::<&str>))
        .route("/boom", any(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/healthz", get(|| async { "" }))
        .nest("/shop", inner)
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(layer)
}

async fn send(app: &axum::Router, method: &str, path: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn routes_are_patterns_and_what_matches_none_is_one_series() {
    let metrics = Metrics::new();
    let app = app(HttpLayer::on(&metrics).metrics_only());
    for path in [
        "/orders/1",
        "/orders/2",
        "/shop/items/7",
        "/healthz",
        "/health/ready",
        "/metrics",
    ] {
        send(&app, "GET", path).await;
    }
    for path in ["/etc/passwd", "/orders/1/more", "/%00"] {
        assert_eq!(send(&app, "GET", path).await, 404);
    }
    send(&app, "POST", "/orders/1").await;
    send(&app, "PURGE", "/boom").await;
    send(&app, "HEAD", "/orders/1").await;
    let figures = |method, route, status| requests(&metrics, method, route, status);
    assert_eq!(figures("GET", "/orders/{id}", "200"), Some(2.0));
    assert_eq!(figures("GET", "/shop/items/{item}", "200"), Some(1.0));
    assert_eq!(figures("GET", "_unmatched", "404"), Some(3.0));
    assert_eq!(figures("POST", "/orders/{id}", "409"), Some(1.0));
    assert_eq!(figures("_OTHER", "/boom", "500"), Some(1.0));
    assert_eq!(figures("HEAD", "/orders/{id}", "200"), Some(1.0));
    let family = scraped(&metrics);
    let series = family.family(SECONDS).unwrap().samples.iter();
    assert_eq!(
        series.filter(|sample| sample.name.ends_with("_sum")).count(),
        6,
        "probes make none"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_a_499_after_its_time() {
    let metrics = Metrics::new();
    let app = app(HttpLayer::on(&metrics).metrics_only());
    let slow = send(&app, "GET", "/slow");
    assert!(tokio::time::timeout(Duration::from_millis(700), slow).await.is_err());
    // A response whose body nobody reads to its end.
    let body = || Body::from_stream(futures::stream::pending::<Result<&'static str, Infallible>>());
    let streams = axum::Router::new()
        .route("/stream", get(move || async move { Response::new(body()) }))
        .layer(HttpLayer::on(&metrics).metrics_only());
    let response = streams
        .oneshot(Request::get("/stream").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    assert_eq!(requests(&metrics, "GET", "/slow", "499"), Some(1.0));
    assert_eq!(requests(&metrics, "GET", "/stream", "499"), Some(1.0));
    let labels = [
        ("http_request_method", "GET"),
        ("http_route", "/slow"),
        ("http_response_status_code", "499"),
    ];
    let sum = scraped(&metrics).value(&format!("{SECONDS}_sum"), &labels);
    assert!((sum - 0.7).abs() < 0.01, "{sum}");
}

#[tokio::test]
async fn an_exemplar_is_the_sampled_trace_of_the_request() {
    let telemetry = Telemetry::test();
    let app = app(telemetry.http_layer());
    let traced = |flags: &'static str, trace: &'static str| {
        Request::get("/orders/1")
            .header("traceparent", format!("00-{trace}-b7ad6b7169203331-{flags}"))
            .body(Body::empty())
            .unwrap()
    };
    let (unsampled, sampled) = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c");
    for request in [traced("00", unsampled), traced("01", sampled), traced("00", unsampled)] {
        app.clone()
            .oneshot(request)
            .await
            .unwrap()
            .into_body()
            .collect()
            .await
            .unwrap();
    }
    let scraped = scraped(telemetry.metrics());
    let exemplars: Vec<_> = scraped.exemplars().collect();
    assert_eq!(exemplars.len(), 1, "{exemplars:?}");
    let (sample, exemplar) = exemplars[0];
    assert_eq!(sample.name, format!("{SECONDS}_bucket"));
    assert_eq!(exemplar.labels["trace_id"], sampled);
    let spans = telemetry.spans();
    let server = spans.iter().find(|span| span.trace_id == sampled).unwrap();
    assert_eq!(exemplar.labels["span_id"], server.span_id);
    assert!(
        !telemetry.metrics().encode().contains(sampled),
        "the classic text has none"
    );
}

#[tokio::test]
async fn an_application_with_spans_of_its_own_gets_exemplars_of_them() {
    use tracing::Instrument as _;
    let telemetry = Telemetry::test();
    let app = app(telemetry.http_layer().metrics_only());
    let span = tracing::info_span!("its own");
    send(&app, "GET", "/orders/1").instrument(span).await;
    let spans = telemetry.spans();
    assert_eq!(spans.len(), 1, "the layer made none: {spans:?}");
    let scraped = scraped(telemetry.metrics());
    let (_, exemplar) = scraped.exemplars().next().unwrap();
    assert_eq!(exemplar.labels["span_id"], spans[0].span_id);
}

/// A gRPC server that answers what the caller asks for in `x-answer`, in trailers.
fn grpc(
    layer: &GrpcLayer,
) -> impl Clone + tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> {
    let layer = layer.clone();
    tower::service_fn(move |request: Request<Body>| {
        let mut service = layer.layer(tower::service_fn(|request: Request<Body>| async move {
            let mut trailers = HeaderMap::new();
            if let Some(status) = request.headers().get("x-answer") {
                trailers.insert("grpc-status", status.clone());
            }
            let frames = [
                Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from_static(b"data"))),
                Ok(http_body::Frame::trailers(trailers)),
            ];
            let body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            Ok::<_, Infallible>(Response::new(Body::new(body)))
        }));
        let answer = service.call(request);
        async move { answer.await.map(|response| response.map(Body::new)) }
    })
}

async fn call(layer: &GrpcLayer, path: &str, answer: &str) {
    let request = Request::post(path)
        .header("x-answer", HeaderValue::from_str(answer).unwrap())
        .body(Body::empty())
        .unwrap();
    let response = grpc(layer).oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
}

fn handled(metrics: &Metrics, [kind, service, method]: [&str; 3], code: &str) -> Option<f64> {
    let labels = [
        ("grpc_type", kind),
        ("grpc_service", service),
        ("grpc_method", method),
        ("grpc_code", code),
    ];
    let scraped = scraped(metrics);
    scraped
        .sample("grpc_server_handled_total", &labels)
        .map(|sample| sample.value)
}

#[tokio::test]
async fn grpc_calls_are_counted_by_their_status_in_the_trailers() {
    let metrics = Metrics::new();
    let layer = GrpcLayer::on(&metrics)
        .methods(
            "shop.Orders",
            &[("Create", GrpcType::Unary), ("Watch", GrpcType::ServerStream)],
        )
        .metrics_only();
    for answer in ["0", "0", "13", "5", "77", "no number", "-1"] {
        call(&layer, "/shop.Orders/Create", answer).await;
    }
    let create = ["unary", "shop.Orders", "Create"];
    for (code, count) in [
        ("OK", 2.0),
        ("Internal", 1.0),
        ("NotFound", 1.0),
        ("Unknown", 3.0),
        ("Canceled", 0.0),
    ] {
        assert_eq!(handled(&metrics, create, code), Some(count), "{code}");
    }
    let labels = [
        ("grpc_type", "unary"),
        ("grpc_service", "shop.Orders"),
        ("grpc_method", "Create"),
    ];
    let scraped = scraped(&metrics);
    assert_eq!(scraped.value("grpc_server_started_total", &labels), 7.0);
    assert_eq!(scraped.value("grpc_server_handling_seconds_count", &labels), 7.0);
    let watch = ["server_stream", "shop.Orders", "Watch"];
    assert_eq!(
        handled(&metrics, watch, "Unavailable"),
        Some(0.0),
        "there before the first error"
    );
}

#[tokio::test]
async fn what_callers_make_up_makes_no_series() {
    let metrics = Metrics::new();
    let layer = GrpcLayer::on(&metrics).metrics_only();
    for number in 0..300 {
        // Refused by something in front of the router, or not known to it.
        call(
            &layer,
            &format!("/made.Up/Method{number}"),
            if number % 2 == 0 { "16" } else { "12" },
        )
        .await;
    }
    call(&layer, "nonsense", "12").await;
    let unmatched = ["unary", "_unmatched", "_unmatched"];
    assert_eq!(handled(&metrics, unmatched, "Unauthenticated"), Some(150.0));
    assert_eq!(handled(&metrics, unmatched, "Unimplemented"), Some(151.0));
    assert!(!metrics.encode().contains("made.Up"));
    // One that went well is real, and its errors count from then on.
    let real = ["unary", "shop.Orders", "Get"];
    for answer in ["14", "0", "14"] {
        call(&layer, "/shop.Orders/Get", answer).await;
    }
    assert_eq!(
        (handled(&metrics, real, "OK"), handled(&metrics, real, "Unavailable")),
        (Some(1.0), Some(1.0))
    );
    call(&layer, "/grpc.health.v1.Health/Check", "0").await;
    assert!(!metrics.encode().contains("grpc.health"), "probes are not measured");
}

#[tokio::test]
async fn opentelemetrys_names_are_there_when_they_are_asked_for() {
    let metrics = Metrics::new();
    let names = RpcNames {
        stable: true,
        v1_37: true,
    };
    let layer = GrpcLayer::on(&metrics).rpc_names(names).metrics_only();
    let layer = layer.methods("shop.Orders", &[("Create", GrpcType::Unary)]);
    call(&layer, "/shop.Orders/Create", "4").await;
    let scraped = scraped(&metrics);
    let stable = [
        ("rpc_system_name", "grpc"),
        ("rpc_method", "shop.Orders/Create"),
        ("rpc_response_status_code", "DEADLINE_EXCEEDED"),
    ];
    assert_eq!(scraped.value("rpc_server_call_duration_seconds_count", &stable), 1.0);
    let v1_37 = [
        ("rpc_system", "grpc"),
        ("rpc_service", "shop.Orders"),
        ("rpc_method", "Create"),
        ("rpc_grpc_status_code", "4"),
    ];
    let millis = scraped.value("rpc_server_duration_milliseconds_sum", &v1_37);
    let seconds = scraped.value("rpc_server_call_duration_seconds_sum", &stable);
    assert!((millis / 1e3 - seconds).abs() < 1e-9, "{millis} {seconds}");
    let plain = Metrics::new();
    call(&GrpcLayer::on(&plain).metrics_only(), "/shop.Orders/Create", "0").await;
    assert!(!plain.encode().lines().any(|line| line.starts_with("rpc_")));
}

#[test]
fn threads_count_every_request_once() {
    let metrics = Metrics::new();
    let app = app(HttpLayer::on(&metrics).metrics_only());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(async {
                    for _ in 0..500 {
                        send(&app, "GET", "/orders/1").await;
                        send(&app, "POST", "/orders/1").await;
                    }
                });
            });
        }
    });
    assert_eq!(requests(&metrics, "GET", "/orders/{id}", "200"), Some(2000.0));
    assert_eq!(requests(&metrics, "POST", "/orders/{id}", "409"), Some(2000.0));
}

#[tokio::test]
async fn calls_to_peers_are_counted_on_the_clients_side() {
    let telemetry = Telemetry::test();
    let metrics = telemetry.metrics();
    let layer = GrpcLayer::on(&Metrics::new()).metrics_only();
    let server = grpc(&layer);
    let client = telemetry::GrpcClientLayer::new().measured(metrics);
    for answer in ["14", "0"] {
        let request = Request::post("/shop.Orders/Create")
            .header("x-answer", answer)
            .body(Body::empty())
            .unwrap();
        let response = client.layer(server.clone()).oneshot(request).await.unwrap();
        response.into_body().collect().await.unwrap();
    }
    let http = telemetry::HttpClientLayer::new().measured(metrics);
    for path in ["http://shop.internal/boom", "http://shop.internal/orders/1"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let app = app(HttpLayer::on(&Metrics::new()).metrics_only());
        http.layer(app).oneshot(request).await.unwrap();
    }
    let hangs = tower::service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let request = Request::get("http://shop.internal/").body(Body::empty()).unwrap();
    let hung = http.layer(hangs).oneshot(request);
    assert!(tokio::time::timeout(Duration::from_millis(1), hung).await.is_err());
    let scraped = scraped(metrics);
    for (code, count) in [("OK", 1.0), ("Unavailable", 1.0), ("Internal", 0.0)] {
        let labels = [
            ("grpc_type", "unary"),
            ("grpc_service", "shop.Orders"),
            ("grpc_method", "Create"),
            ("grpc_code", code),
        ];
        assert_eq!(scraped.value("grpc_client_handled_total", &labels), count, "{code}");
    }
    for (status, error) in [("200", ""), ("500", "500"), ("", "cancelled")] {
        let labels = [
            ("http_request_method", "GET"),
            ("server_address", "shop.internal"),
            ("http_response_status_code", status),
            ("error_type", error),
        ];
        assert_eq!(
            scraped.value("http_client_request_duration_seconds_count", &labels),
            1.0,
            "{status}"
        );
    }
}
