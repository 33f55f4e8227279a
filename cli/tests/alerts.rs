//! `opsctl alert` through the real binary: rules of the catalogue, findings and their fixes, tests by promtool and
//! Alertmanager. What is asked of live servers is in `alerts/live.rs`.

#[path = "alerts/live.rs"]
mod live;
#[path = "support/sandbox.rs"]
mod sandbox;

use std::fs;
use std::process::Command;

use sandbox::{Sandbox, content};

/// A shop with everything that rules are derived from.
const SHOP: &str = r#"
version = 1
[env.local]
dashboards = "https://grafana.internal"
[team.shop]
notify = { webhook = { file = "webhook" } }
[datastore.shop-db]
kind = "sqlite"
path = "shop.db"
objectives = { rpo = "1h", prove_every = "8d" }
backup = { schedule = "0 * * * *" }
[service.shop]
team = "shop"
uses = ["shop-db"]
exports = ["health", "outbox"]
objectives = { availability = "99%", latency_p95 = "250ms" }
"#;

/// Services on a cluster, one of them counted by Traefik, and a database with an exporter.
const CLUSTER: &str = r#"
version = 1
[env.production]
platform = "kubernetes"
clusters = ["eu"]
evaluation_interval = "1m"
runbooks = "https://docs.internal/runbooks/"
[cluster.eu]
context = "eu"
[team.shop]
notify = { webhook = { kubernetes = "monitoring/shop-hook#url" } }
[datastore.pg]
kind = "postgres"
dsn = { env = "DSN" }
exporter = { job = "postgres" }
[service.checkout]
team = "shop"
kubernetes = { namespace = "shop", deployment = "checkout.v2" }
objectives = { availability = "99.9%" }
[service.legacy]
metrics = "traefik"
kubernetes = { namespace = "shop" }
objectives = { latency_p95 = "300ms" }
"#;

/// A quantile of buckets that lost their bounds.
const BLIND: &str = "groups:\n- name: shop\n  rules:\n  - alert: SlowRequests\n    \
    expr: histogram_quantile(0.95, sum by (service) (rate(grpc_server_handling_seconds_bucket[5m]))) > 1\n    for: 5m\n    \
    labels: {severity: page}\n    annotations: {summary: slow, runbook_url: 'https://docs.internal/slow'}\n";

fn shop() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", SHOP);
    sandbox
}

/// The words, and where a program of the peers is.
fn with<'a>(words: &[&'a str], flag: &'a str, program: &'a str) -> Vec<&'a str> {
    [words, &[flag, program]].concat()
}

#[test]
fn the_rules_of_the_reference_services_are_those_that_are_kept() {
    let sandbox = Sandbox::new();
    let root = peers::workspace_root();
    let catalogue = fs::read_to_string(root.join("opsctl.toml")).expect("the catalogue");
    sandbox.write("opsctl.toml", &catalogue);
    sandbox.run(&["alert", "render", "-q"]).ended(0);
    let mut made = content(&sandbox.path("deploy/alerts/rules"));
    made.retain(|path, _| !path.starts_with("tests"));
    let kept = content(&root.join("alerts/tests/reference/prometheus"));
    assert!(made.keys().eq(kept.keys()), "{:?}", made.keys());
    for (name, rules) in &made {
        assert!(*rules == kept[name], "{} is not what is kept", name.display());
    }
    let pages = content(&sandbox.path("docs/runbooks"));
    let kept = content(&root.join("docs/runbooks"));
    assert!(pages.len() >= 15, "{:?}", pages.keys());
    for (name, page) in pages {
        // What people wrote into the kept pages is theirs.
        let table = |page: &[u8]| {
            let text = String::from_utf8_lossy(page).into_owned();
            text.split_once("## Whose it is").map(|(_, table)| table.to_owned())
        };
        assert_eq!(table(&page), table(&kept[&name]), "{}", name.display());
    }
    let checked = sandbox
        .run(&["alert", "check", "deploy/alerts", "--fail-on", "note"])
        .ended(0);
    assert!(
        checked.stdout.contains("0 errors, 0 warnings, 0 notes"),
        "{}",
        checked.stdout
    );
    let Some(promtool) = peers::peer(
        "promtool",
        "the_rules_of_the_reference_services_are_those_that_are_kept",
    ) else {
        return;
    };
    let mut judge = Command::new(promtool);
    judge.args(["check", "rules", "--lint=all", "--lint-fatal"]);
    for path in content(&sandbox.path("deploy/alerts/rules")).keys() {
        if !path.starts_with("tests") {
            judge.arg(sandbox.path("deploy/alerts/rules").join(path));
        }
    }
    let judged = judge.output().expect("promtool starts");
    assert!(judged.status.success(), "{}", String::from_utf8_lossy(&judged.stderr));
}

