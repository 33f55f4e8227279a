//! Checks and states under a paused clock: start, hysteresis, timeouts, panics, roles, drain, and the probes' answers.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use health::{
    Beat, DiskCheck, Drain, Ended, Health, Heartbeat, HttpCheck, Lifecycle, OnDown, Outcome, Reason, Spec, State,
    Status,
};
use tokio::time::{Instant, advance, sleep};
use tower::ServiceExt as _;

type Asked = Result<(), std::io::Error>;

/// A dependency that can be switched off.
#[derive(Clone, Default)]
struct Dependency {
    down: Arc<AtomicBool>,
    asked: Arc<AtomicU32>,
}

impl Dependency {
    fn check(&self) -> impl Fn() -> std::future::Ready<Asked> + Send + Sync + 'static {
        let this = self.clone();
        move || {
            this.asked.fetch_add(1, Ordering::SeqCst);
            let down = this.down.load(Ordering::SeqCst);
            std::future::ready(if down {
                Err(std::io::ErrorKind::ConnectionRefused.into())
            } else {
                Ok(())
            })
        }
    }

    fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

/// Waits on the paused clock until the state is the wanted one, at most ten minutes.
async fn until(health: &Health, state: State) {
    tokio::time::timeout(Duration::from_secs(600), health.wait_until(|now| now == state))
        .await
        .unwrap_or_else(|_| panic!("not {state:?} but {:?}", health.snapshot()));
}

