//! Spans through a real collector to a real Jaeger, and what becomes of them while the collector is away, hangs or comes
//! back. Each test ends in the exact account: what is delivered is what the collector says that it accepted.

use std::time::Duration;

use peers::{Server, http, servers};
use tokio::time::Instant;

use crate::emitter::Emitter;

/// How long a collector is away. Hours in a soak, seconds here.
fn outage() -> Duration {
    let soak = std::env::var_os("OPSCTL_SOAK").is_some();
    if soak {
        Duration::from_secs(120)
    } else {
        Duration::from_secs(3)
    }
}

/// Spans that the collector accepted, as it says itself.
async fn accepted(collector: &Server) -> u64 {
    let page = http::get(collector.address("metrics"), "/metrics").await.unwrap();
    let lines = page.body;
    let of_spans = lines
        .lines()
        .filter(|line| line.starts_with("otelcol_receiver_accepted_spans"));
    of_spans
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_found_in_jaeger_through_the_collector() {
    const NAME: &str = "a_trace_is_found_in_jaeger_through_the_collector";
    let Some(jaeger) = Server::start(servers::Jaeger, NAME).await else {
        return;
    };
    let to_jaeger = format!(
        "exporters: {{otlp_http: {{endpoint: \"{}\"}}}}
service: {{pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_http]}}}}}}
",
        jaeger.url("otlp-http")
    );
    let Some(collector) = Server::start(servers::Collector::new(to_jaeger), NAME).await else {
        return;
    };
    for (protocol, port) in [("http/protobuf", "http"), ("grpc", "grpc")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("spans.jsonl");
        let counts = Emitter::spans(5)
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
            .env("TRACES_FILE", file.to_str().unwrap())
            .run(&collector.url(port))
            .await;
        assert_eq!(
            (counts.delivered, counts.lost()),
            (5, 0),
            "{protocol}: {counts:?}\n{}",
            collector.log_tail()
        );
        // Both exporters are on at once: the file tells which ids to look for.
        let line: serde_json::Value = serde_json::from_str(std::fs::read_to_string(&file).unwrap().trim()).unwrap();
        let span = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        let path = format!("/api/traces/{}", span["traceId"].as_str().unwrap());
        let mut found = serde_json::Value::Null;
        eventually("the trace should be in Jaeger", async || {
            let answer = http::get(jaeger.address("query"), &path).await.unwrap();
            found = answer.json();
            found["data"][0]["spans"]
                .as_array()
                .is_some_and(|spans| !spans.is_empty())
        })
        .await;
        let shown = &found["data"][0]["spans"][0];
        assert_eq!(
            (&shown["operationName"], &shown["spanID"]),
            (&"work".into(), &span["spanId"]),
            "{protocol}"
        );
        assert!(shown["tags"].to_string().contains("\"number\"") && shown["logs"].to_string().contains("working"));
        assert_eq!(found["data"][0]["processes"]["p1"]["serviceName"], "emitter");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_collector_loses_nothing_that_fits() {
    const NAME: &str = "an_outage_of_the_collector_loses_nothing_that_fits";
    let Some(mut collector) = Server::start(servers::Collector::default(), NAME).await else {
        return;
    };
    let time = outage();
    let emitter = Emitter::spans(3000)
        .over(2 * time)
        .limit(Duration::from_secs(15))
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
    let running = tokio::spawn(emitter.run_owned(collector.url("http")));
    tokio::time::sleep(time / 3).await;
    let before = accepted(&collector).await;
    // Its own counts begin again with it.
    collector.kill();
    tokio::time::sleep(time).await;
    collector.start_again().await.unwrap();
    let counts = running.await.unwrap();
    assert_eq!((counts.delivered, counts.lost()), (3000, 0));
    let after = accepted(&collector).await;
    // What it took in the moment of its death may be in neither figure, or be sent again.
    assert!(after > 0 && before + after <= 3000 + 512, "{before} and {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_comes_after_the_service_gets_everything() {
    const NAME: &str = "a_collector_that_comes_after_the_service_gets_everything";
    let Some(mut collector) = Server::start(servers::Collector::default(), NAME).await else {
        return;
    };
    collector.stop().await;
    let running = tokio::spawn(
        Emitter::spans(1500)
            .limit(Duration::from_secs(20))
            .run_owned(collector.url("http")),
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    collector.start_again().await.unwrap();
    let counts = running.await.unwrap();
    assert_eq!(
        (counts.delivered, counts.lost(), accepted(&collector).await),
        (1500, 0, 1500)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_costs_the_limit_and_claims_nothing() {
    const NAME: &str = "a_collector_that_hangs_costs_the_limit_and_claims_nothing";
    let Some(collector) = Server::start(servers::Collector::default(), NAME).await else {
        return;
    };
    collector.pause();
    for port in ["http", "grpc"] {
        let emitter = Emitter::spans(700).limit(Duration::from_secs(1)).env(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            if port == "http" { "http/protobuf" } else { "grpc" },
        );
        let counts = emitter.run(&collector.url(port)).await;
        assert_eq!((counts.delivered, counts.dropped), (0, 700), "{port}");
        assert!(counts.took < Duration::from_millis(1600), "{port}: {:?}", counts.took);
    }
    collector.resume();
    // One that hangs for a while is waited for.
    let running = tokio::spawn(
        Emitter::spans(700)
            .limit(outage() + Duration::from_secs(20))
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300000")
            .run_owned(collector.url("http")),
    );
    collector.pause();
    tokio::time::sleep(outage()).await;
    collector.resume();
    let counts = running.await.unwrap();
    assert_eq!((counts.delivered, counts.lost()), (700, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_has_no_memory_left_is_asked_again() {
    const NAME: &str = "a_collector_that_has_no_memory_left_is_asked_again";
    // It refuses everything, and says that it is for now: 503 over HTTP, UNAVAILABLE over gRPC.
    let full = "processors: {memory_limiter: {check_interval: 50ms, limit_mib: 1}}
exporters: {debug: {}}
service: {pipelines: {traces: {receivers: [otlp], processors: [memory_limiter], exporters: [debug]}}}
";
    let Some(collector) = Server::start(servers::Collector::new(full), NAME).await else {
        return;
    };
    // It refuses from its first look at its memory on.
    eventually("the collector refuses", async || {
        let span = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"first"}]}]}]}"#;
        let answer = http::post(collector.address("http"), "/v1/traces", "application/json", span).await;
        answer.is_ok_and(|answer| answer.status == 503)
    })
    .await;
    for (protocol, port) in [("http/protobuf", "http"), ("grpc", "grpc")] {
        let emitter = Emitter::spans(300)
            .limit(Duration::from_secs(2))
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let counts = emitter.run(&collector.url(port)).await;
        assert_eq!(
            (counts.delivered, counts.rejected, counts.dropped),
            (0, 0, 300),
            "{protocol}: {counts:?}"
        );
    }
}