#[test]
fn rules_are_rendered_once_and_kept_up_to_date() {
    let sandbox = shop();
    let planned = sandbox.run(&["alert", "render", "--dry-run", "--json"]).ended(0).json();
    assert_eq!(planned["schema"], "opsctl.alert_render/v1");
    assert!(!sandbox.path("deploy").exists(), "a dry run writes nothing");
    let files: Vec<&str> = planned["files"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|file| file["path"].as_str())
        .collect();
    for file in [
        "deploy/alerts/rules/service-shop.yaml",
        "deploy/alerts/rules/datastore-shop-db.yaml",
        "deploy/alerts/alertmanager.yaml",
        "docs/runbooks/OutboxBacklog.md",
    ] {
        assert!(files.contains(&file), "{file} is not in {files:?}");
    }
    sandbox.run(&["alert", "render", "--check"]).ended(4);
    let done = sandbox.run(&["alert", "render"]).ended(0);
    assert!(
        done.stdout.contains("create  deploy/alerts/rules/service-shop.yaml"),
        "{}",
        done.stdout
    );
    assert!(!done.stderr.contains("nobody is told"), "{}", done.stderr);
    let first = content(&sandbox.path("deploy"));
    sandbox.run(&["alert", "render", "--check"]).ended(0);
    assert_eq!(sandbox.run(&["alert", "render"]).ended(0).stdout, "");
    assert_eq!(content(&sandbox.path("deploy")), first, "the same bytes");
    let rules = fs::read_to_string(sandbox.path("deploy/alerts/rules/service-shop.yaml")).expect("rules");
    assert!(rules.contains("https://grafana.internal/d/opsctl-requests"), "{rules}");

    // Steps that people wrote stay; what somebody changed in a rule, and what is no longer derived, does not.
    let page = sandbox.path("docs/runbooks/OutboxBacklog.md");
    let text = fs::read_to_string(&page).expect("a page");
    fs::write(
        &page,
        text.replace("2. Write here", "2. Restart the relay.\n3. Write here"),
    )
    .expect("a page");
    fs::write(
        sandbox.path("deploy/alerts/rules/service-shop.yaml"),
        rules.replace("for: ", "for: 1"),
    )
    .expect("rules");
    sandbox.write(
        "opsctl.toml",
        &SHOP
            .replace("kind = \"sqlite\"", "kind = \"files\"")
            .replace("shop-db", "uploads"),
    );
    let check = sandbox.run(&["alert", "render", "--check", "--json"]).ended(4).json();
    let changes: Vec<(&str, &str)> = check["files"]
        .as_array()
        .expect("files")
        .iter()
        .filter_map(|file| Some((file["change"].as_str()?, file["path"].as_str()?)))
        .filter(|(change, path)| {
            *change != "keep" && path.starts_with("deploy/alerts/rules/") && !path.contains("tests")
        })
        .collect();
    assert_eq!(
        changes,
        [
            ("update", "deploy/alerts/rules/service-shop.yaml"),
            ("create", "deploy/alerts/rules/datastore-uploads.yaml"),
            ("remove", "deploy/alerts/rules/datastore-shop-db.yaml"),
        ]
    );
    sandbox.run(&["alert", "render"]).ended(0);
    assert!(!sandbox.path("deploy/alerts/rules/datastore-shop-db.yaml").exists());
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.contains("2. Restart the relay."), "{page}");
}