async fn ask(health: &Health, method: Method, path: &str) -> (u16, Option<String>, String) {
    let router: axum::Router = health.http_router();
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let cache = response
        .headers()
        .get("cache-control")
        .map(|value| value.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    (status, cache, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_service_is_ready_once_every_critical_check_has_passed() {
    let (db, cache) = (Dependency::default(), Dependency::default());
    db.set_down(true);
    cache.set_down(true);
    let health = Health::builder()
        .critical("db", db.check())
        .degraded("cache", cache.check())
        .informative("report", cache.check())
        .build()
        .unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(health.state(), State::Starting);
    assert!(db.asked.load(Ordering::SeqCst) > 40, "every second while starting");
    assert_eq!(ask(&health, Method::GET, "/health/startup").await.0, 503);
    assert_eq!(ask(&health, Method::GET, "/healthz").await.0, 200, "alive all the time");
    db.set_down(false);
    until(&health, State::Degraded).await;
    cache.set_down(false);
    until(&health, State::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn it_goes_down_after_three_failures_and_up_after_two_successes() {
    let disk = Dependency::default();
    let health = Health::builder()
        .check(Spec::critical("disk", disk.check()).on_down(OnDown::NotReady))
        .build()
        .unwrap();
    until(&health, State::Ready).await;
    disk.set_down(true);
    let before = disk.asked.load(Ordering::SeqCst);
    until(&health, State::NotReady).await;
    assert_eq!(disk.asked.load(Ordering::SeqCst) - before, 3);
    assert_eq!(health.snapshot().checks[0].reason, Some(Reason::Refused));
    assert_eq!(ask(&health, Method::GET, "/readyz").await.0, 503);
    assert_eq!(
        ask(&health, Method::GET, "/health/startup").await.0,
        200,
        "it has started"
    );
    disk.set_down(false);
    let before = disk.asked.load(Ordering::SeqCst);
    until(&health, State::Ready).await;
    assert_eq!(disk.asked.load(Ordering::SeqCst) - before, 2);
    assert_eq!(health.snapshot().checks[0].transitions, [2, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_shared_dependency_that_fails_degrades_and_keeps_the_traffic() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    until(&health, State::Ready).await;
    db.set_down(true);
    until(&health, State::Degraded).await;
    let (status, _, body) = ask(&health, Method::GET, "/health/ready").await;
    assert_eq!((status, body.as_str()), (200, r#"{"status":"warn"}"#));
}

#[tokio::test(start_paused = true)]
async fn checks_that_hang_or_panic_fail_and_never_overlap() {
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let hangs = {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            async move {
                struct Leave(Arc<AtomicU32>);
                impl Drop for Leave {
                    fn drop(&mut self) {
                        self.0.fetch_sub(1, Ordering::SeqCst);
                    }
                }
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let _leave = Leave(running);
                std::future::pending::<()>().await;
            }
        }
    };
    async fn panics() {
        panic!("on purpose");
    }
    let health = Health::builder()
        .degraded("hangs", hangs)
        .degraded("panics", panics)
        .build()
        .unwrap();
    sleep(Duration::from_secs(120)).await;
    let checks = health.snapshot().checks;
    assert_eq!(
        (checks[0].status, checks[0].reason),
        (Status::Fail, Some(Reason::Timeout))
    );
    assert_eq!(
        (checks[1].status, checks[1].reason),
        (Status::Fail, Some(Reason::Panic))
    );
    assert!(
        checks[0].runs > 5 && checks[1].runs > 5,
        "both are asked again: {checks:?}"
    );
    assert_eq!(most.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_warning_is_shown_and_does_not_fail() {
    let full = || async { Outcome::Warn(health::Failure::new(Reason::Saturated, "9 of 9 in use")) };
    let health = Health::builder().critical("pool", full).build().unwrap();
    until(&health, State::Degraded).await;
    let check = &health.snapshot().checks[0];
    assert_eq!((check.status, check.reason), (Status::Warn, Some(Reason::Saturated)));
    assert!(check.last_success.is_some());
}

#[tokio::test(start_paused = true)]
async fn liveness_follows_its_checks_alone() {
    let beat = Heartbeat::new(Duration::from_secs(30));
    let of_check = beat.clone();
    let health = Health::builder()
        .liveness("loop", move || of_check.check())
        .build()
        .unwrap();
    assert_eq!(health.state(), State::Ready, "nothing critical to wait for");
    advance(Duration::from_secs(29)).await;
    assert!(health.is_alive());
    beat.beat();
    advance(Duration::from_secs(29)).await;
    assert!(health.is_alive());
    advance(Duration::from_secs(2)).await;
    assert_eq!(ask(&health, Method::GET, "/health/live").await.0, 503);
    assert_eq!(ask(&health, Method::GET, "/healthz").await.0, 503);
    assert_eq!(beat.check(), Beat::Dead);
}

#[tokio::test(start_paused = true)]
async fn probes_say_no_more_than_they_must() {
    let db = Dependency::default();
    db.set_down(true);
    let health = Health::builder().degraded("secret-host", db.check()).build().unwrap();
    sleep(Duration::from_secs(60)).await;
    for path in [
        "/healthz",
        "/readyz",
        "/health",
        "/health/live",
        "/health/ready",
        "/health/startup",
    ] {
        let (_, cache, body) = ask(&health, Method::GET, path).await;
        assert_eq!(cache.as_deref(), Some("no-store"), "{path}");
        assert!(body.len() < 30 && !body.contains("secret-host"), "{path}: {body}");
        let (status, _, body) = ask(&health, Method::HEAD, path).await;
        assert!(status < 400 && body.is_empty(), "{path}: HEAD {status} {body}");
        assert_eq!(ask(&health, Method::POST, path).await.0, 405, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_drain_keeps_its_times() {
    let health = Health::builder().build().unwrap();
    let times = Drain {
        delay: Duration::from_secs(5),
        timeout: Duration::from_secs(18),
    };
    let life = Lifecycle::without_signals(&health, times);
    let began = Instant::now();
    life.drain();
    life.drain();
    assert_eq!(health.state(), State::Draining);
    let stopped = tokio::spawn({
        let stop = life.stop_accepting();
        async move {
            stop.await;
            began.elapsed()
        }
    });
    let ended = life.run(std::future::pending::<()>()).await;
    assert_eq!(ended, Ended::Aborted);
    assert_eq!(stopped.await.unwrap(), Duration::from_secs(5));
    assert_eq!(began.elapsed(), Duration::from_secs(23));
    assert_eq!(health.state(), State::Stopped);
}

#[tokio::test(start_paused = true)]
async fn no_check_takes_a_draining_service_back() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    until(&health, State::Ready).await;
    health.drain();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(health.state(), State::Draining);
    assert_eq!(ask(&health, Method::GET, "/readyz").await.0, 503);
    assert_eq!(ask(&health, Method::GET, "/healthz").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn checks_end_with_the_last_handle() {
    let db = Dependency::default();
    let health = Health::builder().critical("db", db.check()).build().unwrap();
    let clone = health.clone();
    until(&health, State::Ready).await;
    drop(health);
    sleep(Duration::from_secs(60)).await;
    let asked = db.asked.load(Ordering::SeqCst);
    assert!(asked > 3);
    drop(clone);
    sleep(Duration::from_secs(600)).await;
    assert_eq!(db.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn the_http_check_tells_answers_from_silence() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new()
        .route("/good", axum::routing::get(|| async { "" }))
        .route(
            "/private",
            axum::routing::get(|| async { axum::http::StatusCode::FORBIDDEN }),
        );
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let reason = async |path: &str| {
        let check = HttpCheck::get(&format!("http://127.0.0.1:{port}{path}")).unwrap();
        match health::Check::run(&check).await {
            Outcome::Pass => None,
            Outcome::Warn(failure) | Outcome::Fail(failure) => Some(failure.reason),
        }
    };
    assert_eq!(reason("/good").await, None);
    assert_eq!(reason("/private").await, Some(Reason::Auth));
    assert_eq!(reason("/nothing").await, Some(Reason::Protocol));
    server.abort();
    let _ = server.await;
    assert_eq!(reason("/good").await, Some(Reason::Refused));
    assert!(HttpCheck::get("ftp://x").is_err());
}

#[tokio::test]
async fn the_disk_check_asks_for_what_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let ask = async |bytes| health::Check::run(&DiskCheck::new(folder.path(), bytes)).await;
    assert!(matches!(ask(1).await, Outcome::Pass));
    assert!(matches!(ask(u64::MAX).await, Outcome::Fail(failure) if failure.reason == Reason::Saturated));
}

#[tokio::test]
async fn mistakes_are_refused() {
    let ok = || async {};
    let twice = Health::builder()
        .critical("a", ok)
        .degraded("a", ok)
        .build()
        .unwrap_err();
    assert!(twice.to_string().contains("named a"), "{twice}");
    let spec = Spec::critical("b", ok)
        .interval(Duration::from_secs(1))
        .timeout(Duration::from_secs(1));
    let late = Health::builder().check(spec).build().unwrap_err();
    assert!(late.to_string().contains("check b"), "{late}");
}
