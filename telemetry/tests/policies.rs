//! Policies as others see them: series from the first scrape on, and a person's word over a breaker through the admin
//! listener, which ends by itself and is always on the record.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::time::Duration;

use resilience::{Breaker, Error, Pipeline, Safety, State, Verdict};
use serde_json::{Value, json};
use telemetry::{AdminAddr, AdminServer, Telemetry, TestTelemetry};

fn policy(name: &str) -> Pipeline {
    Pipeline::standard(name)
        .breaker(Breaker::builder(name).min_calls(2).window(Duration::from_secs(60)))
        .build()
        .unwrap()
}

async fn scrape(telemetry: &Telemetry) -> String {
    use tower::ServiceExt as _;
    let request = axum::http::Request::get("/metrics")
        .body(axum::body::Body::empty())
        .unwrap();
    let response = telemetry.metrics_router::<()>().oneshot(request).await.unwrap();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The value of every state of a breaker, in the order of `State::ALL`.
async fn states(telemetry: &Telemetry, name: &str) -> [u8; 5] {
    let text = scrape(telemetry).await;
    State::ALL.map(|state| {
        let series = format!("circuit_breaker_state{{name=\"{name}\",state=\"{}\"}} ", state.as_str());
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value
            .unwrap_or_else(|| panic!("{series} is not in\n{text}"))
            .parse()
            .unwrap()
    })
}

#[tokio::test]
async fn every_state_has_its_series_before_the_first_call() {
    let telemetry = Telemetry::test();
    let policy = policy("backend");
    telemetry.watch_policy(&policy);
    assert_eq!(states(&telemetry, "backend").await, [1, 0, 0, 0, 0]);
    let text = scrape(&telemetry).await;
    for series in [
        r#"circuit_breaker_calls_total{name="backend",outcome="rejected"} 0"#,
        r#"circuit_breaker_failure_ratio{name="backend"} 0"#,
        r#"retry_attempts_total{name="backend",reason="transient"} 0"#,
        r#"retry_budget_exhausted_total{name="backend"} 0"#,
        r#"timeouts_total{name="backend",scope="attempt"} 0"#,
        r#"bulkhead_limit{name="backend"} 100"#,
        r#"fallback_total{name="backend",reason="timeout"} 0"#,
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
    let breaker = policy.breaker().unwrap();
    for (step, wanted) in [
        (Breaker::force_open as fn(&Breaker), [0, 0, 0, 1, 0]),
        (Breaker::force_closed, [0, 0, 0, 0, 1]),
        (Breaker::release, [1, 0, 0, 0, 0]),
        (trip, [0, 1, 0, 0, 0]),
    ] {
        step(breaker);
        assert_eq!(states(&telemetry, "backend").await, wanted);
    }
    let text = scrape(&telemetry).await;
    let changes = r#"circuit_breaker_transitions_total{name="backend",from="closed",to="open"} 1"#;
    assert!(text.contains(changes), "{text}");
}

fn trip(breaker: &Breaker) {
    for _ in 0..2 {
        breaker
            .acquire()
            .unwrap()
            .record(Verdict::Failure(resilience::Kind::Transient));
    }
}

/// A process with the policies `backend` (with a breaker) and `plain` (without), and its admin listener.
struct Process {
    telemetry: TestTelemetry,
    backend: Pipeline,
    client: reqwest::Client,
    _admin: AdminServer,
    _folder: tempfile::TempDir,
}

impl Process {
    fn start(writes: bool) -> Self {
        telemetry::init_tls();
        let telemetry = Telemetry::test();
        let backend = policy("backend");
        let plain = Pipeline::builder("plain").build().unwrap();
        telemetry.watch_policy(&backend);
        telemetry.watch_policy(&plain);
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        let admin = telemetry.admin().writes(writes);
        let admin = admin.serve(&AdminAddr::Unix(socket.clone())).unwrap();
        Self {
            telemetry,
            backend,
            client: reqwest::Client::builder().unix_socket(socket).build().unwrap(),
            _admin: admin,
            _folder: folder,
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let request = self.client.post(format!("http://x/policies/{path}"));
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn force(&self, state: &str, ttl: &str) -> Value {
        let body = json!({"state": state, "ttl": ttl, "actor": "ann@desk", "reason": "game day"});
        let (status, text) = self.post("backend/force", &body).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// What `/policies` says of `backend`.
    async fn shown(&self) -> Value {
        let response = self.client.get("http://x/policies").send().await.unwrap();
        let all: Value = response.json().await.unwrap();
        all[0].clone()
    }

    fn state(&self) -> State {
        self.backend.breaker().unwrap().state()
    }

    fn audited(&self) -> Vec<Value> {
        let lines = self.telemetry.lines();
        lines.into_iter().filter(|line| line["target"] == "audit").collect()
    }
}

/// Lets time pass without waiting for it; the clock runs on afterwards, since sockets need it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    // The timers that are due run now.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
}

#[tokio::test]
async fn a_forced_breaker_refuses_until_its_time_is_over() {
    let process = Process::start(true);
    let forced = process.force("open", "10m").await;
    assert_eq!(forced["breaker"]["state"], "forced_open");
    assert_eq!(states(&process.telemetry, "backend").await, [0, 0, 0, 1, 0]);
    let refused = process
        .backend
        .call_with(
            Safety::Idempotent,
            &|result: Result<&(), &()>| match result {
                Ok(()) => Verdict::Success,
                Err(()) => Verdict::Failure(resilience::Kind::Transient),
            },
            |_| async { Ok::<_, ()>(()) },
        )
        .await;
    assert!(matches!(refused, Err(Error::Rejected(_))), "{refused:?}");

    let shown = process.shown().await;
    assert_eq!(shown["forced"]["state"], "forced_open");
    assert_eq!(shown["forced"]["actor"], "ann@desk");
    assert_eq!(shown["forced"]["reason"], "game day");
    let left = shown["forced"]["remaining_seconds"].as_f64().unwrap();
    assert!((590.0..=600.0).contains(&left), "{left}");
    assert_eq!(shown["breaker"]["last_transitions"][0]["from"], "closed");
    assert_eq!(shown["breaker"]["last_transitions"][0]["to"], "forced_open");

    pass(Duration::from_secs(590)).await;
    assert_eq!(process.state(), State::ForcedOpen);
    pass(Duration::from_secs(11)).await;
    assert_eq!(process.state(), State::Closed);
    let shown = process.shown().await;
    assert_eq!(shown["forced"], Value::Null);
    assert_eq!(shown["breaker"]["last_transitions"][1]["to"], "closed");
    assert_eq!(states(&process.telemetry, "backend").await, [1, 0, 0, 0, 0]);
}

#[tokio::test]
async fn a_second_force_replaces_the_first_and_its_end() {
    let process = Process::start(true);
    process.force("open", "1m").await;
    pass(Duration::from_secs(50)).await;
    process.force("closed", "5m").await;
    assert_eq!(process.state(), State::ForcedClosed);
    // The end of the first passes without effect.
    pass(Duration::from_secs(20)).await;
    assert_eq!(process.state(), State::ForcedClosed);
    pass(Duration::from_secs(300)).await;
    assert_eq!(process.state(), State::Closed);
}

#[tokio::test]
async fn a_reset_ends_what_was_forced_and_an_open_breaker() {
    let process = Process::start(true);
    process.force("open", "1m").await;
    let by = json!({"actor": "bob@desk"});
    assert_eq!(process.post("backend/reset", &by).await.0, 200);
    assert_eq!(process.state(), State::Closed);
    assert_eq!(process.shown().await["forced"], Value::Null);
    trip(process.backend.breaker().unwrap());
    assert_eq!(process.state(), State::Open);
    // The end of the force that was reset passes without effect: the breaker goes its own way.
    pass(Duration::from_secs(70)).await;
    assert_eq!(process.state(), State::HalfOpen);
    trip(process.backend.breaker().unwrap());
    assert_eq!(process.state(), State::Open);
    assert_eq!(process.post("backend/reset", &by).await.0, 200);
    assert_eq!(process.state(), State::Closed);
}

#[tokio::test]
async fn every_change_says_who_what_how_long_and_why() {
    let process = Process::start(true);
    process.force("open", "90s").await;
    process
        .post("backend/reset", &json!({"actor": "bob@desk", "reason": "done"}))
        .await;
    process.force("closed", "1s").await;
    pass(Duration::from_secs(2)).await;
    let uid = rustix::process::getuid().as_raw();
    let audited = process.audited();
    let line = |message: &str| {
        let found = audited.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("{message:?} is not in {audited:#?}"))
    };
    let forced = line("breaker forced");
    assert_eq!(forced["level"], "WARN");
    assert_eq!(forced["policy"], "backend");
    assert_eq!(forced["state"], "forced_open");
    assert_eq!(forced["ttl_seconds"], 90.0);
    assert_eq!(forced["actor"], "ann@desk");
    assert_eq!(forced["reason"], "game day");
    assert_eq!(forced["uid"], uid, "what the kernel says, not the request");
    let reset = line("breaker reset");
    assert_eq!(
        (&reset["actor"], &reset["reason"]),
        (&json!("bob@desk"), &json!("done"))
    );
    assert_eq!(line("forced state of a breaker ended")["policy"], "backend");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let process = Process::start(true);
    for (path, body, status, words) in [
        (
            "frontend/force",
            json!({"state": "open"}),
            404,
            "there are: backend, plain",
        ),
        ("frontend/reset", json!({}), 404, "there is no policy frontend"),
        ("plain/force", json!({"state": "open"}), 409, "plain has no breaker"),
        (
            "backend/force",
            json!({"state": "ajar"}),
            400,
            "neither open nor closed",
        ),
        (
            "backend/force",
            json!({"state": "open", "ttl": "0s"}),
            400,
            "above zero",
        ),
        (
            "backend/force",
            json!({"state": "open", "ttl": "25h"}),
            400,
            "at most 24h",
        ),
        ("backend/force", json!({"state": "open", "ttl": "soon"}), 400, "ttl"),
        (
            "backend/force",
            json!({"state": "open", "reason": "why ".repeat(200)}),
            400,
            "at most 500 bytes",
        ),
        (
            "backend/reset",
            json!({"actor": "a".repeat(501)}),
            400,
            "at most 500 bytes",
        ),
        ("backend/force", json!({"state": "open", "until": "10m"}), 400, "until"),
    ] {
        let (seen, text) = process.post(path, &body).await;
        assert_eq!(seen, status, "{path} {body}: {text}");
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert_eq!(process.state(), State::Closed);
    let silent = Process::start(false);
    assert_eq!(silent.post("backend/force", &json!({"state": "open"})).await.0, 403);
    assert_eq!(silent.state(), State::Closed);
}
