//! Alerts that drills must make fire: a real Prometheus scrapes a service of this machine through its front door, a real
//! Alertmanager is told, and a webhook hears of it.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use peers::{Server, http, servers};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::sandbox::{Sandbox, eventually, tiny_service};
use crate::{faults, service};

/// Every rule is evaluated each second.
const RULES: &str = r#"
groups:
- name: shop
  rules:
  - {alert: ShopDown, expr: 'up{job="shop"} == 0', for: 2s, labels: {severity: page}}
  - {alert: NobodyAsked, expr: 'up{job="shop"} < 1'}
  - {alert: ShopSlow, expr: 'scrape_duration_seconds{job="shop"} > 0.5', for: 1s, labels: {severity: page}}
  - {alert: ShopSlowForLong, expr: 'scrape_duration_seconds{job="shop"} > 0.5', for: 50s}
  - {alert: ShopRestarted, expr: 'min_over_time(tiny_uptime_seconds{job="shop"}[4s]) < 5', labels: {severity: page}}
  - {alert: Always, expr: 'vector(1)'}
  - {alert: Never, expr: 'vector(1) > 2'}
"#;

/// What the webhook was sent.
type Told = Arc<Mutex<Vec<Value>>>;

/// A service that is scraped, and everybody who hears of its alerts.
struct World {
    sandbox: Sandbox,
    prometheus: Server,
    alertmanager: Server,
    told: Told,
}

impl World {
    /// `None` after saying that `test` is skipped, where the servers are not installed.
    async fn new(test: &str) -> Option<Self> {
        let told = Told::default();
        let hook = hook(Arc::clone(&told)).await;
        let routes = format!(
            "route: {{receiver: nobody, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h, \
             routes: [{{matchers: ['severity=\"page\"'], receiver: hook}}]}}\n\
             receivers: [{{name: nobody}}, {{name: hook, webhook_configs: [{{url: \"http://{hook}/\"}}]}}]\n"
        );
        let alertmanager = Server::start(servers::Alertmanager::new(routes), test).await?;
        let sandbox = Sandbox::new();
        sandbox.write("rules.yaml", RULES);
        sandbox.write("opsctl.toml", &catalogue(""));
        sandbox.run(&["up"]).ended(0);
        let shop = service(&sandbox, "shop");
        let door = shop["front"]["http"].as_str().expect("a front door");
        let recipe = servers::Prometheus::default()
            .scrape("shop", door)
            .rules(sandbox.path("rules.yaml"))
            .alertmanager(alertmanager.address("http"));
        let prometheus = Server::start(recipe, test).await?;
        let at = format!("prometheus = \"http://{}\"\n", prometheus.address("http"));
        sandbox.write("opsctl.toml", &catalogue(&at));
        let world = Self {
            sandbox,
            prometheus,
            alertmanager,
            told,
        };
        world.settles().await;
        Some(world)
    }

    /// Waits until the service is scraped and nothing fires but what always does.
    async fn settles(&self) {
        let up = "/api/v1/query?query=min_over_time(tiny_uptime_seconds[2s])%20%3E%206";
        for (what, path, holds) in [
            ("a scrape of instances that have run for a while", up, "\"metric\":{"),
            (
                "the alert that always fires",
                "/api/v1/alerts",
                "\"alertname\":\"Always\"",
            ),
        ] {
            until(what, async || self.asked(path).await.contains(holds)).await;
        }
        until("quiet", async || !self.asked("/api/v1/alerts").await.contains("Shop")).await;
        until("that Alertmanager forgets", async || {
            let alerts = http::get(self.alertmanager.address("http"), "/api/v2/alerts").await;
            alerts.is_ok_and(|alerts| !alerts.body.contains("Shop"))
        })
        .await;
    }

    async fn asked(&self, path: &str) -> String {
        let answer = http::get(self.prometheus.address("http"), path).await;
        answer.map(|answer| answer.body).unwrap_or_default()
    }

    /// Whether the webhook was told that an alert is `firing` or `resolved`.
    fn told(&self, alert: &str, status: &str) -> bool {
        let told = self.told.lock().expect("nobody panics with it");
        let alerts = told
            .iter()
            .flat_map(|one| one["alerts"].as_array().into_iter().flatten());
        let mut ours = alerts.filter(|one| one["labels"]["alertname"] == alert);
        ours.any(|one| one["status"] == status)
    }
}

fn catalogue(prometheus: &str) -> String {
    let tiny = tiny_service().display().to_string();
    format!(
        "version = 1\n[env.local]\n{prometheus}\
         [service.shop]\nhealth = {{ http = \"/healthz\" }}\nprobe = {{ http = \"/\", rate = \"50/s\" }}\n\
         objectives = {{ availability = \"50%\" }}\n\
         [service.shop.local]\ncommand = [{tiny:?}]\nreplicas = 2\n"
    )
}

async fn hook(told: Told) -> SocketAddr {
    async fn hear(State(told): State<Told>, Json(one): Json<Value>) {
        told.lock().expect("nobody panics with it").push(one);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let app = axum::Router::new()
        .route("/", axum::routing::post(hear))
        .with_state(told);
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(40), wait).await;
    assert!(waited.is_ok(), "{what} did not come");
}

