//! Instances that do not begin to answer: their clients are answered in time, and nothing that goes on is cut.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use opsctl_proxy_control::{ControlError, DEFAULT_RESPONSE_TIMEOUT_MS, MAX_RESPONSE_TIMEOUT_MS, Route, RouteConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{Connection, DEADLINE, Proxy, Upstream, backend, get, http2, one, until};

const LIMIT: Duration = Duration::from_millis(150);

/// Puts the route again, with this limit in milliseconds; 0 for none.
async fn put_limit(proxy: &Proxy, response_timeout_ms: u64) -> Result<Route, ControlError> {
    let routes = proxy.client.routes().await.expect("routes");
    let config = RouteConfig {
        response_timeout_ms,
        ..routes[0].config.clone()
    };
    proxy.client.put_route(&config).await
}

async fn limit(proxy: &Proxy, limit: Duration) {
    put_limit(proxy, limit.as_millis() as u64).await.expect("set");
}

/// What the proxy has sent, once it holds `wanted`.
async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), wanted: &str) -> String {
    let mut seen = Vec::new();
    timeout(DEADLINE, async {
        while !String::from_utf8_lossy(&seen).contains(wanted) {
            assert!(stream.read_buf(&mut seen).await.expect("it is read") > 0, "{seen:?}");
        }
    })
    .await
    .expect(wanted);
    String::from_utf8_lossy(&seen).into_owned()
}

#[tokio::test]
async fn an_instance_that_never_answers_is_answered_for_and_a_stream_is_not_cut() {
    let (proxy, v1, addr) = one().await;
    limit(&proxy, LIMIT).await;
    let mut connection = Connection::open(addr).await;
    let mut stream = connection.start("/drip", &[]).await.expect("it streams").into_body();
    let started = Instant::now();
    let seen = timeout(DEADLINE, get(addr, "/gate", &[])).await.expect("in time");
    let seen = seen.expect("answer");
    assert_eq!(seen.status.as_u16(), 504, "{seen:?}");
    assert!(started.elapsed() >= LIMIT);
    while started.elapsed() < LIMIT * 3 {
        stream.frame().await.expect("it goes on").expect("good");
    }
    drop((stream, connection));
    until("the instance is told that nobody waits", || async {
        (v1.cancelled.load(SeqCst) == 1).then_some(())
    })
    .await;
    until("both are counted", || async {
        (proxy.counters().await.versions[0].in_flight == 0).then_some(())
    })
    .await;
    let counters = proxy.counters().await;
    let figures = (counters.versions[0].requests, counters.versions[0].errors);
    assert_eq!(figures, (2, 1), "{counters:?}");
    assert_eq!(counters.instances[0].errors, 1, "{counters:?}");
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1", "it still serves");

    // Without a limit it waits.
    limit(&proxy, Duration::ZERO).await;
    let waiting = tokio::spawn(async move { get(addr, "/gate", &[]).await });
    let asked = Instant::now();
    until("it waits for longer", || async {
        let waits = proxy.counters().await.versions[0].in_flight == 1;
        (waits && asked.elapsed() > LIMIT * 2).then_some(())
    })
    .await;
    v1.open_gate();
    assert_eq!(waiting.await.expect("no panic").expect("answer").body, "v1");
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_upload_is_the_clients_time_and_an_unread_one_the_instances() {
    let (proxy, _v1, addr) = one().await;
    limit(&proxy, LIMIT).await;
    let mut slow = TcpStream::connect(addr).await.expect("connect");
    let head = b"POST /whole HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nsl";
    slow.write_all(head).await.expect("sent");
    let started = Instant::now();
    until("the limit is long over", || async {
        (started.elapsed() > LIMIT * 4).then_some(())
    })
    .await;
    slow.write_all(b"ow").await.expect("the connection is open");
    let answer = read_until(&mut slow, "slow").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // More than sockets and buffers hold, to an instance that reads none of it.
    let (mut reads, mut writes) = TcpStream::connect(addr).await.expect("connect").into_split();
    let upload = tokio::spawn(async move {
        let head = b"POST /gate HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n";
        let mut sent = writes.write_all(head).await;
        while sent.is_ok() {
            sent = writes.write_all(&[b'x'; 16_000]).await;
        }
    });
    let answer = read_until(&mut reads, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    drop(reads);
    upload.abort();
    let version = &proxy.counters().await.versions[0];
    assert_eq!((version.requests, version.errors), (2, 1), "{version:?}");
    let stopping = Instant::now();
    proxy.stop().await;
    assert!(
        stopping.elapsed() < Duration::from_secs(5),
        "a connection was held to the end of the drain"
    );
}

#[tokio::test]
async fn a_grpc_call_ends_with_deadline_exceeded_at_the_callers_or_the_routes_limit() {
    let proxy = Proxy::fresh(|_| {}).await;
    let v1 = Upstream::start("v1");
    let (_, addr) = proxy.route(vec![backend("orders-1", "v1", v1.addr)]).await;
    let mut sender = http2(addr).await;
    for (own, callers) in [(Duration::ZERO, Some("100m")), (LIMIT, None), (LIMIT, Some("1H"))] {
        limit(&proxy, own).await;
        let mut request = Request::post("http://orders/gate").header("content-type", "application/grpc");
        if let Some(callers) = callers {
            request = request.header("grpc-timeout", callers);
        }
        let request = request.body(Full::<Bytes>::default()).expect("request");
        let response = timeout(DEADLINE, sender.send_request(request)).await.expect("in time");
        let response = response.expect("answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["grpc-status"], "4", "{own:?} {callers:?}");
    }
    let version = &proxy.counters().await.versions[0];
    assert_eq!((version.requests, version.errors), (3, 3), "{version:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn the_limit_is_kept_and_a_route_from_before_it_has_the_usual_one() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = Proxy::start_with(folder.path(), |_| {}).await;
    let ([_v1], _) = proxy.front([("v1", "v1")]).await;
    let shown = async |proxy: &Proxy| {
        let routes = proxy.client.routes().await.expect("routes");
        routes[0].config.response_timeout_ms
    };
    assert_eq!(shown(&proxy).await, DEFAULT_RESPONSE_TIMEOUT_MS);
    let refused = put_limit(&proxy, MAX_RESPONSE_TIMEOUT_MS + 1).await;
    assert!(matches!(refused, Err(ControlError::Invalid { .. })), "{refused:?}");
    assert_eq!(
        shown(&proxy).await,
        DEFAULT_RESPONSE_TIMEOUT_MS,
        "a refusal changes nothing"
    );
    limit(&proxy, LIMIT).await;
    proxy.stop().await;

    let proxy = Proxy::start_with(folder.path(), |_| {}).await;
    assert_eq!(shown(&proxy).await, 150);
    proxy.stop().await;

    let file = folder.path().join("proxy.json");
    let text = std::fs::read_to_string(&file).expect("state");
    let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let route = state["routes"][0]["config"].as_object_mut().expect("a route");
    assert!(route.remove("response_timeout_ms").is_some());
    std::fs::write(&file, state.to_string()).expect("written");
    let proxy = Proxy::start_with(folder.path(), |_| {}).await;
    assert_eq!(shown(&proxy).await, DEFAULT_RESPONSE_TIMEOUT_MS);
    proxy.stop().await;
}
