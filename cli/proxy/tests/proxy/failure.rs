//! Instances that die, leave or come back; the proxy that is stopped and started again.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use opsctl_load::{Fixed, Plan, Rate, Request, Silent, Target};
use opsctl_proxy::{Options, ProxyError};
use opsctl_proxy_control::ControlError;
use tokio_util::sync::CancellationToken;

use super::support::{Connection, Proxy, Upstream, backend, config, get, one, several, until};

#[tokio::test]
async fn an_instance_killed_under_load_costs_only_what_it_had_received() {
    let (proxy, [mut dies, stays], addr) = several([("dies", "v1"), ("stays", "v1")]).await;
    let target: Target = format!("http://{addr}/").parse().expect("target");
    let rate: Rate = "1000/s".parse().expect("rate");
    let source = Arc::new(Fixed(Request::get("/").expect("request")));
    let plan = Plan::new(target, rate, Duration::from_secs(2), source);
    let load = tokio::spawn(opsctl_load::run(plan, Arc::new(Silent), CancellationToken::new()));
    until("both serve", || async {
        (dies.seen() > 100 && stays.seen() > 100).then_some(())
    })
    .await;
    dies.kill().await;
    let summary = load.await.expect("no panic").expect("ran");
    assert!(summary.identity_holds());
    let counters = proxy.counters().await;
    let dead = &counters.instances[0];
    // Never sent means never lost: whatever failed had been sent to the instance that died, and no more than could
    // be under way to it at that moment.
    let failed = summary.scheduled - summary.succeeded;
    assert_eq!(failed, dead.errors, "{counters:?}");
    assert!(failed <= summary.connections_opened, "{failed} failed: {summary:?}");
    assert_eq!(failed, counters.versions[0].errors, "{counters:?}");
    assert_eq!(
        (counters.unrouted_errors, summary.failed, summary.dropped),
        (0, 0, 0),
        "{summary:?}"
    );
    assert!(dead.connect_failures > 0, "it was tried and refused: {counters:?}");
    assert_eq!(counters.versions[0].requests, summary.scheduled);
    proxy.stop().await;
}

#[tokio::test]
async fn with_no_instance_left_clients_are_told_so() {
    let (proxy, mut v1, addr) = one().await;
    v1.kill().await;
    let seen = get(addr, "/", &[]).await.expect("answer");
    assert_eq!(
        (seen.status.as_u16(), &seen.headers["retry-after"]),
        (503, &"1".parse().expect("value"))
    );
    proxy.client.set_backends("orders", Vec::new()).await.expect("set");
    assert_eq!(
        get(addr, "/", &[("x-opsctl-probe", "r")])
            .await
            .expect("answer")
            .status
            .as_u16(),
        503
    );
    let counters = proxy.counters().await;
    assert_eq!((counters.unrouted_errors, counters.probe_unrouted_errors), (1, 1));
    assert_eq!((counters.versions[0].requests, counters.versions[0].in_flight), (0, 0));
    proxy.stop().await;
}

