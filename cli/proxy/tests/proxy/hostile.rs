//! Clients that mean harm, or are broken: nothing is smuggled, nothing is held for ever.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{DEADLINE, Proxy, get, http2, one, until};

/// Sends bytes and reads until the proxy closes.
async fn raw(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    // The proxy may have closed before all is written; what it said is still read.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("the proxy closes");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_request_cannot_hide_another() {
    let (proxy, _v1, addr) = one().await;
    let hidden = "GET /status/418 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\n";
    let length = hidden.len() + 5;
    // Refused outright, with 400 or by closing: the hidden request must not be answered.
    for (name, request) in [
        (
            "both framings",
            format!("{head}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "both, reversed",
            format!("{head}transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "two lengths",
            format!(
                "{head}content-length: 0\r\ncontent-length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "odd coding",
            format!("{head}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "misspelt coding",
            format!("{head}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "space in a name",
            format!("{head}content-length : 4\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "folded header",
            format!("{head}x: a\r\n b\r\ncontent-length: 0\r\n\r\n{hidden}"),
        ),
        ("signed length", format!("{head}content-length: +0\r\n\r\n{hidden}")),
        (
            "bad chunk",
            format!("{head}transfer-encoding: chunked\r\n\r\nz\r\n{hidden}"),
        ),
        (
            "two hosts",
            format!("GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\nconnection: close\r\n\r\n{hidden}"),
        ),
        (
            "no host",
            format!("GET / HTTP/1.1\r\nconnection: close\r\n\r\n{hidden}"),
        ),
    ] {
        let answer = raw(addr, request.as_bytes()).await;
        assert!(!answer.contains("418"), "{name}: {answer}");
    }
    // Two requests in one packet are two requests.
    let pipelined = format!("GET / HTTP/1.1\r\nhost: x\r\n\r\n{hidden}");
    let answer = raw(addr, pipelined.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 418"),
        "{answer}"
    );
    // The connections to the instance are in step: the next clients get their own answers.
    for _ in 0..20 {
        assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn what_the_proxy_does_not_do_is_refused_cleanly() {
    let (proxy, v1, addr) = one().await;
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n",
            "501",
        ),
        ("CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\nconnection: close\r\n\r\n", "501"),
        (
            "GET http://u@h/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            "400",
        ),
        ("\x16\x03\x01\x02\x00\x01\x00 TLS hello\r\n\r\n", "400"),
    ] {
        let answer = raw(addr, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request:?}: {answer}"
        );
    }
    assert_eq!(v1.seen(), 0);
    // A plain upgrade offer may be ignored, and is.
    let seen = get(addr, "/", &[("connection", "upgrade"), ("upgrade", "h2c")])
        .await
        .expect("answer");
    assert_eq!(seen.body, "v1");
    let absolute = "GET http://shop.local/headers HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
    let answer = raw(addr, absolute.as_bytes()).await;
    assert!(
        answer.contains("host: shop.local") && !answer.contains("host: other"),
        "{answer}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn headers_and_patience_are_bounded() {
    let proxy = Proxy::fresh(|options| {
        options.limits.header_timeout = Duration::from_millis(300);
        options.limits.connections = 4;
    })
    .await;
    let ([v1], addr) = proxy.front([("v1", "v1")]).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let answer = raw(addr, long.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a: b\r\n".repeat(500));
    let answer = raw(addr, many.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(v1.seen(), 0);

    // A byte every now and then does not keep a connection, nor does silence.
    for drip in [
        &b"GET / HTTP/1.1\r\nhost: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"[..],
        b"PRI * HTT",
        b"",
    ] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(addr).await.expect("connect");
        let ended = timeout(DEADLINE, async {
            let mut rest = Vec::new();
            for byte in drip {
                let closed = timeout(Duration::from_millis(20), stream.read_to_end(&mut rest)).await;
                if closed.is_ok() || stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await;
        assert!(ended.is_ok(), "the connection was held");
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    // Beyond the limit connections are closed, and served again when others have gone.
    let mut crowd = Vec::new();
    for _ in 0..12 {
        crowd.push(TcpStream::connect(addr).await.expect("the kernel accepts"));
    }
    drop(crowd);
    until("there is room again", || async { get(addr, "/", &[]).await.ok() }).await;
    proxy.stop().await;
}

#[tokio::test]
async fn requests_begun_and_taken_back_by_the_thousand_end_their_connection_alone() {
    let (proxy, v1, addr) = one().await;
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // HPACK: GET, http, `/` from the static table; the authority `x` as a literal.
    let block = b"\x82\x86\x84\x41\x01x";
    for id in (1..20_000_u32).step_by(2) {
        frames.extend([0, 0, block.len() as u8, 0x1, 0x5]);
        frames.extend(id.to_be_bytes());
        frames.extend(block);
        // RST_STREAM with CANCEL.
        frames.extend([0, 0, 4, 0x3, 0]);
        frames.extend(id.to_be_bytes());
        frames.extend(8_u32.to_be_bytes());
    }
    let _ = stream.write_all(&frames).await;
    let mut rest = Vec::new();
    let ended = timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection goes on");
    assert!(v1.seen() < 5000, "{} reached the instance", v1.seen());
    for _ in 0..20 {
        assert_eq!(get(addr, "/", &[]).await.expect("others are served").body, "v1");
    }
    until("nothing is left of it", || async {
        (proxy.counters().await.versions[0].in_flight == 0).then_some(())
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn headers_over_http2_are_bounded_too() {
    let (proxy, v1, addr) = one().await;
    let mut sender = http2(addr).await;
    let request = http::Request::get("http://orders/")
        .header("x", "a".repeat(200_000))
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .expect("request");
    if let Ok(response) = timeout(DEADLINE, sender.send_request(request)).await.expect("in time") {
        assert_eq!(response.status().as_u16(), 431);
    }
    assert_eq!(v1.seen(), 0);
    assert_eq!(get(addr, "/", &[]).await.expect("others are served").body, "v1");
    proxy.stop().await;
}
