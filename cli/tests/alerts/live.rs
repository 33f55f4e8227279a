//! `opsctl alert check --live`, `status` and `silence` against a real Prometheus and a real Alertmanager.

use std::fs;
use std::time::Duration;

use peers::{Server, servers};
use tokio::time::{sleep, timeout};

use crate::sandbox::{Ran, Sandbox};

const RULES: &str = r#"groups:
- name: shop
  interval: 1s
  rules:
  - alert: AlwaysOn
    expr: sum by (job) (up) >= 0
    labels: {severity: page, team: shop, service: shop}
    annotations: {summary: "here", runbook_url: "https://docs.internal/on"}
  - alert: Quiet
    expr: absent(up) == 0
    for: 1m
    labels: {severity: ticket}
"#;

struct World {
    sandbox: Sandbox,
    prometheus: Server,
    alertmanager: Server,
}

impl World {
    /// `None` after saying that `test` is skipped, where the servers are not installed.
    async fn new(test: &str) -> Option<Self> {
        let alertmanager = Server::start(servers::Alertmanager::default(), test).await?;
        let at = alertmanager.address("http");
        let sandbox = Sandbox::new();
        sandbox.write("rules.yaml", RULES);
        let recipe = servers::Prometheus::default()
            .rules(sandbox.path("rules.yaml"))
            .alertmanager(at)
            .scrape("alertmanager", at);
        let prometheus = Server::start(recipe, test).await?;
        let world = Self {
            sandbox,
            prometheus,
            alertmanager,
        };
        world.catalogue("");
        Some(world)
    }

    fn catalogue(&self, more: &str) {
        let url = format!("http://{}", self.prometheus.address("http"));
        let text = format!("version = 1\n[env.local]\nprometheus = {url:?}\n{more}\n");
        self.sandbox.write("opsctl.toml", &text);
    }

    fn run(&self, words: &[&str]) -> Ran {
        self.sandbox.run(words)
    }

