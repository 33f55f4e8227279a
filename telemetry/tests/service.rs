//! The example service as a process of its own, over real sockets and signals: probes, metrics, trace context, drain.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

#[path = "../examples/service.rs"]
mod service;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Says to this test binary that it is to be the service.
const BE_THE_SERVICE: &str = "TELEMETRY_TEST_SERVICE";

/// Not a test of its own: the other tests start this binary with the variable set, and then it is the service.
#[test]
fn the_service() {
    if std::env::var_os(BE_THE_SERVICE).is_some() {
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(service::run())
            .unwrap();
    }
}

struct Running {
    child: Child,
    http: String,
    grpc: String,
    lines: mpsc::Receiver<Value>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_service", "--nocapture"])
            .env(BE_THE_SERVICE, "1")
            .env("HTTP_ADDR", "127.0.0.1:0")
            .env("GRPC_ADDR", "127.0.0.1:0")
            .env("DRAIN_DELAY", "400ms")
            .env("DRAIN_TIMEOUT", "5s")
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // The test harness writes lines of its own around the service's.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(start) = line.find('{')
                    && let Ok(value) = serde_json::from_str(&line[start..])
                {
                    let _ = sender.send(value);
                }
            }
        });
        let mut running = Self {
            child,
            http: String::new(),
            grpc: String::new(),
            lines,
        };
        let listening = running.line(|line| line["message"] == "listening");
        running.http = format!("http://{}", listening["http"].as_str().unwrap());
        running.grpc = format!("http://{}", listening["grpc"].as_str().unwrap());
        running
    }

    /// The next line that is wanted.
    fn line(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self
                .lines
                .recv_timeout(Duration::from_secs(20))
                .expect("the service should have written a line");
            if wanted(&line) {
                return line;
            }
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = client().get(format!("{}{path}", self.http)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Asks until the status is the wanted one.
    async fn until(&self, path: &str, status: u16) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (seen, _) = self.get(path).await;
            if seen == status {
                return;
            }
            assert!(Instant::now() < deadline, "{path} is {seen}, not {status}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the service does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn client() -> reqwest::Client {
    telemetry::init_tls();
    reqwest::Client::new()
}

#[tokio::test]
async fn probes_metrics_logs_and_trace_context() {
    let service = Running::start(&[]);
    service.until("/health/ready", 200).await;
    for path in ["/healthz", "/readyz", "/health", "/health/live", "/health/startup"] {
        assert_eq!(
            service.get(path).await,
            (200, r#"{"status":"pass"}"#.to_owned()),
            "{path}"
        );
    }
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let response = client()
        .get(format!("{}/greet/ann", service.http))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .header("x-correlation-id", "order-7")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-correlation-id"], "order-7");
    assert_eq!(response.text().await.unwrap(), "hello, ann\n");
    let line = service.line(|line| line["message"] == "greeting");
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["correlation_id"], "order-7");
    assert_ne!(line["span_id"], "b7ad6b7169203331", "the service has a span of its own");
    assert_eq!(
        (&line["service"], &line["name"], &line["level"]),
        (&"greeter".into(), &"ann".into(), &"INFO".into())
    );

    let (_, metrics) = service.get("/metrics").await;
    for series in [
        r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/greet/{name}",http_response_status_code="200"} 1"#,
        r#"circuit_breaker_state{name="backend",state="closed"} 1"#,
        r#"circuit_breaker_calls_total{name="backend",outcome="success"} 1"#,
        r#"health_status{status="ready"} 1"#,
        r#"health_check_up{check="backend"} 1"#,
        r#"build_info{service="greeter",version="1.0.0"} 1"#,
        "# TYPE circuit_breaker_calls_total counter",
        "panics_total 0",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(series), "{series} is not in\n{metrics}");
    }
    assert!(!metrics.contains("/healthz") && !metrics.contains("# EOF"), "{metrics}");
    let openmetrics = client()
        .get(format!("{}/metrics", service.http))
        .header("accept", "application/openmetrics-text; version=1.0.0")
        .send()
        .await
        .unwrap();
    assert!(
        openmetrics.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(openmetrics.text().await.unwrap().ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_drain_finishes_what_was_begun_and_ends_watchers() {
    let mut service = Running::start(&[]);
    service.until("/readyz", 200).await;
    let mut grpc = HealthClient::new(
        tonic::transport::Endpoint::from_shared(service.grpc.clone())
            .unwrap()
            .connect()
            .await
            .unwrap(),
    );
    let mut watch = grpc.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    let mut unknown = grpc
        .watch(HealthCheckRequest {
            service: "nobody".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        unknown.message().await.unwrap().unwrap().status,
        3,
        "unknown services are told so and kept"
    );

    let slow = tokio::spawn(client().get(format!("{}/slow", service.http)).send());
    service.terminate();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2, "told at once");
    // Still accepting while balancers find out, and alive.
    service.until("/readyz", 503).await;
    assert_eq!(service.get("/healthz").await.0, 200);
    assert_eq!(service.get("/greet/bob").await.0, 200);
    assert_eq!(
        watch.message().await.unwrap(),
        None,
        "the stream must not hold up the end"
    );
    assert_eq!(slow.await.unwrap().unwrap().text().await.unwrap(), "done\n");
    assert!(service.ended().await.success());
    assert!(
        client().get(format!("{}/healthz", service.http)).send().await.is_err(),
        "nothing listens any more"
    );
}

#[tokio::test]
async fn a_dead_collector_costs_nothing_but_its_spans() {
    // A port that nobody listens on: it was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{free}");
    let mut service = Running::start(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
        ("DRAIN_DELAY", "0"),
    ]);
    service.until("/readyz", 200).await;
    assert_eq!(service.get("/greet/eve").await.0, 200);
    let began = Instant::now();
    service.terminate();
    assert!(
        !service.ended().await.success(),
        "the example says that telemetry was lost"
    );
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "bounded: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn the_admin_socket_is_private_and_read_only_until_writes_are_allowed() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let address = format!("unix:{}", socket.display());
    for (writes, status) in [("0", 403), ("1", 200)] {
        let service = Running::start(&[("ADMIN_ADDR", &address), ("ADMIN_WRITES", writes)]);
        service.until("/readyz", 200).await;
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let client = reqwest::Client::builder().unix_socket(socket.clone()).build().unwrap();
        let details: Value = client
            .get("http://x/health/details")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(details["checks"]["backend"][0]["status"], "pass");
        let policies: Value = client
            .get("http://x/policies")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(policies[0]["breaker"]["state"], "closed");
        let put = client
            .put("http://x/loglevel")
            .body(r#"{"filter":"debug","ttl":"1m"}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(put.status().as_u16(), status);
        let audit = service.line(|line| line["target"] == "audit");
        assert_eq!(audit["level"], "WARN");
        let level: Value = client
            .get("http://x/loglevel")
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(level["filter"], if writes == "1" { "debug" } else { "info" });
        let bad = client
            .put("http://x/loglevel")
            .body(r#"{"filter":"=!="}"#)
            .send()
            .await
            .unwrap();
        assert_eq!(bad.status().as_u16(), if writes == "1" { 400 } else { 403 });
    }
}

#[tokio::test]
async fn the_rate_of_lines_is_set_for_a_time_and_a_wrong_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let address = format!("unix:{}", socket.display());
    let service = Running::start(&[
        ("ADMIN_ADDR", &address),
        ("ADMIN_WRITES", "1"),
        ("LOG_LINES_PER_SECOND", "7"),
    ]);
    service.until("/readyz", 200).await;
    let client = reqwest::Client::builder().unix_socket(socket).build().unwrap();
    let rate = async || -> (Value, Option<f64>) {
        let shown = client.get("http://x/lograte").send().await.unwrap();
        let shown: Value = shown.json().await.unwrap();
        assert_eq!(
            (&shown["schema"], &shown["base"]),
            (&"opsctl.lograte/v1".into(), &7.into())
        );
        (shown["lines_per_second"].clone(), shown["ttl_seconds"].as_f64())
    };
    let put = async |body: &'static str| {
        let answer = client.put("http://x/lograte").body(body).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(rate().await, (7.into(), None));

    assert_eq!(put(r#"{"lines_per_second":2,"ttl":"1m"}"#).await, 200);
    let (limit, left) = rate().await;
    assert_eq!(limit, 2);
    assert!(left.is_some_and(|left| left > 0.0 && left <= 60.0), "{left:?}");
    for wrong in [
        r#"{"lines_per_second":-1}"#,
        r#"{"lines_per_second":"3"}"#,
        r#"{"lines_per_second":3,"ttl":"soon"}"#,
        r#"{"lines_per_second":3,"ttl":"25h"}"#,
        r#"{"lines_per_second":3,"tll":"1m"}"#,
        r#"{"ttl":"1m"}"#,
        "3",
    ] {
        assert_eq!(put(wrong).await, 400, "{wrong}");
        assert_eq!(rate().await.0, 2, "{wrong}");
    }
    // 0 is no limit.
    assert_eq!(put(r#"{"lines_per_second":0,"ttl":"1h"}"#).await, 200);
    assert_eq!(rate().await.0, Value::Null);
    assert_eq!(put(r#"{"lines_per_second":3,"ttl":"50ms"}"#).await, 200);
    let deadline = Instant::now() + Duration::from_secs(10);
    while rate().await != (7.into(), None) {
        assert!(Instant::now() < deadline, "it goes back by itself");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn metrics_go_where_the_variables_say() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metrics.json");
    let configuration = format!(
        "exporters: {{file: {{path: '{}', flush_interval: 100ms}}}}\n\
         service: {{pipelines: {{metrics: {{receivers: [otlp], exporters: [file]}}}}}}",
        file.display()
    );
    let recipe = peers::servers::Collector::new(configuration);
    let Some(collector) = peers::Server::start(recipe, "metrics_go_where_the_variables_say").await else {
        return;
    };
    // It was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut service = Running::start(&[
        ("OTEL_METRICS_EXPORTER", "otlp,prometheus"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", &free.port().to_string()),
        (
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            &format!("{}/v1/metrics", collector.url("http")),
        ),
        ("DRAIN_DELAY", "0"),
    ]);
    service.until("/readyz", 200).await;
    assert_eq!(service.get("/greet/ann").await.0, 200);
    let own = client()
        .get(format!("http://{free}/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let counted = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/greet/{name}",http_response_status_code="200"} 1"#;
    assert!(own.contains(counted), "{own}");
    assert!(
        own.contains(r#"telemetry_emitted_total{sink="otlp_metrics"} 0"#),
        "{own}"
    );
    // The interval is a minute: what arrives is the push at the end.
    service.terminate();
    assert!(service.ended().await.success(), "nothing was lost");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        if written.contains("http_server_request_duration_seconds") && written.contains("/greet/{name}") {
            assert!(written.contains("greeter"), "whose it is");
            return;
        }
        assert!(Instant::now() < deadline, "{written}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