#[test]
fn what_people_wrote_is_not_overwritten() {
    let sandbox = shop();
    sandbox.write("deploy/alerts/alertmanager.yaml", "route: {receiver: mine}\n");
    let refused = sandbox.run(&["alert", "render"]).ended(5);
    refused.says("`deploy/alerts/alertmanager.yaml` was not written by opsctl");
    assert!(!sandbox.path("deploy/alerts/rules").exists(), "nothing was written");
    sandbox.run(&["alert", "render", "--out", "rules"]).ended(0);
    let page = sandbox.path("docs/runbooks/OutboxBacklog.md");
    fs::write(page, "# Our own page\n").expect("a page");
    let refused = sandbox.run(&["alert", "render", "--out", "rules"]).ended(5);
    refused
        .says("docs/runbooks/OutboxBacklog.md")
        .says("put the two marks back");
}

#[test]
fn objects_go_to_a_cluster_through_a_pipe() {
    let sandbox = shop();
    let printed = sandbox
        .run(&["alert", "render", "--format", "kubernetes", "--out", "-", "-q"])
        .ended(0);
    assert_eq!(
        printed.stdout.matches("kind: PrometheusRule").count(),
        3,
        "{}",
        printed.stdout
    );
    assert!(!printed.stdout.contains("receivers:"), "{}", printed.stdout);
    sandbox.write("objects.yaml", &printed.stdout);
    sandbox.run(&["alert", "check", "objects.yaml"]).ended(0);
}

#[test]
fn rules_of_a_cluster_are_about_its_pods_and_what_the_catalogue_names() {
    let sandbox = Sandbox::new();
    sandbox.write("opsctl.toml", CLUSTER);
    let printed = sandbox
        .run(&["alert", "render", "--out", "-", "--json"])
        .ended(0)
        .json();
    let text = |path: &str| {
        let mut files = printed["files"].as_array().expect("files").iter();
        let file = files.find(|file| file["path"] == path);
        let file = file.unwrap_or_else(|| panic!("{path} is not in {printed}"));
        file["content"].as_str().expect("text").to_owned()
    };
    let has = |path: &str, parts: &[&str]| {
        let text = text(path);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    };
    has(
        "rules/service-checkout.yaml",
        &[
            r#"namespace="shop", pod=~"checkout\\.v2(-canary)?-[a-z0-9]+-[a-z0-9]{5}""#,
            "interval: \"1m\"",
            "environment: production",
            "team: shop",
            "https://docs.internal/runbooks/CanaryStuck.md",
        ],
    );
    has(
        "rules/service-legacy.yaml",
        &[
            r#"service=~"(shop-legacy(-http-[0-9]+|-[0-9]+-grpc)|shop-legacy-canary("#,
            "@kubernetesgateway",
        ],
    );
    has(
        "rules/datastore-pg.yaml",
        &["HighDBConnectionUsage", "{job=\"postgres\""],
    );
    has(
        "alertmanager.yaml",
        &["team-shop", "/etc/alertmanager/secrets/shop-hook/url"],
    );
}

#[test]
fn what_cannot_be_derived_is_said_with_what_to_do() {
    let sandbox = shop();
    for (from, to, told) in [
        ("99%", "40%", "can burn at most"),
        ("250ms", "260ms", "it is no bucket's bound; the nearest are 0.25 s and"),
        ("\"outbox\"", "\"outboxes\"", "did you mean `outbox`?"),
        ("dashboards = ", "dashboard = ", "did you mean `dashboards`?"),
        ("[env.local]", "[env.local]\nscrape_interval = \"often\"", "is no time"),
        (
            "path = \"shop.db\"",
            "path = \"shop.db\"\nexporter = { job = \"pg\" }",
            "only a `postgres` store",
        ),
    ] {
        sandbox.write("opsctl.toml", &SHOP.replace(from, to));
        sandbox.run(&["alert", "render"]).ended(2).says(told);
    }
}

