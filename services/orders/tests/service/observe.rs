//! One request through orders and payments, found again where its operators look: its lines in a real Loki, its trace in
//! a real Jaeger behind the real collector with the deployment's own configuration, its metric on a real Prometheus.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use chassis::trial::until_async;
use peers::{Server, http, servers};
use reqwest::StatusCode;
use serde_json::Value;

use crate::stack::{Stack, book};

/// What the request's caller says of its trace.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CORRELATION: &str = "order-of-a-test";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_in_loki_jaeger_and_prometheus() {
    const TEST: &str = "a_request_is_found_in_loki_jaeger_and_prometheus";
    let (loki, jaeger) = tokio::join!(
        Server::start(servers::Loki::default(), TEST),
        Server::start(servers::Jaeger, TEST)
    );
    let (Some(loki), Some(jaeger)) = (loki, jaeger) else {
        return;
    };
    let configuration = peers::workspace_root().join("services/deploy/collector.yaml");
    let collector = servers::Collector::from_file(configuration)
        .env("TRACES_ENDPOINT", jaeger.address("otlp-grpc").to_string())
        .env("DECISION_WAIT", "2s");
    let Some(collector) = Server::start(collector, TEST).await else {
        return;
    };
    let stack = Stack::start_told(&[
        ("LOKI_URL", loki.url("http")),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url("http")),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_on".to_owned()),
        // Longer than the objective, so that the collector keeps the trace for certain.
        ("SERVICE_FAULT", "latency=350ms".to_owned()),
    ])
    .await;
    let orders = stack.orders[0].instance.http;
    let Some(prometheus) = Server::start(servers::Prometheus::default().scrape("orders", orders), TEST).await else {
        return;
    };

    let id = place(&stack).await;
    stack.until(&id, "delivered").await;

    for (service, words) in [("orders", "order placed"), ("payments", "payment charged")] {
        until_async(&format!("Loki has `{words}` of {service}"), async || {
            let lines = lines(loki.address("http"), service).await;
            lines
                .iter()
                .find(|line| line["message"] == words)
                .map(|line| assert_eq!(line["trace_id"], TRACE, "{line}"))
        })
        .await;
    }
    until_async("Jaeger has both services and their database calls", async || {
        let spans = spans(jaeger.address("query")).await;
        ["orders", "payments"]
            .into_iter()
            .all(|service| {
                let database = spans.contains(&(service.to_owned(), true));
                database && spans.contains(&(service.to_owned(), false))
            })
            .then_some(())
    })
    .await;
    until_async("Prometheus has the request, with its trace", async || {
        let metric = r#"http_server_request_duration_seconds_count{job="orders",http_route="/orders",http_response_status_code="201"}"#;
        let counted = ask(prometheus.address("http"), &format!("/api/v1/query?query={}", http::encode(metric))).await;
        let counted = counted["data"]["result"][0]["value"][1] == "1";
        let now = chassis::now().as_second();
        let buckets = http::encode("http_server_request_duration_seconds_bucket");
        let path = format!("/api/v1/query_exemplars?query={buckets}&start={}&end={}", now - 600, now + 600);
        let exemplars = ask(prometheus.address("http"), &path).await;
        (counted && exemplars["data"].to_string().contains(TRACE)).then_some(())
    })
    .await;
}

/// Places an order as the caller's trace has it, and returns the order's id.
async fn place(stack: &Stack) -> String {
    let request = stack
        .client
        .post(stack.url("/orders"))
        .bearer_auth(&stack.token)
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("x-correlation-id", CORRELATION)
        .json(&book(1, 1200, "1 Harbour Street"));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-correlation-id"], CORRELATION);
    let order: Value = response.json().await.unwrap();
    order["id"].as_str().unwrap().to_owned()
}

/// A service's lines in Loki that hold the trace's id.
async fn lines(loki: SocketAddr, service: &str) -> Vec<Value> {
    let query = http::encode(&format!(r#"{{service="{service}"}} |= "{TRACE}""#));
    let answer = ask(loki, &format!("/loki/api/v1/query_range?limit=1000&query={query}")).await;
    let streams = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let values = streams
        .iter()
        .flat_map(|stream| stream["values"].as_array().cloned().unwrap_or_default());
    values
        .filter_map(|value| serde_json::from_str(value[1].as_str()?).ok())
        .collect()
}

/// The services that the trace has spans of in Jaeger, and whether these are calls of a database.
async fn spans(jaeger: SocketAddr) -> BTreeSet<(String, bool)> {
    let answer = ask(jaeger, &format!("/api/traces/{TRACE}")).await;
    let trace = &answer["data"][0];
    let spans = trace["spans"].as_array().cloned().unwrap_or_default();
    let kind = |span: &Value| {
        let process = &trace["processes"][span["processID"].as_str()?];
        let tags = span["tags"].as_array()?;
        let database = tags.iter().any(|tag| tag["key"] == "db.system.name");
        Some((process["serviceName"].as_str()?.to_owned(), database))
    };
    spans.iter().filter_map(kind).collect()
}

/// The server's JSON, or `null` when it does not answer well: it is asked again.
async fn ask(server: SocketAddr, path: &str) -> Value {
    http::get(server, path)
        .await
        .map(|answer| answer.json())
        .unwrap_or_default()
}
