//! What probes are told over HTTP: paths, methods, bodies, groups, details and their token; as the kubelet asks; in time
//! however the service fares.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use health::{
    Beat, DetailsListener, DetailsSettings, Failure, Health, Heartbeat, OnDown, Outcome, Reason, Settings, Spec, State,
    Token,
};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{advance, sleep};
use tower::ServiceExt as _;

#[path = "support/dependency.rs"]
mod dependency;
use dependency::{Dependency, until};

const PATHS: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/health",
    "/health/live",
    "/health/ready",
    "/health/startup",
];
/// What an error says that nobody outside may read.
const SECRET: &str = "postgres://shop:hunter2@db.internal refused";

/// Status, whether it forbids keeping, content type, body.
async fn send(router: axum::Router, request: Request<Body>) -> (u16, bool, String, String) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let header = |name: &str| {
        let value = response.headers().get(name);
        value
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let (no_store, kind) = (header("cache-control") == "no-store", header("content-type"));
    let body = axum::body::to_bytes(response.into_body(), 100_000).await.unwrap();
    (status, no_store, kind, String::from_utf8(body.to_vec()).unwrap())
}

async fn ask(health: &Health, method: Method, path: &str) -> (u16, bool, String, String) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    send(health.http_router(), request).await
}

async fn get(health: &Health, path: &str) -> (u16, String) {
    let (status, _, _, body) = ask(health, Method::GET, path).await;
    (status, body)
}

fn said(word: &str) -> String {
    format!("{{\"status\":\"{word}\"}}")
}

#[tokio::test(start_paused = true)]
async fn each_path_tells_its_part_of_a_service_s_life() {
    let (db, disk) = (Dependency::default(), Dependency::default());
    db.set_down(true);
    let health = Health::builder()
        .critical("db", db.check())
        .check(Spec::critical("disk", disk.check()).on_down(OnDown::NotReady))
        .build()
        .unwrap();
    let check = async |live: &str, ready: &str, startup: &str, whole: &str| {
        for (path, word) in [
            ("/healthz", live),
            ("/health/live", live),
            ("/readyz", ready),
            ("/health/ready", ready),
            ("/health/startup", startup),
            ("/health", whole),
        ] {
            let status = if word == "fail" { 503 } else { 200 };
            assert_eq!(get(&health, path).await, (status, said(word)), "{path}");
        }
    };
    sleep(Duration::from_secs(30)).await;
    check("pass", "fail", "fail", "fail").await;
    db.set_down(false);
    until(&health, State::Ready).await;
    check("pass", "pass", "pass", "pass").await;
    db.set_down(true);
    until(&health, State::Degraded).await;
    check("pass", "warn", "pass", "warn").await;
    disk.set_down(true);
    until(&health, State::NotReady).await;
    check("pass", "fail", "pass", "fail").await;
    health.drain();
    check("pass", "fail", "pass", "fail").await;
}

#[tokio::test(start_paused = true)]
async fn liveness_follows_its_checks_alone() {
    let beat = Heartbeat::new(Duration::from_secs(30));
    let of_check = beat.clone();
    let health = Health::builder()
        .liveness("loop", move || of_check.check())
        .build()
        .unwrap();
    assert_eq!(health.state(), State::Ready, "nothing required to wait for");
    advance(Duration::from_secs(29)).await;
    assert!(health.is_alive());
    beat.beat();
    advance(Duration::from_secs(29)).await;
    assert!(health.is_alive());
    advance(Duration::from_secs(2)).await;
    assert_eq!(get(&health, "/health/live").await.0, 503);
    assert_eq!(get(&health, "/health").await.0, 503);
    assert_eq!(get(&health, "/readyz").await.0, 200);
    assert_eq!(beat.check(), Beat::Dead);

    let panics = Health::builder()
        .liveness("bug", || panic!("on purpose"))
        .build()
        .unwrap();
    assert_eq!(get(&panics, "/healthz").await, (503, said("fail")));
}

