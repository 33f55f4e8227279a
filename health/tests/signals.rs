//! The end of a real process: signals, real sockets, connections that do whatever clients do. The process is
//! examples/lifecycle.rs, run by this test's own program.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[path = "../examples/lifecycle.rs"]
mod service;

/// Says to this test binary that it is to be the service.
const BE_THE_SERVICE: &str = "HEALTH_TEST_SERVICE";

/// Not a test of its own: the other tests start this binary with the variable set, and then it is the service.
#[test]
fn the_service() {
    if std::env::var_os(BE_THE_SERVICE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(service::run()).unwrap();
    }
}

/// This test binary as the service.
fn command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "the_service", "--nocapture"])
        .env_clear()
        .env(BE_THE_SERVICE, "1")
        .env("ADDR", "127.0.0.1:0");
    command
}

const PATIENCE: Duration = Duration::from_secs(20);

/// The example, running; gone when dropped.
struct Process {
    child: Child,
    lines: Receiver<String>,
    address: SocketAddr,
}

impl Process {
    fn spawn(variables: &[(&str, &str)]) -> (Child, Receiver<String>) {
        let mut child = command()
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness writes lines of its own around the service's.
                if let Some((_, said)) = line.split_once("service: ") {
                    // The test may have ended.
                    let _ = tell.send(said.to_owned());
                }
            }
        });
        assert_eq!(lines.recv_timeout(PATIENCE).unwrap(), "installed");
        (child, lines)
    }

    /// Started, ready, with these times of the drain in milliseconds.
    async fn start(delay: u32, timeout: u32) -> Self {
        let (delay, timeout) = (format!("{delay}ms"), format!("{timeout}ms"));
        let (child, lines) = Self::spawn(&[("DRAIN_DELAY", &delay), ("DRAIN_TIMEOUT", &timeout)]);
        let told = lines.recv_timeout(PATIENCE).unwrap();
        let address = told.strip_prefix("listening ").unwrap().parse().unwrap();
        let process = Self { child, lines, address };
        let deadline = Instant::now() + PATIENCE;
        while process
            .get("/readyz")
            .await
            .is_none_or(|answer| !answer.starts_with("HTTP/1.1 200"))
        {
            assert!(Instant::now() < deadline, "it never became ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process
    }

    fn signal(&self, signal: Signal) -> Instant {
        kill_process(pid(&self.child), signal).unwrap();
        Instant::now()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which this was sent.
    async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// The whole answer to a GET on a connection of its own; `None` when nobody takes it.
    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    /// What it said last, its exit status, and how long it took since `began`.
    async fn ended(&mut self, began: Instant) -> (Vec<String>, ExitStatus, Duration) {
        let status = until_ended(&mut self.child).await;
        let took = began.elapsed();
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            said.push(line);
        }
        (said, status, took)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

async fn until_ended(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < deadline, "it does not end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The beginning of an answer on a connection that stays open.
async fn head(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

#[tokio::test]
async fn sigterm_is_told_first_then_the_door_closes_then_it_ends() {
    let mut process = Process::start(800, 10_000).await;
    let mut slow = process.sent("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    tokio::time::sleep(ms(300)).await;
    let began = process.signal(Signal::TERM);
    tokio::time::sleep(ms(50)).await;
    let (ready, live) = (
        process.get("/readyz").await.unwrap(),
        process.get("/healthz").await.unwrap(),
    );
    assert!(
        ready.starts_with("HTTP/1.1 503") && live.starts_with("HTTP/1.1 200"),
        "{ready}{live}"
    );
    // Begun while draining, and still answered in full; over HTTP/1 the answer closes the connection.
    let late = process.get("/slow").await.unwrap();
    assert!(late.ends_with("done\n"), "{late}");
    let mut first = String::new();
    slow.read_to_string(&mut first).await.unwrap();
    assert!(
        first.contains("connection: close") && first.ends_with("done\n"),
        "{first}"
    );
    let (said, status, took) = process.ended(began).await;
    assert_eq!(said, ["flushing for 4000 ms", "finished"]);
    assert!(status.success());
    assert!((ms(750)..ms(3000)).contains(&took), "{took:?}");
    assert!(process.get("/readyz").await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_is_answered() {
    for round in 0..6 {
        let mut process = Process::start(0, 10_000).await;
        let address = process.address;
        let clients: Vec<_> = (0..60)
            .map(|_| {
                tokio::spawn(async move {
                    // Nobody listens any more: the client goes elsewhere. Whoever was connected has a right to an answer.
                    let Ok(mut stream) = TcpStream::connect(address).await else {
                        return Ok(String::new());
                    };
                    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await?;
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).await.map(|_| answer)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(round * 500)).await;
        let began = process.signal(Signal::TERM);
        for client in clients {
            let answer: std::io::Result<String> = client.await.unwrap();
            let answer = answer.unwrap_or_else(|error| panic!("round {round}: {error}"));
            assert!(
                answer.is_empty() || answer.ends_with("done\n"),
                "round {round}: {answer}"
            );
        }
        assert_eq!(process.ended(began).await.0.last().unwrap(), "finished");
    }
}

#[tokio::test]
async fn no_connection_without_a_request_holds_it_up() {
    let mut process = Process::start(100, 15_000).await;
    // Never sent a byte; half a request line; half a head; idle after an answer over HTTP/1.
    let silent = process.connect().await;
    let half_line = process.sent("GET /slo").await;
    let half_head = process.sent("GET /slow HTTP/1.1\r\nhost: x\r\nx-slow:").await;
    let mut idle = process.sent("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head(&mut idle).await.starts_with("HTTP/1.1 200"));
    // HTTP/2: half the preface; the preface without settings; settings and then silence, so that no ping is answered.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let half_preface = process.sent(&preface[..10]).await;
    let no_settings = process.sent(preface).await;
    let no_ping = process.sent(&format!("{preface}\0\0\0\u{4}\0\0\0\0\0")).await;
    // Idle and watching over real gRPC.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", process.address)).unwrap();
    let mut idle_grpc = HealthClient::new(endpoint.connect().await.unwrap());
    idle_grpc.check(HealthCheckRequest::default()).await.unwrap();
    let mut watching = HealthClient::new(endpoint.connect().await.unwrap());
    let mut watch = watching
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);

    let began = process.signal(Signal::TERM);
    assert_eq!(watch.message().await.unwrap().unwrap().status, 2, "NOT_SERVING");
    assert!(watch.message().await.unwrap().is_none(), "the stream ends in order");
    let (said, status, took) = process.ended(began).await;
    assert_eq!(said.last().unwrap(), "finished");
    assert!(status.success());
    assert!(took < ms(4000), "nothing was waited for: {took:?}");
    drop((
        silent,
        half_line,
        half_head,
        idle,
        half_preface,
        no_settings,
        no_ping,
        idle_grpc,
    ));
}

#[tokio::test]
async fn a_connection_that_is_closed_in_order_ends_at_once() {
    let mut process = Process::start(0, 15_000).await;
    let mut idle = process.sent("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    head(&mut idle).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", process.address)).unwrap();
    let mut grpc = HealthClient::new(endpoint.connect().await.unwrap());
    grpc.check(HealthCheckRequest::default()).await.unwrap();
    let (_, _, took) = {
        let began = process.signal(Signal::TERM);
        process.ended(began).await
    };
    assert!(took < ms(700), "without waiting for silence: {took:?}");
}

#[tokio::test]
async fn what_is_not_done_in_time_is_cut() {
    for request in [
        "GET /never HTTP/1.1\r\nhost: x\r\n\r\n",
        // An upload that stops half-way, and one that nobody reads.
        "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nabc",
        "POST /ignored HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\nabc",
    ] {
        let mut process = Process::start(100, 700).await;
        let mut stream = process.sent(request).await;
        tokio::time::sleep(ms(100)).await;
        let began = process.signal(Signal::TERM);
        let (said, status, took) = process.ended(began).await;
        assert_eq!(said, ["flushing for 4000 ms", "cut"], "{request}");
        assert!(status.success());
        assert!((ms(790)..ms(2500)).contains(&took), "{request}: {took:?}");
        let mut rest = Vec::new();
        // An error is as good an end: the connection was cut.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "{request}");
    }
}

#[tokio::test]
async fn an_upload_under_way_is_taken_to_its_end() {
    let mut process = Process::start(0, 10_000).await;
    let mut stream = process
        .sent("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        .await;
    tokio::time::sleep(ms(100)).await;
    let began = process.signal(Signal::TERM);
    // Longer than a connection without a request may be silent.
    tokio::time::sleep(ms(1500)).await;
    stream.write_all(b"def").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("6\n"), "{answer}");
    assert_eq!(process.ended(began).await.0.last().unwrap(), "finished");
}

#[tokio::test]
async fn sigint_skips_the_delay_and_a_second_signal_ends_at_once() {
    let mut process = Process::start(10_000, 10_000).await;
    let began = process.signal(Signal::INT);
    let (said, _, took) = process.ended(began).await;
    assert_eq!(said.last().unwrap(), "finished");
    assert!(took < ms(2000), "{took:?}");

    for (first, second) in [
        (Signal::TERM, Signal::TERM),
        (Signal::INT, Signal::TERM),
        (Signal::TERM, Signal::INT),
    ] {
        let mut process = Process::start(9_000, 10_000).await;
        let _never = process.sent("GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        tokio::time::sleep(ms(50)).await;
        process.signal(first);
        tokio::time::sleep(ms(200)).await;
        let began = process.signal(second);
        let (said, status, took) = process.ended(began).await;
        assert_eq!(said, ["flushing for 250 ms", "cut"]);
        assert!(status.success() && took < ms(1000), "{took:?}");
    }
}

#[tokio::test]
async fn a_signal_while_starting_ends_the_start() {
    let (mut child, _lines) = Process::spawn(&[("SLOW_START_MS", "60000")]);
    kill_process(pid(&child), Signal::TERM).unwrap();
    let began = Instant::now();
    let status = until_ended(&mut child).await;
    assert!(began.elapsed() < ms(2000));
    assert!(!status.success(), "it was told so");
}

#[tokio::test]
async fn times_that_do_not_fit_are_refused_at_the_start() {
    let output = command().env("DRAIN_TIMEOUT", "25s").output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("TooLong") || told.contains("health.drain"), "{told}");
}