#[tokio::test]
async fn an_instance_that_leaves_finishes_what_it_has() {
    let (proxy, leaves, addr) = one().await;
    let stays = Upstream::start("stays");
    let waiting = tokio::spawn(async move { get(addr, "/gate", &[]).await });
    until("it is under way", || async { (leaves.seen() == 1).then_some(()) }).await;
    proxy
        .client
        .set_backends("orders", vec![backend("orders-2", "v1", stays.addr)])
        .await
        .expect("set");
    for _ in 0..20 {
        assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "stays");
    }
    leaves.open_gate();
    assert_eq!(waiting.await.expect("no panic").expect("answer").body, "v1");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_request_upstream_and_is_no_error() {
    let (proxy, v1, addr) = one().await;
    let waiting = tokio::spawn(async move { get(addr, "/gate", &[]).await });
    until("it is under way", || async { (v1.seen() == 1).then_some(()) }).await;
    waiting.abort();
    let _ = waiting.await;
    until("the instance notices", || async {
        (v1.cancelled.load(SeqCst) == 1).then_some(())
    })
    .await;
    let counters = proxy.counters().await;
    let version = &counters.versions[0];
    assert_eq!(
        (version.requests, version.errors, version.in_flight),
        (1, 0, 0),
        "{counters:?}"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_restarted_proxy_comes_back_with_ports_and_routes_and_no_canary() {
    let folder = tempfile::tempdir().expect("folder");
    let proxy = Proxy::start_with(folder.path(), |_| {}).await;
    let ([_v1, _v2], addr) = proxy.front([("v1", "v1"), ("v2", "v2")]).await;
    proxy.weigh(None, 100, 600).await;
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v2");
    let before = proxy.client.routes().await.expect("routes");
    let boot = proxy.counters().await.boot_id;

    // Two at once are refused, by the lock and by name.
    let second = opsctl_proxy::run(Options::new(folder.path(), CancellationToken::new())).await;
    assert!(matches!(second, Err(ProxyError::AlreadyRunning { .. })), "{second:?}");
    for (file, mode) in [
        ("proxy.json", 0o600),
        ("proxy.secret", 0o600),
        ("proxy.sock", 0o600),
        ("proxy.lock", 0o600),
    ] {
        let found = std::fs::metadata(folder.path().join(file))
            .expect(file)
            .permissions()
            .mode()
            & 0o777;
        assert_eq!(found, mode, "{file}");
    }

    proxy.stop().await;
    assert!(!folder.path().join("proxy.sock").exists());
    let proxy = Proxy::start_with(folder.path(), |_| {}).await;
    let after = proxy.client.routes().await.expect("routes");
    assert_eq!(
        (&after[0].config, &after[0].backends),
        (&before[0].config, &before[0].backends)
    );
    let weight = after[0].weight.as_ref().expect("readable");
    assert_eq!((weight.percent, weight.lapsed_percent), (0, Some(100)));
    for _ in 0..20 {
        assert_eq!(get(addr, "/", &[]).await.expect("the same port").body, "v1");
    }
    assert_ne!(proxy.counters().await.boot_id, boot);
    proxy.stop().await;

    std::fs::write(folder.path().join("proxy.json"), "{\"schema\": 1").expect("write");
    let damaged = opsctl_proxy::run(Options::new(folder.path(), CancellationToken::new())).await;
    assert!(matches!(damaged, Err(ProxyError::Corrupt { .. })), "{damaged:?}");
}

#[tokio::test]
async fn a_taken_port_is_named_and_changes_nothing() {
    let (proxy, v1, addr) = one().await;
    let mut moved = config();
    moved.http_listen = Some(v1.addr);
    let taken = proxy.client.put_route(&moved).await;
    assert!(
        matches!(taken, Err(ControlError::PortTaken { addr }) if addr == v1.addr),
        "{taken:?}"
    );
    // The same again is no change, and port 0 keeps the port.
    let revision = proxy.client.status().await.expect("status").revision;
    let again = proxy.client.put_route(&config()).await.expect("idempotent");
    assert_eq!(again.config.http_listen, Some(addr));
    assert_eq!(proxy.client.status().await.expect("status").revision, revision);
    assert_eq!(get(addr, "/", &[]).await.expect("answer").body, "v1");

    proxy.client.delete_route("orders").await.expect("deleted");
    proxy.client.delete_route("orders").await.expect("deleted twice");
    assert!(
        tokio::net::TcpStream::connect(addr).await.is_err(),
        "nobody listens any more"
    );
    proxy.stop().await;
}

#[tokio::test]
async fn a_stopping_proxy_finishes_requests_and_then_ends() {
    let (proxy, v1, addr) = one().await;
    let mut idle = Connection::open(addr).await;
    idle.get("/", &[]).await.expect("answer");
    let waiting = tokio::spawn(async move { get(addr, "/gate", &[]).await });
    until("it is under way", || async { (v1.seen() == 2).then_some(()) }).await;
    proxy.shutdown.cancel();
    until("it stops listening", || async {
        tokio::net::TcpStream::connect(addr).await.err()
    })
    .await;
    v1.open_gate();
    assert_eq!(waiting.await.expect("no panic").expect("answer").body, "v1");
    proxy.stop().await;
}

#[tokio::test]
async fn the_socket_may_lie_deeper_than_a_socket_address_reaches() {
    let folder = tempfile::tempdir().expect("folder");
    let deep = folder.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).expect("folders");
    let proxy = Proxy::start_with(&deep, |_| {}).await;
    assert_eq!(proxy.client.routes().await.expect("routes"), []);
    let client = proxy.client.clone();
    proxy.stop().await;
    let gone = client.status().await;
    assert!(matches!(gone, Err(ControlError::Unreachable { .. })), "{gone:?}");
}