#[test]
fn a_fault_is_found_fixed_and_suppressed() {
    let sandbox = Sandbox::new();
    sandbox.write("rules/shop.yaml", BLIND);
    let found = sandbox.run(&["alert", "check", "rules"]).ended(4);
    for text in [
        "error[le-dropped]: SlowRequests",
        "rules/shop.yaml:5:",
        "+",
        "sum by (le, service)",
        "1 error",
    ] {
        assert!(found.stdout.contains(text), "{text:?} is not in\n{}", found.stdout);
    }
    let json = sandbox.run(&["alert", "check", "rules", "--json"]).ended(4).json();
    assert_eq!(json["schema"], "opsctl.findings/v1");
    let mut findings = json["findings"].as_array().expect("findings").iter();
    let found = findings
        .find(|finding| finding["check"] == "le-dropped")
        .expect("the fault");
    assert_eq!(
        (&found["severity"], &found["start"]["line"]),
        (&"error".into(), &5.into())
    );
    assert_eq!(found["fix"]["safe"], true);

    let dry = sandbox.run(&["alert", "check", "rules", "--fix", "--dry-run"]).ended(0);
    dry.says("would write 1 fix into rules/shop.yaml");
    assert_eq!(
        fs::read_to_string(sandbox.path("rules/shop.yaml")).expect("rules"),
        BLIND
    );
    sandbox
        .run(&["alert", "check", "rules", "--fix"])
        .ended(0)
        .says("wrote 1 fix into rules/shop.yaml");
    let fixed = fs::read_to_string(sandbox.path("rules/shop.yaml")).expect("rules");
    assert_eq!(fixed, BLIND.replace("by (service)", "by (le, service)"));
    sandbox.run(&["alert", "check", "rules"]).ended(0);

    let meant = BLIND.replace(
        "  - alert",
        "  # opsctl ignore(le-dropped) until 2999-01-01: tried in a test\n  - alert",
    );
    sandbox.write("rules/shop.yaml", &meant);
    let told = sandbox.run(&["alert", "check", "rules"]).ended(0);
    assert!(told.stdout.contains("1 suppressed"), "{}", told.stdout);
    sandbox.write("rules/shop.yaml", &meant.replace("2999", "2020"));
    sandbox.run(&["alert", "check", "rules"]).ended(4);
}

