//! Measures the proxy as a process of its own: HTTP/1.1 requests per second of its CPU time, and what it adds to the
//! median response time at 2,000 requests a second. Not a test: it judges nothing and prints one JSON document.
//!
//! `cargo run --release -p opsctl-proxy --example bench_proxy [-- --seconds N] [--peer PROGRAM]`
//!
//! It starts itself twice more, as upstream and as proxy. Saturation comes from `wrk` if that is installed, else from
//! the load engine. `--peer` measures another proxy in the same way in the same run; it is called as
//! `PROGRAM LISTEN_ADDRESS UPSTREAM_ADDRESS` and must not fork.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use opsctl_load::{Fixed, Plan, Rate, Request, Silent, Summary, Target};
use opsctl_proxy::Options;
use opsctl_proxy_control::{Backend, Client, RouteConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections that saturate the proxy.
const CONNECTIONS: usize = 64;
/// The open-model rate at which latency is measured.
const LATENCY_RATE: &str = "2000/s";
/// Direct and proxied turns, one after the other, so that a noisy machine disturbs both.
const TURNS: usize = 3;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upstream", addr] => upstream(addr.parse()?).await,
        ["proxy", folder] => Ok(opsctl_proxy::run(Options::new(Path::new(folder), CancellationToken::new())).await?),
        _ => drive(&args).await,
    }
}

async fn drive(args: &[String]) -> Result<()> {
    let option = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    let seconds: u64 = option("--seconds").map_or(Ok(5), |text| text.parse())?;
    let duration = Duration::from_secs(seconds);
    let folder = tempfile::tempdir()?;
    let me = std::env::current_exe()?;

    let upstream_addr = free_port().await?;
    let _upstream = start(&me, &["upstream", &upstream_addr.to_string()])?;
    listening(upstream_addr).await?;
    let proxy = start(&me, &["proxy", &folder.path().display().to_string()])?;
    let proxy_addr = configure(&folder.path().join("proxy.sock"), upstream_addr).await?;
    let ours = measure(&proxy, proxy_addr, upstream_addr, duration).await?;

    let mut peers = serde_json::Map::new();
    if let Some(program) = option("--peer") {
        let listen = free_port().await?;
        let program = PathBuf::from(program);
        let peer = start(&program, &[&listen.to_string(), &upstream_addr.to_string()])?;
        listening(listen).await?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        peers.insert(name, measure(&peer, listen, upstream_addr, duration).await?);
    }
    let report = json!({ "schema": "opsctl.bench-proxy/v1", "proxy": ours, "peers": peers });
    println!("{report:#}");
    Ok(())
}

async fn measure(proxy: &Child, addr: SocketAddr, upstream: SocketAddr, duration: Duration) -> Result<Value> {
    let pid = proxy.id().ok_or("the proxy has ended")?;
    saturate(addr, Duration::from_secs(1)).await?;
    let before = cpu_seconds(pid)?;
    let (requests, elapsed, driver) = saturate(addr, duration).await?;
    let cpu = cpu_seconds(pid)? - before;
    let mut direct = Vec::new();
    let mut proxied = Vec::new();
    for _ in 0..TURNS {
        direct.push(at_rate(upstream, duration).await?);
        proxied.push(at_rate(addr, duration).await?);
    }
    let direct_p50 = median(direct.iter().map(|summary| summary.response.p50_seconds));
    let proxied_p50 = median(proxied.iter().map(|summary| summary.response.p50_seconds));
    let failed: u64 = proxied
        .iter()
        .map(|summary| summary.scheduled - summary.succeeded)
        .sum();
    let bound = direct.iter().chain(&proxied).any(|summary| summary.generator.bound);
    Ok(json!({
        "requests": requests,
        "requests_per_second": requests as f64 / elapsed,
        "cpu_seconds": cpu,
        "requests_per_cpu_second": requests as f64 / cpu,
        "driver": driver,
        "connections": CONNECTIONS,
        "latency": {
            "rate": LATENCY_RATE,
            "direct_p50_seconds": direct_p50,
            "proxied_p50_seconds": proxied_p50,
            "added_p50_seconds": proxied_p50 - direct_p50,
            "direct_p99_seconds": median(direct.iter().map(|summary| summary.response.p99_seconds)),
            "proxied_p99_seconds": median(proxied.iter().map(|summary| summary.response.p99_seconds)),
            "failed_requests": failed,
            "generator_bound": bound,
        },
    }))
}

