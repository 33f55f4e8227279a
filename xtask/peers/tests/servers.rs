//! Every kind of server keeps the same promises: two run at one time, it serves, a restart keeps what it was told, a
//! paused one hangs, and nothing of it is left afterwards.

use std::{fs, io, net::SocketAddr, path::PathBuf, time::Duration};

use peers::{Recipe, Server, http, servers};
use tokio::time::{Instant, sleep, timeout};

/// What the suite does with one kind of server.
trait Contract {
    /// Leaves something with the server.
    async fn tell(&self, server: &Server) -> io::Result<()>;
    /// Whether the server still has it.
    async fn remembers(&self, server: &Server) -> io::Result<bool>;
}

async fn keeps_its_promises<R: Recipe>(recipe: impl Fn() -> R, contract: impl Contract, test: &str) {
    let (first, second) = tokio::join!(Server::start(recipe(), test), Server::start(recipe(), test));
    let (Some(mut first), Some(second)) = (first, second) else {
        return;
    };
    for ((name, one), (_, other)) in first.urls().iter().zip(second.urls()) {
        assert_ne!(*one, other, "both have the port {name}");
    }
    let what = "the first server is told something";
    eventually(what, &first, async || contract.tell(&first).await.is_ok()).await;
    eventually("it has it", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;
    assert!(
        !contract.remembers(&second).await.unwrap_or(false),
        "the second has what the first was told"
    );
    let gone = second.folder().to_owned();
    drop(second);
    nothing_is_left(&gone).await;

    first.pause();
    let answer = timeout(Duration::from_millis(300), contract.remembers(&first)).await;
    assert!(!matches!(answer, Ok(Ok(true))), "a paused server answered");
    assert!(first.is_running(), "a paused server runs");
    first.resume();
    eventually("it goes on", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;

    let urls = first.urls();
    first.stop().await;
    assert!(!first.is_running());
    assert!(
        !contract.remembers(&first).await.unwrap_or(false),
        "a stopped server answered"
    );
    first.start_again().await.expect("the server starts again");
    assert_eq!(first.urls(), urls, "the ports are the same after a restart");
    eventually("it still has it", &first, async || {
        contract.remembers(&first).await.is_ok_and(|yes| yes)
    })
    .await;

    let gone = first.folder().to_owned();
    drop(first);
    nothing_is_left(&gone).await;
}

/// Polls until `condition` holds; what the server wrote last is shown when it never does.
async fn eventually(what: &str, server: &Server, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "never seen: {what}; its log ends:\n{}",
            server.log_tail()
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// The folder is gone, and no process has it in its command line or as its working directory.
async fn nothing_is_left(folder: &std::path::Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let users = users_of(folder);
        if users.is_empty() && !folder.exists() {
            return;
        }
        assert!(Instant::now() < deadline, "left of {}: {users:?}", folder.display());
        sleep(Duration::from_millis(50)).await;
    }
}

fn users_of(folder: &std::path::Path) -> Vec<String> {
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let process: PathBuf = entry.path();
        let command = fs::read(process.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let there = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        if there || command.contains(&folder.display().to_string()) {
            users.push(format!("{}: {command}", entry.file_name().display()));
        }
    }
    users
}

struct ForLoki;

impl Contract for ForLoki {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let now = std::process::Command::new("date").arg("+%s%N").output()?;
        let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
        let body = format!(r#"{{"streams":[{{"stream":{{"job":"contract"}},"values":[["{now}","kept"]]}}]}}"#);
        let answer = http::post(server.address("http"), "/loki/api/v1/push", "application/json", &body).await?;
        expect_status(&answer, 204)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        let query = format!("/loki/api/v1/query_range?query={}", http::encode(r#"{job="contract"}"#));
        Ok(http::get(server.address("http"), &query).await?.body.contains("kept"))
    }
}

#[tokio::test]
async fn loki() {
    keeps_its_promises(servers::Loki::default, ForLoki, "loki").await;
}

/// One span, as OTLP's JSON has it.
async fn send_span(address: SocketAddr) -> io::Result<()> {
    let now = std::process::Command::new("date").arg("+%s%N").output()?;
    let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
    let span = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"contract"}}}}]}},"scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"kept","kind":2,"startTimeUnixNano":"{now}","endTimeUnixNano":"{now}"}}]}}]}}]}}"#
    );
    let answer = http::post(address, "/v1/traces", "application/json", &span).await?;
    expect_status(&answer, 200)
}

fn expect_status(answer: &http::Answer, status: u16) -> io::Result<()> {
    if answer.status == status {
        Ok(())
    } else {
        Err(io::Error::other(answer.body.clone()))
    }
}

struct ForJaeger;

impl Contract for ForJaeger {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        send_span(server.address("otlp-http")).await
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        let path = "/api/traces/0af7651916cd43dd8448eb211c80319c";
        Ok(http::get(server.address("query"), path).await?.body.contains("kept"))
    }
}

#[tokio::test]
async fn jaeger() {
    keeps_its_promises(|| servers::Jaeger, ForJaeger, "jaeger").await;
}

/// What a collector was told it hands on; here to a file in its own folder.
struct ForCollector;

impl Contract for ForCollector {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        send_span(server.address("http")).await
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        http::get(server.address("health"), "/").await?;
        Ok(fs::read_to_string(server.folder().join("spans.json")).is_ok_and(|spans| spans.contains("kept")))
    }
}

const TO_A_FILE: &str = "
exporters: {file: {path: spans.json, append: true, flush_interval: 100ms}}
service: {pipelines: {traces: {receivers: [otlp], exporters: [file]}}}
";

#[tokio::test]
async fn collector() {
    keeps_its_promises(|| servers::Collector::new(TO_A_FILE), ForCollector, "collector").await;
}

/// A Prometheus that scrapes itself has samples from before its restart.
struct ForPrometheus;

impl Contract for ForPrometheus {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let now = std::process::Command::new("date").arg("+%s%N").output()?;
        let now = String::from_utf8_lossy(&now.stdout).trim().to_owned();
        let metric = format!(
            r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"name":"kept","gauge":{{"dataPoints":[{{"asDouble":7,"timeUnixNano":"{now}"}}]}}}}]}}]}}]}}"#
        );
        let answer = http::post(
            server.address("http"),
            "/api/v1/otlp/v1/metrics",
            "application/json",
            &metric,
        )
        .await?;
        expect_status(&answer, 200)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        let answer = http::get(
            server.address("http"),
            "/api/v1/query?query=last_over_time(kept%5B1h%5D)",
        )
        .await?;
        Ok(answer.json()["data"]["result"]
            .as_array()
            .is_some_and(|series| !series.is_empty()))
    }
}

#[tokio::test]
async fn prometheus() {
    keeps_its_promises(servers::Prometheus::default, ForPrometheus, "prometheus").await;
}

/// Silences outlive a restart.
struct ForAlertmanager;

impl Contract for ForAlertmanager {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let silence = r#"{"matchers":[{"name":"a","value":"b","isRegex":false}],"startsAt":"2020-01-01T00:00:00Z","endsAt":"2999-01-01T00:00:00Z","createdBy":"contract","comment":"kept"}"#;
        let answer = http::post(server.address("http"), "/api/v2/silences", "application/json", silence).await?;
        expect_status(&answer, 200)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(http::get(server.address("http"), "/api/v2/silences")
            .await?
            .body
            .contains("kept"))
    }
}

#[tokio::test]
async fn alertmanager() {
    keeps_its_promises(servers::Alertmanager::default, ForAlertmanager, "alertmanager").await;
}