#[tokio::test(start_paused = true)]
async fn probes_say_no_more_than_they_must() {
    let fails = || async { Outcome::Fail(Failure::new(Reason::Refused, SECRET)) };
    let health = Health::builder()
        .degraded("secret-host", fails)
        .group("g", ["secret-host"])
        .build()
        .unwrap();
    sleep(Duration::from_secs(60)).await;
    for path in PATHS.into_iter().chain(["/health/g"]) {
        let (_, no_store, kind, body) = ask(&health, Method::GET, path).await;
        assert!(no_store, "{path}");
        assert_eq!(kind, "application/health+json", "{path}");
        assert!(
            ["pass", "warn", "fail"].iter().any(|word| body == said(word)),
            "{path}: {body}"
        );
        let (status, no_store, _, body) = ask(&health, Method::HEAD, path).await;
        assert!(
            status < 400 && no_store && body.is_empty(),
            "{path}: HEAD {status} {body}"
        );
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            assert_eq!(ask(&health, method, path).await.0, 405, "{path}");
        }
    }
    for path in ["/health/details", "/health/nothing", "/health/ready/"] {
        assert_eq!(get(&health, path).await.0, 404, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_tells_of_its_checks() {
    let (db, mail, report) = (Dependency::default(), Dependency::default(), Dependency::default());
    let health = Health::builder()
        .critical("db", db.check())
        .degraded("mail", mail.check())
        .informative("report", report.check())
        .group("paying", ["db", "report"])
        .group("telling", ["mail", "db"])
        .build()
        .unwrap();
    let groups = async || {
        let (paying, telling) = (
            get(&health, "/health/paying").await.1,
            get(&health, "/health/telling").await.1,
        );
        (paying, telling)
    };
    assert_eq!(groups().await, (said("fail"), said("fail")), "nothing is known yet");
    until(&health, State::Ready).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!(groups().await, (said("pass"), said("pass")));
    mail.set_down(true);
    report.set_down(true);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(groups().await, (said("pass"), said("warn")));
    db.set_down(true);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(groups().await, (said("fail"), said("fail")));
    assert_eq!(get(&health, "/health/paying").await.0, 503);
    assert_eq!(health.snapshot().groups[1].name, "telling");
}

#[tokio::test(start_paused = true)]
async fn details_have_the_draft_s_shape_and_codes_for_reasons() {
    let fails = || async { Outcome::Fail(Failure::new(Reason::Auth, SECRET)) };
    let health = Health::builder()
        .critical("db", || async {})
        .degraded("mail", fails)
        .group("telling", ["mail"])
        .liveness("worker", || Beat::Alive)
        .build()
        .unwrap();
    until(&health, State::Degraded).await;
    sleep(Duration::from_secs(60)).await;
    let request = Request::get("/health/details").body(Body::empty()).unwrap();
    let (status, no_store, kind, body) = send(health.details_router(), request).await;
    assert_eq!(
        (status, no_store, kind.as_str()),
        (200, true, "application/health+json")
    );
    assert!(!body.contains("hunter2") && !body.contains("internal"), "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["status"], "warn");
    assert_eq!(body["state"], "degraded");
    assert_eq!(body["groups"]["telling"], "warn");
    assert_eq!(body["liveness"]["worker"], "pass");
    let (db, mail) = (&body["checks"]["db"][0], &body["checks"]["mail"][0]);
    assert_eq!(
        (&db["status"], &db["role"], &db["output"]),
        (&"pass".into(), &"critical".into(), &Value::Null)
    );
    assert!(db["last_success"].as_str().unwrap().ends_with('Z'), "{db}");
    assert_eq!((&mail["status"], &mail["output"]), (&"fail".into(), &"auth".into()));
    assert_eq!(
        (&mail["componentId"], &mail["observedUnit"]),
        (&"mail".into(), &"s".into())
    );
    assert!(mail["failures_in_a_row"].as_u64().unwrap() > 3);
}

#[tokio::test(start_paused = true)]
async fn details_can_be_refreshed() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    until(&health, State::Ready).await;
    sleep(Duration::from_secs(3)).await;
    let asked = db.asked();
    for (path, more) in [
        ("/health/details", 0),
        ("/health/details?refresh", 1),
        ("/health/details?refresh", 1),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        send(health.details_router(), request).await;
        assert_eq!(db.asked() - asked, more, "{path}");
    }
}

#[tokio::test]
async fn details_for_everybody_need_the_token() {
    let details = DetailsSettings {
        listener: DetailsListener::All,
        token: Some(Token::new("0123456789abcdef")),
        ..DetailsSettings::default()
    };
    let settings = Settings {
        details,
        ..Settings::default()
    };
    let health = Health::builder()
        .critical("db", || async {})
        .settings(settings)
        .build()
        .unwrap();
    for (shown, status) in [
        (None, 401),
        (Some("Bearer 0123456789abcde"), 401),
        (Some("Bearer 0123456789abcdef0"), 401),
        (Some("Bearer 1123456789abcdef"), 401),
        (Some("0123456789abcdef"), 401),
        (Some("Bearer 0123456789abcdef"), 200),
    ] {
        let mut request = Request::get("/health/details");
        if let Some(shown) = shown {
            request = request.header("authorization", shown);
        }
        health.wait_until(State::takes_traffic).await;
        let (told, _, _, body) = send(health.http_router(), request.body(Body::empty()).unwrap()).await;
        assert_eq!(told, status, "{shown:?}");
        assert_eq!(body.contains("\"db\""), status == 200, "{shown:?}: {body}");
    }
    assert_eq!(get(&health, "/readyz").await.0, 200, "probes need none");
}

/// A probe as the kubelet sends it: a connection of its own, closed after the answer, which is read whole; one second.
async fn kubelet(address: SocketAddr, path: &str) -> (u16, String, Duration) {
    let began = tokio::time::Instant::now();
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.33\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), exchange)
        .await
        .expect("within a second");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("\r\nconnection: close"), "{head}");
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
        began.elapsed(),
    )
}

