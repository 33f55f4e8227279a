//! Spans against a collector that takes, refuses or hangs: every span is accounted for, and the end is bounded.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use telemetry::{SinkCounts, Telemetry};
use tokio::time::Instant;

/// Says to this test binary that it is to emit spans to the collector at that address.
const EMIT_TO: &str = "TELEMETRY_TEST_COLLECTOR";
const SPANS: u64 = 700;

/// Not a test of its own: telemetry is set up once a process, so each case runs this in a process.
#[test]
fn emit() {
    let Ok(endpoint) = std::env::var(EMIT_TO) else { return };
    // A current-thread runtime is where other exporters lose everything.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let telemetry = Telemetry::builder("emitter")
            .otlp_http(endpoint)
            .filter("info")
            .init()
            .unwrap();
        assert!(
            Telemetry::builder("again").init().is_err(),
            "a second set-up is an error, not a panic"
        );
        for number in 0..SPANS {
            tracing::info_span!("work", number).in_scope(|| tracing::info!("working"));
        }
        let report = telemetry.shutdown(Duration::from_secs(3)).await;
        assert!(report.sinks.iter().all(|(_, counts)| counts.is_exact()), "{report:?}");
        let stdout = report.sink("stdout").unwrap();
        assert_eq!((stdout.emitted, stdout.delivered), (SPANS, SPANS));
        let counts = report.sink("otlp_traces").unwrap();
        eprintln!("counts: {}", serde_json::to_string(&counts).unwrap());
        assert_eq!(
            telemetry.shutdown(Duration::from_secs(3)).await,
            report,
            "later calls say the same"
        );
    });
}

#[derive(Clone)]
struct Collector {
    status: Option<StatusCode>,
    requests: Arc<AtomicUsize>,
}

async fn take(State(collector): State<Collector>, body: axum::body::Bytes) -> StatusCode {
    collector.requests.fetch_add(1, Ordering::SeqCst);
    assert!(!body.is_empty());
    match collector.status {
        Some(status) => status,
        None => std::future::pending().await,
    }
}

/// Runs [`emit`] against a collector that answers with `status`, or never; its counts and the time that it took.
async fn run(status: Option<StatusCode>) -> (SinkCounts, Duration) {
    let collector = Collector {
        status,
        requests: Arc::default(),
    };
    let app = axum::Router::new()
        .route("/v1/traces", axum::routing::post(take))
        .with_state(collector.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let began = Instant::now();
    let output = tokio::task::spawn_blocking(move || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "emit", "--nocapture"])
            .env(EMIT_TO, endpoint)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    server.abort();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    assert!(collector.requests.load(Ordering::SeqCst) > 0);
    let counts = stderr
        .lines()
        .find_map(|line| line.strip_prefix("counts: "))
        .expect("the emitter should say its counts");
    let counts: serde_json::Value = serde_json::from_str(counts).unwrap();
    let number = |key: &str| counts[key].as_u64().unwrap();
    let counts = SinkCounts {
        emitted: number("emitted"),
        delivered: number("delivered"),
        rejected: number("rejected"),
        dropped: number("dropped"),
        spooled: number("spooled"),
    };
    assert_eq!(counts.emitted, SPANS);
    (counts, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_everything_gets_everything() {
    let (counts, _) = run(Some(StatusCode::OK)).await;
    assert_eq!((counts.delivered, counts.rejected, counts.dropped), (SPANS, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_told_from_one_that_is_lost() {
    let (counts, _) = run(Some(StatusCode::BAD_REQUEST)).await;
    assert_eq!((counts.delivered, counts.rejected, counts.dropped), (0, SPANS, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    let (counts, took) = run(None).await;
    assert_eq!((counts.delivered, counts.dropped), (0, SPANS));
    assert!(took < Duration::from_secs(8), "the limit was 3 s: {took:?}");
}
