//! Spans against a collector that speaks the real wire format and answers in every way there is: each span is accounted
//! for, what the report calls delivered is what the collector took, and the end is bounded. The real collector is in
//! `collector/real.rs`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "support/emitter.rs"]
mod emitter;
#[path = "collector/real.rs"]
mod real;

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use emitter::{Counts, Emitter};
use fixtures::tls;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::time::Instant;

/// Runs the emitter's end of the tests below.
#[test]
fn emit() {
    emitter::emit();
}

/// What the collector does with one request.
#[derive(Clone)]
enum Reply {
    Take,
    TakeBut(i64),
    Status(u16, Option<&'static str>),
    Hang,
}

/// Answers the n-th request, of so many spans.
type Script = Arc<dyn Fn(usize, usize) -> Reply + Send + Sync>;

#[derive(Clone)]
struct Collector {
    script: Script,
    /// How long it takes over each request.
    delay: Duration,
    requests: Arc<AtomicUsize>,
    /// Ids of spans in requests that were answered with success.
    taken: Arc<Mutex<HashSet<Vec<u8>>>>,
    /// When each request came, with its headers.
    seen: Arc<Mutex<Vec<(Instant, HeaderMap)>>>,
}

impl Collector {
    fn new(script: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            script: Arc::new(script),
            delay: Duration::ZERO,
            requests: Arc::default(),
            taken: Arc::default(),
            seen: Arc::default(),
        }
    }

    async fn serve(&self, listener: tokio::net::TcpListener) {
        axum::serve(listener, self.over_http()).await.unwrap();
    }

    /// The same over TLS with the certificate of `localhost`, and for both protocols.
    async fn serve_securely(&self, listener: tokio::net::TcpListener) {
        let [certificate, key] = [tls::CERTIFICATE, tls::KEY].map(|file| std::fs::read(file).unwrap());
        let identity = tonic::transport::Identity::from_pem(certificate, key);
        let grpc = tonic::service::Routes::new(TraceServiceServer::new(self.clone())).into_axum_router();
        tonic::transport::Server::builder()
            .tls_config(tonic::transport::ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_routes(grpc.merge(self.over_http()).into())
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
            .await
            .unwrap();
    }

    fn over_http(&self) -> axum::Router {
        axum::Router::new()
            .route("/v1/traces", axum::routing::post(take))
            .with_state(self.clone())
    }

    /// The same, taking its time.
    fn slow(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    async fn reply(&self, request: &ExportTraceServiceRequest) -> Reply {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.delay).await;
        (self.script)(number, spans(request).count())
    }

    fn note(&self, request: &ExportTraceServiceRequest) {
        let mut taken = self.taken.lock().unwrap();
        for span in spans(request) {
            assert!(taken.insert(span.span_id.clone()), "a span that was taken came again");
        }
    }

    fn taken(&self) -> u64 {
        self.taken.lock().unwrap().len() as u64
    }
}

fn spans(request: &ExportTraceServiceRequest) -> impl Iterator<Item = &opentelemetry_proto::tonic::trace::v1::Span> {
    let scopes = request
        .resource_spans
        .iter()
        .flat_map(|of_resource| &of_resource.scope_spans);
    scopes.flat_map(|of_scope| &of_scope.spans)
}

fn response(rejected: i64) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess {
        rejected_spans: rejected,
        error_message: "too old".to_owned(),
    };
    ExportTraceServiceResponse {
        partial_success: (rejected > 0).then_some(partial),
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    let plain = match headers.get("content-encoding") {
        None => body.to_vec(),
        Some(encoding) => {
            assert_eq!(encoding, "gzip");
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
            plain
        }
    };
    assert_eq!(headers["content-type"], "application/x-protobuf");
    collector.seen.lock().unwrap().push((Instant::now(), headers));
    let request = ExportTraceServiceRequest::decode(&plain[..]).unwrap();
    let mut rejected = 0;
    match collector.reply(&request).await {
        Reply::Take => {}
        Reply::TakeBut(some) => rejected = some,
        Reply::Hang => std::future::pending().await,
        Reply::Status(status, after) => {
            let mut answer = StatusCode::from_u16(status).unwrap().into_response();
            if let Some(after) = after {
                answer.headers_mut().insert("retry-after", after.parse().unwrap());
            }
            return answer;
        }
    }
    collector.note(&request);
    response(rejected).encode_to_vec().into_response()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        self.seen.lock().unwrap().push((Instant::now(), headers));
        let request = request.into_inner();
        let mut rejected = 0;
        match self.reply(&request).await {
            Reply::Take => {}
            Reply::TakeBut(some) => rejected = some,
            Reply::Hang => std::future::pending().await,
            Reply::Status(code, _) => return Err(tonic::Status::new(i32::from(code).into(), "no")),
        }
        self.note(&request);
        Ok(tonic::Response::new(response(rejected)))
    }
}

