//! What each kind of server is told, and asked for again: the suite's other half.

use std::{fs, io, net::SocketAddr, process::Output, time::Duration};

use peers::{
    Server,
    http::{self, Answer},
    servers::{self, Release},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};

use crate::{Contract, keeps_its_promises};

struct ForLoki;

impl Contract for ForLoki {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let now = now().await?;
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
    let now = now().await?;
    let span = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"contract"}}}}]}},"scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"b7ad6b7169203331","name":"kept","kind":2,"startTimeUnixNano":"{now}","endTimeUnixNano":"{now}"}}]}}]}}]}}"#
    );
    let answer = http::post(address, "/v1/traces", "application/json", &span).await?;
    expect_status(&answer, 200)
}

fn expect_status(answer: &Answer, status: u16) -> io::Result<()> {
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
        let now = now().await?;
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

struct ForPostgres;

impl ForPostgres {
    async fn run(server: &Server, sql: &str) -> io::Result<String> {
        let url = server.url("postgres");
        program(Command::new("psql").args([&url, "-qAt", "-c", sql])).await
    }
}

impl Contract for ForPostgres {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        Self::run(server, "create table t (c text); insert into t values ('kept')")
            .await
            .map(drop)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(Self::run(server, "select c from t").await?.contains("kept"))
    }
}

#[tokio::test]
async fn postgres() {
    keeps_its_promises(servers::Postgres::default, ForPostgres, "postgres").await;
}

#[tokio::test]
async fn postgres_14() {
    keeps_its_promises(|| servers::Postgres::of(Release::V14), ForPostgres, "postgres_14").await;
}

#[tokio::test]
async fn postgres_18() {
    keeps_its_promises(|| servers::Postgres::of(Release::V18), ForPostgres, "postgres_18").await;
}

struct ForRedis;

impl Contract for ForRedis {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let answer = talk(server.address("redis"), b"SET key kept\r\n", "OK").await?;
        if answer.contains("OK") {
            Ok(())
        } else {
            Err(io::Error::other(answer))
        }
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(talk(server.address("redis"), b"GET key\r\n", "\r\n")
            .await?
            .contains("$4"))
    }
}

#[tokio::test]
async fn redis() {
    keeps_its_promises(servers::Redis::default, ForRedis, "redis").await;
}

struct ForNats;

impl Contract for ForNats {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let stream = r#"{"name":"kept","subjects":["kept"],"storage":"file"}"#;
        let length = stream.len();
        let words =
            format!("CONNECT {{}}\r\nSUB answers 1\r\nPUB $JS.API.STREAM.CREATE.kept answers {length}\r\n{stream}\r\n");
        talk(server.address("nats"), words.as_bytes(), "stream_create_response")
            .await
            .map(drop)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(http::get(server.address("monitor"), "/jsz?streams=true")
            .await?
            .body
            .contains("kept"))
    }
}

#[tokio::test]
async fn nats() {
    keeps_its_promises(servers::Nats::default, ForNats, "nats").await;
}

struct ForRabbitMq;

impl ForRabbitMq {
    async fn queue(server: &Server, method: &str, body: &str) -> io::Result<Answer> {
        let headers = [
            ("Authorization", "Basic Z3Vlc3Q6Z3Vlc3Q="),
            ("Content-Type", "application/json"),
        ];
        http::send(
            server.address("management"),
            method,
            "/api/queues/%2f/kept",
            &headers,
            body,
        )
        .await
    }
}

impl Contract for ForRabbitMq {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        expect_status(&Self::queue(server, "PUT", r#"{"durable":true}"#).await?, 201)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(Self::queue(server, "GET", "").await?.status == 200)
    }
}

#[tokio::test]
async fn rabbitmq() {
    keeps_its_promises(|| servers::RabbitMq, ForRabbitMq, "rabbitmq").await;
}

struct ForKafka;

impl ForKafka {
    async fn kcat(server: &Server, words: &str) -> io::Result<String> {
        let script = format!("{words} -b {} -t kept", server.url("kafka"));
        program(Command::new("sh").args(["-c", &script])).await
    }
}

impl Contract for ForKafka {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        Self::kcat(server, "echo kept | kcat -P").await.map(drop)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(Self::kcat(server, "exec kcat -C -e -q -o beginning")
            .await?
            .contains("kept"))
    }
}