/// As many requests as go through: their number, the seconds, and who drove.
async fn saturate(addr: SocketAddr, duration: Duration) -> Result<(u64, f64, &'static str)> {
    let url = format!("http://{addr}/");
    let wrk = Command::new("wrk")
        .args(["-t1", "-c", &CONNECTIONS.to_string()])
        .args(["-d", &format!("{}s", duration.as_secs())])
        .arg(&url)
        .stderr(Stdio::null())
        .output()
        .await;
    if let Ok(output) = wrk {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "  123456 requests in 5.00s, 15.2MB read"
        let line = text
            .lines()
            .find(|line| line.contains("requests in"))
            .ok_or("wrk said nothing")?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            return Err(format!("wrk saw errors: {text}").into());
        }
        let requests = line.split_whitespace().next().ok_or("wrk gave no number")?.parse()?;
        return Ok((requests, duration.as_secs_f64(), "wrk"));
    }
    let mut plan = plan(addr, "1000000/s", duration)?;
    plan.connections = CONNECTIONS;
    plan.timeouts.response = duration;
    let summary = opsctl_load::run(plan, Arc::new(Silent), CancellationToken::new()).await?;
    Ok((summary.completed, summary.elapsed_seconds, "opsctl-load"))
}

async fn at_rate(addr: SocketAddr, duration: Duration) -> Result<Summary> {
    let plan = plan(addr, LATENCY_RATE, duration)?;
    Ok(opsctl_load::run(plan, Arc::new(Silent), CancellationToken::new()).await?)
}

fn plan(addr: SocketAddr, rate: &str, duration: Duration) -> Result<Plan> {
    let target: Target = format!("http://{addr}/").parse()?;
    let rate: Rate = rate.parse()?;
    Ok(Plan::new(target, rate, duration, Arc::new(Fixed(Request::get("/")?))))
}

async fn configure(socket: &Path, upstream: SocketAddr) -> Result<SocketAddr> {
    let client = Client::new(socket);
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.status().await.is_err() {
        if Instant::now() > deadline {
            return Err("the proxy did not start".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let route = client
        .put_route(&RouteConfig {
            service: "bench".to_owned(),
            http_listen: Some("127.0.0.1:0".parse()?),
            grpc_listen: None,
            stable_version: "v1".to_owned(),
            latency_objective_ms: 100,
            response_timeout_ms: opsctl_proxy_control::DEFAULT_RESPONSE_TIMEOUT_MS,
            rules: Vec::new(),
        })
        .await?;
    let backend = Backend {
        instance: "bench-1".to_owned(),
        version: "v1".to_owned(),
        http: Some(upstream),
        grpc: None,
        ready: true,
    };
    client.set_backends("bench", vec![backend]).await?;
    Ok(route.config.http_listen.ok_or("no port")?)
}

/// User and system time of a process (`/proc/PID/stat`, fields 14 and 15).
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').ok_or("unreadable stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn start(program: &Path, args: &[&str]) -> Result<Child> {
    Ok(Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?)
}

async fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

async fn listening(addr: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(addr).await.is_err() {
        if Instant::now() > deadline {
            return Err(format!("nobody listens on {addr}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Answers every request with 13 bytes.
async fn upstream(addr: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = hyper::service::service_fn(|_| async {
            Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(b"hello, world\n"))))
        });
        tokio::spawn(async move {
            // A client that leaves is no concern of the measurement.
            let _ = hyper::server::conn::http1::Builder::new()
                .pipeline_flush(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