    /// The answer once it holds.
    async fn until(&self, words: &[&str], holds: impl Fn(&Ran) -> bool) -> Ran {
        let mut last = None;
        let wait = async {
            loop {
                let ran = tokio::task::block_in_place(|| self.run(words));
                if holds(&ran) {
                    return ran;
                }
                last = Some(ran);
                sleep(Duration::from_millis(200)).await;
            }
        };
        let waited = timeout(Duration::from_secs(40), wait).await;
        waited.unwrap_or_else(|_| panic!("{words:?} ended with {last:#?}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_held_against_what_should() {
    let Some(world) = World::new("what_runs_is_held_against_what_should").await else {
        return;
    };
    let words = ["alert", "check", "--live", "rules.yaml"];
    let good = world
        .until(&words, |ran| ran.code == 0 && ran.stdout.contains("alert-fires"))
        .await;
    assert!(good.stdout.contains("0 errors"), "{}", good.stdout);
    let json = world.run(&[&words[..], &["--json"]].concat()).ended(0).json();
    assert_eq!(json["verdict"], "good");
    let at = world.alertmanager.address("http").to_string();
    assert!(
        json["alertmanager"].as_str().is_some_and(|url| url.ends_with(&at)),
        "{json}"
    );

    // Another rule than the one that runs, and one that is not loaded.
    let rules = world.sandbox.path("rules.yaml");
    let changed = RULES.replace(">= 0", ">= 1").replace("alert: Quiet", "alert: Loud");
    fs::write(&rules, changed).expect("rules");
    let bad = world.run(&words).ended(4);
    assert!(bad.stdout.contains("error[rule-differs]: AlwaysOn"), "{}", bad.stdout);
    assert!(bad.stdout.contains("`Loud` is not loaded"), "{}", bad.stdout);
    fs::write(&rules, RULES).expect("rules");

    // What the catalogue gives is not loaded at all.
    world.catalogue("[service.shop]\nobjectives = { availability = \"99%\" }");
    let none = world.run(&["alert", "check", "--live"]).ended(4);
    assert!(none.stdout.contains("error[rules-not-loaded]"), "{}", none.stdout);
    assert!(
        none.stdout.contains("deploy/alerts/rules/service-shop.yaml"),
        "{}",
        none.stdout
    );

    let silenced = [
        "alert",
        "silence",
        "create",
        "alertname=AlwaysOn",
        "--comment",
        "a test",
        "--for",
        "10m",
    ];
    world.run(&silenced).ended(0);
    let told = world.run(&words).ended(0);
    assert!(
        told.stdout.contains("warning[silence-hides]: AlwaysOn"),
        "{}",
        told.stdout
    );

    // Nobody there, and nobody who answers as Prometheus does.
    world.sandbox.write(
        "opsctl.toml",
        "version = 1\n[env.local]\nprometheus = \"http://127.0.0.1:9\"\n",
    );
    let away = world.run(&words).ended(7);
    assert!(away.stdout.contains("no-answer"), "{}", away.stdout);
    world.run(&["alert", "status"]).ended(7);
    world
        .run(&["alert", "silence", "list"])
        .ended(7)
        .says("cannot be reached");
    world.sandbox.write(
        "opsctl.toml",
        &format!("version = 1\n[env.local]\nprometheus = \"http://{at}\"\n"),
    );
    world.run(&words).ended(9);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_call_sees_what_fires_and_silences_it() {
    let Some(world) = World::new("who_is_on_call_sees_what_fires_and_silences_it").await else {
        return;
    };
    let status = ["alert", "status"];
    let fires = world
        .until(&status, |ran| {
            ran.code == 4 && ran.stdout.contains("nobody") && ran.stdout.contains("firing")
        })
        .await;
    for text in ["AlwaysOn", "shop", "page", "https://docs.internal/on", "never", "Quiet"] {
        assert!(fires.stdout.contains(text), "{text:?} is not in\n{}", fires.stdout);
    }
    let json = world.run(&["alert", "status", "--json"]).ended(4).json();
    assert_eq!(json["schema"], "opsctl.alert_status/v1");
    assert_eq!(json["alerts"][0]["name"], "AlwaysOn");
    assert_eq!(json["alerts"][0]["receivers"][0], "nobody");
    assert_eq!(json["proofs"][0]["alert"], "AlwaysOn");
    let other = world.run(&["alert", "status", "desk", "--json"]).ended(0).json();
    assert_eq!(other["alerts"], serde_json::json!([]));

    // Refused before anybody is asked.
    for (words, told) in [
        (&["alertname=~.*"][..], "would hide every alert"),
        (&["alertname=A", "--for", "90d"], "more than 30 days"),
        (&["alertname"], "`alertname` is no matcher"),
        (&["alertname=~("], "is no matcher"),
    ] {
        let words = [&["alert", "silence", "create", "--comment", "x"], words].concat();
        world.run(&words).ended(2).says(told);
    }
    let create = [
        "alert",
        "silence",
        "create",
        "alertname=AlwaysOn",
        "severity!=ticket",
        "--comment",
        "new disk",
    ];
    let dry = world.run(&[&create[..], &["--dry-run"]].concat()).ended(0);
    dry.says("that fire now").says("    AlwaysOn ");
    let none = world
        .run(&["alert", "silence", "list"])
        .ended(0)
        .says("nothing is silenced");
    assert_eq!(none.stdout, "");

    // A protected environment asks.
    world.catalogue("protected = true");
    world.run(&create).ended(5).says("is protected");
    let made = world
        .run(&[&create[..], &["--yes", "--author", "sam"]].concat())
        .ended(0);
    let id = made.stdout.trim().to_owned();
    assert!(id.len() >= 8, "{made:?}");
    let listed = world.run(&["alert", "silence", "list"]).ended(0).stdout;
    for text in [&id[..8], "active", "sam", "alertname=\"AlwaysOn\"", "new disk"] {
        assert!(listed.contains(text), "{text:?} is not in\n{listed}");
    }
    let hidden = world.until(&status, |ran| ran.code == 0).await;
    assert!(hidden.stdout.contains("silenced by sam"), "{}", hidden.stdout);
    world
        .run(&["alert", "silence", "expire", "ffffffff"])
        .ended(2)
        .says("there is no silence");
    let over = world
        .run(&["alert", "silence", "expire", &id[..8], "--json"])
        .ended(0)
        .json();
    assert_eq!((&over["do"], &over["id"]), (&"expire".into(), &id.as_str().into()));
    world.until(&status, |ran| ran.code == 4).await;
}