/// How many delays the proxy plays.
fn delays(sandbox: &Sandbox) -> usize {
    tokio::task::block_in_place(|| faults(sandbox, "shop"))
}

/// A time of an alert's report.
#[track_caller]
fn at(alert: &Value, key: &str) -> f64 {
    alert[key].as_f64().unwrap_or_else(|| panic!("no {key}: {alert}"))
}

/// Checks what holds of every alert that was proved.
#[track_caller]
fn proved(alert: &Value) {
    assert_eq!(alert["proof"], "proved", "{alert}");
    let moments =
        ["pending", "firing", "received", "notified", "resolved"].map(|key| at(alert, &format!("{key}_seconds")));
    assert!(moments.is_sorted(), "{alert}");
    let predicted = &alert["predicted"];
    // What no luck makes shorter; the effect itself was seen a moment late.
    let least = ["ramp_seconds", "for_seconds", "group_wait_seconds"].map(|key| at(predicted, key));
    assert!(moments[3] > least.iter().sum::<f64>() - 1.0, "{alert}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_told_of_and_the_proof_is_kept() {
    let Some(world) = World::new("a_service_that_is_down_is_told_of_and_the_proof_is_kept").await else {
        return;
    };
    let sandbox = &world.sandbox;
    let words = [
        "drill",
        "service-down",
        "shop",
        "--for",
        "1s",
        "--expect-alert",
        "ShopDown,within=30s",
    ];
    let dry = sandbox.run(&[&words[..], &["--dry-run"]].concat()).ended(0).stdout;
    // A scrape, an evaluation, two seconds of `for`, one of group wait.
    assert!(
        dry.contains("expects ShopDown within 30") && dry.contains("predicted 5.0 s"),
        "{dry}"
    );
    let report = sandbox.run(&[&words[..], &["--json"]].concat()).ended(0).json();
    let alert = &report["alerts"][0];
    proved(alert);
    assert!(
        at(alert, "firing_seconds") - at(alert, "pending_seconds") > 1.5,
        "{alert}"
    );
    assert_eq!(alert["receivers"], serde_json::json!(["hook"]));
    assert!(
        report["undone_seconds"].as_f64() > report["injected_seconds"].as_f64().map(|at| at + 3.0),
        "it stayed down for as long as the alert needed: {report}"
    );
    let unexpected = report["unexpected_alerts"].as_array().expect("a list");
    let names: Vec<_> = unexpected.iter().map(|one| &one["labels"]["alertname"]).collect();
    assert_eq!(names[0], "NobodyAsked", "{unexpected:?}");
    assert!(!names.contains(&&Value::from("Always")), "what always fires is no news");
    eventually("the webhook hears of both", || {
        world.told("ShopDown", "firing") && world.told("ShopDown", "resolved")
    });

    let run = report["run"].as_str().expect("an id");
    let folder = format!(".opsctl/runs/{run}");
    let read =
        |file: &str| std::fs::read_to_string(sandbox.path(format!("{folder}/{file}"))).expect("a file of the run");
    let record: Value = serde_json::from_str(&read("record.json")).expect("a record");
    assert_eq!(record["stats"]["alerts"][0]["alert"], "ShopDown");
    assert_eq!(
        record["stats"]["alerts"][0]["time_to_detect_seconds"],
        alert["firing_seconds"]
    );
    assert_eq!(
        record["stats"]["alerts"][0]["time_to_resolve_seconds"],
        alert["resolved_seconds"]
    );
    let page = read("report.html");
    assert!(
        page.contains("Alerts that were not expected") && page.contains("ShopDown fires"),
        "{page}"
    );

    let status = sandbox.run(&["recovery", "status"]).ended(0).stdout;
    assert!(
        status.contains("ShopDown") && status.contains("proved") && status.contains(run),
        "{status}"
    );
    let status = sandbox.run(&["recovery", "status", "--json"]).ended(0).json();
    let known = &status["alerts"][0];
    assert_eq!(
        (&known["alert"], &known["last_proved"]["run"]),
        (&"ShopDown".into(), &run.into())
    );
    assert_eq!(known["last_proved"]["time_to_detect_seconds"], alert["firing_seconds"]);
    sandbox.run(&["down"]).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_killed_is_told_of() {
    let Some(world) = World::new("an_instance_that_is_killed_is_told_of").await else {
        return;
    };
    let words = [
        "drill",
        "pod-kill",
        "shop",
        "--for",
        "1s",
        "--expect-alert",
        "ShopRestarted,job=shop,within=30s",
    ];
    let ran = world.sandbox.run(&words).ended(0);
    assert!(
        ran.stdout.contains("alert ShopRestarted,job=shop") && ran.stdout.contains("told"),
        "{}",
        ran.stdout
    );
    let status = world.sandbox.run(&["recovery", "status", "--json"]).ended(0).json();
    assert_eq!(status["alerts"][0]["last"]["proof"], "proved", "{status}");
    assert_eq!(status["alerts"][0]["last"]["kind"], "drill/pod-kill");
    eventually("the webhook hears of it", || world.told("ShopRestarted", "firing"));
    world.sandbox.run(&["down"]).ended(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_told_of_unless_it_is_silenced_and_a_lost_prometheus_proves_nothing() {
    let test = "a_delay_is_told_of_unless_it_is_silenced_and_a_lost_prometheus_proves_nothing";
    let Some(mut world) = World::new(test).await else {
        return;
    };
    let words = [
        "drill",
        "latency",
        "shop",
        "--delay",
        "700ms",
        "--for",
        "1s",
        "--json",
        "--expect-alert",
    ];
    let expecting = |alert: &'static str| [&words[..], &[alert]].concat();
    let report = world.sandbox.run(&expecting("ShopSlow,within=20s")).ended(0).json();
    proved(&report["alerts"][0]);
    assert_eq!(delays(&world.sandbox), 0);

    world.settles().await;
    let silence = silence("ShopSlow");
    let made = http::post(
        world.alertmanager.address("http"),
        "/api/v2/silences",
        "application/json",
        &silence,
    );
    let made = made.await.expect("an answer").json();
    let report = world.sandbox.run(&expecting("ShopSlow,within=20s")).ended(4).json();
    let alert = &report["alerts"][0];
    assert_eq!(alert["proof"], "suppressed", "{alert}");
    let by = format!("silence {}", made["silenceID"].as_str().expect("an id"));
    assert_eq!(alert["suppressed_by"], serde_json::json!([by]));
    assert_eq!(alert["notified_seconds"], Value::Null);

    world.settles().await;
    let mut command = world.sandbox.command(&expecting("ShopSlowForLong,within=2m"));
    let terminal = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let terminal = terminal.expect("opsctl starts");
    eventually("the delay", || delays(&world.sandbox) == 1);
    world.prometheus.kill();
    let ended = terminal.wait_with_output().expect("our own child");
    assert_eq!(
        ended.status.code(),
        Some(9),
        "{}",
        String::from_utf8_lossy(&ended.stdout)
    );
    let report: Value = serde_json::from_slice(&ended.stdout).expect("a report");
    assert_eq!(report["alerts"][0]["proof"], "inconclusive", "{report}");
    assert_eq!(delays(&world.sandbox), 0);
    world
        .sandbox
        .run(&expecting("ShopSlow"))
        .ended(7)
        .says("could not be asked");
    world.sandbox.run(&["down"]).ended(0);
}

/// A silence of an alert, for a year.
fn silence(alert: &str) -> String {
    serde_json::json!({
        "matchers": [{ "name": "alertname", "value": alert, "isRegex": false, "isEqual": true }],
        "startsAt": "2020-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
        "createdBy": "test",
        "comment": "quiet",
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_prove_nothing_is_refused_before_anything_is_done() {
    let Some(world) = World::new("what_can_prove_nothing_is_refused_before_anything_is_done").await else {
        return;
    };
    let sandbox = &world.sandbox;
    let drill = |alert: &str| {
        sandbox.run(&[
            "drill",
            "latency",
            "shop",
            "--for",
            "1s",
            "--json",
            "--expect-alert",
            alert,
        ])
    };
    drill("ShopDwon").ended(2).says("did you mean `ShopDown`?");
    drill("ShopDown,within=2s").ended(2).says("cannot be told within");
    drill("ShopDown,2s").ended(2).says("KEY=VALUE");
    // In time by luck alone: said, and not refused.
    let words = [
        "drill",
        "service-down",
        "shop",
        "--dry-run",
        "--expect-alert",
        "ShopDown,within=4s",
    ];
    let dry = sandbox.run(&words).ended(0);
    assert!(dry.stdout.contains("below the predicted floor"), "{}", dry.stdout);

    let report = drill("Always,within=10s").ended(9).json();
    assert_eq!(
        (&report["status"], &report["alerts"][0]["proof"]),
        (&"not_steady".into(), &"fired_before".into())
    );
    assert_eq!(report["injected_seconds"], Value::Null);
    let report = drill("Never,within=3s").ended(4).json();
    assert_eq!(report["alerts"][0]["proof"], "not_fired", "{report}");
    let status = sandbox.run(&["recovery", "status"]).ended(0).stdout;
    assert!(status.contains("not fired") && status.contains("never"), "{status}");

    let mut command = sandbox.command(&[
        "drill",
        "latency",
        "shop",
        "--delay",
        "700ms",
        "--expect-alert",
        "ShopSlowForLong",
    ]);
    let terminal = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut terminal = terminal.expect("opsctl starts");
    eventually("the delay", || delays(sandbox) == 1);
    kill_process(Pid::from_raw(terminal.id().cast_signed()).expect("a pid"), Signal::INT).expect("our own child");
    assert_eq!(terminal.wait().expect("our own child").code(), Some(130));
    assert_eq!(delays(sandbox), 0);
    sandbox.run(&["down"]).ended(0);
}
