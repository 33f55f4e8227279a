//! The files of services/deploy do what they are for: each is held against the real program that reads it, or against
//! its schema where the program cannot be had.
#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use peers::{Server, http, servers};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

fn deployed(name: &str) -> PathBuf {
    peers::workspace_root().join("services/deploy").join(name)
}

/// The judge's words; it must have said yes.
fn accepts(judge: &mut Command) -> String {
    let output = judge.output().unwrap();
    assert!(output.status.success(), "{}", words(&output));
    words(&output)
}

fn refuses(judge: &mut Command) {
    let output = judge.output().unwrap();
    assert!(!output.status.success(), "a mistake was not seen: {}", words(&output));
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A copy of a file with a mistake in it, to see that the judge would say so.
fn with_a_mistake(name: &str, right: &str, wrong: &str, folder: &Path) -> PathBuf {
    let text = fs::read_to_string(deployed(name)).unwrap();
    assert!(text.contains(right), "{name} does not say `{right}`");
    let file = folder.join(name);
    fs::write(&file, text.replace(right, wrong)).unwrap();
    file
}

#[test]
fn promtool_takes_the_prometheus_file() {
    let Some(promtool) = peers::peer("promtool", "promtool_takes_the_prometheus_file") else {
        return;
    };
    let check = |file: PathBuf| {
        let mut promtool = Command::new(&promtool);
        promtool.args(["check", "config", "--syntax-only"]).arg(file);
        promtool
    };
    accepts(&mut check(deployed("prometheus.yaml")));
    let folder = tempfile::tempdir().unwrap();
    refuses(&mut check(with_a_mistake(
        "prometheus.yaml",
        "scrape_interval",
        "scrape_intervall",
        folder.path(),
    )));
}

#[test]
fn loki_takes_its_file() {
    let Some(loki) = peers::peer("loki", "loki_takes_its_file") else {
        return;
    };
    let check = |file: PathBuf| {
        let mut loki = Command::new(&loki);
        loki.arg("-verify-config")
            .arg(format!("-config.file={}", file.display()));
        loki
    };
    accepts(&mut check(deployed("loki.yaml")));
    let folder = tempfile::tempdir().unwrap();
    refuses(&mut check(with_a_mistake(
        "loki.yaml",
        "max_line_size",
        "max_line_sizes",
        folder.path(),
    )));
}

#[tokio::test]
async fn prometheus_runs_with_its_file_and_scrapes_every_instance_of_every_service() {
    let recipe = servers::Prometheus::default().configuration(deployed("prometheus.yaml"));
    let Some(prometheus) = Server::start(recipe, "prometheus_runs_with_its_file").await else {
        return;
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    // It is ready before it has read what to scrape.
    for job in [
        "identity",
        "orders",
        "payments",
        "notifications",
        "collector",
        "loki",
        "jaeger",
        "prometheus",
    ] {
        loop {
            let answer = http::get(prometheus.address("http"), "/api/v1/scrape_pools")
                .await
                .unwrap()
                .json();
            let pools = &answer["data"]["scrapePools"];
            if pools.as_array().is_some_and(|pools| pools.contains(&json!(job))) {
                break;
            }
            assert!(Instant::now() < deadline, "{job} is not in {pools}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

/// One span in OTLP's JSON: its trace, its own number, its service, how long it took, and whether it failed.
fn span(trace: u32, number: u32, service: &str, millis: u64, failed: bool, now: u64) -> Value {
    // Spread as random ids are: what is kept of the rest is chosen by their bits.
    let id = u128::from(trace).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    json!({
        "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": service } }] },
        "scopeSpans": [{ "spans": [{
            "traceId": format!("{id:032x}"),
            "spanId": format!("{number:016x}"),
            "parentSpanId": if number > 1 { format!("{:016x}", 1) } else { String::new() },
            "name": "request",
            "kind": 2,
            "startTimeUnixNano": (now - millis * 1_000_000).to_string(),
            "endTimeUnixNano": now.to_string(),
            "status": { "code": if failed { 2 } else { 1 } },
        }]}],
    })
}

/// Of 200 good traces about a tenth is kept; a failed one and a slow one are kept whole.
#[tokio::test]
async fn the_collector_keeps_failed_and_slow_traces_and_a_tenth_of_the_rest() {
    const TEST: &str = "the_collector_keeps_failed_and_slow_traces_and_a_tenth_of_the_rest";
    const GOOD: u32 = 200;
    const FEWEST: usize = 8;
    const MOST: usize = 40;
    let Some(jaeger) = Server::start(servers::JaegerFromFile(deployed("jaeger.yaml")), TEST).await else {
        return;
    };
    let recipe = servers::Collector::from_file(deployed("collector.yaml"))
        .env("TRACES_ENDPOINT", jaeger.address("otlp-grpc").to_string())
        .env("DECISION_WAIT", "500ms");
    let Some(collector) = Server::start(recipe, TEST).await else {
        return;
    };
    let now = Command::new("date").arg("+%s%N").output().unwrap();
    let now: u64 = String::from_utf8_lossy(&now.stdout).trim().parse().unwrap();
    let mut spans: Vec<Value> = (1..=GOOD).map(|trace| span(trace, 1, "good", 5, false, now)).collect();
    spans.push(span(1001, 1, "caller", 10, false, now));
    spans.push(span(1001, 2, "called", 5, true, now));
    spans.push(span(1002, 1, "slow", 400, false, now));
    let body = json!({ "resourceSpans": spans }).to_string();
    let answer = http::post(collector.address("http"), "/v1/traces", "application/json", &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);

    // Jaeger stores what it is sent in no order: all of it is there when nothing has come for a second.
    let deadline = Instant::now() + Duration::from_secs(30);
    let (mut seen, mut same) = ((0, Vec::new(), 0), 0);
    while same < 10 && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
        let slow = traces(&jaeger, "slow").await.len();
        let failed = spans_of(&traces(&jaeger, "called").await);
        let now = (slow, failed, traces(&jaeger, "good").await.len());
        let whole = now.0 > 0 && now.1 == [2] && now.2 >= FEWEST;
        same = if whole && now == seen { same + 1 } else { 0 };
        seen = now;
    }
    let (slow, failed, kept) = seen;
    assert_eq!(slow, 1, "the slow trace is kept:\n{}", collector.log_tail());
    assert_eq!(failed, [2], "the failed trace is kept, with its span that did not fail");
    // Ids and hash are fixed, and so is the count; the bounds say what a tenth is.
    assert!((FEWEST..=MOST).contains(&kept), "{kept} of {GOOD} are kept");
}

/// How many spans each trace has.
fn spans_of(traces: &[Value]) -> Vec<usize> {
    let spans = traces.iter().map(|trace| trace["spans"].as_array().map_or(0, Vec::len));
    spans.collect()
}

/// The traces of a service, as Jaeger has them.
async fn traces(jaeger: &Server, service: &str) -> Vec<Value> {
    let path = format!("/api/traces?service={service}&limit=1000&lookback=1h");
    let answer = http::get(jaeger.address("query"), &path).await.unwrap().json();
    answer["data"].as_array().cloned().unwrap_or_default()
}

#[test]
fn kubeconform_takes_the_manifests() {
    const TEST: &str = "kubeconform_takes_the_manifests";
    let (Some(kubeconform), Some(schemas)) = (
        peers::peer("kubeconform", TEST),
        peers::peer("kubernetes-schemas", TEST),
    ) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    stand_alone(&schemas.join("v1.36.0-local-strict"), folder.path());
    let judge = |file: PathBuf| {
        let mut judge = Command::new(&kubeconform);
        let schemas = folder.path().join("{{.ResourceKind}}{{.KindSuffix}}.json");
        judge
            .args(["-strict", "-summary", "-schema-location"])
            .arg(schemas)
            .arg(file);
        judge
    };
    let summary = accepts(&mut judge(deployed("kubernetes.yaml")));
    assert!(summary.contains("Invalid: 0, Errors: 0, Skipped: 0"), "{summary}");
    refuses(&mut judge(with_a_mistake(
        "kubernetes.yaml",
        "containerPort",
        "port",
        folder.path(),
    )));
}

/// Puts the definitions that the schemas share into each, since kubeconform looks for them nowhere else.
fn stand_alone(schemas: &Path, into: &Path) {
    let shared = fs::read_to_string(schemas.join("_definitions.json")).unwrap();
    let shared: Value = serde_json::from_str(&shared).unwrap();
    for kind in [
        "configmap-v1",
        "deployment-apps-v1",
        "persistentvolumeclaim-v1",
        "service-v1",
    ] {
        let name = format!("{kind}.json");
        let schema = fs::read_to_string(schemas.join(&name)).unwrap();
        let mut schema: Value = serde_json::from_str(&schema.replace("/api/_definitions.json#", "#")).unwrap();
        schema["$defs"] = shared["$defs"].clone();
        fs::write(into.join(name), schema.to_string()).unwrap();
    }
}

#[test]
fn compose_go_takes_the_compose_file() {
    let Some(compose) = peers::peer("compose-go", "compose_go_takes_the_compose_file") else {
        return;
    };
    let read = |file: PathBuf| {
        let mut read = Command::new(&compose);
        read.arg(file);
        read
    };
    accepts(&mut read(deployed("docker-compose.yaml")));
    let folder = tempfile::tempdir().unwrap();
    refuses(&mut read(with_a_mistake(
        "docker-compose.yaml",
        "restart:",
        "restarts:",
        folder.path(),
    )));
}

#[test]
fn nothing_is_privileged_or_touches_the_host() {
    for name in ["docker-compose.yaml", "kubernetes.yaml"] {
        let text = fs::read_to_string(deployed(name)).unwrap();
        for word in [
            "privileged: true",
            "hostPath",
            "hostNetwork",
            "hostPID",
            "network_mode",
            "docker.sock",
            "cap_add",
            "0.0.0.0:9090:",
        ] {
            assert!(!text.contains(word), "{name} says `{word}`");
        }
    }
    let manifests = fs::read_to_string(deployed("kubernetes.yaml")).unwrap();
    let count = |word: &str| manifests.matches(word).count();
    let deployments = count("kind: Deployment");
    assert!(deployments >= 8, "{deployments}");
    for word in [
        "runAsNonRoot: true",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "automountServiceAccountToken: false",
        "type: RuntimeDefault",
    ] {
        assert_eq!(count(word), deployments, "{word}");
    }
}