async fn listen() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

/// Runs the emitter against a collector that is there all the time.
async fn run(collector: &Collector, emitter: Emitter) -> (Counts, Duration) {
    let (listener, endpoint) = listen().await;
    let serving = collector.clone();
    let server = tokio::spawn(async move { serving.serve(listener).await });
    let began = Instant::now();
    let counts = emitter.run(&endpoint).await;
    server.abort();
    (counts, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_is_delivered_once_with_headers_and_compression() {
    let collector = Collector::new(|_, _| Reply::Take);
    let emitter = Emitter::spans(1300).env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip").env(
        "OTEL_EXPORTER_OTLP_HEADERS",
        "x-tenant=shop%20one,authorization=Bearer%20abc",
    );
    let (counts, _) = run(&collector, emitter).await;
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (1300, 0, 1300));
    let seen = collector.seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "512 spans in one request");
    assert_eq!(seen[0].1["x-tenant"], "shop one");
    assert_eq!(seen[0].1["authorization"], "Bearer abc");
    assert_eq!(seen[0].1["content-encoding"], "gzip");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_is_rejected_and_not_sent_again() {
    for (status, reason) in [
        (400, "bad_request"),
        (401, "unauthorized"),
        (404, "refused"),
        (500, "refused"),
    ] {
        let collector = Collector::new(move |_, _| Reply::Status(status, None));
        let (counts, took) = run(&collector, Emitter::spans(700)).await;
        assert_eq!(
            (counts.delivered, counts.rejected, counts.dropped),
            (0, 700, 0),
            "{status}"
        );
        assert_eq!(counts.rejected_by[reason], 700, "{status}");
        assert_eq!(
            collector.requests.load(Ordering::SeqCst),
            2,
            "{status}: 700 spans are two requests"
        );
        assert!(took < Duration::from_secs(3), "{status}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_success_is_counted_to_the_span() {
    let collector = Collector::new(|number, _| Reply::TakeBut(if number == 0 { 13 } else { 0 }));
    let (counts, _) = run(&collector, Emitter::spans(700)).await;
    assert_eq!((counts.delivered, counts.rejected), (687, 13));
    assert_eq!(counts.rejected_by["partial"], 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_without_room_is_asked_again_when_it_says() {
    let collector = Collector::new(|number, _| match number {
        0 => Reply::Status(429, Some("1")),
        1..=3 => Reply::Status(503, None),
        4 => Reply::Status(502, None),
        5 => Reply::Status(504, None),
        _ => Reply::Take,
    });
    let (counts, _) = run(
        &collector,
        Emitter::spans(100)
            .over(Duration::from_secs(2))
            .limit(Duration::from_secs(20)),
    )
    .await;
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (100, 0, 100));
    let seen = collector.seen.lock().unwrap();
    let told = counts.alarms.first().is_some_and(|line| line.contains("status 429"));
    assert!(told, "a person hears why: {counts:?}");
    let wait = seen[1].0.duration_since(seen[0].0);
    assert!(wait >= Duration::from_millis(990), "Retry-After was 1 s: {wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_at_the_very_end_is_still_told() {
    // The answer comes long after the shutdown began, and long after the log had nothing more to write.
    let collector = Collector::new(|_, _| Reply::Status(400, None)).slow(Duration::from_millis(500));
    let (counts, _) = run(&collector, Emitter::spans(5)).await;
    assert_eq!((counts.delivered, counts.rejected), (0, 5));
    let told = counts.alarms.first().is_some_and(|line| line.contains("status 400"));
    assert!(told, "a person hears why: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_large_is_sent_in_parts() {
    let collector = Collector::new(|_, spans| match spans {
        101.. => Reply::Status(413, None),
        _ => Reply::Take,
    });
    let (counts, _) = run(&collector, Emitter::spans(700)).await;
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (700, 0, 700));
    let none = Collector::new(|_, _| Reply::Status(413, None));
    let (counts, _) = run(&none, Emitter::spans(5)).await;
    assert_eq!(counts.rejected_by["too_large"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_gets_everything() {
    let collector = Collector::new(|_, _| Reply::Take).slow(Duration::from_millis(300));
    let (counts, _) = run(&collector, Emitter::spans(2000)).await;
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (2000, 0, 2000));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_answer_nothing_is_delivered_and_the_end_is_bounded() {
    let collector = Collector::new(|_, _| Reply::Hang);
    let emitter = Emitter::spans(700).limit(Duration::from_secs(1));
    let (counts, took) = run(&collector, emitter).await;
    assert_eq!((counts.delivered, counts.rejected, counts.dropped), (0, 0, 700));
    assert!(
        counts.took < Duration::from_millis(1500),
        "the limit was 1 s: {:?}",
        counts.took
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_an_answer_is_sent_again() {
    let collector = Collector::new(|number, _| if number == 0 { Reply::Hang } else { Reply::Take });
    let emitter = Emitter::spans(50).env("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
    let (counts, _) = run(&collector, emitter).await;
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (50, 0, 50));
}

/// When the second request came, after a first one that was not answered.
async fn asked_again_after(variables: &[(&str, &str)]) -> Duration {
    let collector = Collector::new(|number, _| if number == 0 { Reply::Hang } else { Reply::Take });
    let emitter = variables
        .iter()
        .fold(Emitter::spans(50), |emitter, (name, value)| emitter.env(name, *value));
    let (counts, _) = run(&collector, emitter).await;
    assert_eq!((counts.delivered, counts.lost()), (50, 0));
    let seen = collector.seen.lock().unwrap();
    seen[1].0.duration_since(seen[0].0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_span_processors_limit_of_an_export_holds_where_the_exporter_has_none() {
    let processor = "OTEL_BSP_EXPORT_TIMEOUT";
    let waited = asked_again_after(&[(processor, "300")]).await;
    assert!(
        waited >= Duration::from_millis(300) && waited < Duration::from_secs(5),
        "{waited:?}"
    );
    for own in ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"] {
        let waited = asked_again_after(&[(processor, "60000"), (own, "300")]).await;
        assert!(waited < Duration::from_secs(5), "{own}: {waited:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_wait_are_bounded_in_number_when_that_is_said() {
    let collector = Collector::new(|_, _| Reply::Hang);
    let emitter = Emitter::spans(5000)
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "1000")
        .limit(Duration::from_millis(500));
    let (counts, _) = run(&collector, emitter).await;
    // Besides those that wait, one request is under way.
    assert_eq!(counts.dropped, 5000);
    let full = counts.dropped_by["queue_full"];
    assert!((5000 - 1000 - 512..=5000 - 1000).contains(&full), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_counted_while_the_collector_hangs() {
    let collector = Collector::new(|_, _| Reply::Hang);
    let emitter = Emitter::spans(5000)
        .env("TRACES_QUEUE_BYTES", "100KiB")
        .limit(Duration::from_millis(500));
    let (counts, _) = run(&collector, emitter).await;
    assert_eq!(counts.dropped, 5000);
    assert!(counts.dropped_by["queue_full"] > 3000, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_the_limit_and_no_more() {
    let (listener, endpoint) = listen().await;
    drop(listener);
    let counts = Emitter::spans(700).limit(Duration::from_secs(1)).run(&endpoint).await;
    assert_eq!((counts.delivered, counts.dropped), (0, 700));
    assert!(counts.took < Duration::from_millis(1500), "{:?}", counts.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_late_gets_everything() {
    let (listener, endpoint) = listen().await;
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let collector = Collector::new(|_, _| Reply::Take);
    let serving = collector.clone();
    let server = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        serving.serve(tokio::net::TcpListener::bind(addr).await.unwrap()).await;
    });
    let counts = Emitter::spans(700).limit(Duration::from_secs(10)).run(&endpoint).await;
    server.abort();
    assert_eq!((counts.delivered, counts.lost(), collector.taken()), (700, 0, 700));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_the_same_rules_hold() {
    let serve = |collector: Collector| async move {
        let (listener, endpoint) = listen().await;
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = TraceServiceServer::new(collector)
            .accept_compressed(tonic::codec::CompressionEncoding::Gzip)
            .send_compressed(tonic::codec::CompressionEncoding::Gzip);
        let server = tonic::transport::Server::builder().add_service(service);
        (tokio::spawn(server.serve_with_incoming(incoming)), endpoint)
    };
    let grpc = |spans| {
        Emitter::spans(spans)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-tenant=shop")
    };
    // UNAVAILABLE is 14, INVALID_ARGUMENT 3.
    let collector = Collector::new(|number, _| match number {
        0 | 1 => Reply::Status(14, None),
        2 => Reply::TakeBut(7),
        3 => Reply::Status(3, None),
        _ => Reply::Take,
    });
    let (server, endpoint) = serve(collector.clone()).await;
    let counts = grpc(1300).run(&endpoint).await;
    server.abort();
    assert_eq!(
        (counts.delivered, counts.rejected, counts.dropped),
        (1300 - 7 - 512, 7 + 512, 0)
    );
    assert_eq!(
        (counts.rejected_by["partial"], counts.rejected_by["bad_request"]),
        (7, 512)
    );
    assert_eq!(collector.seen.lock().unwrap()[0].1["x-tenant"], "shop");

    let (server, endpoint) = serve(Collector::new(|_, _| Reply::Hang)).await;
    let counts = grpc(700).limit(Duration::from_secs(1)).run(&endpoint).await;
    server.abort();
    assert_eq!((counts.delivered, counts.dropped), (0, 700));
    assert!(counts.took < Duration::from_millis(1500), "{:?}", counts.took);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_spans_go_only_to_a_collector_whose_certificate_is_trusted() {
    telemetry::init_tls();
    for protocol in ["http/protobuf", "grpc"] {
        let collector = Collector::new(|_, _| Reply::Take);
        let (listener, _) = listen().await;
        let endpoint = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let serving = collector.clone();
        let server = tokio::spawn(async move { serving.serve_securely(listener).await });
        let emitter = |trusted: &str| {
            Emitter::spans(700)
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                .env("OTEL_EXPORTER_OTLP_CERTIFICATE", trusted)
        };
        // It is signed by another.
        let wrong = emitter(tls::CERTIFICATE).limit(Duration::from_secs(1));
        let counts = wrong.run(&endpoint).await;
        assert_eq!((counts.delivered, counts.dropped), (0, 700), "{protocol}: {counts:?}");
        assert_eq!(collector.requests.load(Ordering::SeqCst), 0, "{protocol}");

        let counts = emitter(tls::AUTHORITY).run(&endpoint).await;
        assert_eq!((counts.delivered, counts.lost()), (700, 0), "{protocol}: {counts:?}");
        assert_eq!(collector.taken(), 700, "{protocol}");
        server.abort();
    }
}

/// The crate opentelemetry-otlp through the same: what its answers hide is `unknown`.
#[cfg(feature = "opentelemetry-otlp")]
#[tokio::test(flavor = "multi_thread")]
async fn the_other_exporter_says_unknown() {
    let theirs = |spans| Emitter::spans(spans).env("OTLP_CLIENT", "opentelemetry-otlp");
    let figures = |counts: &Counts| (counts.delivered, counts.rejected, counts.dropped, counts.unknown);

    let collector = Collector::new(|_, _| Reply::Take);
    let (counts, _) = run(&collector, theirs(1300)).await;
    assert_eq!((figures(&counts), collector.taken()), ((0, 0, 0, 1300), 1300));

    // 13 spans are refused, and nobody hears of it.
    let collector = Collector::new(|_, _| Reply::TakeBut(13));
    let (counts, _) = run(&collector, theirs(100)).await;
    assert_eq!(figures(&counts), (0, 0, 0, 100));

    // It tries again what may be tried again, a few times, and says nothing of why it gave up.
    for (status, lost) in [(400, 512), (500, 512), (429, 0), (503, 0)] {
        let collector = Collector::new(move |number, _| match number {
            0 => Reply::Status(status, Some("1")),
            _ => Reply::Take,
        });
        let (counts, _) = run(&collector, theirs(700)).await;
        assert_eq!(figures(&counts), (0, 0, lost, 700 - lost), "{status}");
    }

    let collector = Collector::new(|_, _| Reply::Hang);
    let (counts, _) = run(&collector, theirs(700).limit(Duration::from_secs(1))).await;
    assert_eq!(figures(&counts), (0, 0, 700, 0));
    assert!(counts.took < Duration::from_millis(1500), "{:?}", counts.took);

    let (listener, endpoint) = listen().await;
    drop(listener);
    for protocol in ["http/protobuf", "grpc"] {
        let emitter = theirs(700)
            .limit(Duration::from_secs(1))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let counts = emitter.run(&endpoint).await;
        assert_eq!(figures(&counts), (0, 0, 700, 0), "{protocol}");
        assert!(
            counts.took < Duration::from_millis(1500),
            "{protocol}: {:?}",
            counts.took
        );
    }
}

/// Without the feature, asking for it is an error and not a silence.
#[cfg(not(feature = "opentelemetry-otlp"))]
#[test]
fn the_other_exporter_is_refused_where_it_is_not_built_in() {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "emit", "--nocapture"])
        .env("TELEMETRY_TEST_SPANS", "1")
        .env("TELEMETRY_TEST_LIMIT", "1");
    let output = command
        .env("OTLP_CLIENT", "opentelemetry-otlp")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains("telemetry.otlp.client"),
        "{stderr}"
    );
}