/// Asks a service from outside until told to stop, by turns for a probe and for a handler that does nothing: how many of
/// each took longer than ten milliseconds, and how many there were.
fn ask_by_turns(address: SocketAddr, stop: Arc<AtomicBool>) -> (usize, usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut late, mut late_empty, mut turns) = (0, 0, 0);
        let is_late = |time: Duration| usize::from(time > Duration::from_millis(10));
        while !stop.load(Ordering::SeqCst) {
            let (status, body, time) = kubelet(address, "/health/ready").await;
            assert_eq!((status, body), (200, said("warn")));
            late += is_late(time);
            late_empty += is_late(kubelet(address, "/empty").await.2);
            turns += 1;
            sleep(Duration::from_millis(2)).await;
        }
        (late, late_empty, turns)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dependency_that_hangs_makes_no_probe_slower() {
    let mut builder = Health::builder().critical("db", || async {});
    for n in 0..20 {
        let check = Spec::degraded(format!("hangs{n}"), std::future::pending::<()>);
        builder = builder.check(
            check
                .interval(Duration::from_millis(100))
                .timeout(Duration::from_millis(90)),
        );
    }
    // Blocking ones hold threads of their own.
    for n in 0..4 {
        let (keep, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new((keep, wait));
        let check = health::blocking(move || {
            // Nobody sends.
            let _ = wait.lock().unwrap().1.recv_timeout(Duration::from_secs(3));
        });
        builder = builder.check(Spec::degraded(format!("blocks{n}"), check));
    }
    let health = builder.build().unwrap();
    let degraded = health.wait_until(|state| state == State::Degraded);
    tokio::time::timeout(Duration::from_secs(10), degraded).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let empty = axum::routing::get(|| std::future::ready(()));
    let app = health.http_router().route("/empty", empty);
    tokio::spawn(axum::serve(listener, app).into_future());
    // Work in short turns, as a busy service has it: the runtime is never idle.
    let busy: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn(async {
                loop {
                    std::hint::black_box((0_u64..2_000).fold(0, |a, b| a ^ b.wrapping_mul(a + 1)));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let asking = tokio::task::spawn_blocking(move || ask_by_turns(address, told));
    sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::SeqCst);
    let (late, late_empty, turns) = asking.await.unwrap();
    for task in busy {
        task.abort();
    }
    println!("of {turns} probes {late} took longer than 10 ms, of as many empty answers {late_empty}");
    assert!(turns > 20, "{turns}");
    // The machine may be slow, and is so for both.
    assert!(
        late <= late_empty + turns / 20 + 1,
        "{late} of {turns} late, of the empty ones {late_empty}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn probes_with_a_thread_of_their_own_tell_that_the_runtime_stands_still() {
    let db = Spec::critical("db", || async {})
        .interval(Duration::from_millis(100))
        .timeout(Duration::from_millis(50))
        .on_down(OnDown::NotReady);
    let health = Health::builder()
        .check(db)
        .listen("127.0.0.1:0".parse().unwrap())
        .standstill(Duration::from_millis(500))
        .build()
        .unwrap();
    let address = health.listens_on().unwrap();
    tokio::time::timeout(Duration::from_secs(10), health.wait_until(State::takes_traffic))
        .await
        .unwrap();
    assert_eq!(kubelet(address, "/healthz").await.0, 200);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    // The runtime's only worker is blocked until the test says so; the test itself runs beside it.
    tokio::spawn(async move {
        let _ = wait.recv_timeout(Duration::from_secs(20));
    });
    let prober = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
            // Liveness fails, and what was known of the database is too old.
            loop {
                let (live, ready) = (kubelet(address, "/healthz").await, kubelet(address, "/readyz").await);
                if (live.0, ready.0) == (503, 503) {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "{live:?} {ready:?}");
                sleep(Duration::from_millis(20)).await;
            }
            go.send(()).unwrap();
            loop {
                let (live, ready) = (kubelet(address, "/healthz").await, kubelet(address, "/readyz").await);
                if (live.0, ready.0) == (200, 200) {
                    return;
                }
                assert!(tokio::time::Instant::now() < deadline, "{live:?} {ready:?}");
                sleep(Duration::from_millis(20)).await;
            }
        });
    });
    let joined = tokio::task::spawn_blocking(|| prober.join());
    joined.await.unwrap().unwrap();
    health.stop();
    assert!(health.listens_on().is_none());
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "its port is free again"
    );
}

/// A log that hangs on its first line of ours, until it is let go.
struct HangingLog {
    hangs: std::sync::mpsc::Sender<()>,
    go: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl tracing::Subscriber for HangingLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("health")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        // Once it was let go, nobody listens any more.
        let _ = self.hangs.send(());
        let _ = self.go.lock().unwrap().recv_timeout(Duration::from_secs(20));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_log_that_hangs_keeps_no_probe_waiting() {
    let (hangs, is_hanging) = std::sync::mpsc::channel();
    let (let_go, go) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let service = std::thread::spawn(move || {
        let go = std::sync::Mutex::new(go);
        let _log = tracing::subscriber::set_default(HangingLog { hangs, go });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let health = Health::builder().critical("db", || async {}).build().unwrap();
            tell.send(health.clone()).unwrap();
            health.wait_until(State::takes_traffic).await;
        });
    });
    let health = told.recv().unwrap();
    is_hanging.recv_timeout(Duration::from_secs(10)).unwrap();
    let began = tokio::time::Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for path in PATHS {
            assert_eq!(get(&health, path).await, (200, said("pass")), "{path}");
        }
        assert_eq!(health.snapshot().state, State::Ready);
    });
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop(let_go);
    service.join().unwrap();
}
