//! A probe as the kubelet sends it, over a fresh connection each, beside an empty handler of hyper's on the same runtime:
//! one after the other in turn, so that whatever else the machine does hits both alike.

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use health::{Health, State};
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Probes of each in one round, and rounds.
const PROBES: u32 = 200;
const ROUNDS: usize = 40;

/// Microseconds of wall time a probe: the least round of each, and the median of the rounds' quotients.
pub fn measure() -> Value {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be built");
    let (ours, empty) = runtime.block_on(async { (serve_health().await, serve_nothing().await) });
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push((round(ours, "/readyz"), round(empty, "/")));
    }
    let least = |pick: fn(&(f64, f64)) -> f64| rounds.iter().map(pick).fold(f64::INFINITY, f64::min);
    let mut quotients: Vec<f64> = rounds.iter().map(|(ours, empty)| ours / empty).collect();
    quotients.sort_by(f64::total_cmp);
    json!({
        "ours_us": least(|round| round.0),
        "empty_us": least(|round| round.1),
        "times": quotients[quotients.len() / 2],
    })
}

/// Microseconds a probe in one round.
fn round(address: SocketAddr, path: &str) -> f64 {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\nUser-Agent: kube-probe/1.36\r\n\r\n");
    let begin = now();
    for _ in 0..PROBES {
        let mut connection = TcpStream::connect(address).expect("the server accepts");
        connection.write_all(request.as_bytes()).expect("the server reads");
        let mut answer = Vec::with_capacity(512);
        connection.read_to_end(&mut answer).expect("the server answers");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "the probe failed");
    }
    (now().saturating_sub(begin) / PROBES).as_secs_f64() * 1e6
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A service with ten checks, as it serves its probes.
async fn serve_health() -> SocketAddr {
    let mut health = Health::builder();
    for check in 0..10 {
        health = health.critical(format!("check-{check}"), || async {});
    }
    let health = health.build().expect("the checks are well described");
    health.wait_until(State::takes_traffic).await;
    let router: axum::Router = health.http_router();
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        let _kept = health;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                break;
            };
            let service = TowerToHyperService::new(router.clone());
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn serve_nothing() -> SocketAddr {
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                break;
            };
            let service = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::new(Bytes::new()))) });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    (listener, address)
}