#[tokio::test]
async fn kafka() {
    if peers::peer("kcat", "kafka").is_some() {
        keeps_its_promises(servers::Kafka::default, ForKafka, "kafka").await;
    }
}

struct ForFerretDb;

impl ForFerretDb {
    /// Sends a command as `OP_MSG` (2013) and returns the answer's bytes, lossily.
    async fn command(server: &Server, document: &[u8]) -> io::Result<String> {
        let length = 16 + 5 + document.len() as u32;
        let head = [length, 1, 0, 2013, 0].map(u32::to_le_bytes).concat();
        let message = [&head, &[0][..], document].concat();
        talk(server.address("mongodb"), &message, "ok\0").await
    }
}

/// BSON: a document of elements.
fn document(elements: &[Vec<u8>]) -> Vec<u8> {
    let body = elements.concat();
    let length = (4 + body.len() + 1) as u32;
    [&length.to_le_bytes()[..], &body, &[0]].concat()
}

/// BSON: one element, of a kind, with a name and a value.
fn element(kind: u8, name: &str, value: &[u8]) -> Vec<u8> {
    [&[kind], name.as_bytes(), &[0], value].concat()
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let length = (value.len() + 1) as u32;
    element(2, name, &[&length.to_le_bytes()[..], value.as_bytes(), &[0]].concat())
}

impl Contract for ForFerretDb {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let kept = document(&[text("_id", "is kept")]);
        let documents = element(4, "documents", &document(&[element(3, "0", &kept)]));
        let insert = document(&[text("insert", "things"), documents, text("$db", "test")]);
        Self::command(server, &insert).await.map(drop)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        let find = document(&[text("find", "things"), text("$db", "test")]);
        Ok(Self::command(server, &find).await?.contains("is kept"))
    }
}

#[tokio::test]
async fn ferretdb() {
    keeps_its_promises(|| servers::FerretDb, ForFerretDb, "ferretdb").await;
}

struct ForTemporal;

const WORKFLOW: &str = "/api/v1/namespaces/default/workflows/kept";

impl Contract for ForTemporal {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        let workflow = r#"{"workflowType":{"name":"kept"},"taskQueue":{"name":"kept"}}"#;
        let answer = http::post(server.address("http"), WORKFLOW, "application/json", workflow).await?;
        expect_status(&answer, 200)
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        Ok(http::get(server.address("http"), WORKFLOW).await?.status == 200)
    }
}

#[tokio::test]
async fn temporal() {
    keeps_its_promises(|| servers::Temporal, ForTemporal, "temporal").await;
}

struct ForMinIo;

impl ForMinIo {
    /// Asks by restic, which signs its requests.
    async fn restic(server: &Server, command: &str) -> io::Result<()> {
        let restic = peers::peer("restic", "minio").ok_or(io::ErrorKind::NotFound)?;
        let repository = format!("s3:{}/kept/repository", server.url("s3"));
        let mut asked = Command::new(restic);
        asked
            .args(["--no-cache", "--repo", &repository, command])
            .env("RESTIC_PASSWORD", "kept")
            .env("AWS_ACCESS_KEY_ID", servers::MinIo::ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", servers::MinIo::SECRET_KEY)
            .kill_on_drop(true);
        if command == "cat" {
            asked.arg("config");
        }
        program(&mut asked).await.map(drop)
    }
}

impl Contract for ForMinIo {
    async fn tell(&self, server: &Server) -> io::Result<()> {
        Self::restic(server, "init").await
    }

    async fn remembers(&self, server: &Server) -> io::Result<bool> {
        // A repository that was never made is an error of restic, not of the server.
        Ok(Self::restic(server, "cat").await.is_ok())
    }
}

#[tokio::test]
async fn minio() {
    keeps_its_promises(servers::MinIo::default, ForMinIo, "minio").await;
}

/// Nanoseconds since 1970.
async fn now() -> io::Result<String> {
    Ok(program(Command::new("date").arg("+%s%N")).await?.trim().to_owned())
}

/// What a program writes, unless it fails or takes long.
async fn program(command: &mut Command) -> io::Result<String> {
    let output: Output = timeout(Duration::from_secs(10), command.kill_on_drop(true).output()).await??;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// Says something over a fresh connection and returns what is heard until `end` is.
async fn talk(address: SocketAddr, say: &[u8], end: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(say).await?;
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(end) {
        if stream.read_buf(&mut heard).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}
