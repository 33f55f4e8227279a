//! Each fault, on new requests and on those under way; its end by removal and by time.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::BodyExt as _;
use opsctl_proxy_control::{ControlError, Fault, FaultKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::support::{Connection, DEADLINE, get, one, until};

fn fault(kind: FaultKind, percent: f64, ttl_seconds: u64) -> Fault {
    Fault {
        id: "f1".to_owned(),
        service: "orders".to_owned(),
        kind,
        percent,
        ttl_seconds,
        run: "run-1".to_owned(),
        version: None,
    }
}

async fn timed(addr: SocketAddr) -> Duration {
    let started = Instant::now();
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1");
    started.elapsed()
}

#[tokio::test]
async fn latency_delays_within_its_jitter_and_ends_with_its_time() {
    let (proxy, _v1, addr) = one().await;
    let slow = FaultKind::Latency { ms: 200, jitter_ms: 50 };
    proxy.client.put_fault(&fault(slow, 100.0, 1)).await.expect("put");
    let took = timed(addr).await;
    assert!(took >= Duration::from_millis(150), "{took:?}");
    let listed = proxy.client.faults("orders").await.expect("faults");
    assert_eq!((listed.len(), listed[0].kind), (1, slow));
    until("its time ends", || async {
        proxy
            .client
            .faults("orders")
            .await
            .expect("faults")
            .is_empty()
            .then_some(())
    })
    .await;
    let took = timed(addr).await;
    assert!(took < Duration::from_millis(150), "{took:?}");
    proxy.stop().await;
}

#[tokio::test]
async fn errors_hit_their_share_and_only_their_version() {
    let (proxy, v1, addr) = one().await;
    let kind = FaultKind::Error { status: 503 };
    proxy.client.put_fault(&fault(kind, 30.0, 60)).await.expect("put");
    let mut connection = Connection::open(addr).await;
    let mut errors = 0_u64;
    for _ in 0..1000 {
        errors += u64::from(connection.get("/", &[]).await.expect("answer").status.as_u16() == 503);
    }
    // Binomial, n = 1000, p = 0.3: five standard deviations are 73.
    assert!(errors.abs_diff(300) < 73, "{errors}");
    let counters = proxy.counters().await;
    assert_eq!(
        (counters.versions[0].errors, counters.versions[0].requests),
        (errors, 1000)
    );
    assert_eq!(v1.seen(), 1000 - errors);
    let other = Fault {
        version: Some("v2".to_owned()),
        ..fault(kind, 100.0, 60)
    };
    proxy.client.put_fault(&other).await.expect("replaced");
    assert_eq!(connection.get("/", &[]).await.expect("answer").status.as_u16(), 200);
    proxy.stop().await;
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset_on_new_and_on_waiting_requests() {
    let (proxy, v1, addr) = one().await;
    let mut waiting = TcpStream::connect(addr).await.expect("connect");
    waiting
        .write_all(b"GET /gate HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut streaming = TcpStream::connect(addr).await.expect("connect");
    streaming
        .write_all(b"GET /drip HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    let mut some = [0; 64];
    assert!(streaming.read(&mut some).await.expect("it streams") > 0);
    until("both are under way", || async { (v1.seen() == 2).then_some(()) }).await;
    proxy
        .client
        .put_fault(&fault(FaultKind::Reset, 100.0, 60))
        .await
        .expect("put");
    let mut fresh = TcpStream::connect(addr).await.expect("connect");
    fresh
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("sent");
    for (name, mut stream) in [("waiting", waiting), ("streaming", streaming), ("fresh", fresh)] {
        let end = timeout(DEADLINE, async {
            loop {
                match stream.read(&mut some).await {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) => return Some(error.kind()),
                }
            }
        })
        .await
        .expect(name);
        assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset), "{name}");
    }
    proxy.client.delete_fault("f1").await.expect("removed");
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1");
    let counters = proxy.counters().await;
    let version = &counters.versions[0];
    assert_eq!(
        (version.requests, version.errors, version.in_flight),
        (4, 3, 0),
        "{counters:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_blackhole_swallows_until_it_is_removed_and_removal_waits_for_nobody() {
    let (proxy, v1, addr) = one().await;
    let mut streaming = Connection::open(addr).await;
    let mut body = streaming.start("/drip", &[]).await.expect("it streams").into_body();
    body.frame().await.expect("a frame").expect("good");
    proxy
        .client
        .put_fault(&fault(FaultKind::Blackhole, 100.0, 60))
        .await
        .expect("put");
    let held: Vec<_> = (0..10)
        .map(|_| tokio::spawn(async move { get(addr, "/", &[]).await }))
        .collect();
    until("they are held", || async {
        (proxy.counters().await.versions[0].in_flight == 11).then_some(())
    })
    .await;
    // What the proxy had sent before the fault may still arrive; then nothing does.
    let silent = async { while timeout(Duration::from_millis(200), body.frame()).await.is_ok() {} };
    timeout(DEADLINE, silent).await.expect("the stream falls silent");
    // A client that gives up was failed by the fault.
    let gave_up = timeout(Duration::from_millis(50), get(addr, "/", &[])).await;
    assert!(gave_up.is_err());
    until("that is counted", || async {
        (proxy.counters().await.versions[0].errors == 1).then_some(())
    })
    .await;
    assert_eq!(v1.seen(), 1);

    let started = Instant::now();
    proxy.client.delete_fault("f1").await.expect("removed");
    assert!(started.elapsed() < Duration::from_secs(1));
    for request in held {
        let seen = timeout(DEADLINE, request).await.expect("let go").expect("no panic");
        assert_eq!(seen.expect("answer").body, "v1");
    }
    timeout(DEADLINE, body.frame())
        .await
        .expect("it goes on")
        .expect("a frame")
        .expect("good");
    proxy.client.delete_fault("f1").await.expect("removing nothing is fine");
    drop((body, streaming));
    proxy.stop().await;
}

#[tokio::test]
async fn latency_shifts_a_stream_that_was_under_way_and_does_not_slow_it() {
    let (proxy, _v1, addr) = one().await;
    let mut connection = Connection::open(addr).await;
    let mut body = connection.start("/drip", &[]).await.expect("it streams").into_body();
    for _ in 0..5 {
        body.frame().await.expect("a frame").expect("good");
    }
    proxy
        .client
        .put_fault(&fault(FaultKind::Latency { ms: 300, jitter_ms: 0 }, 100.0, 60))
        .await
        .expect("put");
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    let started = last;
    // Twenty frames of 20 ms each: delayed one after the other they would take six seconds.
    for _ in 0..20 {
        body.frame().await.expect("a frame").expect("good");
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(
        longest >= Duration::from_millis(250),
        "one gap of the latency: {longest:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    drop((body, connection));
    proxy.stop().await;
}

#[tokio::test]
async fn faults_that_make_no_sense_are_refused() {
    let (proxy, _v1, _addr) = one().await;
    let latency = |ms, jitter_ms| FaultKind::Latency { ms, jitter_ms };
    for (kind, percent, ttl) in [
        (FaultKind::Reset, 0.0, 60),
        (FaultKind::Reset, 101.0, 60),
        (FaultKind::Reset, 50.0, 0),
        (FaultKind::Reset, 50.0, 3601),
        (FaultKind::Error { status: 200 }, 50.0, 60),
        (latency(10, 11), 50.0, 60),
    ] {
        let refused = proxy.client.put_fault(&fault(kind, percent, ttl)).await;
        assert!(
            matches!(refused, Err(ControlError::Invalid { .. })),
            "{kind:?} {percent} {ttl}: {refused:?}"
        );
    }
    let stray = Fault {
        service: "nobody".to_owned(),
        ..fault(FaultKind::Reset, 1.0, 1)
    };
    let refused = proxy.client.put_fault(&stray).await;
    assert!(
        matches!(refused, Err(ControlError::UnknownService { .. })),
        "{refused:?}"
    );
    let named = Fault {
        id: "../x".to_owned(),
        ..fault(FaultKind::Reset, 1.0, 1)
    };
    assert!(proxy.client.put_fault(&named).await.is_err());
    proxy.stop().await;
}

#[tokio::test]
async fn the_same_fault_put_again_lasts_longer_and_meets_nobody_twice() {
    let (proxy, v1, addr) = one().await;
    proxy
        .client
        .put_fault(&fault(FaultKind::Blackhole, 100.0, 1))
        .await
        .expect("put");
    let held = tokio::spawn(async move { get(addr, "/", &[]).await.expect("answer").body });
    let revision = proxy.client.status().await.expect("status").revision;
    // Beyond its first time, which it has to outlive.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        proxy
            .client
            .put_fault(&fault(FaultKind::Blackhole, 100.0, 1))
            .await
            .expect("put");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!held.is_finished(), "it was let go when the fault was put again");
    assert_eq!(proxy.client.status().await.expect("status").revision, revision);
    assert_eq!(
        timeout(DEADLINE, held).await.expect("its time ends").expect("a task"),
        "v1"
    );
    assert_eq!(v1.seen(), 1);
    proxy.stop().await;
}