#[test]
fn findings_are_told_as_others_read_them() {
    let sandbox = Sandbox::new();
    sandbox.write("shop.yaml", &BLIND.replace("summary: slow", "summary: \"<&> slow\""));
    let sarif = sandbox
        .run(&["alert", "check", "shop.yaml", "--format", "sarif"])
        .ended(4)
        .json();
    assert_eq!(sarif["version"], "2.1.0");
    let mut results = sarif["runs"][0]["results"].as_array().expect("results").iter();
    let result = results
        .find(|result| result["ruleId"] == "le-dropped")
        .expect("the fault");
    let place = &result["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "shop.yaml");
    assert_eq!(place["region"]["startLine"], 5);
    let junit = sandbox
        .run(&["alert", "check", "shop.yaml", "--format", "junit"])
        .ended(4)
        .stdout;
    assert!(junit.starts_with("<?xml"), "{junit}");
    assert_eq!(junit.matches("<failure").count(), junit.matches("</failure>").count());
    assert!(junit.contains("failure type=\"error\""), "{junit}");
}

#[test]
fn a_capture_says_what_a_service_exports() {
    let sandbox = Sandbox::new();
    sandbox.write(
        "rules.yaml",
        "groups:\n- name: a\n  rules:\n  - alert: DoorOpen\n    expr: rate(door_open[5m]) > 0\n    for: 5m\n    \
         labels: {severity: page}\n    annotations: {summary: open, runbook_url: 'https://docs.internal/door'}\n",
    );
    sandbox.run(&["alert", "check", "rules.yaml"]).ended(0);
    sandbox.write("metrics.txt", "# TYPE door_open gauge\ndoor_open 1\n");
    let found = sandbox.run(&["alert", "check", "rules.yaml", "--metrics", "metrics.txt"]);
    assert!(
        found.stdout.contains("metrics.txt") && found.stdout.contains("door_open"),
        "{}",
        found.stdout
    );
    sandbox.write("metrics.txt", "<html>\n");
    sandbox
        .run(&["alert", "check", "rules.yaml", "--metrics", "metrics.txt"])
        .ended(2)
        .says("`metrics.txt` is no answer of /metrics");
    sandbox
        .run(&["alert", "check", "rules.yaml", "--exporters", "node_exportr"])
        .ended(2)
        .says("did you mean `node_exporter`?");
}

#[test]
fn what_cannot_be_read_is_said() {
    let sandbox = Sandbox::new();
    sandbox.run(&["alert", "check"]).ended(2).says("FILE");
    sandbox
        .run(&["alert", "check", "absent.yaml"])
        .ended(2)
        .says("could not read `absent.yaml`");
    sandbox
        .run(&["alert", "check", "a.yaml", "--fixx"])
        .ended(2)
        .says("--fix");
    fs::create_dir(sandbox.path("empty")).expect("a folder");
    sandbox
        .run(&["alert", "check", "empty"])
        .ended(2)
        .says("holds nothing of the kind");
    sandbox.write("broken.yaml", "groups:\n- name: a\n  rules: [\n  - alert: \u{1b}[2J\n");
    let broken = sandbox.run(&["alert", "check", "broken.yaml"]).ended(4);
    assert!(
        broken.stdout.contains("error[yaml]") && broken.stdout.contains("broken.yaml:"),
        "{}",
        broken.stdout
    );
    assert!(!broken.stdout.contains('\u{1b}'), "nothing steers the terminal");
    fs::write(sandbox.path("bytes.yaml"), [0xff, 0xfe]).expect("a file");
    sandbox
        .run(&["alert", "check", "bytes.yaml"])
        .ended(2)
        .says("could not read `bytes.yaml`");
    sandbox.write("a.test.yaml", "rule_files: [a.yaml]\ntests: []\n");
    sandbox
        .run(&["alert", "check", "a.test.yaml"])
        .ended(2)
        .says("opsctl alert test a.test.yaml");
    sandbox.write("a.yaml", BLIND);
    sandbox
        .run(&["alert", "test", "a.yaml"])
        .ended(2)
        .says("opsctl alert check a.yaml");
    sandbox
        .run(&["alert", "test", "a.test.yaml", "--promtool", "/nowhere/promtool"])
        .ended(2)
        .says("/nowhere/promtool");
    sandbox.run(&["alert", "status"]).ended(2).says("opsctl.toml");
    sandbox.write("opsctl.toml", "version = 1\n[env.local]\n");
    sandbox.run(&["alert", "status"]).ended(2).says("prometheus = ");
}

#[test]
fn what_is_rendered_passes_its_tests() {
    let Some(promtool) = peers::peer("promtool", "what_is_rendered_passes_its_tests") else {
        return;
    };
    let promtool = promtool.display().to_string();
    let sandbox = shop();
    sandbox.run(&["alert", "render", "-q"]).ended(0);
    let words = with(&["alert", "test", "deploy/alerts"], "--promtool", &promtool);
    let passed = sandbox.run(&words).ended(0);
    assert!(passed.stdout.contains("0 failed, 0 errors"), "{}", passed.stdout);
    // A rule that somebody changes for the worse is seen.
    let rules = sandbox.path("deploy/alerts/rules/service-shop.yaml");
    let text = fs::read_to_string(&rules).expect("rules");
    let outbox = text.find("alert: OutboxBacklog").expect("the alert");
    let worse = format!("{}{}", &text[..outbox], text[outbox..].replacen(" > ", " < ", 1));
    fs::write(rules, worse).expect("rules");
    let failed = sandbox.run(&words).ended(4);
    assert!(failed.stdout.contains("OutboxBacklog"), "{}", failed.stdout);
    let junit = sandbox
        .run(&[&words[..], &["--format", "junit"]].concat())
        .ended(4)
        .stdout;
    assert!(junit.contains("<failure"), "{junit}");
    let json = sandbox.run(&[&words[..], &["--json"]].concat()).ended(4).json();
    assert_eq!(
        (&json["schema"], &json["passed"]),
        (&"opsctl.alert_test/v1".into(), &false.into())
    );
}

#[test]
fn mistakes_in_tests_are_no_success() {
    let Some(promtool) = peers::peer("promtool", "mistakes_in_tests_are_no_success") else {
        return;
    };
    let promtool = promtool.display().to_string();
    let sandbox = Sandbox::new();
    sandbox.write(
        "rules.yaml",
        "groups:\n- name: a\n  rules:\n  - {alert: Down, expr: up == 0}\n",
    );
    let test = |name: &str| {
        format!(
            "rule_files: [rules.yaml]\ntests:\n- input_series: [{{series: 'up{{job=\"a\"}}', values: '0'}}]\n  \
             alert_rule_test:\n  - {{eval_time: 0m, alertname: {name}, exp_alerts: [{{exp_labels: {{job: a}}}}]}}\n"
        )
    };
    sandbox.write("good.yaml", &test("Down"));
    sandbox.write(
        "bad.yaml",
        &test("Doun").replace("exp_alerts: [{exp_labels: {job: a}}]", "exp_alerts: []"),
    );
    let run = |words: &[&str]| sandbox.run(&with(&[&["alert", "test"], words].concat(), "--promtool", &promtool));
    run(&["good.yaml", "--coverage", "100"]).ended(0);
    run(&["good.yaml", "--coverage-silent", "100"]).ended(4);
    let bad = run(&["bad.yaml"]).ended(4);
    assert!(bad.stdout.contains("there is `Down`"), "{}", bad.stdout);
    run(&["bad.yaml", "--promtool-compat"]).ended(0);
    sandbox.write("broken.yaml", "rule_files: [rules.yaml]\ntests:\n- input_series: [\n");
    let broken = run(&["broken.yaml"]).ended(4);
    assert!(broken.stdout.contains("broken.yaml:"), "{}", broken.stdout);
    run(&["good.yaml", "--coverage", "200"]).ended(2);
}

#[test]
fn routes_are_tested_by_a_real_alertmanager() {
    let Some(alertmanager) = peers::peer("alertmanager", "routes_are_tested_by_a_real_alertmanager") else {
        return;
    };
    let alertmanager = alertmanager.display().to_string();
    let sandbox = shop();
    sandbox.secret("webhook", "http://127.0.0.1:1/\n");
    sandbox.run(&["alert", "render", "-q"]).ended(0);
    sandbox.write(
        "routes.yaml",
        "alertmanager: deploy/alerts/alertmanager.yaml\ntests:\n\
         - {name: the team hears of it, alert: {alertname: HighErrorRate, team: shop, severity: page}, receivers: [team-shop]}\n\
         - {name: nobody is nowhere, alert: {alertname: X}, receivers: [everybody]}\n",
    );
    let words = with(&["alert", "test", "routes.yaml"], "--alertmanager", &alertmanager);
    let passed = sandbox.run(&words).ended(0);
    assert!(passed.stdout.contains("2 passed, 0 failed"), "{}", passed.stdout);
    let suite = fs::read_to_string(sandbox.path("routes.yaml")).expect("a suite");
    sandbox.write("routes.yaml", &suite.replace("[team-shop]", "[team-money]"));
    let failed = sandbox.run(&words).ended(4);
    assert!(failed.stdout.contains("the team hears of it"), "{}", failed.stdout);
}
